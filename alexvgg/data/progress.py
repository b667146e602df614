"""How far a long transfer is, in a line every few seconds."""

import threading
import time
from collections.abc import Callable

Say = Callable[[str], None]

SECONDS = 5.0  # between two lines


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
            if now - self.said < SECONDS and self.done < self.total:
                return
            self.said, seconds = now, max(now - self.began, 1e-3)
            left = (self.total - self.done) * seconds / self.done
            rest = f", {left / 60:.0f} min left" if left >= 60 else ""
            self.say(
                f"{self.verb} {self.done} of {self.total} shards, {self.bytes / 1e9:.2f} GB, "
                f"{self.bytes / 1e6 / seconds:.0f} MB/s{rest}"
            )
