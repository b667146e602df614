"""Deciding what a submission would start, and checking that it can."""

import functools
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from alexvgg import attempts
from alexvgg.architectures import architecture
from alexvgg.campaign.estimate import Estimate, Speed, as_dict, estimate, measured, speed
from alexvgg.campaign.plan import Campaign, Evaluation, Training, Work, name_of
from alexvgg.config import Execution, RunSpec, from_dict, to_dict
from alexvgg.data.plan import busy, check_workers
from alexvgg.data.store import Store
from alexvgg.errors import InputError
from alexvgg.profiles import Profile
from alexvgg.request import Request
from alexvgg.runs import RunRecord, check_parent, list_runs, read_run
from alexvgg.scaling import images_per_s
from jobs.capacity import forgotten_gpus, worker_slots

Nodes = tuple[int, int]  # the least and the most

LOOK_SECONDS = 5.0  # between looks for nodes that are waited for


@dataclass(frozen=True)
class Step:
    """One run of a submission: its spec, what storage says about it, its number of parameters, what is left to do."""

    spec: RunSpec
    state: str
    params: int
    estimate: Estimate


@dataclass(frozen=True)
class Submission:
    """What would be started, parents first; for `submit` the last run is the one asked for."""

    campaign: Campaign
    steps: tuple[Step, ...]
    evaluations: tuple[tuple[Request, str], ...]  # and what storage says about each
    nodes: Nodes
    link: float | None = None  # between nodes, in bits a second, if there is one and it is known

    @property
    def execution(self) -> Execution:
        return self.campaign.execution

    @property
    def target(self) -> str:
        return self.campaign.name

    @property
    def pending(self) -> list[Step]:
        return [s for s in self.steps if s.state != "finished"]

    @property
    def unknown(self) -> list[Step]:
        """The pending ones of which nobody knows how long they take."""
        return [s for s in self.pending if s.estimate.hours is None]

    @property
    def hours_on_one_node(self) -> float | None:
        """Of all runs together, where the exchange of gradients between nodes is counted in; None where it isn't."""
        if self.link is None or not self.pending:
            return None
        hours = 0.0
        for e in (s.estimate for s in self.pending):
            if e.speed is None or not e.speed.alone:
                return None
            hours += e.images / e.speed.images_per_s / (e.workers / self.nodes[1]) / 3600
        return hours

    @property
    def is_done(self) -> bool:
        return not self.pending and all(state == "finished" for _, state in self.evaluations)

    def to_dict(self) -> dict[str, Any]:
        """For `--json`: all runs, parents first, with what each needs, and the evaluations after them."""
        e = self.execution
        resources = {"nodes": self.nodes[1], "workers": e.workers, "gpus_per_worker": e.gpus_per_worker}
        if e.min_workers is not None:
            resources |= {"min_nodes": self.nodes[0], "min_workers": e.min_workers}
        runs = [
            {
                "name": s.spec.name, "recipe": s.spec.recipe, "model": s.spec.model.name,
                "parent": s.spec.parent.run if s.spec.parent else None,
                "how": s.spec.parent.how if s.spec.parent else s.spec.init.kind,
                "scale": s.spec.data.train_scale, "state": s.state, "params": s.params,
                "epochs": s.spec.train.epochs, "global_batch": s.spec.train.global_batch, "lr": s.spec.train.lr,
                "resources": resources, "estimate": as_dict(s.estimate),
            }
            for s in self.steps
        ]  # fmt: skip
        evaluations = [{"name": r.name, "state": state, **to_dict(r)} for r, state in self.evaluations]
        return {
            "target": self.target, "runs": runs, "evaluations": evaluations,
            "estimate": {"hours": self.hours, "worker_hours": self.worker_hours},
            "dataset": e.dataset_url, "storage": e.storage_url,
        }  # fmt: skip

    @property
    def worker_hours(self) -> float | None:
        """Of all runs together; None if one can't be estimated."""
        return None if self.unknown else sum(s.estimate.worker_hours or 0 for s in self.pending)

    @property
    def hours(self) -> float | None:
        """On the clock, one run after the other; None if one can't be estimated."""
        return None if self.unknown else sum(s.estimate.hours or 0 for s in self.pending)


def decide(
    target: str | None,
    runs: Sequence[RunSpec],
    requests: Sequence[Request],
    profile: Profile,
    nodes: Nodes,
    storage: Store,
    train_images: int,
    *,
    retry: bool = False,
    one_host: bool = False,
    link: float | None = None,
    **how: Any,
) -> Submission:
    """What submitting would do, given what the storage says; `how` are more of Execution's fields.

    The campaign is called after the last run, or after `target` (a table) and all that it takes. With `one_host` all
    nodes are on one machine, whose cores they share. A `link` between nodes, in bits a second, makes estimates count
    the exchange of gradients.
    Raises InputError if a run or an evaluation has failed before, unless `retry`, or if a run's parent has learned
    nothing.
    """
    steps = []
    works: list[Work] = []
    stored = {record.name: record for record in list_runs(storage)}
    execution = execution_on(profile, nodes, **how)
    for spec in runs:
        check_workers(execution.workers, profile.workers_per_node, spec.train.global_batch)
    speed_of = _speeds(stored.values(), profile, execution, execution.workers if one_host else 1)
    for spec in runs:
        record = stored.get(spec.name) or read_run(storage, spec.name, spec=spec)
        if record.state == "failed" and not retry:
            raise _failed_before(spec.name, str(record.error))
        if record.state != "finished" and spec.parent is not None and spec.parent.run in stored:
            check_parent(stored[spec.parent.run], spec.name)
        m = spec.model
        net = architecture(m.name, num_classes=m.num_classes, width=m.width, crop=m.crop)
        known, together = speed_of(spec), None
        if known is not None and known.alone:
            batch = spec.train.global_batch
            one = known.images_per_s * busy(batch, execution.workers)
            together = one * execution.workers
            if link is not None:
                together = images_per_s(m, batch, execution, nodes[1], one, link)
        left = estimate(spec, train_images, execution.workers, known, record.consumed, together)
        steps.append(Step(spec, record.state, net.params, left))
        works.append(Training(spec, float(net.macs * spec.train.epochs)))
    evaluations = []
    for request in requests:
        work = Evaluation(request)
        records = attempts.history(storage, work.folder)
        if (error := attempts.failure(records)) is not None and not retry:
            raise _failed_before(request.name, error)
        evaluations.append((request, _state(attempts.standing(records))))
        works.append(work)
    name = runs[-1].name if target is None else name_of(target, works)
    campaign = Campaign(name, tuple(works), execution)
    return Submission(campaign, tuple(steps), tuple(evaluations), nodes, link)


def _speeds(
    stored: Iterable[RunRecord], profile: Profile, execution: Execution, on_a_host: int
) -> Callable[[RunSpec], Speed | None]:
    """Images/s of a worker for each spec, from the runs in the storage or from the profile's GPU."""
    known, device = measured(stored), "cuda" if profile.gpus_per_node else "cpu"
    gpu = profile.gpu if execution.precision == "auto" else None

    @functools.cache
    def macs(model: str, width: float, crop: int) -> int:
        return architecture(model, width=width, crop=crop).macs

    return lambda spec: speed(spec, macs, gpu, device, known, on_a_host)


def execution_on(profile: Profile, nodes: Nodes, **how: Any) -> Execution:
    """How works are carried out on so many of a profile's nodes; `how` are more of Execution's fields."""
    least, most = (n * profile.workers_per_node for n in nodes)
    check_workers(most, profile.workers_per_node)
    where = {"dataset_url": profile.dataset, "storage_url": profile.storage, "mlflow_url": profile.mlflow}
    if profile.max_nodes is not None and nodes[1] > profile.max_nodes:
        raise InputError(
            f"the profile's cluster grows to max_nodes = {profile.max_nodes}, and {nodes[1]} nodes were asked for: use "
            f"--nodes {_range(min(nodes[0], profile.max_nodes), profile.max_nodes)}, or correct the profile"
        )
    workers = {
        "workers": most, "min_workers": least if least < most else None,
        "most_workers": None if profile.max_nodes is None else profile.max_nodes * profile.workers_per_node,
        "gpus_per_worker": 1 if profile.gpus_per_node else 0,
    }  # fmt: skip
    return from_dict(Execution, {**where, **workers, **how})


def _range(least: int, most: int) -> str:
    return f"{most}" if least == most else f"{least}:{most}"


def _state(standing: attempts.Standing) -> str:
    return {"open": "planned", "live": "started", "stopped": "started"}.get(standing, standing)


def _failed_before(name: str, error: str) -> InputError:
    return InputError(
        f"{name} failed before: {error.strip().splitlines()[-1]} When its cause is mended, submit again with --retry; "
        "it goes on from its last checkpoint."
    )


def check_cluster(
    profile: Profile, nodes: int, minutes: float | None = None, say: Callable[[str], None] = print
) -> None:
    """Raise InputError if fewer nodes than `nodes` can hold the workers, and go on to do so for so many minutes.

    `minutes` is None for what can't wait, nor take fewer nodes. A cluster that grows by itself isn't waited for.
    """
    deadline, said = time.monotonic() + 60 * (minutes or 0), None
    while (fitting := _fitting(profile, nodes)) < nodes:
        if nodes <= (profile.max_nodes or 0):
            say(f"{fitting} of {nodes} nodes are there; the cluster adds the others when they are waited for")
            break
        if time.monotonic() >= deadline:
            each = f"{profile.gpus_per_node} GPUs" if profile.gpus_per_node else "a free CPU"
            ways = ["Add nodes", *([f"use --nodes {fitting}"] if fitting else [])]
            if minutes is not None:
                ways += [f"use --nodes {fitting}:{nodes} if it grows by itself"] if fitting else []
                ways += ["wait for those that are coming, by --wait-for-nodes MINUTES"]
            raise InputError(
                f"the cluster at {profile.dashboard} has {fitting} nodes with {each}, {nodes} were asked for. "
                f"{', or '.join(ways)}."
            )
        if fitting != said:
            say(f"waiting for nodes: {fitting} of {nodes}")
        said = fitting
        time.sleep(LOOK_SECONDS)
    if (warning := forgotten_gpus(profile)) is not None:
        say(f"warning: {warning}")


def _fitting(profile: Profile, nodes: int) -> int:
    """How many nodes can hold their share of workers."""
    slots = worker_slots(execution_on(profile, (nodes, nodes)), profile.dashboard)
    return sum(slot >= profile.workers_per_node for slot in slots.values())
