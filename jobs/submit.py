"""Deciding what a submission would start, checking that it can, and sending it through Ray's Jobs API."""

import shlex
from dataclasses import dataclass
from typing import Any

from ray.job_submission import JobSubmissionClient

from alexvgg.config import Execution, RunSpec, from_dict
from alexvgg.data.store import Store
from alexvgg.errors import InputError
from alexvgg.models import size
from alexvgg.profiles import Profile
from alexvgg.runs import clear_failure, read_run
from jobs.campaign import Campaign
from jobs.client import ENDED, jobs_of

# Of the driver; Ray Train hands its own variables on to its workers.
ENVIRONMENT = {
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "RAY_TRAIN_ENABLE_STATE_TRACKING": "1",
    "RAY_TRAIN_ENABLE_PRINT_PATCH": "0",  # it would print every line twice
    "PYTHONWARNINGS": "ignore:`ExecutionOptions.exclude_resources`",  # Ray warns itself of itself
    "OMP_WAIT_POLICY": "PASSIVE",  # as `alexvgg.cli` sets it for a plain process, and why
    "RAY_JOB_STOP_WAIT_TIME_S": "60",  # between SIGTERM and SIGKILL: time for a checkpoint
}


@dataclass(frozen=True)
class Step:
    """One run of a submission: its spec, what storage says about it, its number of parameters."""

    spec: RunSpec
    state: str
    params: int


@dataclass(frozen=True)
class Submission:
    """What would be started, parents first; the last run is the one asked for."""

    steps: tuple[Step, ...]
    nodes: int
    execution: Execution

    @property
    def target(self) -> str:
        return self.steps[-1].spec.name

    @property
    def pending(self) -> list[Step]:
        return [s for s in self.steps if s.state != "finished"]

    def to_dict(self) -> dict[str, Any]:
        """For `--json`: all runs, parents first, with what each needs."""
        e = self.execution
        resources = {"nodes": self.nodes, "workers": e.workers, "gpus_per_worker": e.gpus_per_worker}
        runs = [
            {
                "name": s.spec.name, "recipe": s.spec.recipe, "model": s.spec.model.name,
                "parent": s.spec.parent.run if s.spec.parent else None,
                "how": s.spec.parent.how if s.spec.parent else s.spec.init.kind,
                "scale": s.spec.data.train_scale, "state": s.state, "params": s.params,
                "epochs": s.spec.train.epochs, "global_batch": s.spec.train.global_batch, "lr": s.spec.train.lr,
                "resources": resources,
            }
            for s in self.steps
        ]  # fmt: skip
        return {"target": self.target, "runs": runs, "dataset": e.dataset_url, "storage": e.storage_url}


def decide(
    runs: list[RunSpec],
    profile: Profile,
    nodes: int,
    storage: Store,
    *,
    retry: bool = False,
    **how: Any,
) -> Submission:
    """What submitting `runs` would do, given what the storage says about them; `how` are more of Execution's fields.

    Raises InputError if a run has failed before, unless `retry`.
    """
    steps = []
    for spec in runs:
        record = read_run(storage, spec.name)
        if record.state == "failed" and not retry:
            first = str(record.error).strip().splitlines()[-1]
            raise InputError(
                f"{spec.name} failed before: {first} When its cause is mended, submit again with --retry; "
                "it goes on from its last checkpoint."
            )
        m = spec.model
        params = size(m.name, num_classes=m.num_classes, width=m.width, crop=m.crop).params
        steps.append(Step(spec, record.state, params))
    where = {"dataset_url": profile.dataset, "storage_url": profile.storage, "mlflow_url": profile.mlflow}
    workers = {"workers": nodes * profile.workers_per_node, "gpus_per_worker": 1 if profile.gpus_per_node else 0}
    execution = from_dict(Execution, {**where, **workers, **how})
    return Submission(tuple(steps), nodes, execution)


def check_cluster(profile: Profile, nodes: int) -> None:
    """Raise InputError if fewer nodes than `nodes` can hold the workers: Ray would wait for ever."""
    from ray.util.state import list_nodes

    gpus = profile.gpus_per_node
    fitting = [
        n
        for n in list_nodes(address=profile.dashboard, limit=10_000, raise_on_missing_output=False)
        if n.state == "ALIVE"
        and n.resources_total.get("CPU", 0) >= profile.workers_per_node
        and n.resources_total.get("GPU", 0) >= gpus
    ]
    if len(fitting) < nodes:
        each = f"{gpus} GPUs" if gpus else "a free CPU"
        raise InputError(
            f"the cluster at {profile.dashboard} has {len(fitting)} nodes with {each}, {nodes} were asked for. "
            f"Use --nodes {max(1, len(fitting))}, or add nodes."
        )


def send(submission: Submission, storage: Store, jobs: JobSubmissionClient) -> tuple[str, bool]:
    """Start the campaign as a Ray job, unless it is running: (job id, whether it is new)."""
    earlier = jobs_of(jobs, submission.target)
    for job in earlier:
        if job.status not in ENDED:
            return job.submission_id, False
    for step in submission.pending:
        clear_failure(storage, step.spec.name)
    campaign = Campaign(submission.target, tuple(s.spec for s in submission.steps), submission.execution)
    campaign.save(storage)
    job_id = f"{submission.target}-a{len(earlier) + 1}"
    jobs.submit_job(
        entrypoint=shlex.join(["python", "-m", "jobs.campaign", storage.url, campaign.name]),
        submission_id=job_id,
        metadata={"alexvgg": submission.target, "nodes": str(submission.nodes)},
        runtime_env={"env_vars": ENVIRONMENT},
    )
    return job_id, True
