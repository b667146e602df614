"""`alexvgg status`, `alexvgg logs`, `alexvgg stop`"""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

import click

from alexvgg.cli.place import connect, profile_option, say

if TYPE_CHECKING:
    from ray.job_submission import JobSubmissionClient

# Exit codes of commands that report on a job.
JOB_FAILED, NOT_FOUND, STOPPED = 100, 102, 103


@click.command()
@profile_option
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def status(profile: str | None, as_json: bool) -> None:
    """Show every run in the storage and every job on the cluster.

    \b
    Example:
      alexvgg status
    """
    from alexvgg.data.store import open_store
    from alexvgg.runs import list_runs

    place, cluster = connect(profile)
    from jobs.client import jobs_of

    jobs = [
        {"job": j.submission_id, "run": j.metadata["alexvgg"], "status": j.status.value, "message": j.message}
        for j in jobs_of(cluster)
    ]
    runs = []
    for r in list_runs(open_store(place.storage)):
        epoch = r.last_epoch
        runs.append({
            "run": r.name, "state": r.state, "error": r.error,
            "parent": r.spec.parent.run if r.spec and r.spec.parent else None,
            "epoch": epoch["epoch"] if epoch else 0, "epochs": r.spec.train.epochs if r.spec else None,
            "step": epoch["step"] if epoch else 0, "metrics": epoch["metrics"] if epoch else {},
            "attempts": sum(e["event"] == "start" for e in r.journal),
        })  # fmt: skip
    if as_json:
        click.echo(json.dumps({"runs": runs, "jobs": jobs}, indent=2))
        return
    click.echo(f"{'run':<30}{'state':<10}{'epoch':>8}{'step':>8}{'loss':>8}{'top-1 err':>11}{'attempts':>10}")
    for run in runs:
        m: dict[str, Any] = run["metrics"]
        loss = f"{m['train/loss_epoch']:.3f}" if m else "-"
        error = f"{m['val/top1_error']:.1f} %" if m else "-"
        epochs = f"{run['epoch']}/{run['epochs']}"
        click.echo(
            f"{run['run']:<30}{run['state']:<10}{epochs:>8}{run['step']:>8}{loss:>8}{error:>11}{run['attempts']:>10}"
        )
        if run["error"]:
            click.echo(f"  {str(run['error']).strip().splitlines()[-1]}")
    click.echo()
    click.echo(f"{'job':<36}{'status':<12}")
    for job in jobs:
        click.echo(f"{job['job']:<36}{job['status']:<12}")


@click.command()
@click.argument("job", required=False)
@click.option("-f", "--follow", is_flag=True, help="Go on until the job ends; Ctrl-C detaches and stops nothing.")
@profile_option
def logs(job: str | None, follow: bool, profile: str | None) -> None:
    """Print a job's log: the newest submission's if none is named.

    A submission's job (…-d1) drives one job for each run (…-a1); followed, it shows their logs, too.

    \b
    Examples:
      alexvgg logs -f
      alexvgg logs vgg_e-s256-3f2a91c4-d1
    """
    _, jobs = connect(profile)
    name = _known_job(jobs, job)
    if follow:
        sys.exit(follow_to_end(jobs, name))
    click.echo(jobs.get_job_logs(name), nl=False)


@click.command()
@click.argument("job", required=False)
@profile_option
def stop(job: str | None, profile: str | None) -> None:
    """Stop a job: the newest submission if none is named. A run that trains ends after a checkpoint.

    Submitting the same thing again goes on from there.

    \b
    Example:
      alexvgg stop vgg_e-s256-3f2a91c4-d1
    """
    _, jobs = connect(profile)
    name = _known_job(jobs, job)
    stopped = jobs.stop_job(name)
    click.echo(f"{name} is stopped; submit again to go on" if stopped else f"{name} had ended already")


def follow_to_end(jobs: JobSubmissionClient, job: str) -> int:
    """Print a job's log until it ends and return the exit code that says how. Ctrl-C detaches."""
    from ray.job_submission import JobStatus

    from jobs.client import follow

    try:
        for text in follow(jobs, job):
            click.echo(text, nl=False)
    except KeyboardInterrupt:
        say(f"detached; {job} goes on. `alexvgg logs {job} -f` shows it again, `alexvgg stop {job}` stops it.")
        return 130
    end = jobs.get_job_status(job)
    return {JobStatus.SUCCEEDED: 0, JobStatus.STOPPED: STOPPED}.get(end, JOB_FAILED)


def _known_job(jobs: JobSubmissionClient, job: str | None) -> str:
    from jobs.client import jobs_of

    found = jobs_of(jobs)
    known = [str(j.submission_id) for j in found]
    if not known or (job is not None and job not in known):
        say(f"alexvgg: no job {job!r} on this cluster; it has {', '.join(known)}" if known else "alexvgg: no job yet")
        sys.exit(NOT_FOUND)
    return (
        job or [str(j.submission_id) for j in found if "campaign" not in j.metadata][-1]
    )  # not one that a driver started
