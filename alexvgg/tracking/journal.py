"""The journal of a run: its events, one JSON object a line, in its storage."""

import json
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Protocol

from alexvgg.errors import InputError, reading

Event = dict[str, Any]


class Objects(Protocol):
    """The part of a store that the journal needs."""

    def get(self, key: str) -> bytes: ...
    def put(self, key: str, data: bytes) -> None: ...
    def exists(self, key: str) -> bool: ...


class Journal:
    """A run's events: start, steps, epoch, warning, final, end. Object stores can't append, so each flush writes the
    whole; a long run has a few thousand events."""

    def __init__(self, store: Objects, key: str) -> None:
        self._store, self._key = store, key
        self.events = read_journal(store, key)

    def rewind(self, step: int) -> None:
        """Forget what the lost steps after a checkpoint wrote; attempts are kept."""
        self.events = [e for e in self.events if e["step"] <= step or e["event"] == "start"]

    def write(self, event: str, step: int, **fields: Any) -> None:
        self.events.append({"event": event, "step": step, "time": round(time.time(), 3), **fields})

    def flush(self) -> None:
        self.pending()()

    def pending(self) -> Callable[[], None]:
        """A flush of what is written by now, to be called later, from any thread."""
        text = "".join(json.dumps(e) + "\n" for e in self.events).encode()
        return lambda: self._store.put(self._key, text)


def read_journal(store: Objects, key: str) -> list[Event]:
    """The events so far; empty for a run that hasn't started. What isn't a number (NaN) is null.

    A last line that was cut off is dropped. Raises InputError if another one is no event.
    """
    if not store.exists(key):
        return []
    whole, _, last = store.get(key).rpartition(b"\n")
    with reading(key):
        events = [_event(line) for line in whole.splitlines()]
    with suppress(ValueError):
        events.append(_event(last))
    return events


def _event(line: bytes) -> Event:
    event = json.loads(line, parse_constant=lambda _: None)
    if not isinstance(event, dict) or not event.keys() >= {"event", "step", "time"}:
        raise InputError("a line is no event")
    return event


@dataclass(frozen=True)
class Point:
    """One value of one curve. A table's cell is a point at step 0, which MLflow's compare page draws as a bar."""

    metric: str
    step: int
    milliseconds: int  # since 1970: of the event, so that sending it again sends the same point
    value: float


def points(events: Iterable[Mapping[str, Any]]) -> Iterator[Point]:
    """The points that events hold. Values that are no number are left out: nothing draws them."""
    for event in events:
        step = 0 if event["event"] == "final" else event["step"]
        for metric, value in event.get("metrics", {}).items():
            if value is not None and math.isfinite(value):
                yield Point(metric, step, round(event["time"] * 1000), value)


def cells_event(document: Mapping[str, Any], cells: Mapping[str, float]) -> Event:
    """A later evaluation's table cells as an event of their own: the run's journal is closed by then."""
    return {"event": "final", "step": 0, "time": document["time"], "metrics": dict(cells)}
