"""Beats in a storage: how whoever holds something there shows others that it lives."""

import json
import time

from alexvgg.data.store import MissingKeyError, Store


class Beating:
    """What one of many holds, kept under keys that begin with `key`."""

    def __init__(self, storage: Store, key: str) -> None:
        self.storage, self._key = storage, key

    def beat(self, count: int) -> None:
        """Show that its holder lives: `count` grows each time."""
        self.storage.put(f"{self._key}.beat", json.dumps({"count": count, "time": time.time()}).encode())

    def last_beat(self) -> bytes | None:
        """None if there was none yet."""
        try:
            return self.storage.get(f"{self._key}.beat")
        except MissingKeyError:
            return None
