"""`alexvgg evaluate`"""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from typing import TYPE_CHECKING

import click

from alexvgg.cli.commands import given
from alexvgg.cli.names import run_names
from alexvgg.cli.options import flags_of, insecure_option, json_option, place_options, test_scales_option
from alexvgg.cli.place import connect, need, open_place
from alexvgg.cli.progress import say, telling

if TYPE_CHECKING:
    from alexvgg.request import Request
    from alexvgg.results.paper import Method

METHODS = ("dense", "multicrop", "both", "tencrop")  # of alexvgg.evaluation.scoring, which takes long to import


@click.command()
@click.argument("runs", nargs=-1, shell_complete=run_names, required=True, metavar="RUN…")
@click.option(
    "--method",
    type=click.Choice(METHODS),
    default="dense",
    show_default=True,
    help="Whole images, a 5x5 grid of crops, the mean of both (VGG), or five crops of the central square (AlexNet).",
)
@test_scales_option
@click.option("--fuse", is_flag=True, help="One result: the mean of all runs' posteriors.")
@place_options("storage", "dataset")
@insecure_option
@click.option("--nodes", type=click.IntRange(min=1), help="Evaluate on that many nodes of the profile's cluster.")
@click.option("--wait", is_flag=True, help="With --nodes: show the log and wait for the end.")
@json_option
def evaluate(
    runs: tuple[str, ...],
    method: Method,
    test_scales: tuple[int, ...] | None,
    fuse: bool,
    profile: str | None,
    storage: str | None,
    dataset: str | None,
    nodes: int | None,
    wait: bool,
    as_json: bool,
) -> None:
    """Test finished runs on the validation images, as the papers do.

    Posteriors are kept in the storage: what was computed once, for any row, is never computed again, and an evaluation
    that was interrupted goes on where it was. Without --nodes this process computes, or all that torchrun starts.

    \b
    Examples:
      alexvgg evaluate vgg_e-jitter-3f2a91c4 --method both --test-scales 256,384,512
      alexvgg evaluate vgg_d-jitter-5b1c0a77 vgg_e-jitter-3f2a91c4 --method both --fuse --nodes 4 --wait
      torchrun --nproc-per-node 2 -m alexvgg evaluate alexnet-s256-77aa01c2 --method tencrop
    """
    from alexvgg.errors import InputError
    from alexvgg.request import Request

    request = Request(runs, method, test_scales, fuse)
    if nodes is None:
        if wait:
            raise InputError("--wait belongs to --nodes N: without it this process computes, and waits anyway")
        if given("insecure"):
            raise InputError("--insecure belongs to --nodes N: without it this process computes, and talks to no Ray")
        _here(request, profile, storage, dataset, as_json)
        return
    from alexvgg.cli.jobs import follow_to_end, print_sent
    from alexvgg.data.shards import open_dataset
    from alexvgg.data.store import open_store
    from alexvgg.evaluate import plan_rows
    from alexvgg.runs import find_finished

    place, jobs = connect(profile, storage=storage, dataset=dataset)
    from jobs.submission import check_cluster, execution_on
    from jobs.submit import send_evaluation

    kept, images = open_store(place.storage), open_dataset(open_store(need(profile, place, "dataset")))
    check_cluster(place, nodes, say=say)
    # Whatever is wrong with the request is said before anything starts.
    found = [find_finished(kept, name) for name in request.runs]
    request = replace(request, runs=tuple(run.name for run in found))
    plan_rows(request, found, images.fingerprint)
    job, new = send_evaluation(request, execution_on(place, (nodes, nodes)), kept, jobs, say)
    options = flags_of(profile=profile, storage=storage)
    if as_json:
        click.echo(json.dumps({"job": job, "new": new, "dashboard": place.dashboard}, indent=2))
    else:
        print_sent(place, job, options, new=new)
    if wait:
        sys.exit(follow_to_end(jobs, job, options, aside=as_json))


def _here(request: Request, profile: str | None, storage: str | None, dataset: str | None, as_json: bool) -> None:
    from alexvgg.config import Execution
    from alexvgg.engine.world import World
    from alexvgg.evaluate import describe, evaluate

    place = open_place(profile, storage=storage, dataset=dataset)
    images = need(profile, place, "dataset")
    mlflow = None if storage and dataset else place.mlflow  # the profile's, of the profile's runs or images
    with World.launched() as world:
        execution = Execution(images, place.storage, mlflow, workers=world.size)
        with telling(aloud=world.rank == 0) as tell:
            documents = evaluate(request, execution, world, tell)
        if world.rank == 0:
            click.echo(json.dumps(documents, indent=2) if as_json else "\n".join(map(describe, documents)))
