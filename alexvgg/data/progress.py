"""How far a long transfer is: in a line every few seconds, or as whoever shows it likes."""

import threading
import time
from collections.abc import Callable
from typing import Protocol, runtime_checkable

Say = Callable[[str], None]

SECONDS = 5.0  # between two lines


@runtime_checkable
class ShowsShards(Protocol):
    """A `Say` that has its own way of showing a transfer, such as a bar."""

    def show(self, verb: str, done: int, total: int, size: int) -> None:
        """`done` of `total` shards, and their bytes. Called after every shard."""


class Progress:
    """Counts shards of a known number; `say` gets a line now and then, and one at the end. For several threads."""

    def __init__(self, verb: str, total: int, say: Say) -> None:
        self.verb, self.total, self.say = verb, total, say
        self.done = self.bytes = 0
        self.began = self.said = time.monotonic()
        self._lock = threading.Lock()

    def add(self, size: int) -> None:
        """One shard of `size` bytes more."""
        with self._lock:
            self.done, self.bytes = self.done + 1, self.bytes + size
            now = time.monotonic()
            if isinstance(self.say, ShowsShards):
                self.say.show(self.verb, self.done, self.total, self.bytes)
            elif now - self.said >= SECONDS or self.done == self.total:
                self.said = now
                self.say(self._line(max(now - self.began, 1e-3)))

    def _line(self, seconds: float) -> str:
        left = (self.total - self.done) * seconds / self.done
        rest = f", {left / 60:.0f} min left" if left >= 60 else ""
        return (
            f"{self.verb} {self.done} of {self.total} shards, {self.bytes / 1e9:.2f} GB, "
            f"{self.bytes / 1e6 / seconds:.0f} MB/s{rest}"
        )
