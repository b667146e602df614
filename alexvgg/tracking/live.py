"""What a run shows of itself between two epochs: its newest point, in the storage, for `alexvgg status`."""

import json
import time
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field

from alexvgg.data.documents import read_document
from alexvgg.data.store import MissingKeyError, Store
from alexvgg.errors import InputError
from alexvgg.keys import live_key
from alexvgg.repeating import repeating

SECONDS = 5.0  # at most between a point and its being stored


@dataclass(frozen=True)
class Point:
    """The mean loss of the last steps up to `step`, and how many images/s all workers trained on meanwhile.

    `attempt` counts as the journal's `start` events do.
    """

    attempt: int
    step: int
    loss: float
    images_per_s: float
    time: float = field(default_factory=time.time)


class Live:
    """Stores the newest point from a thread of its own, so that training never waits for it."""

    def __init__(self, storage: Store, run: str, attempt: int) -> None:
        self._attempt = attempt
        self._storage, self._key = storage, live_key(run)
        self._newest: Point | None = None
        self._stored: Point | None = None
        self._repeating = ExitStack()
        self._repeating.enter_context(repeating("live", self._store, SECONDS))

    def point(self, step: int, loss: float, images_per_s: float) -> None:
        """A new point; costs nothing."""
        self._newest = Point(self._attempt, step, loss, images_per_s)

    def close(self) -> None:
        self._repeating.close()

    def _store(self) -> None:
        newest = self._newest
        if newest is not self._stored and newest is not None:
            self._storage.put(self._key, json.dumps(asdict(newest)).encode())
            self._stored = newest


def read_live(storage: Store, run: str) -> Point | None:
    """The newest point that a run has shown; it may be older than the newest epoch, or another attempt's.

    None if there is none, or it can't be read: a next one will.
    """
    try:
        return read_document(storage, live_key(run), lambda point: Point(**point))
    except (MissingKeyError, InputError):
        return None
