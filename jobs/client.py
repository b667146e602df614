"""Ray's Jobs API: finding our jobs on a cluster and following them."""

import os
import time
from collections.abc import Iterator
from typing import Any

from ray.exceptions import AuthenticationError
from ray.job_submission import JobStatus, JobSubmissionClient

from alexvgg.errors import InputError

ENDED = (JobStatus.SUCCEEDED, JobStatus.FAILED, JobStatus.STOPPED)


def client(dashboard: str) -> JobSubmissionClient:
    """The Jobs API. Raises InputError if nothing answers there, or it asks for a token that this shell hasn't."""
    os.environ.pop("RAY_ADDRESS", None)  # Ray would take it instead of the dashboard given
    try:
        return JobSubmissionClient(dashboard)
    except AuthenticationError as error:
        raise InputError(
            f"Ray at {dashboard} asks for a token: {str(error).splitlines()[0]}. Set RAY_AUTH_MODE=token and "
            "RAY_AUTH_TOKEN_PATH to a file that holds it."
        ) from None
    except (ConnectionError, RuntimeError) as error:
        raise InputError(f"no Ray cluster answers at {dashboard}: {error}") from None


def jobs_of(jobs: JobSubmissionClient, target: str | None = None) -> list[Any]:
    """The submissions that the cluster knows, oldest first; only those for one target run if it is given."""
    ours = [j for j in jobs.list_jobs() if j.submission_id and "alexvgg" in (j.metadata or {})]
    ours.sort(key=lambda j: j.start_time or 0)
    return [j for j in ours if target is None or (j.metadata or {})["alexvgg"] == target]


def follow(jobs: JobSubmissionClient, job_id: str) -> Iterator[str]:
    """A job's log as it grows, until the job ends; goes on where it was if the connection breaks."""
    seen = 0
    while True:
        ended = jobs.get_job_status(job_id) in ENDED
        text = jobs.get_job_logs(job_id)
        if len(text) > seen:
            yield text[seen:]
            seen = len(text)
        if ended:
            return
        time.sleep(1.0)
