"""Attempts at one piece of work, a training or an evaluation: who carries it out, and how it ended.

All of it lies in the storage, in the work's folder (`runs/<run>/` or `evaluations/<name>/`):

    attempts/<n>.json           the claim: of all that want to, one wins it (`put_new`) and starts the job that it names
    attempts/<n>.begin.json     that job has begun, or someone has seen to it that it never will
    attempts/<n>.beat           a counter that grows while that job lives, and the time on its clock
    attempts/<n>.stop.json      someone asked it to stop
    attempts/<n>.end.json       how it ended; the first to know writes it
    attempts/<n>.forgiven.json  someone asked to go on after it failed or was stopped

Attempt n + 1 can be claimed only when n has ended. An attempt that was given up for lost but still lives finds its
successor here, and stops without writing anything (`SupersededError`).
"""

import json
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from itertools import takewhile
from typing import Any, Literal, TypeVar

from alexvgg.beats import Beating
from alexvgg.data.documents import encode, read_document
from alexvgg.data.store import MissingKeyError, Store
from alexvgg.engine.wishes import Wishes
from alexvgg.keys import CHECKPOINTS
from alexvgg.process import lives_here

BEAT_SECONDS = 5.0
DEAD_SECONDS = 20.0  # without a beat, of a job that Ray doesn't know
MAX_LOST = 6  # attempts in a row, without progress
FIRST_PAUSE, LONGEST_PAUSE = 2.0, 300.0  # seconds between a lost attempt and the next

# Trying again mends what was lost, not what failed. unplaced: the cluster had no room for its workers.
Outcome = Literal["finished", "failed", "lost", "unplaced", "stopped"]
Standing = Literal["open", "live", "finished", "failed", "stopped"]
T = TypeVar("T")


class SupersededError(RuntimeError):
    """This attempt was given up for lost, and another one has taken its place."""


@dataclass(frozen=True)
class Claim:
    """Who won an attempt: a campaign's driver with its fencing number, or nobody's if a command started it.

    `job` is the id of its Ray job, or says which plain process carries it out, and `process` is that process as others
    on its machine can look for it (`alexvgg.process`). `execution` is how it is done (an `Execution` as JSON types).
    """

    job: str
    execution: dict[str, Any]
    campaign: str | None = None
    fence: int = 0
    process: str | None = None
    time: float = field(default_factory=time.time)


@dataclass(frozen=True)
class End:
    """How an attempt ended, and `step`, its newest checkpoint."""

    outcome: Outcome
    error: str | None = None
    step: int = 0
    time: float = field(default_factory=time.time)


@dataclass(frozen=True)
class Record:
    """What the storage says about one attempt; `asked` means to stop."""

    number: int
    claim: Claim
    end: End | None = None
    forgiven: bool = False
    asked: bool = False


class Attempt(Beating):
    """Attempt `number` at the work in `folder`, as those see it that claim it, carry it out, or give it up."""

    def __init__(self, storage: Store, folder: str, number: int) -> None:
        super().__init__(storage, f"{folder}attempts/{number}")
        self.folder, self.number = folder, number

    def claim(self, claim: Claim) -> bool:
        """Whether it is ours now. Only to be called when the attempt before it has ended."""
        return self.storage.put_new(f"{self._key}.json", encode(asdict(claim)))

    def read(self) -> Claim:
        return read_document(self.storage, f"{self._key}.json", lambda claim: Claim(**claim))

    def begin(self) -> bool:
        """Begin to carry it out, or keep its job from ever doing so; False if either was done before."""
        return self.storage.put_new(f"{self._key}.begin.json", encode({"time": time.time()}))

    def ask_to_stop(self) -> None:
        self.storage.put_new(f"{self._key}.stop.json", encode({"time": time.time()}))

    def end(self, outcome: Outcome, error: str | None = None) -> None:
        """Write down how it ended, unless someone has."""
        end = End(outcome, error, newest_step(self.storage, self.folder))
        self.storage.put_new(f"{self._key}.end.json", encode(asdict(end)))

    def outcome(self) -> Outcome | None:
        """How it ended; None if nobody has written that down."""
        try:
            return read_document(self.storage, f"{self._key}.end.json", lambda end: End(**end)).outcome
        except MissingKeyError:
            return None

    def forgive(self) -> None:
        """Let the work go on after this attempt, which failed or was stopped."""
        self.storage.put_new(f"{self._key}.forgiven.json", encode({"time": time.time()}))

    def signs(self) -> tuple[bool, bool]:
        """(was it asked to stop, is it over: has it ended, or a successor?)"""
        keys = set(self.storage.list(f"{self.folder}attempts/"))
        over = {f"{self._key}.end.json", f"{self.folder}attempts/{self.number + 1}.json"}
        return f"{self._key}.stop.json" in keys, bool(keys & over)

    def hear(self, wishes: Wishes) -> None:
        """Make the run that carries it out end if someone asked it to stop, or gave it up."""
        stop, over = self.signs()
        if over:
            wishes.failure = SupersededError(f"attempt {self.number} at {self.folder} was given up")
        if stop:
            wishes.stop.set()

    def check(self) -> None:
        """Raises SupersededError if another attempt has taken this one's place: then nothing more may be written."""
        if self.storage.exists(f"{self.folder}attempts/{self.number + 1}.json"):
            raise SupersededError(f"attempt {self.number} at {self.folder} was given up, and {self.number + 1} goes on")


class Silence:
    """Whether an attempt is over, or nothing is heard of it any more, as someone sees it who can't look at its job.

    No clocks are compared: its beat has to change within DEAD_SECONDS of the looker's own time.
    """

    def __init__(self, attempt: Attempt, clock: Callable[[], float] = time.monotonic) -> None:
        self._attempt, self._clock = attempt, clock
        self._beat, self._since, self._looked = attempt.last_beat(), clock(), -BEAT_SECONDS
        self._begun = self.heard = False

    def is_over(self) -> bool:
        """Looks every BEAT_SECONDS. If True, whoever carries it out has ended, is lost, or will never begin."""
        now = self._clock()
        if now - self._looked < BEAT_SECONDS:
            return False
        self._looked = now
        if (beat := self._attempt.last_beat()) != self._beat:
            self._beat, self._since, self.heard = beat, now, True
        if self._attempt.signs()[1]:
            return True
        if now - self._since <= DEAD_SECONDS:
            return False
        if self._beat is None and not self._begun and not self._attempt.begin():
            self._begun, self._since = True, now  # it was slow to begin
            return False
        return True


def history(storage: Store, folder: str, present: Iterable[str] | None = None) -> list[Record]:
    """All attempts, the first one first; `present` spares a listing if the storage's keys are known already.

    Raises InputError if what another version wrote can't be read.
    """
    prefix = f"{folder}attempts/"
    keys = {
        k.removeprefix(prefix) for k in (storage.list(prefix) if present is None else present) if k.startswith(prefix)
    }

    def document(name: str, kind: type[T]) -> T:
        return read_document(storage, prefix + name, lambda fields: kind(**fields))

    def record(n: int) -> Record:
        end = document(f"{n}.end.json", End) if f"{n}.end.json" in keys else None
        return Record(
            n, document(f"{n}.json", Claim), end, f"{n}.forgiven.json" in keys, asked=f"{n}.stop.json" in keys
        )

    numbers = sorted(int(stem) for k in keys if (stem := k.removesuffix(".json")).isdecimal())
    return [record(n) for n in numbers]


def standing(records: Sequence[Record]) -> Standing:
    """Where the work stands after these attempts; open means that a next one may be claimed."""
    if not records:
        return "open"
    last = records[-1]
    if last.end is None:
        return "live"
    if last.end.outcome == "lost":
        return "failed" if lost_in_a_row(records) >= MAX_LOST else "open"
    if last.end.outcome == "unplaced" or (last.end.outcome in ("failed", "stopped") and last.forgiven):
        return "open"
    return last.end.outcome


def beaten(beat: bytes | None) -> float:
    """When a beat was written, on its writer's clock; 0 if there is none, or it doesn't say."""
    with suppress(ValueError, TypeError, LookupError):
        return float(json.loads(beat or b"")["time"])
    return 0.0


def is_fresh(beat: bytes | None, claimed: float) -> bool:
    """Whether whoever claimed something then, and last beat so, was heard of just now: by the clocks of two hosts."""
    return time.time() - max(beaten(beat), claimed) < DEAD_SECONDS


def seems_alive(attempt: Attempt, claim: Claim) -> bool:
    """Whether an attempt that hasn't ended was heard of just now, and isn't a process of this machine that is gone."""
    gone = claim.process is not None and lives_here(claim.process) is False
    return not gone and is_fresh(attempt.last_beat(), claim.time)


def lost_in_a_row(records: Sequence[Record]) -> int:
    """How many attempts were lost since one made progress, or since the work was last forgiven."""
    steps = []
    for record in reversed(records):
        if record.end is not None and record.end.outcome == "unplaced":
            continue
        if record.end is None or record.end.outcome != "lost" or record.forgiven:
            break
        steps.append(record.end.step)
    return sum(1 for _ in takewhile(lambda step: step == steps[0], steps))


def pause(lost: int) -> float:
    """Seconds to wait before the next attempt after `lost` lost ones."""
    return min(LONGEST_PAUSE, FIRST_PAUSE * 2 ** (lost - 1)) if lost else 0.0


def failure(records: Sequence[Record]) -> str | None:
    """Why the work failed, if it has."""
    if not records or standing(records) != "failed" or records[-1].end is None:
        return None
    error = records[-1].end.error or "no reason is known"
    if records[-1].end.outcome == "failed":
        return error
    return f"{MAX_LOST} attempts in a row were lost without progress, the last because: {error}"


def newest_step(storage: Store, folder: str) -> int:
    """The step of a run's newest checkpoint; 0 if there is none."""
    prefix = folder + CHECKPOINTS
    commits = (k for k in storage.list(prefix) if k.endswith("/commit.json"))
    return max((int(k.removeprefix(prefix).split("/")[0]) for k in commits), default=0)
