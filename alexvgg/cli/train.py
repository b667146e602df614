"""`alexvgg train`: one run in this process, or as one rank of torchrun."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

import click

from alexvgg.cli.names import recipes
from alexvgg.cli.options import execution_options
from alexvgg.cli.progress import say
from alexvgg.exits import Exit

if TYPE_CHECKING:
    from alexvgg.config import RunSpec
    from alexvgg.planning import Init


@click.command()
@click.argument("recipe_name", metavar="RECIPE", shell_complete=recipes)
@click.option("--dataset", required=True, help="URL of the packed dataset.")
@click.option("--storage", required=True, help="URL under which the run and its checkpoints are kept.")
@click.option("--geometry", default="paper", show_default=True, help="paper (crop 224) or small (crop 32, width 1/8).")
@click.option("--init", type=click.Choice(["auto", "random", "glorot", "he"]), default="auto", help="First weights.")
@click.option("--parent", metavar="RUN", help="A finished run to start from, in place of the recipe's own parent.")
@click.option(
    "--set",
    "settings",
    multiple=True,
    metavar="KEY=VALUE",
    help="Change a setting, of its parents, too: train.epochs=5.",
)
@click.option("--mlflow", help="URL of an MLflow server to log to.")
@execution_options
@click.option("--json", "as_json", is_flag=True, help="Print each epoch's metrics as a line of JSON.")
def train(
    recipe_name: str,
    dataset: str,
    storage: str,
    geometry: str,
    init: Init,
    parent: str | None,
    settings: tuple[str, ...],
    mlflow: str | None,
    as_json: bool,
    **execution: Any,
) -> None:
    """Train one run here, without Ray. Its parent must be finished in the same storage.

    --parent takes any finished run of the parent's net, such as one of `alexvgg import`.

    On SIGTERM it writes a checkpoint and exits with 143, on Ctrl-C with 130; the same command goes on from there, to
    the same bits. So it does under torchrun, which exits with 1 and a traceback of its own.

    \b
    Examples:
      alexvgg train vgg_a-s256 --dataset file:///tmp/digits --storage file:///tmp/runs --geometry small
      torchrun --nproc-per-node 2 -m alexvgg train vgg_a-s256 --dataset …
    """
    from torch import OutOfMemoryError

    from alexvgg.attempts import SupersededError
    from alexvgg.config import Execution, from_dict, parse_settings
    from alexvgg.data.shards import open_dataset
    from alexvgg.data.store import open_store
    from alexvgg.engine.guards import DivergedError, TooLargeError
    from alexvgg.engine.replicas import DriftError
    from alexvgg.engine.saver import UploadError
    from alexvgg.engine.wishes import Stopped, Wishes, stopping_on_signals
    from alexvgg.engine.world import World
    from alexvgg.evaluate import describe
    from alexvgg.plain import claiming
    from alexvgg.planning import images_of, plan_runs, start_from
    from alexvgg.profiles import check_no_login, check_url
    from alexvgg.recipes import GEOMETRIES, RECIPES, choose
    from alexvgg.run import epoch_line, train
    from alexvgg.runs import find_finished, read_run

    for name, url in (("dataset", dataset), ("storage", storage), ("mlflow", mlflow)):
        check_no_login(name, url)
    if mlflow is not None:
        check_url("--mlflow", mlflow)
    opened = open_dataset(open_store(dataset))
    images = images_of(opened)
    target, size = choose(RECIPES, recipe_name, "recipe"), choose(GEOMETRIES, geometry, "geometry")
    start = None
    if parent is not None:
        start = start_from(find_finished(open_store(storage), parent).spec)
    spec = plan_runs([target], images, size, init=init, overrides=parse_settings(settings), start=start)[-1]
    places = {"dataset_url": dataset, "storage_url": storage, "mlflow_url": mlflow}
    wishes, if_stopped = Wishes(), Exit.TERMINATED

    def interrupted() -> None:
        nonlocal if_stopped
        if_stopped = Exit.INTERRUPTED
        say("stopping after this step, with a checkpoint; Ctrl-C again stops at once")

    with stopping_on_signals(wishes, interrupted), World.launched() as world:

        def report(event: dict[str, object]) -> None:
            if world.rank == 0:
                click.echo(json.dumps(event) if as_json else epoch_line(event, spec.train.epochs))

        how = from_dict(Execution, {**places, "workers": world.size, **execution})
        if world.rank == 0:
            say(_about(spec, size.name, len(opened.train)))
        try:
            with claiming(spec.name, how, world, wishes, say) as claim:
                train(spec, how, world, report, wishes, claim)
        except Stopped as stopped:
            if world.rank == 0:
                say(f"{spec.name} {stopped}; the same command goes on from there")
            sys.exit(if_stopped)
        except (DivergedError, TooLargeError, OutOfMemoryError, DriftError, SupersededError, UploadError) as error:
            say(f"{spec.name}: {error}")
            sys.exit(Exit.FAILED)
        if world.rank == 0:
            rows = read_run(open_store(storage), spec.name).evaluation
            for row in (r for r in rows if tuple(r["members"][0]["test_scales"]) in spec.test_scales):
                say(describe(row))
            say(f"{spec.name} is finished; its results lie in {storage}/runs/{spec.name}")


def _about(spec: RunSpec, geometry: str, images: int) -> str:
    """What is about to be trained, in a line."""
    from alexvgg.architectures import architecture

    m, t = spec.model, spec.train
    net = architecture(m.name, num_classes=m.num_classes, width=m.width, crop=m.crop)
    steps = min(t.epochs * -(-images // t.global_batch), t.max_steps or 2**63)
    return (
        f"{spec.name}: {net.params:,} parameters, crop {m.crop} ({geometry} geometry), "
        f"{t.epochs} epoch{'s' if t.epochs > 1 else ''} of {images:,} images, {steps:,} steps in batches of "
        f"{t.global_batch}, learning rate {t.lr:g}, seed {t.seed}"
    )
