"""`alexvgg train`: one run in this process, or as one rank of torchrun."""

import json
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from alexvgg.planning import Init


@click.command()
@click.argument("recipe_name", metavar="RECIPE")
@click.option("--dataset", required=True, help="URL of the packed dataset.")
@click.option("--storage", required=True, help="URL under which the run and its checkpoints are kept.")
@click.option("--geometry", default="paper", show_default=True, help="paper (crop 224) or small (crop 32, width 1/8).")
@click.option("--init", type=click.Choice(["auto", "random", "glorot", "he"]), default="auto", help="First weights.")
@click.option("--set", "settings", multiple=True, metavar="KEY=VALUE", help="Change a setting, e.g. train.epochs=5.")
@click.option("--mlflow", help="URL of an MLflow server to log to.")
@click.option("--sample-log", help="Folder for a log of the samples that every step consumed.")
def train(
    recipe_name: str,
    dataset: str,
    storage: str,
    geometry: str,
    init: "Init",
    settings: tuple[str, ...],
    mlflow: str | None,
    sample_log: str | None,
) -> None:
    """Train one run here, without Ray. Its parent must be finished in the same storage.

    \b
    Examples:
      alexvgg train vgg_a-s256 --dataset file:///tmp/digits --storage file:///tmp/runs --geometry small
      torchrun --nproc-per-node 2 -m alexvgg train vgg_a-s256 --dataset …
    """
    from alexvgg.config import Execution, parse_settings
    from alexvgg.data.shards import open_dataset
    from alexvgg.data.store import open_store
    from alexvgg.engine.world import World
    from alexvgg.planning import images_of, plan_runs
    from alexvgg.recipes import GEOMETRIES, RECIPES, choose
    from alexvgg.run import train

    images = images_of(open_dataset(open_store(dataset)))
    target, size = choose(RECIPES, recipe_name, "recipe"), choose(GEOMETRIES, geometry, "geometry")
    spec = plan_runs([target], images, size, init=init, overrides=parse_settings(settings))[-1]
    with World.launched() as world:
        execution = Execution(dataset, storage, mlflow, workers=world.size, sample_log=sample_log)

        def report(event: dict[str, object]) -> None:
            if world.rank == 0:
                click.echo(json.dumps(event))

        train(spec, execution, world, report)
        if world.rank == 0:
            click.echo(f"{spec.name} is finished; see `alexvgg table table3`", err=True)
