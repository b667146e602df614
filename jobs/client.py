"""Ray's Jobs API: finding our jobs on a cluster, following them, and starting those of a campaign.

Every job of ours says in its metadata what it is: `alexvgg` (the campaign, run or evaluation), `kind` (driver,
training, evaluation), in which `storage`, and if a driver started it `campaign`. One cluster may serve several
storages, and the same run may lie in each: so a job is ours by its id and its storage.
"""

import itertools
import os
import re
import shlex
import time
from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from ray.exceptions import AuthenticationError
from ray.job_submission import JobDetails, JobStatus, JobSubmissionClient
from ray.util.state import list_nodes
from ray.util.state.exception import RayStateApiException

from alexvgg.attempts import Claim
from alexvgg.campaign.driver import JobState
from alexvgg.campaign.plan import Training, Work
from alexvgg.config import Execution, from_dict
from alexvgg.errors import ClusterError, InputError, NotFoundError, nearest, resolve
from alexvgg.profiles import Profile
from jobs.access import TokenError, refuse_if_open

ENDED = (JobStatus.SUCCEEDED, JobStatus.FAILED, JobStatus.STOPPED)

FORGOTTEN = (
    "A cluster forgets its jobs and their logs when it ends; what runs have reached lies in the storage, where "
    "`alexvgg status` finds it and `alexvgg resume NAME` goes on."
)

PATIENCE_SECONDS = 300.0  # with a dashboard whose log is followed

# Ray Train says it of itself whenever a group starts (ray-project/ray issue 53727); it looks like an error and is none.
NOISE = re.compile(r".*core_worker\.cc.*'PreemptionWatcher'.*\n?")

# Of the jobs' own processes; Ray Train hands its own variables on to its workers.
ENVIRONMENT = {
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "RAY_TRAIN_ENABLE_STATE_TRACKING": "1",
    "RAY_TRAIN_ENABLE_PRINT_PATCH": "0",  # it would print every line twice
    "PYTHONWARNINGS": "ignore:`ExecutionOptions.exclude_resources`",  # Ray warns itself of itself
    "OMP_WAIT_POLICY": "PASSIVE",  # as `alexvgg.cli` sets it for a plain process, and why
    "RAY_JOB_STOP_WAIT_TIME_S": "60",  # between SIGTERM and SIGKILL: time for a checkpoint
}

# An elastic run may try to start on a node that Ray doesn't know to be lost yet. By default it waits there for 60 s.
ELASTIC_ENVIRONMENT = {"RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "15"}


@contextmanager
def asking(address: str | None) -> Iterator[None]:
    """Inside, what Ray refuses is a ClusterError: it raises plain RuntimeErrors, or its State API's own."""
    try:
        yield
    except (RuntimeError, RayStateApiException) as error:
        raise ClusterError(f"the cluster{f' at {address}' if address else ''} can't do that: {error}") from error


class Client(JobSubmissionClient):
    """Ray's Jobs API; what it refuses is a ClusterError."""

    def list_jobs(self) -> list[JobDetails]:
        with asking(self.get_address()):
            return super().list_jobs()

    def submit_job(self, **job: Any) -> str:
        with asking(self.get_address()):
            return super().submit_job(**job)

    def stop_job(self, job_id: str) -> bool:
        with asking(self.get_address()):
            return super().stop_job(job_id)

    def get_job_info(self, job_id: str) -> JobDetails:
        with asking(self.get_address()):
            return super().get_job_info(job_id)

    def get_job_status(self, job_id: str) -> JobStatus:
        return self.get_job_info(job_id).status

    def get_job_logs(self, job_id: str) -> str:
        with asking(self.get_address()):
            return super().get_job_logs(job_id)


def client(dashboard: str) -> JobSubmissionClient:
    """The Jobs API.

    Raises TokenError if it lets this shell not in, InputError if nothing answers there, or if it is on another machine
    and asks for no token.
    """
    refuse_if_open(dashboard)
    _take_addresses_as_given()
    try:
        return Client(dashboard)
    except AuthenticationError as error:
        raise TokenError(dashboard, shown="Authentication required" not in str(error)) from None
    except (ConnectionError, RuntimeError) as error:
        raise InputError(f"no Ray cluster answers at {dashboard}: {error}") from None


def _take_addresses_as_given() -> None:
    """From here on: Ray would take these instead of any dashboard that it is given."""
    for variable in ("RAY_API_SERVER_ADDRESS", "RAY_ADDRESS"):
        os.environ.pop(variable, None)


def jobs_of(
    jobs: JobSubmissionClient, target: str | None = None, kind: str | None = None, storage: str | None = None
) -> list[Any]:
    """The jobs of ours that the cluster knows, oldest first; only those for one target, kind or storage if given."""
    ours: list[Any] = [j for j in jobs.list_jobs() if j.submission_id and "alexvgg" in (j.metadata or {})]
    ours.sort(key=lambda j: j.start_time or 0)
    wanted = {"alexvgg": target, "kind": kind, "storage": storage}
    return [j for j in ours if all(value in (None, j.metadata.get(key)) for key, value in wanted.items())]


def unused(wanted: str, jobs: Iterable[Any]) -> str:
    """`wanted` as a job's id, or with a number if a job of another storage has it: Ray refuses ids that exist."""
    taken = {j.submission_id for j in jobs}
    return next(name for n in itertools.count(1) if (name := wanted if n == 1 else f"{wanted}-{n}") not in taken)


def find_job(
    jobs: JobSubmissionClient, storage: str, name: str | None, attempt: int | None = None, *, workers: bool = False
) -> str:
    """The id of a job by its own, or by what it is for, in a storage: a campaign, a run, an evaluation.

    Names may be cut short. A run may have its campaign's name: then the driver is meant, or with `attempt` or
    `workers` the job that trains. Without a name, the newest campaign's. Raises NotFoundError.
    """
    ours, where = jobs_of(jobs), f"of {storage} on the cluster at {jobs.get_address()}"
    if name in [j.submission_id for j in ours]:
        return str(name)
    found = [j for j in ours if j.metadata.get("storage") == storage]
    if name is None:
        found = [j for j in found if j.metadata["kind"] == "driver"]
    else:
        targets = {str(j.metadata["alexvgg"]) for j in found}
        if not any(target.startswith(name) for target in targets) and nearest(name, targets) is None:
            raise NotFoundError(f"there is no job for {name!r} {where}. {FORGOTTEN}")
        target = resolve(name, targets, where)
        found = [j for j in found if j.metadata["alexvgg"] == target]
        drivers = [j for j in found if j.metadata["kind"] == "driver"]
        if workers or attempt is not None:
            found = [j for j in found if j.metadata["kind"] != "driver"]
            if drivers and not found:
                raise NotFoundError(f"{target} has no workers yet {where}")
        elif drivers:
            found = drivers
        if attempt is not None:
            numbers = [j.metadata.get("attempt") for j in found]
            if str(attempt) not in numbers:
                raise NotFoundError(f"{target} has no attempt {attempt} {where}; it has {', '.join(map(str, numbers))}")
            found = [j for j in found if j.metadata.get("attempt") == str(attempt)]
    if not found:
        which = "such job" if name is not None else "job"
        raise NotFoundError(f"there is no {which} {where}. {FORGOTTEN}")
    return str(found[-1].submission_id)


def log_of(jobs: JobSubmissionClient, job_id: str) -> str:
    """What a job has printed so far."""
    return NOISE.sub("", jobs.get_job_logs(job_id))


def logs_of(jobs: JobSubmissionClient, job_id: str) -> Iterator[str]:
    """What the jobs that a job drives have printed so far, and then it itself."""
    for name in _driven({j.submission_id: j for j in jobs_of(jobs)}, job_id):
        yield log_of(jobs, name)


def _driven(known: Mapping[str, Any], job_id: str, also: Container[str] = ()) -> list[str]:
    """The jobs that a job drives, or has driven, or that were `also` seen, before itself: it speaks of ends after them.

    Those that an earlier driver started and that have ended aren't among them.
    """
    driver = known[job_id]
    children = [
        name
        for name, j in known.items()
        if driver.metadata.get("kind") == "driver"
        and j.metadata.get("campaign") == driver.metadata["alexvgg"]
        and j.metadata.get("storage") == driver.metadata.get("storage")
        and (j.status not in ENDED or name in also or j.start_time >= driver.start_time)
    ]
    return [*children, job_id]


def follow(jobs: JobSubmissionClient, job_id: str, say: Callable[[str], None] = lambda _: None) -> Iterator[str]:
    """A job's log as it grows, and those of the jobs that it drives, until it ends.

    Goes on where it was if the connection breaks, after saying so. Raises NotFoundError if the cluster has forgotten
    the job, and ConnectionError if it doesn't answer for PATIENCE_SECONDS.
    """
    seen: dict[str, int] = {}
    closed: set[str] = set()
    broken: float | None = None
    while job_id not in closed:
        try:
            for name, text, ended in _grown(jobs, job_id, seen, closed):
                if more := text[seen.get(name, 0) :]:
                    yield more
                seen[name] = len(text)
                if ended:
                    closed.add(name)
            broken = None
        except (OSError, RuntimeError, AuthenticationError) as error:  # requests' errors, and Ray's for a refusal
            if broken is None:
                broken = time.monotonic()
                say(f"{jobs.get_address()} doesn't answer; trying again. The job goes on meanwhile")
            elif time.monotonic() - broken > PATIENCE_SECONDS:
                raise ConnectionError(f"{jobs.get_address()} doesn't answer: {error}") from error
        time.sleep(1.0)


def _grown(
    jobs: JobSubmissionClient, job_id: str, seen: Mapping[str, int], closed: Container[str]
) -> Iterator[tuple[str, str, bool]]:
    """(job, its log in whole lines, whether that is all) of those that have more to show, or have ended."""
    known = {j.submission_id: j for j in jobs_of(jobs)}
    if job_id not in known:
        raise NotFoundError(f"the cluster at {jobs.get_address()} doesn't know {job_id} any more: was it built anew?")
    for name in [n for n in _driven(known, job_id, seen) if n not in closed]:
        text, ended = log_of(jobs, name), known[name].status in ENDED
        text = text if ended else text[: text.rfind("\n") + 1]
        if ended or len(text) > seen.get(name, 0):
            yield name, text, ended


def worker_slots(execution: Execution, address: str | None = None) -> dict[str, int]:
    """How many workers each living node could hold if it were empty: without GPUs one, which takes all its CPUs.

    `address` is the dashboard's, if not our own.
    """
    gpus = execution.gpus_per_worker
    slots = {}
    for node in living_nodes(address):
        cpu, gpu = node.resources_total.get("CPU", 0), node.resources_total.get("GPU", 0)
        slots[node.node_id] = int(min(cpu, gpu // gpus if gpus else 1))
    return slots


def living_nodes(address: str | None = None) -> list[Any]:
    """Of the cluster with this dashboard, or of our own."""
    with asking(address):
        nodes = list_nodes(address=address, limit=10_000, raise_on_missing_output=False)
    return [n for n in nodes if n.state == "ALIVE"]


def forgotten_gpus(profile: Profile) -> str | None:
    """What to say if the nodes have GPUs and the profile has none."""
    if profile.gpus_per_node:
        return None
    most = max((int(n.resources_total.get("GPU", 0)) for n in living_nodes(profile.dashboard)), default=0)
    if not most:
        return None
    return f"nodes have up to {most} GPUs, but the profile's gpus_per_node is 0: runs train on CPUs"


class RayJobs:
    """The cluster that this process runs on, as a campaign's driver needs it (`alexvgg.campaign.driver.Jobs`)."""

    def __init__(self, storage_url: str, execution: Execution) -> None:
        os.environ.pop("RAY_API_SERVER_ADDRESS", None)
        self._client = JobSubmissionClient()  # finds the cluster of the job that this process is, by RAY_ADDRESS
        _take_addresses_as_given()  # that one is asked for the dashboard once, not at every look
        self._storage_url, self._execution = storage_url, execution
        self._jobs: list[Any] = []

    def states(self) -> Mapping[str, JobState]:
        self._jobs = jobs_of(self._client)
        return {j.submission_id: _state(j) for j in self._jobs if j.metadata.get("storage") == self._storage_url}

    def has_ended(self, job: str) -> bool:
        """Whether the cluster knows the job and that it has ended."""
        state = self.states().get(job)
        return state is not None and not state.active

    def free_workers(self) -> int:
        taken = sum(int(j.metadata.get("workers", 0)) for j in self._jobs if j.status not in ENDED)
        return max(0, sum(worker_slots(self._execution, self._client.get_address()).values()) - taken)

    def name(self, work: str, attempt: int) -> str:
        return unused(f"{work}-a{attempt}", self._jobs)

    def start(self, work: Work, attempt: int, claim: Claim) -> None:
        start(self._client, self._storage_url, work, attempt, claim)

    def stop(self, job: str) -> None:
        self._client.stop_job(job)


def start(jobs: JobSubmissionClient, storage_url: str, work: Work, attempt: int, claim: Claim) -> None:
    """Start the Ray job of an attempt that was claimed."""
    kind = "training" if isinstance(work, Training) else "evaluation"
    module = "jobs.train" if isinstance(work, Training) else "jobs.evaluate"
    execution = from_dict(Execution, claim.execution)
    about = {
        "alexvgg": work.node.name, "kind": kind, "attempt": str(attempt), "storage": storage_url,
        "workers": str(execution.workers),
    }  # fmt: skip
    jobs.submit_job(
        entrypoint=shlex.join(["python", "-m", module, storage_url, work.node.name, str(attempt)]),
        submission_id=claim.job,
        metadata=about | ({"campaign": claim.campaign} if claim.campaign else {}),
        runtime_env={"env_vars": ENVIRONMENT | (ELASTIC_ENVIRONMENT if execution.min_workers is not None else {})},
    )


def _state(job: Any) -> JobState:
    return JobState(job.status not in ENDED, job.status == JobStatus.STOPPED, job.message or "")
