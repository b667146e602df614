"""What a run shows of itself between two epochs: its newest point, in the storage, for `alexvgg status`."""

import json
import threading
import time
from dataclasses import asdict, dataclass, field
from typing import Any

from alexvgg.data.store import MissingKeyError, Store

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
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._work, name="live", daemon=True)
        self._thread.start()

    def point(self, step: int, loss: float) -> None:
        """A new point; costs nothing."""
        now = time.monotonic()
        speed = None
        if self._last is not None and step > self._last[0]:
            speed = (step - self._last[0]) * self._batch / (now - self._last[1])
        self._last, self._newest = (step, now), Point(self._attempt, step, loss, speed)

    def close(self) -> None:
        self._closing.set()
        self._thread.join()

    def _work(self) -> None:
        stored = None
        while not self._closing.wait(SECONDS):
            newest = self._newest
            if newest is not stored and newest is not None:
                try:
                    self._storage.put(self._key, json.dumps(asdict(newest)).encode())
                except Exception:  # what needs the storage notices itself that it is down
                    continue
                stored = newest


def read_live(storage: Store, folder: str) -> Point | None:
    """The newest point that a run has shown; it may be older than the newest epoch, or another attempt's."""
    try:
        document: dict[str, Any] = json.loads(storage.get(f"{folder}live.json"))
    except MissingKeyError:
        return None
    return Point(**document)
