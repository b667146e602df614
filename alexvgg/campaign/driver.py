"""The driver of a campaign: starts what may start, watches what was started, and never decides on what it remembers.

What it remembers follows from the storage, and it acts only by conditional writes there. So it can be killed between
any two lines, and the next driver goes on; a second one at the same time changes nothing but who acts.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Protocol

from alexvgg import attempts
from alexvgg.attempts import Attempt, Claim, Record, Silence
from alexvgg.campaign.dag import State, is_over, kept_back, next_starts, ready
from alexvgg.campaign.plan import Campaign, Training, Work
from alexvgg.config import to_dict
from alexvgg.data.store import Store
from alexvgg.lease import Clock, Lease


@dataclass(frozen=True)
class JobState:
    """A job on the cluster: still going, or how it ended and what the cluster says of that."""

    active: bool
    stopped: bool = False
    message: str = ""


class Jobs(Protocol):
    """The cluster, as a driver needs it."""

    def states(self) -> Mapping[str, JobState]:
        """Every job of this storage that the cluster knows, by its id."""

    def free_workers(self) -> int:
        """How many more workers could start now."""

    def name(self, work: str, attempt: int) -> str:
        """A free id for the job of an attempt."""

    def start(self, work: Work, attempt: int, claim: Claim) -> None:
        """Start the job of an attempt; it reads the rest in the storage."""

    def stop(self, job: str) -> None:
        """Ask a job to end: a training does so after a checkpoint."""


@dataclass
class _Watched:
    """What a driver knows of one work. `silence` is that of its attempt that lives, for the case that its job is
    unknown; `looked` is when the driver last looked whether someone asked to go on."""

    work: Work
    records: list[Record]
    state: State
    retry_at: float = 0.0
    silence: Silence | None = None
    looked: float = 0.0
    began: float = 0.0


class Driver:
    """Calls to `tick` carry the campaign to its end. All methods raise LeaseLostError if another driver took over."""

    def __init__(
        self, storage: Store, campaign: Campaign, jobs: Jobs, lease: Lease,
        *, clock: Clock = time.monotonic, say: Callable[[str], None] = lambda _: None,
    ) -> None:  # fmt: skip
        self._storage, self._campaign, self._jobs, self._lease = storage, campaign, jobs, lease
        self._clock, self._say = clock, say
        self._nodes = campaign.nodes
        self._watched = {work.node.name: _Watched(work, [], "open") for work in campaign.works}
        self._stopping = False
        self._waiting_said = False
        for name, watched in self._watched.items():
            self._read(watched)
            if watched.state == "stopped":  # by whoever stopped an earlier driver: this one was started to go on
                watched.state = "open"
            if watched.state == "finished":
                self._say(f"{self._title(name)} is finished already")
            elif watched.state == "live":
                self._say(f"{self._title(name)} is being carried out by {watched.records[-1].claim.job}")

    @property
    def states(self) -> dict[str, State]:
        return {name: watched.state for name, watched in self._watched.items()}

    def tick(self) -> bool:
        """Look at everything that lives, start what may start. Returns whether the campaign is over."""
        self._lease.keep()
        known = self._jobs.states()
        for name, watched in self._watched.items():
            if watched.state == "live":
                self._look(name, watched, known)
            elif watched.state in ("failed", "stopped") and self._clock() - watched.looked >= attempts.BEAT_SECONDS:
                watched.looked = self._clock()
                self._read(watched)  # someone may have asked to go on
            elif watched.state == "waiting" and self._clock() >= watched.retry_at:
                watched.state = "open"
        if self._stopping:
            return not any(self._is_ours(w) for w in self._watched.values())
        if ready(self._nodes, self.states):
            self._start_ready()
        return is_over(self._nodes, self.states)

    def stop(self) -> None:
        """Begin nothing any more, and ask what this campaign has started to end."""
        self._stopping = True
        self._lease.stopping()
        for name, watched in self._watched.items():
            if self._is_ours(watched):
                record = watched.records[-1]
                Attempt(self._storage, watched.work.folder, record.number).ask_to_stop()
                try:
                    self._jobs.stop(record.claim.job)
                except Exception as error:  # whatever the cluster answers: the wish lies in the storage, too
                    self._say(f"{self._title(name)}: job {record.claim.job} couldn't be told to stop: {error}")

    def summary(self) -> str:
        """One line for each work that can't be finished, one for all."""
        lines = [
            f"{self._title(name)} can't start: {culprit} {self._watched[culprit].state}"
            for name, culprit in kept_back(self._nodes, self.states).items()
        ]
        done = sum(state == "finished" for state in self.states.values())
        all_runs = all(isinstance(w.work, Training) for w in self._watched.values())
        what = "runs" if all_runs else "runs and evaluations"
        return "\n".join([*lines, f"{done} of {len(self._nodes)} {what} are finished"])

    def _title(self, name: str) -> str:
        return f"[{list(self._watched).index(name) + 1}/{len(self._nodes)}] {name}"

    def _is_ours(self, watched: _Watched) -> bool:
        return watched.state == "live" and watched.records[-1].claim.campaign == self._campaign.name

    def _read(self, watched: _Watched) -> None:
        """Take over what the storage says."""
        watched.records = attempts.history(self._storage, watched.work.folder)
        standing = attempts.standing(watched.records)
        watched.state = "finished" if watched.work.is_done(self._storage) else standing
        lost = attempts.lost_in_a_row(watched.records)
        if watched.state == "open" and lost:
            watched.state, watched.retry_at = "waiting", self._clock() + attempts.pause(lost)
        if watched.state == "live":
            watched.silence = Silence(Attempt(self._storage, watched.work.folder, len(watched.records)), self._clock)
            watched.began = watched.began or self._clock()

    def _start_ready(self) -> None:
        free = self._jobs.free_workers()
        starts = next_starts(self._nodes, self.states, free, self._campaign.workers)
        for name in starts:
            workers = self._workers(free)
            free -= min(free, workers)
            self._start(name, self._watched[name], workers)
        idle = not starts and "live" not in self.states.values()
        if idle and not self._waiting_said:
            self._say(f"waiting for {self._campaign.workers.least} free workers; the cluster has {free}")
        self._waiting_said = idle

    def _workers(self, free: int) -> int:
        """The most that the next attempt asks for.

        Where a cluster grows, elastic runs together ask for no more than it can have: of what goes beyond that, its
        autoscaler gives nothing at all.
        """
        most = self._campaign.workers.most
        return most if self._campaign.execution.most_workers is None else min(most, free)

    def _start(self, name: str, watched: _Watched, workers: int) -> None:
        """Claim the next attempt and start its job; if someone else was faster, watch that one."""
        self._lease.check()
        number = len(watched.records) + 1
        execution = replace(self._campaign.execution, workers=workers)
        claim = Claim(self._jobs.name(name, number), to_dict(execution), self._campaign.name, self._lease.turn.fence)
        attempt = Attempt(self._storage, watched.work.folder, number)
        watched.work.describe(self._storage)
        watched.began = self._clock()
        if attempt.claim(claim):
            step = max((r.end.step for r in watched.records if r.end is not None), default=0)
            how = f"goes on from step {step}" if step else f"starts {watched.work.about}"
            self._say(f"{self._title(name)} {how}, {_count(execution)}, job {claim.job}")
            try:
                self._jobs.start(watched.work, number, claim)
            except Exception as error:  # whatever the cluster answers; the claim is ours and has to end
                attempt.end("lost", f"its job couldn't be started: {error}")
        self._read(watched)
        if watched.state != "live":
            self._tell(name, watched)

    def _look(self, name: str, watched: _Watched, known: Mapping[str, JobState]) -> None:
        """Has an attempt ended? Its job writes that down itself, or else its job's state says it."""
        record = watched.records[-1]
        attempt, job = Attempt(self._storage, watched.work.folder, record.number), known.get(record.claim.job)
        if job is not None and job.active:
            return
        if job is None and watched.silence is not None and not watched.silence.is_over():
            return
        self._lease.check()
        if watched.work.is_done(self._storage):
            attempt.end("finished")
        elif job is None:
            attempt.end("lost", "its job is gone from the cluster, and nothing was heard of it")
        elif job.stopped:
            attempt.end("stopped")
        else:
            attempt.end("lost", job.message)
        self._read(watched)
        self._tell(name, watched)
        if watched.state == "stopped" and record.claim.campaign != self._campaign.name:
            watched.state = "open"  # another campaign was stopped, this one wasn't

    def _tell(self, name: str, watched: _Watched) -> None:
        """Say how the last attempt ended."""
        title, end = self._title(name), watched.records[-1].end if watched.records else None
        if watched.state == "finished":
            self._say(f"{title} finished in {self._clock() - watched.began:.0f} s")
        elif watched.state == "failed":
            self._say(f"{title} failed: {attempts.failure(watched.records)}")
        elif end is not None and end.outcome == "unplaced":
            self._say(f"{title}: attempt {len(watched.records)} has ended: {_last(end.error)}")
        elif watched.state == "waiting" and end is not None:
            seconds = watched.retry_at - self._clock()
            self._say(
                f"{title}: attempt {len(watched.records)} was lost, the next in {seconds:.0f} s: {_last(end.error)}"
            )
        elif watched.state == "stopped":
            self._say(f"{title} was stopped; `alexvgg resume {name}` goes on from its checkpoint")


def _count(execution: Any) -> str:
    if execution.min_workers:
        return f"{execution.min_workers} to {execution.workers} workers"
    return "1 worker" if execution.workers == 1 else f"{execution.workers} workers"


def _last(text: str | None) -> str:
    """The last line: of an error with its traceback the one that says what it is."""
    return (text or "no reason is known").strip().splitlines()[-1]
