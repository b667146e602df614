"""A store in memory, as far as attempts, leases and journals need one."""

import threading
from collections.abc import Callable

from alexvgg.data.store import MissingKeyError


class MemoryStore:
    """`before` is called at every access."""

    url, retries = "memory:///", 0

    def __init__(self, objects: dict[str, bytes] | None = None, before: Callable[[], None] = lambda: None) -> None:
        self.objects = objects if objects is not None else {}
        self._before, self._lock = before, threading.Lock()

    def get(self, key: str) -> bytes:
        self._before()
        if key not in self.objects:
            raise MissingKeyError(key)
        return self.objects[key]

    def put(self, key: str, data: bytes) -> None:
        self._before()
        self.objects[key] = data

    def put_new(self, key: str, data: bytes) -> bool:
        self._before()
        with self._lock:
            return self.objects.setdefault(key, data) is data

    def exists(self, key: str) -> bool:
        self._before()
        return key in self.objects

    def list(self, prefix: str) -> list[str]:
        self._before()
        return sorted(k for k in self.objects if k.startswith(prefix))

    def delete(self, key: str) -> None:
        self._before()
        self.objects.pop(key, None)
