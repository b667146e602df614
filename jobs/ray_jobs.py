"""Starting the Ray jobs of attempts, and the cluster as a campaign's driver needs it."""

import os
import shlex
from collections.abc import Mapping
from typing import Any

from ray.job_submission import JobStatus, JobSubmissionClient

from alexvgg.attempts import Claim
from alexvgg.campaign.driver import JobState
from alexvgg.campaign.plan import Training, Work
from alexvgg.config import Execution, from_dict
from jobs.capacity import worker_slots
from jobs.client import ENDED, jobs_of, take_addresses_as_given, unused

# Of the jobs' own processes; Ray Train hands its own variables on to its workers.
ENVIRONMENT = {
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "RAY_TRAIN_ENABLE_STATE_TRACKING": "1",
    "RAY_TRAIN_ENABLE_PRINT_PATCH": "0",  # it would print every line twice
    "PYTHONWARNINGS": "ignore:`ExecutionOptions.exclude_resources`",  # Ray warns itself of itself
    "OMP_WAIT_POLICY": "PASSIVE",  # as `alexvgg.cli` sets it for a plain process, and why
    "RAY_JOB_STOP_WAIT_TIME_S": "300",  # between SIGTERM and SIGKILL: time for a validation and a checkpoint
}

# On a cluster that grows, a group of fixed size waits for its nodes: machines, their image, a spot market.
GROWING_ENVIRONMENT = {"RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "3600"}

# An elastic run may try to start on a node that Ray doesn't know to be lost yet. By default it waits there for 60 s.
ELASTIC_ENVIRONMENT = {"RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "15"}


class RayJobs:
    """The cluster that this process runs on, as a campaign's driver needs it (`alexvgg.campaign.driver.Jobs`)."""

    def __init__(self, storage_url: str, execution: Execution) -> None:
        os.environ.pop("RAY_API_SERVER_ADDRESS", None)
        self._client = JobSubmissionClient()  # finds the cluster of the job that this process is, by RAY_ADDRESS
        take_addresses_as_given()  # that one is asked for the dashboard once, not at every look
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
        there = sum(worker_slots(self._execution, self._client.get_address()).values())
        return max(0, max(there, self._execution.most_workers or 0) - taken)

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
    waiting = GROWING_ENVIRONMENT if execution.most_workers is not None else {}
    jobs.submit_job(
        entrypoint=shlex.join(["python", "-m", module, storage_url, work.node.name, str(attempt)]),
        submission_id=claim.job,
        metadata=about | ({"campaign": claim.campaign} if claim.campaign else {}),
        runtime_env={"env_vars": ENVIRONMENT | (ELASTIC_ENVIRONMENT if execution.min_workers is not None else waiting)},
    )


def _state(job: Any) -> JobState:
    return JobState(job.status not in ENDED, job.status == JobStatus.STOPPED, job.message or "")
