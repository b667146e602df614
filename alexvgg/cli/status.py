"""`alexvgg status` and `alexvgg list`"""

from __future__ import annotations

import json
import sys
import time
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from alexvgg.cli.place import alive, insecure_option, known_jobs, open_place, profile_option

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from alexvgg.campaign.overview import CampaignView, Overview, WorkView
    from jobs.groups import Group

WATCH_SECONDS = 2.0


@click.command()
@click.argument("name", required=False)
@click.option("-w", "--watch", is_flag=True, help="Show it anew every two seconds, until Ctrl-C.")
@profile_option
@insecure_option
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def status(name: str | None, watch: bool, profile: str | None, as_json: bool) -> None:
    """Show where campaigns and runs stand: all, or one campaign's.

    A campaign is what one submission started. Its name or a run's may be cut short as long as it is clear. What runs
    where comes from the storage, so any host can ask; if the cluster doesn't answer, what it alone knows is left out.

    \b
    Examples:
      alexvgg status
      alexvgg status vgg_e-s256 --watch
    """
    from alexvgg.campaign.overview import overview
    from alexvgg.data.store import open_store

    place = open_place(profile)
    from jobs.groups import groups  # only now: Ray reads where its token lies when it is imported

    storage = open_store(place.storage)
    while True:
        jobs = known_jobs(place)
        teams = groups(place.dashboard) if jobs is not None else {}
        view = overview(storage, alive(jobs))
        if name is not None:
            view = view.about(name)
        if as_json:
            more = {"jobs": jobs, "groups": {job: asdict(group) for job, group in teams.items()}}
            where = {"dashboard": place.dashboard, "mlflow": place.mlflow}
            click.echo(json.dumps(view.to_dict() | more | where, indent=2))
        else:
            where_lines = [
                f"Ray dashboard  {place.dashboard or '-'}",
                f"MLflow         {place.mlflow or '-'}",
            ]
            lines = [*format_overview(view, teams), *where_lines]
            if watch and sys.stdout.isatty():
                click.clear()
            click.echo("\n".join(lines))
        if not watch:
            return
        time.sleep(WATCH_SECONDS)


@click.command("list")
@profile_option
@insecure_option
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def list_campaigns(profile: str | None, as_json: bool) -> None:
    """List the campaigns, a line each: the newest last.

    \b
    Example:
      alexvgg list
    """
    from alexvgg.campaign.overview import overview
    from alexvgg.data.store import open_store

    place = open_place(profile)
    rows = []
    for c in overview(open_store(place.storage), alive(known_jobs(place))).campaigns:
        done, driver = sum(w.phase == "finished" for w in c.works), c.driver.phase if c.driver else None
        rows.append({"campaign": c.name, "driver": driver, "finished": done, "works": len(c.works)})
    if as_json:
        click.echo(json.dumps(rows, indent=2))
        return
    click.echo(f"{'campaign':<34}{'driver':<10}{'finished':>10}")
    for row in rows:
        click.echo(f"{row['campaign']:<34}{row['driver'] or '-':<10}{row['finished']:>6} of {row['works']}")


def format_overview(view: Overview, teams: Mapping[str, Group]) -> Iterator[str]:
    """The lines of `status`; `teams` are the workers of jobs, by job id."""
    for campaign in view.campaigns:
        yield from _campaign(campaign, teams)
        yield ""
    if view.runs:
        yield "Runs of no campaign"
        yield HEAD
        for work in view.runs:
            yield from _work(work, teams)
        yield ""
    if view.campaigns or view.runs:
        yield CROP
        yield ""
    else:
        yield "Nothing here yet: `alexvgg submit --model vgg_a` starts something."
        yield ""


HEAD = (
    f"  {'run':<28}{'state':<12}{'epoch':>7}{'step':>8}{'loss':>8}{'crop top-1':>12}{'images/s':>10}{'left':>9}"
    f"{'attempt':>9}"
)
CROP = "crop top-1: validation error of one crop an image, after an epoch; `alexvgg table` has the whole images'"
# Of a driver.
PHASES = {
    "running": "at work", "gone": "is gone", "finished": "has finished", "failed": "gave up", "stopped": "was stopped"
}  # fmt: skip


def _campaign(c: CampaignView, teams: Mapping[str, Group]) -> Iterator[str]:
    if c.error is not None:
        yield f"{c.name}: {c.error}"
        return
    done = sum(w.phase == "finished" for w in c.works)
    driver = f"driver {c.driver.job} {PHASES[c.driver.phase]}" if c.driver else "no driver yet"
    yield f"{c.name}: {done} of {len(c.works)} finished; {driver}"
    yield HEAD
    for work in c.works:
        yield from _work(work, teams)
    if c.driver is not None and c.driver.phase in ("gone", "stopped") and done < len(c.works):
        yield f"  `alexvgg resume {c.name}` goes on with it"


def _work(w: WorkView, teams: Mapping[str, Group]) -> Iterator[str]:
    p = w.progress
    epoch = f"{p.epoch}/{p.epochs}" if p else "-"
    step = f"{p.step}" if p else "-"
    loss = f"{p.loss:.3f}" if p and p.loss is not None else "-"
    error = f"{p.top1_error:.1f} %" if p and p.top1_error is not None else "-"
    speed = f"{p.images_per_s:.0f}" if p and p.images_per_s is not None else "-"
    left = duration(p.seconds_left) if p and p.seconds_left is not None and w.phase == "running" else "-"
    yield f"  {w.name:<28}{w.phase:<12}{epoch:>7}{step:>8}{loss:>8}{error:>12}{speed:>10}{left:>9}{w.attempt or '-':>9}"
    group = teams.get(w.job or "")
    if w.phase in ("starting", "running", "evaluating") and group is not None and group.workers:
        ranks = ", ".join(f"{worker.rank} on {worker.node}" for worker in group.workers)
        yield f"    ranks {ranks}" + (f"; restarted {group.restarts} times" if group.restarts else "")
    if w.error:
        yield f"    {w.error.strip().splitlines()[-1]}"
    if w.phase == "failed":
        yield f"    `alexvgg logs {w.name}` shows more; when its cause is mended, `alexvgg retry {w.name}`"


def duration(seconds: float) -> str:
    """`45 s`, `12 min`, `3.5 h`, `2.1 d`"""
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 90 * 60:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h" if seconds < 36 * 3600 else f"{seconds / 86400:.1f} d"
