"""What `submit` and `reproduce` have in common: options, showing a plan, sending it."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from alexvgg.cli.jobs import follow_to_end, print_sent
from alexvgg.cli.options import execution_options, flags_of, insecure_option, json_option, place_options
from alexvgg.cli.parameters import Link, NodeRange, Number
from alexvgg.cli.place import need, place_to_submit
from alexvgg.cli.progress import say
from alexvgg.cli.status import duration

if TYPE_CHECKING:
    from alexvgg.campaign.estimate import Estimate
    from alexvgg.config import RunSpec
    from alexvgg.engine.traffic import ExchangePlan
    from alexvgg.planning import Images, Start
    from alexvgg.profiles import Profile
    from alexvgg.recipes import Geometry
    from alexvgg.request import Request
    from jobs.submission import Nodes, Submission

    Planner = Callable[[Images, Geometry, Start | None], tuple[list[RunSpec], list[Request]]]


OPTIONS = (
    click.option(
        "--nodes",
        type=NodeRange(),
        default="1",
        show_default=True,
        help="Nodes for each run; 2:8 takes what there is of them, and goes on with fewer or more.",
    ),
    click.option(
        "--set", "settings", multiple=True, metavar="KEY=VALUE", help="Change a setting of every run planned."
    ),
    place_options("storage", "dataset", "geometry"),
    insecure_option,
    click.option("--retry", is_flag=True, help="Go on with runs that failed before."),
    execution_options,
    click.option(
        "--wait-for-nodes",
        "node_minutes",
        type=Number(min=0),
        default=0.0,
        metavar="MINUTES",
        help="Wait so long for nodes that are still coming; default: not at all.",
    ),
    click.option("--wait", is_flag=True, help="Show the log and wait for the end; exit code 100 if it fails."),
    click.option("--dry-run", is_flag=True, help="Print what would be started, and start nothing."),
    click.option("--link", type=Link(), help="Of each node, e.g. 25Gb, to say how long gradients travel."),
    click.option("--price-per-gpu-hour", type=Number(min=0), help="To estimate what it costs."),
    json_option,
)


EVEN = 0.9  # of the workers' time in use: less is said
NO_GPUS = "--price-per-gpu-hour needs a profile with gpus_per_node: here are no GPUs to pay for"


def sending_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds OPTIONS; the command hands them on to `plan_and_send`."""
    for option in reversed(OPTIONS):
        command = option(command)
    return command


def plan_and_send(
    target: str | None,
    planner: Planner,
    *,
    nodes: Nodes,
    profile: str | None,
    storage: str | None,
    dataset: str | None,
    geometry: str | None,
    retry: bool,
    node_minutes: float,
    wait: bool,
    dry_run: bool,
    link: float | None,
    price_per_gpu_hour: float | None,
    as_json: bool,
    parent: str | None = None,
    **execution: Any,
) -> None:
    """Show the plan, check that it can be carried out, send it, and exit with the job's code if it is waited for.

    `target` is a table, or None if the planner's last run is what was asked for.
    """
    from alexvgg.data.plan import check_workers
    from alexvgg.data.shards import open_dataset
    from alexvgg.data.store import open_store
    from alexvgg.errors import InputError
    from alexvgg.planning import Images, images_of, start_from
    from alexvgg.profiles import LOCAL, chosen_profile
    from alexvgg.recipes import GEOMETRIES, choose
    from alexvgg.runs import find_finished

    # Whatever is wrong with the request is said before all else.
    if dry_run and wait:
        raise InputError("--dry-run starts nothing that --wait could wait for; leave one of them away")
    here = chosen_profile(profile) == LOCAL
    check_workers(nodes[1])
    if price_per_gpu_hour is not None and here:
        raise InputError(NO_GPUS)
    planner(Images("any", 1000, ""), choose(GEOMETRIES, geometry or "paper", "geometry"), None)
    changes = {"storage": storage, "dataset": dataset, "geometry": geometry}
    with place_to_submit(profile, nodes[1], dry_run=dry_run, **changes) as place:
        from jobs.client import client
        from jobs.submission import check_cluster, decide
        from jobs.submit import send

        kept = open_store(place.storage)
        images = open_dataset(open_store(need(profile, place, "dataset")))
        start = None if parent is None else start_from(find_finished(kept, parent).spec)
        runs, requests = planner(images_of(images), choose(GEOMETRIES, place.geometry, "geometry"), start)
        hosts = 1 if here else nodes[1]  # all local nodes are on this machine
        submission = decide(
            target, runs, requests, place, nodes, kept, len(images.train), retry=retry, one_host=here,
            link=link if hosts > 1 else None, **execution,
        )  # fmt: skip
        if price_per_gpu_hour is not None and not place.gpus_per_node:
            raise InputError(NO_GPUS)
        if dry_run or not as_json:
            _show(submission, _exchanges(submission, hosts), price_per_gpu_hour, as_json)
        if dry_run:
            return
        jobs, job, new = client(need(profile, place, "dashboard")), None, False
        if not submission.is_done:
            check_cluster(place, nodes[0], node_minutes, say)
            job, new = send(submission.campaign, kept, jobs, say=say)
    options = flags_of(profile=profile, storage=storage)
    _sent(submission, place, job, options, flags_of(dataset=dataset, geometry=geometry), new=new, as_json=as_json)
    if wait and job is not None:
        sys.exit(follow_to_end(jobs, job, options, aside=as_json))


def _exchanges(submission: Submission, hosts: int) -> list[ExchangePlan]:
    """How each run's ranks will exchange gradients."""
    from alexvgg.scaling import planned_exchange

    specs = [step.spec for step in submission.steps]
    return [planned_exchange(s.model, s.train.global_batch, submission.execution, hosts) for s in specs]


def _show(submission: Submission, exchanges: list[ExchangePlan], price: float | None, as_json: bool) -> None:
    if as_json:
        hours, document = submission.worker_hours, submission.to_dict()
        for run, exchange in zip(document["runs"], exchanges, strict=True):
            run["exchange"] = exchange.to_dict(submission.link)
        cost = None if price is None or hours is None else price * hours
        click.echo(json.dumps(document | {"cost": cost}, indent=2))
        return
    e, (least, most) = submission.execution, submission.nodes
    device = f"{e.gpus_per_worker} GPU each" if e.gpus_per_worker else "CPU"
    click.echo(
        f"Plan: {len(submission.pending)} of {_count('run', len(submission.steps))} to train on "
        f"{_count('node', least, most)}, {_count('worker', e.min_workers or e.workers, e.workers)} ({device}) "
        "sharing each global batch"
    )
    if (uneven := _uneven(submission)) is not None:
        click.echo(uneven)
    names = [*(step.spec.name for step in submission.steps), *(request.name for request, _ in submission.evaluations)]
    width = max(map(len, names))
    for step in submission.steps:
        s = step.spec
        start = f"{s.parent.how} from {s.parent.run}" if s.parent else f"random ({s.init.kind})"
        scale = s.data.train_scale if isinstance(s.data.train_scale, int) else "[{};{}]".format(*s.data.train_scale)
        click.echo(
            f"  {s.name:<{width}}  {step.state:<9} S={scale:<9} {step.params:>11,} parameters, "
            f"{_count('epoch', s.train.epochs)} at lr {s.train.lr:g}; {start}"
        )
        if step.state != "finished" and (how_long := _how_long(step.estimate)) is not None:
            click.echo(f"    {how_long}")
    for request, state in submission.evaluations:
        scales = ",".join(map(str, request.test_scales)) if request.test_scales else "each net's own"
        click.echo(
            f"  {request.name:<{width}}  {state:<9} {request.method} at Q={scales} of {' + '.join(request.runs)}"
        )
    if e.workers > 1:
        pairs, link = zip(submission.steps, exchanges, strict=True), submission.link
        lines = (f"{step.spec.model.name}: {exchange.line(link)}" for step, exchange in pairs)
        click.echo("\n".join(dict.fromkeys(lines)))  # once for each net
    if submission.pending:
        click.echo(_together(submission, price))


def _uneven(submission: Submission) -> str | None:
    """What to say if a batch can't be shared evenly enough among the workers."""
    from alexvgg.data.plan import as_fast, busy

    workers, batch = submission.execution.workers, submission.steps[-1].spec.train.global_batch
    if (used := busy(batch, workers)) > EVEN:
        return None
    nodes = submission.nodes[1]
    enough = -(-as_fast(batch, workers) * nodes // workers)
    fewer = f", and {_count('node', enough)} would be as fast" if enough < nodes else ""
    return (
        f"A step can't be shared evenly among {workers} workers: {1 - used:.0%} of their time they wait for those with "
        f"the most of it{fewer}."
    )


def _count(noun: str, least: int, most: int | None = None) -> str:
    """`1 node`, `4 nodes`, `2 to 8 nodes`."""
    number = f"{least}" if most in (None, least) else f"{least} to {most}"
    return f"{number} {noun}{'' if number == '1' else 's'}"


def _how_long(e: Estimate) -> str | None:
    if e.speed is None or e.hours is None:
        return None
    return f"about {duration(3600 * e.hours)} at {e.speed.images_per_s:,.0f} images/s a worker, {e.speed.source}"


def _together(submission: Submission, price: float | None) -> str:
    known = [s.estimate for s in submission.pending if s.estimate.hours is not None]
    if not known:
        named = ", or name the profile's `gpu`" if submission.execution.gpus_per_worker else ""
        return f"How long it takes is unknown: the first run measures it{named}."
    hours, clock = sum(e.worker_hours or 0 for e in known), sum(e.hours or 0 for e in known)
    beyond = ""
    if names := list(dict.fromkeys(s.spec.recipe for s in submission.unknown)):
        takes = "takes" if len(names) == 1 else "take"
        beyond = f" How long {', '.join(names)} {takes} is unknown until it was measured."
    least, most = submission.nodes
    on = f" on {most} nodes" if least < most else ""
    money = "" if price is None else f", {price * hours:,.2f} at {price:g} for each"
    gpu_hours = f"{hours:,.1f} GPU-hours{money}, " if submission.execution.gpus_per_worker else ""
    return (
        f"Training takes about {gpu_hours}{duration(3600 * clock)}{on} if its runs follow one another; "
        f"{_on_top(submission)} come on top.{beyond}{_fewer_nodes(submission, clock)}"
    )


def _on_top(submission: Submission) -> str:
    """What an estimate doesn't count."""
    if submission.hours_on_one_node is not None or submission.execution.workers == 1:
        return "starting workers and evaluating"
    between = submission.execution.gpus_per_worker > 0 and submission.nodes[1] > 1
    return f"starting workers, exchanging gradients{' (--link 25Gb counts that)' if between else ''} and evaluating"


def _fewer_nodes(submission: Submission, clock: float) -> str:
    """Advice, where the link makes more nodes gain little for what they cost."""
    alone, nodes = submission.hours_on_one_node, submission.nodes[1]
    if alone is None or alone / clock > nodes / 2:
        return ""
    gain = f"{alone / clock:.1f} times as fast" if alone > clock else "slower"
    return f" One node, without this link, takes about {duration(3600 * alone)}: {nodes} are {gain}."


def _sent(
    submission: Submission, place: Profile, job: str | None, options: str, images: str, *, new: bool, as_json: bool
) -> None:
    if as_json:
        known = {"run": submission.target, "job": job, "new": new, "dashboard": place.dashboard, "mlflow": place.mlflow}
        click.echo(json.dumps(known, indent=2))
        return
    if job is None:
        click.echo(f"All are finished: `alexvgg report{options}{images}` shows the results.")
        return
    print_sent(place, job, options, new=new)
