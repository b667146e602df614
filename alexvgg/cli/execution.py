"""Options that say how a run is carried out, never what it is."""

from collections.abc import Callable
from typing import Any

import click

OPTIONS = (
    click.option(
        "--micro-batch", type=click.IntRange(min=1), help="Images a worker holds at a time; default: its share."
    ),
    click.option(
        "--precision",
        type=click.Choice(["auto", "fp32", "bf16"]),
        default="auto",
        show_default=True,
        help="Of matrix products; auto is bf16 on GPUs and fp32 on CPUs.",
    ),
    click.option("--compile", "compiled", is_flag=True, help="Run the net through torch.compile."),
    click.option(
        "--checkpoint-minutes", type=float, default=10.0, show_default=True, help="Besides one after every epoch."
    ),
    click.option("--sample-log", help="Folder, where it trains, for a log of the samples that every step consumed."),
)


def execution_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds OPTIONS; the command receives them under the names of `Execution`'s fields."""
    for option in reversed(OPTIONS):
        command = option(command)
    return command
