"""Sending to a cluster what was decided, as Ray jobs: a campaign's driver, or a single evaluation."""

import re
import shlex
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from ray.job_submission import JobSubmissionClient

from alexvgg import attempts
from alexvgg.attempts import Attempt, Claim, Silence
from alexvgg.campaign.overview import overview
from alexvgg.campaign.plan import Campaign, Evaluation
from alexvgg.config import Execution, to_dict
from alexvgg.data.store import Store, open_store
from alexvgg.errors import InputError
from alexvgg.keys import evaluation_folder, run_folder
from alexvgg.lease import is_ending, turns
from alexvgg.request import Request
from alexvgg.tracking.provenance import look_at_code, remember_code
from jobs.client import ENDED, jobs_of, unused
from jobs.ray_jobs import ENVIRONMENT, start

Say = Callable[[str], None]

LOOK_SECONDS = 1.0  # between looks at a driver that is being stopped
STOP_SECONDS = 30.0

# A driver ends after the trainings that it stops, and they after their checkpoints.
DRIVER_ENVIRONMENT = ENVIRONMENT | {"RAY_JOB_STOP_WAIT_TIME_S": "360"}


def send(
    campaign: Campaign, storage: Store, jobs: JobSubmissionClient, *, forgive: bool = True, say: Say = print
) -> tuple[str, bool]:
    """Start the campaign's driver as a Ray job, unless it is running: (job id, whether it is new).

    One that is ending is waited for. What was stopped goes on, and what failed before if it is forgiven.
    """
    for work in campaign.works:  # a driver that is at work looks for it, too
        records = attempts.history(storage, work.folder)
        if (state := attempts.standing(records)) == "stopped" or (state == "failed" and forgive):
            Attempt(storage, work.folder, records[-1].number).forgive()
            say(f"{work.node.name}, which {'failed' if state == 'failed' else 'was stopped'}, goes on")
    said = None
    while (running := _running(drivers := jobs_of(jobs, campaign.name, "driver", storage.url))) is not None:
        if not is_ending(storage, campaign.name, running):
            if others := _differences(Campaign.load(storage, campaign.name).execution, campaign.execution):
                say(f"it goes on as it was sent, with {others}: to change that, stop it first and submit it again")
            return running, False
        if running != said:
            say(f"{running} is ending; waiting for that")
        said = running
        time.sleep(LOOK_SECONDS)
    noted = remember_code(storage, look_at_code())
    replace(campaign, execution=replace(campaign.execution, submitted=noted)).save(storage)
    held = [turn.fence for turn in turns(storage, campaign.name)]
    number = 1 + max([*_numbers(campaign.name, drivers), *held], default=0)
    # Only other storages' jobs are evaded: of two submissions at the same moment one has to be refused.
    job_id = unused(
        f"{campaign.name}-d{number}", [j for j in jobs_of(jobs) if j.metadata.get("storage") != storage.url]
    )
    try:
        jobs.submit_job(
            entrypoint=shlex.join(["python", "-m", "jobs.campaign", storage.url, campaign.name, job_id]),
            submission_id=job_id,
            metadata={"alexvgg": campaign.name, "kind": "driver", "storage": storage.url},
            runtime_env={"env_vars": DRIVER_ENVIRONMENT},
        )
    except RuntimeError:  # Ray refuses an id that exists: the same was submitted at the same moment
        if _running(jobs_of(jobs, campaign.name, "driver", storage.url)) != job_id:
            raise
        return job_id, False
    return job_id, True


def _differences(sent: Execution, asked: Execution) -> str:
    """How a campaign is carried out, where it isn't as asked: `workers 2 (not 8), micro_batch None (not 32)`."""
    kept = {"submitted", "job", "mlflow_url"}  # nobody asks for these
    then, now = to_dict(sent), to_dict(asked)
    return ", ".join(f"{key} {then[key]} (not {now[key]})" for key in now.keys() - kept if then[key] != now[key])


def _numbers(campaign: str, drivers: Sequence[Any]) -> list[int]:
    """Those in the drivers' ids: one that ended before it held the lease has used its id up, too."""
    found = (re.match(rf"{re.escape(campaign)}-d(\d+)", j.submission_id) for j in drivers)
    return [int(match[1]) for match in found if match is not None]


def stop(jobs: JobSubmissionClient, job: str) -> bool:
    """Ask a job to stop; False if it had ended. Returns when a campaign's runs know it, and who goes on waits for them.

    At the latest after STOP_SECONDS: then the driver doesn't hear, and Ray ends it. If a driver is gone, what it
    started is asked itself.
    """
    about = jobs.get_job_info(job).metadata or {}
    if not jobs.stop_job(job):
        stopped = [jobs.stop_job(child) for child in _children(jobs, about)]
        return any(stopped)
    if about.get("kind") == "driver":
        storage, deadline = open_store(about["storage"]), time.monotonic() + STOP_SECONDS
        while (
            jobs.get_job_status(job) not in ENDED
            and not is_ending(storage, about["alexvgg"], job)
            and time.monotonic() < deadline
        ):
            time.sleep(LOOK_SECONDS / 4)
    return True


def driven_by(jobs: JobSubmissionClient, job: str) -> str | None:
    """The campaign that a job belongs to, if its driver is at work: it may start the next attempt."""
    about = jobs.get_job_info(job).metadata or {}
    campaign = about.get("campaign")
    if campaign is None or _running(jobs_of(jobs, campaign, "driver", about["storage"])) is None:
        return None
    return str(campaign)


def _children(jobs: JobSubmissionClient, about: Mapping[str, str]) -> list[str]:
    """The jobs that a campaign's drivers have started and that go on, unless one of these drivers is at work."""
    if about.get("kind") != "driver":
        return []
    campaign, ours = about["alexvgg"], jobs_of(jobs, storage=about["storage"])
    if _running([j for j in ours if (j.metadata["alexvgg"], j.metadata["kind"]) == (campaign, "driver")]) is not None:
        return []
    return [str(j.submission_id) for j in ours if j.metadata.get("campaign") == campaign and j.status not in ENDED]


def go_on(
    name: str, storage: Store, jobs: JobSubmissionClient, *, forgive: bool, mlflow: str | None = None, say: Say = print
) -> list[tuple[str, bool]]:
    """`send` each unfinished campaign of that name, or with a run of that name, as it was planned.

    `mlflow` is where the server is by now, if it is known.
    Raises NotFoundError, and InputError if there is nothing to go on with or only a retry would help.
    """
    found = overview(storage).about(name).campaigns
    unfinished = [c for c in found if not c.is_done]
    if not found:
        raise InputError(f"{name} belongs to no campaign: give the command that began it once more")
    if not unfinished:
        raise InputError(f"all of {', '.join(c.name for c in found)} is finished: there is nothing to go on with")
    campaigns = [Campaign.load(storage, c.name) for c in unfinished]  # first of all, can they be read?
    failed = [w.name for c in unfinished for w in c.works if w.phase == "failed"]
    if forgive and not failed:
        raise InputError(f"nothing of {name} has failed; `alexvgg resume {name}` goes on with what was stopped")
    if failed and not forgive:
        raise InputError(f"{failed[0]} failed; when its cause is mended, `alexvgg retry {failed[0]}` tries again")
    sent = []
    for campaign in campaigns:
        execution = replace(campaign.execution, mlflow_url=mlflow or campaign.execution.mlflow_url)
        sent.append(send(replace(campaign, execution=execution), storage, jobs, forgive=forgive, say=say))
    return sent


def give_up(jobs: JobSubmissionClient, job: str) -> None:
    """End the live attempts that a campaign has started, or a single one, at once: what came after the last checkpoint
    is lost."""
    about = jobs.get_job_info(job).metadata or {}
    if about.get("kind") not in ("driver", "training", "evaluation"):
        return
    storage, campaign = open_store(about["storage"]), None
    if about["kind"] == "driver":
        campaign = about["alexvgg"]
        folders = [work.folder for work in Campaign.load(storage, campaign).works]
    else:
        folder_of = run_folder if about["kind"] == "training" else evaluation_folder
        folders = [folder_of(about["alexvgg"])]
    for folder in folders:
        records = attempts.history(storage, folder)
        if attempts.standing(records) == "live" and campaign in (None, records[-1].claim.campaign):
            Attempt(storage, folder, records[-1].number).end("stopped", "stopped without a checkpoint")


def send_evaluation(
    request: Request, execution: Execution, storage: Store, jobs: JobSubmissionClient, say: Say = print
) -> tuple[str, bool]:
    """Start one evaluation as a Ray job without a driver, unless it is running: (job id, whether it is new).

    Raises InputError if it is carried out on another cluster.
    """
    work = Evaluation(request)
    records = attempts.history(storage, work.folder)
    if attempts.standing(records) == "live":
        job = records[-1].claim.job
        states = {j.submission_id: j.status for j in jobs_of(jobs, request.name, storage=storage.url)}
        if job in states and states[job] not in ENDED:
            return job, False
        last = Attempt(storage, work.folder, records[-1].number)
        if job not in states and last.outcome() is None:
            say(f"this cluster doesn't know {job}; looking whether it lives on another one, for at most half a minute")
            _wait_for_silence(last, job)
        last.end("lost", "its job is gone from the cluster")
    number = len(records) + 1
    claim = Claim(unused(f"{request.name}-a{number}", jobs_of(jobs)), to_dict(execution))
    work.describe(storage)
    if not Attempt(storage, work.folder, number).claim(claim):
        return claim.job, False
    start(jobs, storage.url, work, number, claim)
    return claim.job, True


def _wait_for_silence(attempt: Attempt, job: str) -> None:
    silence = Silence(attempt)
    while not silence.is_over():
        if silence.heard:
            raise InputError(f"{job} carries it out on another cluster; wait for that, or stop it there")
        time.sleep(LOOK_SECONDS)


def _running(jobs: Sequence[Any]) -> str | None:
    """The id of the newest of `jobs` that hasn't ended."""
    return next((str(j.submission_id) for j in reversed(jobs) if j.status not in ENDED), None)
