"""What a run shows of itself between two epochs: its newest point, in the storage, for `alexvgg status`."""

import json
import time
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from typing import Any

from alexvgg.data.store import MissingKeyError, Store
from alexvgg.repeating import repeating

SECONDS = 5.0  # at most between a point and its being stored


@dataclass(frozen=True)
class Point:
    """The mean loss of the last steps up to `step`, and how many images/s all workers have trained on since then.

    `attempt` counts as the journal's `start` events do.
    """

    attempt: int
    step: int
    loss: float
    images_per_s: float | None
    time: float = field(default_factory=time.time)


class Live:
    """Stores the newest point from a thread of its own, so that training never waits for it."""

    def __init__(self, storage: Store, folder: str, global_batch: int, attempt: int) -> None:
        self._attempt = attempt
        self._storage, self._key, self._batch = storage, f"{folder}live.json", global_batch
        self._last: tuple[int, float] | None = None
        self._newest: Point | None = None
        self._stored: Point | None = None
        self._repeating = ExitStack()
        self._repeating.enter_context(repeating("live", self._store, SECONDS))

    def point(self, step: int, loss: float) -> None:
        """A new point; costs nothing."""
        now = time.monotonic()
        speed = None
        if self._last is not None and step > self._last[0]:
            speed = (step - self._last[0]) * self._batch / (now - self._last[1])
        self._last, self._newest = (step, now), Point(self._attempt, step, loss, speed)

    def close(self) -> None:
        self._repeating.close()

    def _store(self) -> None:
        newest = self._newest
        if newest is not self._stored and newest is not None:
            self._storage.put(self._key, json.dumps(asdict(newest)).encode())
            self._stored = newest


def read_live(storage: Store, folder: str) -> Point | None:
    """The newest point that a run has shown; it may be older than the newest epoch, or another attempt's."""
    try:
        document: dict[str, Any] = json.loads(storage.get(f"{folder}live.json"))
    except MissingKeyError:
        return None
    return Point(**document)
