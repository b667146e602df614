"""Ray's Jobs API, and finding our jobs on a cluster.

Every job of ours says in its metadata what it is: `alexvgg` (the campaign, run or evaluation), `kind` (driver,
training, evaluation), in which `storage`, and if a driver started it `campaign`. One cluster may serve several
storages, and the same run may lie in each: so a job is ours by its id and its storage.
"""

import itertools
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from ray.exceptions import AuthenticationError
from ray.job_submission import JobDetails, JobStatus, JobSubmissionClient
from ray.util.state.exception import RayStateApiException

from alexvgg.errors import InputError, NotFoundError, ServiceError, nearest, resolve
from jobs.access import TokenError, refuse_if_open

ENDED = (JobStatus.SUCCEEDED, JobStatus.FAILED, JobStatus.STOPPED)

FORGOTTEN = (
    "A cluster forgets its jobs and their logs when it ends; what runs have reached lies in the storage, where "
    "`alexvgg status` finds it and `alexvgg resume NAME` goes on."
)


@contextmanager
def asking(address: str | None) -> Iterator[None]:
    """Inside, what Ray refuses is a ServiceError: it raises plain RuntimeErrors, or its State API's own."""
    try:
        yield
    except (RuntimeError, RayStateApiException) as error:
        raise ServiceError(f"the cluster{f' at {address}' if address else ''} can't do that: {error}") from error


class Client(JobSubmissionClient):
    """Ray's Jobs API; what it refuses is a ServiceError."""

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
    take_addresses_as_given()
    try:
        return Client(dashboard)
    except AuthenticationError as error:
        raise TokenError(dashboard, shown="Authentication required" not in str(error)) from None
    except (ConnectionError, RuntimeError) as error:
        raise InputError(
            f"no Ray cluster answers at {dashboard}: {error}. Is its dashboard up, and can it be reached from here, as "
            "by `kubectl port-forward` or `ray dashboard`?"
        ) from None


def take_addresses_as_given() -> None:
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
