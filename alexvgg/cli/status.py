"""`alexvgg status` and `alexvgg list`"""

from __future__ import annotations

import json
import sys
import textwrap
import time
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from alexvgg.cli.commands import terminal_width
from alexvgg.cli.options import flags_of, insecure_option, json_option, place_options
from alexvgg.cli.place import alive, known_jobs, open_place
from alexvgg.columns import Column, aligned

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from alexvgg.campaign.overview import CampaignView, Overview, Progress, WorkView
    from jobs.groups import Group

WATCH_SECONDS = 2.0


@click.command()
@click.argument("name", required=False)
@click.option("-w", "--watch", is_flag=True, help="Show it anew every two seconds, until Ctrl-C.")
@place_options("storage")
@insecure_option
@json_option
def status(name: str | None, watch: bool, profile: str | None, storage: str | None, as_json: bool) -> None:
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
    from alexvgg.errors import InputError
    from alexvgg.tracking.pages import runs_page

    if watch and as_json:
        raise InputError("--watch shows it to people and --json to programs; give one of them")
    place = open_place(profile, storage=storage)
    from jobs.groups import groups  # only now: Ray reads where its token lies when it is imported

    store, options = open_store(place.storage), flags_of(profile=profile, storage=storage)
    mlflow = None if place.mlflow is None or as_json else runs_page(place.mlflow)
    while True:
        jobs = known_jobs(profile, place)
        teams = groups(place.dashboard) if place.dashboard is not None and jobs is not None else {}
        view = overview(store, alive(jobs))
        if name is not None:
            view = view.about(name)
        if as_json:
            more = {"jobs": jobs, "groups": {job: asdict(group) for job, group in teams.items()}}
            where = {"dashboard": place.dashboard, "mlflow": place.mlflow}
            click.echo(json.dumps(view.to_dict() | more | where, indent=2))
        else:
            where_lines = [
                f"Ray dashboard  {place.dashboard or '-'}",
                f"MLflow         {mlflow or '-'}",
            ]
            lines = [*format_overview(view, teams, options, terminal_width()), *where_lines]
            if watch and sys.stdout.isatty():
                click.clear()
            click.echo("\n".join(lines))
        if not watch:
            return
        time.sleep(WATCH_SECONDS)


@click.command("list")
@place_options("storage")
@insecure_option
@json_option
def list_campaigns(profile: str | None, storage: str | None, as_json: bool) -> None:
    """List the campaigns, a line each: the newest last.

    \b
    Example:
      alexvgg list
    """
    from alexvgg.campaign.overview import overview
    from alexvgg.data.store import open_store

    place = open_place(profile, storage=storage)
    rows = []
    for c in overview(open_store(place.storage), alive(known_jobs(profile, place))).campaigns:
        done, driver = sum(w.phase == "finished" for w in c.works), c.driver.phase if c.driver else None
        rows.append({"campaign": c.name, "driver": driver, "finished": done, "works": len(c.works)})
    if as_json:
        click.echo(json.dumps(rows, indent=2))
        return
    columns = (
        Column("campaign", [str(row["campaign"]) for row in rows], left=True),
        Column("driver", [str(row["driver"] or "-") for row in rows], left=True),
        Column("finished", [f"{row['finished']} of {row['works']}" for row in rows]),
    )
    click.echo("\n".join(aligned(columns)))


def format_overview(
    view: Overview, teams: Mapping[str, Group], options: str = "", width: int | None = None
) -> Iterator[str]:
    """The lines of `status`; `teams` are the workers of jobs, by job id. `options`, like ` --profile lab`, are added to
    commands; columns that aren't needed most go if `width` has no room for all."""
    works = [*(w for c in view.campaigns for w in c.works), *view.runs]
    head, *rows = aligned(_columns(works), width and width - len(INDENT))
    row_of = dict(zip(works, rows, strict=True))

    def block(title: str, works: Sequence[WorkView], about: Callable[[WorkView], Iterator[str]]) -> Iterator[str]:
        yield title
        yield INDENT + head
        for work in works:
            yield INDENT + row_of[work]
            yield from about(work)

    for c in view.campaigns:
        if c.error is not None:
            yield f"{c.name}: {c.error}"
        else:
            yield from block(_campaign(c), c.works, lambda work: _about(work, teams, options))
            if c.driver is not None and c.driver.phase in ("gone", "stopped") and not c.is_done:
                yield f"  `alexvgg resume {c.name}{options}` goes on with it"
        yield ""
    if view.runs:
        yield from block("Runs of no campaign", view.runs, _about_alone)
        yield ""
    if works:
        yield from textwrap.wrap(CROP, width or len(CROP), break_on_hyphens=False)
    else:
        yield f"Nothing here yet: `alexvgg submit --model vgg_a{options}` starts something."
    yield ""


INDENT = "  "
CROP = "crop top-1: validation error of one crop an image, after an epoch; `alexvgg table` has the whole images'"
# Of a driver.
PHASES = {
    "running": "at work", "stopping": "is stopping", "gone": "is gone", "finished": "has finished", "failed": "gave up",
    "stopped": "was stopped", "unreadable": "can't be read",
}  # fmt: skip


def _campaign(c: CampaignView) -> str:
    done = sum(w.phase == "finished" for w in c.works)
    driver = f"driver {c.driver.job} {PHASES[c.driver.phase]}" if c.driver else "no driver yet"
    return f"{c.name}: {done} of {len(c.works)} finished; {driver}"


def _columns(works: Sequence[WorkView]) -> list[Column]:
    def of(show: Callable[[Progress], str | None]) -> list[str]:
        return [(show(w.progress) if w.progress is not None else None) or "-" for w in works]

    left = [
        duration(w.progress.seconds_left)
        if w.phase == "running" and w.progress is not None and w.progress.seconds_left is not None
        else "-"
        for w in works
    ]
    return [
        Column("run", [w.name for w in works], left=True),
        Column("state", [w.phase for w in works], left=True),
        Column("epoch", of(lambda p: f"{p.epoch}/{p.epochs}")),
        Column("step", of(lambda p: f"{p.step}"), spare=3),
        Column("loss", of(lambda p: None if p.loss is None else f"{p.loss:.3f}"), spare=1),
        Column("crop top-1", of(lambda p: None if p.top1_error is None else f"{p.top1_error:.1f} %")),
        Column("images/s", of(lambda p: None if p.images_per_s is None else f"{p.images_per_s:.0f}"), spare=2),
        Column("left", left),
        Column("attempt", [str(w.attempt or "-") for w in works], spare=4),
    ]


def _about_alone(w: WorkView) -> Iterator[str]:
    yield from _troubles(w)
    if w.phase in ("failed", "gone", "lost", "stopped"):
        mended = "when its cause is mended, " if w.phase == "failed" else ""
        yield f"    {mended}the same `alexvgg train` command goes on from its last checkpoint"


def _about(w: WorkView, teams: Mapping[str, Group], options: str) -> Iterator[str]:
    group = teams.get(w.job or "")
    if w.phase in ("starting", "running", "evaluating") and group is not None and group.workers:
        ranks = ", ".join(f"{worker.rank} on {worker.node}" for worker in group.workers)
        yield f"    ranks {ranks}" + (f"; restarted {_times(group.restarts)}" if group.restarts else "")
    yield from _troubles(w)
    if w.phase == "failed":
        more = f"`alexvgg logs {w.name}{options}` shows more"
        yield f"    {more}; when its cause is mended, `alexvgg retry {w.name}{options}`"


def _troubles(w: WorkView) -> Iterator[str]:
    if w.phase == "running" and w.progress is not None and w.progress.seconds_still is not None:
        yield f"    no step for {duration(w.progress.seconds_still)}: it validates, or waits for data or for nodes"
    if w.warning:
        yield f"    {w.warning}"
    if w.error:
        yield f"    {_last_line(w.error)}"


def _times(n: int) -> str:
    return "once" if n == 1 else f"{n} times"


def _last_line(error: str) -> str:
    """Of an error with its traceback, the one that says what it is."""
    return error.strip().splitlines()[-1]


def duration(seconds: float) -> str:
    """`45 s`, `12 min`, `3.5 h`, `2.1 d`"""
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 90 * 60:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h" if seconds < 36 * 3600 else f"{seconds / 86400:.1f} d"
