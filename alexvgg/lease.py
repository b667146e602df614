"""Which driver of a campaign may act: the one with the highest fencing number, as long as there is no higher one.

    campaigns/<campaign>/drivers/<fence>.json      taken by `put_new`: a driver holds the lease from here on
    campaigns/<campaign>/drivers/<fence>.beat      a counter that its holder lets grow, and the time on its clock
    campaigns/<campaign>/drivers/<fence>.stop.json its holder was asked to stop
    campaigns/<campaign>/drivers/<fence>.end.json  its holder has ended, and how

No clocks are compared between hosts: a newcomer takes the next number when the holder has ended, when Ray says that its
job has, or when its beat hasn't changed for DEAD_SECONDS of the newcomer's own time.
"""

import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Literal, cast

from alexvgg.data.documents import encode, read_document
from alexvgg.data.store import MissingKeyError, Store

BEAT_SECONDS = 3.0
DEAD_SECONDS = 15.0

DriverOutcome = Literal["finished", "failed", "stopped"]
Clock = Callable[[], float]


class LeaseLostError(RuntimeError):
    """Another driver has taken over; this one must not act any more."""


@dataclass(frozen=True)
class Holder:
    """A driver: the id of its Ray job, and when it took the lease."""

    job: str
    time: float = field(default_factory=time.time)


def fences(storage: Store, campaign: str) -> list[int]:
    """The numbers taken so far, ascending."""
    prefix = _folder(campaign)
    stems = (k.removeprefix(prefix).removesuffix(".json") for k in storage.list(prefix))
    return sorted(int(stem) for stem in stems if stem.isdigit())


class Lease:
    """A driver's right to act for a campaign. `fence` is its number."""

    def __init__(self, storage: Store, campaign: str, fence: int, clock: Clock = time.monotonic) -> None:
        self.campaign, self.fence = campaign, fence
        self._storage, self._clock = storage, clock
        self._beats, self._beaten = 0, clock()

    def check(self) -> None:
        """Raises LeaseLostError if another driver has taken over."""
        if self._storage.exists(f"{_folder(self.campaign)}{self.fence + 1}.json"):
            raise LeaseLostError(
                f"another driver has taken over {self.campaign}; this one ends, what it started goes on"
            )

    def keep(self) -> None:
        """Show that the holder lives, and look whether it still holds; to be called every second or so."""
        if self._clock() - self._beaten >= BEAT_SECONDS:
            self.check()
            self._beats, self._beaten = self._beats + 1, self._clock()
            beat = json.dumps({"count": self._beats, "time": time.time()})
            self._storage.put(f"{_folder(self.campaign)}{self.fence}.beat", beat.encode())

    def stopping(self) -> None:
        """Say that this driver was asked to stop, and begins nothing any more."""
        self.check()
        self._storage.put_new(f"{_folder(self.campaign)}{self.fence}.stop.json", b"{}")

    def end(self, outcome: DriverOutcome) -> None:
        document = encode({"outcome": outcome, "time": time.time()})
        self._storage.put_new(f"{_folder(self.campaign)}{self.fence}.end.json", document)


class Newcomer:
    """A driver that wants the lease of a campaign: `take` is called every second or so until it gives one."""

    def __init__(
        self, storage: Store, campaign: str, job: str, has_ended: Callable[[str], bool], clock: Clock = time.monotonic
    ) -> None:
        self._storage, self._campaign, self._job = storage, campaign, job
        self._has_ended, self._clock = has_ended, clock
        self._seen: tuple[int, bytes | None] | None = None
        self._since = 0.0

    def take(self) -> Lease | None:
        """The lease, or None while another driver holds it."""
        highest = max(fences(self._storage, self._campaign), default=0)
        if highest and not self._is_free(highest):
            return None
        holder = encode(asdict(Holder(self._job)))
        if not self._storage.put_new(f"{_folder(self._campaign)}{highest + 1}.json", holder):
            return None
        return Lease(self._storage, self._campaign, highest + 1, self._clock)

    def _is_free(self, fence: int) -> bool:
        if self._storage.exists(f"{_folder(self._campaign)}{fence}.end.json"):
            return True
        if self._has_ended(holder_of(self._storage, self._campaign, fence).job):
            return True
        now, seen = self._clock(), (fence, last_beat(self._storage, self._campaign, fence))
        if seen != self._seen:
            self._seen, self._since = seen, now
        return now - self._since > DEAD_SECONDS


def is_ending(storage: Store, campaign: str, job: str) -> bool:
    """Whether that job is the newest driver, and was asked to stop or has said its last word."""
    taken = fences(storage, campaign)
    if not taken or holder_of(storage, campaign, taken[-1]).job != job:
        return False
    return is_stopping(storage, campaign, taken[-1])


def is_stopping(storage: Store, campaign: str, fence: int) -> bool:
    """Whether the driver of that number was asked to stop or has said its last word."""
    driver = f"{_folder(campaign)}{fence}"
    return storage.exists(f"{driver}.stop.json") or storage.exists(f"{driver}.end.json")


def holder_of(storage: Store, campaign: str, fence: int) -> Holder:
    """Who took a number. Raises InputError if what another version wrote can't be read."""
    return read_document(storage, f"{_folder(campaign)}{fence}.json", lambda holder: Holder(**holder))


def last_beat(storage: Store, campaign: str, fence: int) -> bytes | None:
    """Of a driver; None if it hasn't beaten yet."""
    try:
        return storage.get(f"{_folder(campaign)}{fence}.beat")
    except MissingKeyError:
        return None


def outcome_of(storage: Store, campaign: str, fence: int) -> DriverOutcome | None:
    """How a driver ended; None if it hasn't, or couldn't say. Raises InputError if that can't be read."""
    key = f"{_folder(campaign)}{fence}.end.json"
    try:
        return read_document(storage, key, lambda end: cast(DriverOutcome, end["outcome"]))
    except MissingKeyError:
        return None


def _folder(campaign: str) -> str:
    return f"campaigns/{campaign}/drivers/"
