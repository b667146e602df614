"""Where campaigns, runs and evaluations stand: what `alexvgg status` shows.

The storage says it, on any host. Whether what hasn't ended still lives comes from the cluster's list of jobs, if it is
at hand; what that doesn't know, another cluster's or a plain process, lives if its beat isn't older than a while, by
the clocks of two hosts.
"""

import math
import re
import time
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from alexvgg import attempts
from alexvgg.attempts import Attempt, Record, is_fresh, seems_alive
from alexvgg.campaign.dag import State, kept_back
from alexvgg.campaign.plan import Campaign, Evaluation, Training, Work
from alexvgg.config import STEPS_PER_POINT
from alexvgg.data.store import Store
from alexvgg.errors import InputError, resolve
from alexvgg.keys import CAMPAIGNS, plan_key, spec_key
from alexvgg.lease import turns
from alexvgg.runs import RunRecord, keys_by_run, read_run, read_spec
from alexvgg.tracking.live import read_live

READERS = 16
UNUSUAL_SECONDS = 180.0  # without a step: an epoch's validation takes less on what trains ImageNet

# gone: it hasn't ended, but the cluster doesn't know its job any more, or nothing was heard of its process. started:
# by a script of one's own, of which nobody knows whether it lives. unreadable: by this version.
Phase = Literal[
    "planned", "kept back", "started", "starting", "running", "evaluating", "stopping", "gone", "finished", "failed",
    "stopped", "lost", "unreadable",
]  # fmt: skip
STATES: Mapping[Phase, State] = {"finished": "finished", "failed": "failed", "stopped": "stopped"}  # the others: open
Jobs = Mapping[str, bool]  # job id -> whether it is still going


@dataclass(frozen=True)
class Progress:
    """How far a training is. `seconds_left` are for training at its newest speed, without its last evaluation.

    `seconds_still` is how long its newest step was ago, by two hosts' clocks, if that is unusual at its speed.
    """

    epoch: int
    epochs: int
    step: int
    loss: float | None = None
    top1_error: float | None = None  # of the validation images, centre crop, in per cent
    images_per_s: float | None = None
    seconds_left: float | None = None
    seconds_still: float | None = None


@dataclass(frozen=True)
class WorkView:
    """One training or evaluation. `job` and `error` are the newest attempt's, or what keeps it back is the error.

    `warning` is what was said of a net that learns nothing.
    """

    name: str
    kind: Literal["training", "evaluation"]
    phase: Phase
    needs: tuple[str, ...] = ()
    attempt: int = 0
    job: str | None = None
    workers: int | None = None
    progress: Progress | None = None
    error: str | None = None
    warning: str | None = None


@dataclass(frozen=True)
class DriverView:
    """A campaign's newest driver: at work, about to stop, gone without a word, or how it ended.

    What it wrote may be unreadable by this version; then `job` is its number.
    """

    job: str
    phase: Literal["running", "stopping", "gone", "finished", "failed", "stopped", "unreadable"]


@dataclass(frozen=True)
class CampaignView:
    """A campaign with all its works, parents first; `error` is why its plan can't be read, if it can't."""

    name: str
    driver: DriverView | None
    works: tuple[WorkView, ...]
    error: str | None = None

    @property
    def is_done(self) -> bool:
        return self.error is None and all(w.phase == "finished" for w in self.works)


@dataclass(frozen=True)
class Overview:
    """Everything in a storage: the campaigns, the newest last, and the runs that belong to none."""

    campaigns: tuple[CampaignView, ...]
    runs: tuple[WorkView, ...]

    def about(self, name: str) -> "Overview":
        """Only the campaigns of that name or with a work of that name, or the run; names may be cut short.

        Raises NotFoundError if there is none, or several are meant.
        """
        campaigns = {c.name: (c.name, *(w.name for w in c.works)) for c in self.campaigns}
        every = {n for names in campaigns.values() for n in names} | {r.name for r in self.runs}
        full = resolve(name, every)
        return Overview(
            tuple(c for c in self.campaigns if full in campaigns[c.name]), tuple(r for r in self.runs if r.name == full)
        )

    def to_dict(self) -> dict[str, Any]:
        """For `--json`."""
        return asdict(self)


def overview(storage: Store, jobs: Jobs | None = None) -> Overview:
    """Look at the storage; `jobs` are those that the cluster knows, None if it wasn't asked."""
    chosen = _campaigns(storage)
    with ThreadPoolExecutor(READERS) as pool:
        plans = list(pool.map(lambda name: _plan(storage, name), chosen))
        works = {w.node.name: w for plan in plans if isinstance(plan, Campaign) for w in plan.works}
        present = keys_by_run(storage)
        loose = [run for run, keys in present.items() if run not in works and spec_key(run) in keys]
        names = [*works, *loose]
        views = dict(
            zip(names, pool.map(lambda n: _view(storage, n, works.get(n), jobs, present.get(n)), names), strict=True)
        )
        drivers = list(pool.map(lambda name: _driver(storage, name, jobs), chosen))
    campaigns = [
        CampaignView(name, driver, _with_culprits(plan, views))
        if isinstance(plan, Campaign)
        else CampaignView(name, driver, (), plan)
        for name, plan, (driver, _) in zip(chosen, plans, drivers, strict=True)
    ]
    order = sorted(range(len(campaigns)), key=lambda i: drivers[i][1])
    return Overview(tuple(campaigns[i] for i in order), tuple(views[name] for name in loose))


def _plan(storage: Store, name: str) -> Campaign | str:
    """A campaign, or why it can't be read."""
    try:
        return Campaign.load(storage, name)
    except InputError as error:
        return str(error)


def _view(storage: Store, name: str, work: Work | None, jobs: Jobs | None, present: Iterable[str] | None) -> WorkView:
    """A work of a campaign, or the run of that name; `present` are its keys, if they are known."""
    try:
        return _look(storage, Training(read_spec(storage, name)) if work is None else work, jobs, present)
    except InputError as error:
        return WorkView(name, _kind(work), "unreadable", error=str(error))


def _kind(work: Work | None) -> Literal["training", "evaluation"]:
    return "evaluation" if isinstance(work, Evaluation) else "training"


def _campaigns(storage: Store) -> list[str]:
    """The names of all that have a plan."""
    keys = storage.list(CAMPAIGNS)
    return sorted(name for key in keys if key == plan_key(name := key.removeprefix(CAMPAIGNS).partition("/")[0]))


def _driver(storage: Store, campaign: str, jobs: Jobs | None) -> tuple[DriverView | None, float]:
    """The newest driver, and when it began."""
    taken = turns(storage, campaign)
    if not taken:
        return None, math.inf  # it was sent just now
    turn = taken[-1]
    try:
        holder, outcome = turn.holder(), turn.outcome()
    except InputError:
        return DriverView(f"d{turn.fence}", "unreadable"), math.inf
    jobs = jobs or {}
    alive = jobs.get(holder.job)
    if alive is None:
        alive = is_fresh(turn.last_beat(), holder.time)
    if outcome is not None or not alive:
        for job in (j for j in jobs if jobs[j] and re.fullmatch(rf"{re.escape(campaign)}-d\d+(-\d+)?", j)):
            return DriverView(job, "running"), holder.time  # sent, and about to take the lease
        return DriverView(holder.job, outcome or "gone"), holder.time
    return DriverView(holder.job, "stopping" if turn.is_ending() else "running"), holder.time


def _look(storage: Store, work: Work, jobs: Jobs | None, present: Iterable[str] | None) -> WorkView:
    record = read_run(storage, work.node.name, present, work.spec) if isinstance(work, Training) else None
    records = attempts.history(storage, work.folder) if record is None else record.attempts
    finished = work.is_done(storage) if record is None else record.state == "finished"
    newest = records[-1] if records else None
    end = newest.end if newest is not None else None
    lives = newest is not None and _lives(Attempt(storage, work.folder, newest.number), newest, jobs)
    progress = None if record is None else _progress(storage, record)
    return WorkView(
        name=work.node.name,
        kind=_kind(work),
        phase="finished" if finished else _phase(records, progress, lives=lives),
        needs=work.node.needs,
        attempt=len(records),
        job=newest.claim.job if newest is not None else None,
        workers=newest.claim.execution["workers"] if newest is not None else None,
        progress=progress,
        error=None if finished else attempts.failure(records) or (end.error if end is not None else None),
        warning=record.warning if record is not None else None,
    )


def _lives(attempt: Attempt, record: Record, jobs: Jobs | None) -> bool:
    if record.end is not None:
        return False
    known = (jobs or {}).get(record.claim.job)
    return known if known is not None else seems_alive(attempt, record.claim)


def _phase(records: Sequence[Record], progress: Progress | None, *, lives: bool) -> Phase:
    match attempts.standing(records):
        case "live":
            if not lives:
                return "gone"
            if records[-1].asked:
                return "stopping"
            if progress is None or progress.images_per_s is None:
                return "starting"
            return "evaluating" if progress.seconds_left == 0 else "running"
        case "open":
            if records:
                return "planned" if records[-1].forgiven else "lost"
            return "planned" if progress is None else "started"
        case ended:
            return ended


def _progress(storage: Store, record: RunRecord) -> Progress | None:
    """From the journal's newest epoch, and since then from what the run shows of itself.

    Loss and error stay until there are newer ones. A speed is the newest attempt's own: it has none before it trains.
    """
    if not record.journal:
        return None
    epoch, live, t = record.last_epoch, read_live(storage, record.name), record.spec.train
    metrics = epoch["metrics"] if epoch is not None else {}
    step = max(e["step"] for e in record.journal)
    loss, speed = metrics.get("train/loss_epoch"), None
    began = max((n for n, e in enumerate(record.journal) if e["event"] == "start"), default=None)
    if began is None:  # imported
        return None
    start, seen = record.journal[began], record.last_seen
    newest = record.attempts[-1].claim if record.attempts else None
    if newest is None or newest.process is not None or newest.job == start["job"]:
        if epoch in record.journal[began:]:
            speed = metrics.get("perf/images_per_s")
        if live is not None and live.attempt == start["attempt"] and live.step > step:
            step, loss, speed, seen = live.step, live.loss, live.images_per_s, max(seen, live.time)
    epochs = epoch["epoch"] if epoch is not None else 0
    return Progress(
        epoch=epochs, epochs=t.epochs, step=step, loss=loss, top1_error=metrics.get("val/top1_error"),
        images_per_s=speed, seconds_left=_seconds_left(record, epoch, step, speed),
        seconds_still=_seconds_still(t.global_batch, seen, speed),
    )  # fmt: skip


def _seconds_still(global_batch: int, seen: float, speed: float | None) -> float | None:
    if not speed:
        return None
    still, point = time.time() - seen, STEPS_PER_POINT * global_batch / speed
    return still if still > UNUSUAL_SECONDS + 5 * point else None


def _seconds_left(record: RunRecord, epoch: dict[str, Any] | None, step: int, speed: float | None) -> float | None:
    """Of training, at its newest speed; None before its first epoch has shown how many steps one has."""
    t = record.spec.train
    if epoch is None or not speed:
        return None
    last: int = round(epoch["step"] / epoch["epoch"] * t.epochs)
    return max(0, min(last, t.max_steps or last) - step) * t.global_batch / speed


def _with_culprits(plan: Campaign, views: Mapping[str, WorkView]) -> tuple[WorkView, ...]:
    """The campaign's works; those that can't start say whom they wait for in vain."""
    works = [views[work.node.name] for work in plan.works]
    culprits = kept_back(plan.nodes, {w.name: STATES.get(w.phase, "open") for w in works})
    return tuple(
        replace(w, phase="kept back", error=f"{culprits[w.name]} {views[culprits[w.name]].phase}")
        if w.phase in ("planned", "lost") and w.name in culprits
        else w
        for w in works
    )
