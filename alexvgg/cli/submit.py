"""`alexvgg submit`"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from alexvgg.cli.names import models, run_names
from alexvgg.cli.sending import plan_and_send, sending_options

if TYPE_CHECKING:
    from alexvgg.config import RunSpec
    from alexvgg.planning import Images, Init, Start
    from alexvgg.recipes import Geometry
    from alexvgg.request import Request


@click.command()
@click.option("--model", required=True, shell_complete=models, help="A net, e.g. vgg_e; `alexvgg models` lists them.")
@click.option("--scale", default="256", show_default=True, help="S, the training scale: 256, 384 or jitter.")
@click.option(
    "--init",
    type=click.Choice(["auto", "random", "glorot", "he"]),
    default="auto",
    help="First weights: auto takes those of the paper's parent; the others start at random without it.",
)
@click.option(
    "--parent", metavar="RUN", shell_complete=run_names,
    help="A finished run to start from, in place of the paper's with its net.",
)  # fmt: skip
@sending_options
def submit(model: str, scale: str, init: Init, settings: tuple[str, ...], **options: Any) -> None:
    """Train a net on a cluster, with every net that it starts from.

    Without a profile this brings up a small cluster on this machine and trains on scikit-learn's digits.
    Submitting the same thing again shows it or resumes it. --parent takes any finished run, such as one of
    `alexvgg import`; what starts from its net then starts from it.

    \b
    Examples:
      alexvgg submit --model vgg_e --nodes 4
      alexvgg submit --model vgg_d --scale jitter --nodes 4 --dry-run
      alexvgg submit --model vgg_e --nodes 2:8 --profile lab
      alexvgg submit --model vgg_e --parent torchvision-vgg11-1b2c3d4e --nodes 4
    """
    from alexvgg.config import parse_settings
    from alexvgg.planning import plan_runs
    from alexvgg.recipes import find_recipe

    target, overrides = find_recipe(model, scale), parse_settings(settings)

    def planner(images: Images, geometry: Geometry, start: Start | None) -> tuple[list[RunSpec], list[Request]]:
        return plan_runs([target], images, geometry, init=init, overrides=overrides, start=start), []

    plan_and_send(None, planner, **options)
