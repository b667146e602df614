"""What jobs and their workers print: so far, or as it grows."""

import re
import time
import urllib.parse
from collections.abc import Callable, Container, Iterator, Mapping
from typing import Any

from ray.exceptions import AuthenticationError
from ray.job_submission import JobSubmissionClient

from alexvgg.errors import NotFoundError
from jobs.access import get
from jobs.client import ENDED, jobs_of
from jobs.groups import groups

PATIENCE_SECONDS = 300.0  # with a dashboard whose log is followed

# Ray Train says it of itself whenever a group starts (ray-project/ray issue 53727); it looks like an error and is none.
NOISE = re.compile(r".*core_worker\.cc.*'PreemptionWatcher'.*\n?")

MARKERS = (b":job_id:", b":actor_name:")  # Ray's own lines in a worker's file


def log_of(jobs: JobSubmissionClient, job_id: str) -> str:
    """What a job has printed so far."""
    return NOISE.sub("", jobs.get_job_logs(job_id))


def logs_of(jobs: JobSubmissionClient, job_id: str) -> Iterator[str]:
    """What the jobs that a job drives have printed so far, and then it itself; headed as by `tail` if there are any."""
    names = _driven({j.submission_id: j for j in jobs_of(jobs)}, job_id)
    for before, name in enumerate(names):
        if len(names) > 1:
            yield "\n" * bool(before) + f"==> {name} <==\n"
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


def worker_log(dashboard: str, job: str, rank: int, *, follow: bool) -> Iterator[str]:
    """What one worker of a job has printed; with `follow`, and prints until it ends. Raises NotFoundError."""
    group = groups(dashboard).get(job)
    if group is None:
        raise NotFoundError(f"{job} has no workers, or the cluster has forgotten them")
    worker = next((w for w in group.workers if w.rank == rank), None)
    if worker is None:
        raise NotFoundError(f"{job} has ranks 0 to {len(group.workers) - 1}, no rank {rank}")
    # As `ray logs actor` asks for it; that command knows only the cluster's own address, not the dashboard's.
    query = urllib.parse.urlencode({"actor_id": worker.actor, "suffix": "out", "lines": -1})
    with get(dashboard, f"/api/v0/logs/{'stream' if follow else 'file'}?{query}") as answer:
        for line in answer:
            if not line.startswith(MARKERS):
                yield line.decode(errors="replace")
