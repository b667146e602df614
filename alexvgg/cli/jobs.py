"""`alexvgg logs`, `alexvgg stop`, `alexvgg resume`, `alexvgg retry`"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from alexvgg.cli.names import run_names
from alexvgg.cli.options import flags_of, insecure_option, place_options
from alexvgg.cli.place import connect, open_place
from alexvgg.cli.progress import say
from alexvgg.exits import Exit

if TYPE_CHECKING:
    from ray.job_submission import JobSubmissionClient

    from alexvgg.profiles import Profile
    from alexvgg.runs import PlainRun


@click.command()
@click.argument("name", required=False, shell_complete=run_names)
@click.option("-f", "--follow", is_flag=True, help="Go on until the job ends; Ctrl-C detaches and stops nothing.")
@click.option("--attempt", type=click.IntRange(min=1), help="Of a run: this attempt's log instead of the newest's.")
@click.option("--rank", type=click.IntRange(min=0), help="Of a run: this worker's own output.")
@place_options("storage")
@insecure_option
def logs(
    name: str | None, follow: bool, attempt: int | None, rank: int | None, profile: str | None, storage: str | None
) -> None:
    """Print the log of a campaign, a run, an evaluation or a job: the newest campaign's if none is named.

    A campaign's driver starts a job for each run; followed, it shows their logs, too.

    \b
    Examples:
      alexvgg logs -f
      alexvgg logs vgg_e-s256-3f2a91c4 --attempt 1
      alexvgg logs vgg_e-s256 --rank 3 -f
    """
    from alexvgg.data.store import open_store
    from alexvgg.errors import InputError

    if name is None and (attempt, rank) != (None, None):
        raise InputError("--attempt and --rank are of a run; name it: `alexvgg status` shows the runs")
    plain = _plain(name, profile, storage)
    if plain is not None and not plain.planned:
        raise InputError(f"{plain.name} is {plain.record.claim.job}'s, which prints where it was started")
    place, jobs = connect(profile, storage=storage)
    from jobs.client import find_job
    from jobs.logs import logs_of, worker_log

    job = find_job(jobs, open_store(place.storage).url, name, attempt, workers=rank is not None)
    if rank is not None:
        silent = True
        for text in worker_log(jobs.get_address(), job, rank, follow=follow):
            click.echo(text, nl=False)
            silent = False
        if silent:
            say(f"rank {rank} has printed nothing: rank 0 speaks for all, others only of what goes wrong on them")
    elif follow:
        sys.exit(follow_to_end(jobs, job, flags_of(profile=profile, storage=storage)))
    else:
        for text in logs_of(jobs, job):
            click.echo(text, nl=False)


@click.command()
@click.argument("name", required=False, shell_complete=run_names)
@click.option("--now", is_flag=True, help="Don't wait for a checkpoint: what came after the last one is lost.")
@place_options("storage")
@insecure_option
def stop(name: str | None, now: bool, profile: str | None, storage: str | None) -> None:
    """Stop a campaign, a run or an evaluation: the newest campaign if none is named.

    A run that trains ends after a checkpoint. `alexvgg resume`, or submitting the same again, goes on from there. A
    run of `alexvgg train` hears of it through the storage.

    \b
    Examples:
      alexvgg stop
      alexvgg stop vgg_e-s256-3f2a91c4 --now
    """
    from alexvgg.data.store import open_store

    plain, options = _plain(name, profile, storage), flags_of(profile=profile, storage=storage)
    if plain is not None and (plain.record.end is None or not plain.planned):
        _stop_plain(plain, options, now=now)
        return
    place, jobs = connect(profile, storage=storage)
    from jobs import submit
    from jobs.client import find_job

    job = find_job(jobs, open_store(place.storage).url, name)
    if now:
        submit.give_up(jobs, job)
    about = jobs.get_job_info(job).metadata or {}
    resumable = about.get("kind") in ("driver", "training")
    goes_on = f"`alexvgg resume {about['alexvgg']}{options}` goes on" if resumable else "the same command goes on"
    if not submit.stop(jobs, job):
        click.echo(f"{job} had ended already")
        if (campaign := submit.driven_by(jobs, job)) is not None:
            say(f"its campaign may start the next attempt: `alexvgg stop {campaign}{options}` stops that")
    elif now:
        click.echo(f"{job} is stopped; {goes_on}")
    else:
        click.echo(f"{job} is stopping: what trains ends after a checkpoint, as `alexvgg status{options}` shows")
        say(goes_on)


@click.command()
@click.argument("name", required=False, shell_complete=run_names)
@place_options("storage")
@insecure_option
def resume(name: str | None, profile: str | None, storage: str | None) -> None:
    """Go on with a campaign that was stopped, or whose driver is gone, from the checkpoints of its runs.

    That is the newest campaign that isn't finished if none is named.

    \b
    Examples:
      alexvgg resume
      alexvgg resume vgg_e-s256-3f2a91c4
    """
    _go_on(name, profile, storage, forgive=False)


@click.command()
@click.argument("name", shell_complete=run_names)
@place_options("storage")
@insecure_option
def retry(name: str, profile: str | None, storage: str | None) -> None:
    """Go on with a run that failed, and with the campaigns that it kept back.

    \b
    Example:
      alexvgg retry vgg_e-s256-3f2a91c4
    """
    _go_on(name, profile, storage, forgive=True)


def _go_on(name: str | None, profile: str | None, storage: str | None, *, forgive: bool) -> None:
    from alexvgg.campaign.overview import overview
    from alexvgg.data.store import open_store
    from alexvgg.errors import InputError, NotFoundError

    plain = _plain(name, profile, storage)
    if plain is not None and not plain.planned:
        raise InputError(f"{plain.name} belongs to no campaign: give the `alexvgg train` that began it once more")
    place, jobs = connect(profile, storage=storage)
    from jobs.submit import go_on

    store, options = open_store(place.storage), flags_of(profile=profile, storage=storage)
    if name is None:
        unfinished = [c.name for c in overview(store).campaigns if not c.is_done]
        if not unfinished:
            raise NotFoundError(f"{store.url} has no campaign that isn't finished; `alexvgg submit` starts one")
        name = unfinished[-1]
    for job, new in go_on(name, store, jobs, forgive=forgive, mlflow=place.mlflow, say=say):
        print_sent(place, job, options, new=new)


def _plain(name: str | None, profile: str | None, storage: str | None) -> PlainRun | None:
    if name is None:
        return None
    from alexvgg.data.store import open_store
    from alexvgg.runs import plain_run

    return plain_run(open_store(open_place(profile, storage=storage).storage), name)


def _stop_plain(run: PlainRun, options: str, *, now: bool) -> None:
    from alexvgg.attempts import seems_alive

    process = run.record.claim.job
    if run.record.end is not None:
        click.echo(f"{process}, which trained {run.name}, had ended already: {run.record.end.outcome}")
    elif not seems_alive(run.attempt, run.record.claim):
        click.echo(f"{process}, which trained {run.name}, is gone")
    elif now:
        run.attempt.end("stopped", "stopped without a checkpoint")
        click.echo(f"{process} is asked to end at once")
    else:
        run.attempt.ask_to_stop()
        click.echo(f"{process} is asked to end after a checkpoint")
    if run.planned:
        say(f"its campaign may go on with it then: `alexvgg stop {run.name}{options}`, once more, stops that")
    else:
        say("to go on, give the same `alexvgg train` command again")


def print_sent(place: Profile, job: str, options: str, *, new: bool) -> None:
    """What was sent, where to watch it, and how to end it. `options`, like ` --profile lab`, are added to commands."""
    from alexvgg.tracking.pages import runs_page

    assert place.dashboard is not None, "it was sent there"
    mlflow = "not configured" if place.mlflow is None else runs_page(place.mlflow, make=True)
    click.echo(f"{'Submitted' if new else 'Already running:'} {job}")
    click.echo(f"  Ray dashboard  {place.dashboard.rstrip('/')}/#/jobs/{job}")
    click.echo(f"  MLflow         {mlflow}")
    click.echo(f"  follow         alexvgg logs {job} -f{options}")
    click.echo(f"  state          alexvgg status{options}")
    click.echo(f"  stop           alexvgg stop {job}{options}")


def follow_to_end(jobs: JobSubmissionClient, job: str, options: str = "", *, aside: bool = False) -> Exit:
    """Print a job's log until it ends and return the exit code that says how. Ctrl-C detaches.

    `options`, like ` --profile lab`, are added to commands. `aside` prints it to stderr: stdout has something else.
    """
    from ray.job_submission import JobStatus

    from jobs.logs import follow

    try:
        for text in follow(jobs, job, say):
            click.echo(text, nl=False, err=aside)
    except KeyboardInterrupt:
        say(
            f"detached; {job} goes on. `alexvgg logs {job} -f{options}` shows it again, `alexvgg stop {job}{options}` "
            "stops it."
        )
        return Exit.INTERRUPTED
    except ConnectionError as error:
        say(f"{error}. {job} may go on; `alexvgg logs {job} -f{options}` shows it again.")
        return Exit.FAILED
    end = jobs.get_job_status(job)
    return {JobStatus.SUCCEEDED: Exit.DONE, JobStatus.STOPPED: Exit.JOB_STOPPED}.get(end, Exit.JOB_FAILED)
