"""`alexvgg submit`"""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

import click

from alexvgg.cli.execution import execution_options
from alexvgg.cli.jobs import follow_to_end
from alexvgg.cli.place import place_to_submit, profile_option

if TYPE_CHECKING:
    from alexvgg.config import RunSpec
    from alexvgg.planning import Init
    from alexvgg.profiles import Profile
    from jobs.submit import Submission


@click.command()
@click.option("--model", required=True, help="A net, e.g. vgg_e; `alexvgg models` lists them.")
@click.option("--nodes", type=click.IntRange(min=1), default=1, show_default=True, help="Nodes to train on.")
@click.option("--scale", default="256", show_default=True, help="S, the training scale: 256, 384 or jitter.")
@click.option(
    "--init",
    type=click.Choice(["auto", "random", "glorot", "he"]),
    default="auto",
    help="First weights: auto takes those of the paper's parent; the others start at random without it.",
)
@click.option("--set", "settings", multiple=True, metavar="KEY=VALUE", help="Change a setting of every run planned.")
@profile_option
@click.option("--storage", help="Storage URL instead of the profile's.")
@click.option("--dataset", help="Dataset URL instead of the profile's.")
@click.option("--geometry", help="paper or small, instead of the profile's.")
@click.option("--retry", is_flag=True, help="Go on with runs that failed before.")
@execution_options
@click.option("--wait", is_flag=True, help="Show the log and wait for the end; exit code 100 if it fails.")
@click.option("--dry-run", is_flag=True, help="Print what would be started, and start nothing.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def submit(
    model: str,
    nodes: int,
    scale: str,
    init: Init,
    settings: tuple[str, ...],
    profile: str | None,
    storage: str | None,
    dataset: str | None,
    geometry: str | None,
    retry: bool,
    wait: bool,
    dry_run: bool,
    as_json: bool,
    **execution: Any,
) -> None:
    """Train a net on a cluster, with every net that it starts from.

    Without a profile this brings up a small cluster on this machine and trains on scikit-learn's digits.
    Submitting the same thing again shows it or resumes it.

    \b
    Examples:
      alexvgg submit --model vgg_e --nodes 4
      alexvgg submit --model vgg_d --scale jitter --nodes 4 --dry-run
      alexvgg submit --model vgg_e --nodes 4 --profile lab
    """
    from alexvgg.config import parse_settings
    from alexvgg.data.shards import open_dataset
    from alexvgg.data.store import open_store
    from alexvgg.planning import Images, images_of, plan_runs
    from alexvgg.recipes import GEOMETRIES, choose, find_recipe

    target, overrides = find_recipe(model, scale), parse_settings(settings)

    def plan(images: Images, geometry: str) -> list[RunSpec]:
        return plan_runs([target], images, choose(GEOMETRIES, geometry, "geometry"), init=init, overrides=overrides)

    plan(Images("any", 1000, ""), geometry or "paper")  # whatever is wrong with the request is said before all else
    changes = {"storage": storage, "dataset": dataset, "geometry": geometry}
    with place_to_submit(profile, nodes, dry_run=dry_run, **changes) as place:
        from jobs.client import client
        from jobs.submit import check_cluster, decide, send

        kept = open_store(place.storage)
        runs = plan(images_of(open_dataset(open_store(place.dataset))), place.geometry)
        submission = decide(runs, place, nodes, kept, retry=retry, **execution)
        if dry_run or not as_json:
            _show(submission, as_json)
        if dry_run:
            return
        jobs, job, new = client(place.dashboard), None, False
        if submission.pending:
            check_cluster(place, nodes)
            job, new = send(submission, kept, jobs)
    _sent(submission, place, job, new, as_json)
    if wait and job is not None:
        sys.exit(follow_to_end(jobs, job))


def _show(submission: Submission, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(submission.to_dict(), indent=2))
        return
    e = submission.execution
    device = f"{e.gpus_per_worker} GPU each" if e.gpus_per_worker else "CPU"
    click.echo(
        f"Plan: {len(submission.pending)} of {len(submission.steps)} runs to train on {submission.nodes} nodes, "
        f"{e.workers} workers ({device}), {e.workers} ranks sharing each global batch"
    )
    for step in submission.steps:
        s = step.spec
        start = f"{s.parent.how} from {s.parent.run}" if s.parent else f"random ({s.init.kind})"
        scale = s.data.train_scale if isinstance(s.data.train_scale, int) else "[{};{}]".format(*s.data.train_scale)
        click.echo(
            f"  {s.name:<24} {step.state:<9} S={scale:<9} {step.params:>11,} parameters, "
            f"{s.train.epochs} epochs at lr {s.train.lr:g}; {start}"
        )


def _sent(submission: Submission, place: Profile, job: str | None, new: bool, as_json: bool) -> None:
    if as_json:
        known = {"run": submission.target, "job": job, "new": new, "dashboard": place.dashboard, "mlflow": place.mlflow}
        click.echo(json.dumps(known, indent=2))
        return
    if job is None:
        click.echo("All of them are finished: `alexvgg table table4` shows the results.")
        return
    click.echo(f"{'Submitted' if new else 'Already running:'} {job}")
    click.echo(f"  Ray dashboard  {place.dashboard}/#/jobs/{job}")
    click.echo(f"  MLflow         {place.mlflow or 'not configured'}")
    click.echo(f"  follow         alexvgg logs {job} -f")
    click.echo("  state          alexvgg status")
    click.echo(f"  stop           alexvgg stop {job}")
