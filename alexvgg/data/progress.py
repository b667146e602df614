"""How far something long is: in a line every few seconds, or as whoever shows it likes."""

import threading
import time
from collections.abc import Callable
from typing import Protocol, runtime_checkable

Say = Callable[[str], None]

SECONDS = 5.0  # between two lines


@runtime_checkable
class ShowsProgress(Protocol):
    """A `Say` that has its own way of showing how far something is, such as a bar."""

    def show(self, verb: str, done: int, total: int, what: str) -> None:
        """`done` of `total` are `what` is `verb`. Called after each."""


class Progress:
    """Counts a known number of `unit`; `say` gets a line now and then, and one at the end. For several threads."""

    def __init__(self, verb: str, total: int, say: Say, unit: str = "shards") -> None:
        self.verb, self.total, self.say, self.unit = verb, total, say, unit
        self.done = self.bytes = 0
        self.began = self.said = time.monotonic()
        self._lock = threading.Lock()

    def add(self, size: int = 0) -> None:
        """One more, of `size` bytes if bytes are what it's about."""
        with self._lock:
            self.done, self.bytes = self.done + 1, self.bytes + size
            now = time.monotonic()
            if isinstance(self.say, ShowsProgress):
                what = f"{self.unit}, {self.bytes / 1e9:.2f} GB" if self.bytes else self.unit
                self.say.show(self.verb, self.done, self.total, what)
            elif now - self.said >= SECONDS or self.done == self.total:
                self.said = now
                self.say(self._line(max(now - self.began, 1e-3)))

    def _line(self, seconds: float) -> str:
        moved = f", {self.bytes / 1e9:.2f} GB, {self.bytes / 1e6 / seconds:.0f} MB/s" if self.bytes else ""
        left = (self.total - self.done) * seconds / self.done
        rest = f", {left / 60:.0f} min left" if left >= 60 else ""
        return f"{self.verb} {self.done} of {self.total} {self.unit}{moved}{rest}"
