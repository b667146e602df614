"""Which driver of a campaign may act: the one with the highest fencing number, as long as there is no higher one.

    campaigns/<campaign>/drivers/<fence>.json      taken by `put_new`: a driver holds the lease from here on
    campaigns/<campaign>/drivers/<fence>.beat      a counter that its holder lets grow, and the time on its clock
    campaigns/<campaign>/drivers/<fence>.stop.json its holder was asked to stop
    campaigns/<campaign>/drivers/<fence>.end.json  its holder has ended, and how

No clocks are compared between hosts: a newcomer takes the next number when the holder has ended, when Ray says that its
job has, or when its beat hasn't changed for DEAD_SECONDS of the newcomer's own time.
"""

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Literal, cast

from alexvgg.beats import Beating
from alexvgg.data.documents import encode, read_document
from alexvgg.data.store import MissingKeyError, Store
from alexvgg.keys import driver_folder

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


class Turn(Beating):
    """Driver number `fence` of a campaign, as those see it that take its place, or only look."""

    def __init__(self, storage: Store, campaign: str, fence: int) -> None:
        super().__init__(storage, f"{driver_folder(campaign)}{fence}")
        self.campaign, self.fence = campaign, fence

    def take(self, holder: Holder) -> bool:
        """Whether it is the holder's now."""
        return self.storage.put_new(f"{self._key}.json", encode(asdict(holder)))

    def holder(self) -> Holder:
        """Who took it. Raises InputError if what another version wrote can't be read."""
        return read_document(self.storage, f"{self._key}.json", lambda holder: Holder(**holder))

    def stopping(self) -> None:
        """Say that its holder was asked to stop, and begins nothing any more."""
        self.storage.put_new(f"{self._key}.stop.json", b"{}")

    def end(self, outcome: DriverOutcome) -> None:
        """Write down how it ended, unless that was done."""
        self.storage.put_new(f"{self._key}.end.json", encode({"outcome": outcome, "time": time.time()}))

    def has_ended(self) -> bool:
        return self.storage.exists(f"{self._key}.end.json")

    def outcome(self) -> DriverOutcome | None:
        """How it ended; None if it hasn't, or couldn't say. Raises InputError if that can't be read."""
        try:
            return read_document(self.storage, f"{self._key}.end.json", lambda end: cast(DriverOutcome, end["outcome"]))
        except MissingKeyError:
            return None

    def is_ending(self) -> bool:
        """Whether its holder was asked to stop, or has said its last word."""
        return self.storage.exists(f"{self._key}.stop.json") or self.has_ended()

    def previous(self) -> "Turn":
        return Turn(self.storage, self.campaign, self.fence - 1)

    def next(self) -> "Turn":
        return Turn(self.storage, self.campaign, self.fence + 1)

    def is_over(self) -> bool:
        """Whether another driver has the next one."""
        return self.storage.exists(f"{self.next()._key}.json")


def turns(storage: Store, campaign: str) -> list[Turn]:
    """Those taken so far, the first one first."""
    prefix = driver_folder(campaign)
    stems = (k.removeprefix(prefix).removesuffix(".json") for k in storage.list(prefix))
    return [Turn(storage, campaign, fence) for fence in sorted(int(stem) for stem in stems if stem.isdigit())]


def is_ending(storage: Store, campaign: str, job: str) -> bool:
    """Whether that job is the newest driver, and was asked to stop or has said its last word."""
    taken = turns(storage, campaign)
    return bool(taken) and taken[-1].holder().job == job and taken[-1].is_ending()


class Lease:
    """A driver's right to act for a campaign, in its turn."""

    def __init__(self, turn: Turn, clock: Clock = time.monotonic) -> None:
        self.turn, self._clock = turn, clock
        self._beats, self._beaten = 0, clock()

    def check(self) -> None:
        """Raises LeaseLostError if another driver has taken over."""
        if self.turn.is_over():
            raise LeaseLostError(
                f"another driver has taken over {self.turn.campaign}; this one ends, what it started goes on"
            )

    def keep(self) -> None:
        """Show that the holder lives, and look whether it still holds; to be called every second or so."""
        if self._clock() - self._beaten >= BEAT_SECONDS:
            self.check()
            self._beats, self._beaten = self._beats + 1, self._clock()
            self.turn.beat(self._beats)

    def stopping(self) -> None:
        """Say that this driver was asked to stop, and begins nothing any more."""
        self.check()
        self.turn.stopping()


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
        taken = turns(self._storage, self._campaign)
        if taken and not self._is_free(taken[-1]):
            return None
        mine = taken[-1].next() if taken else Turn(self._storage, self._campaign, 1)
        return Lease(mine, self._clock) if mine.take(Holder(self._job)) else None

    def _is_free(self, turn: Turn) -> bool:
        if turn.has_ended() or self._has_ended(turn.holder().job):
            return True
        now, seen = self._clock(), (turn.fence, turn.last_beat())
        if seen != self._seen:
            self._seen, self._since = seen, now
        return now - self._since > DEAD_SECONDS
