"""`alexvgg plan scaling`"""

import json
import re
from typing import Any

import click

from alexvgg.cli.commands import Commands
from alexvgg.cli.options import json_option
from alexvgg.cli.parameters import Link, Number

MOST_GPUS = 1 << 16


class Counts(click.ParamType[list[int]]):
    """Numbers of ranks: `8`, `1,4,16`, or `1..512` for every power of two between."""

    name = "numbers"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> list[int]:
        if isinstance(value, list):
            return value
        if (span := re.fullmatch(r"(\d+)\.\.(\d+)", value)) is not None:
            first, last = int(span[1]), int(span[2])
            found = [first << n for n in range(32) if first and first << n <= last]
        elif re.fullmatch(r"\d+(,\d+)*", value):
            found = [int(part) for part in value.split(",")]
        else:
            self.fail(f"{value!r} are no numbers of GPUs; write 8, 1,4,16 or 1..512", param, ctx)
        if not found or min(found) < 1 or max(found) > MOST_GPUS:
            self.fail(f"{value!r}: numbers of GPUs go from 1 to {MOST_GPUS}, the smaller one first", param, ctx)
        return found


@click.group(cls=Commands)
def plan() -> None:
    """What training would take, computed beforehand."""


@plan.command()
@click.option("--model", required=True, help="A net, e.g. vgg_e; `alexvgg models` lists them.")
@click.option("--gpus", type=Counts(), default="1..512", show_default=True, help="Numbers of GPUs: 8, or 1..512.")
@click.option("--link", type=Link(), default="25Gb", show_default=True, help="Of each host, in bits a second.")
@click.option("--global-batch", type=click.IntRange(min=1), help="Images of a step; default: the net's recipe.")
@click.option("--per-gpu", type=click.IntRange(min=1), help="Instead, images of each GPU: the batch grows with them.")
@click.option(
    "--tflops", type=Number(min=0, min_open=True), default=110.0, show_default=True,
    help="What a GPU sustains. The default is an A100's on VGG-16 in half precision: 1,190 images/s.",
)  # fmt: skip
@click.option("--fp32", is_flag=True, help="Products, and so factors, in 32 bits instead of bf16.")
@json_option
def scaling(
    model: str,
    gpus: list[int],
    link: float,
    global_batch: int | None,
    per_gpu: int | None,
    tflops: float,
    fp32: bool,
    as_json: bool,
) -> None:
    """Show how a net's training scales, by each way of exchanging gradients.

    \b
    Examples:
      alexvgg plan scaling --model vgg_e --gpus 1..512 --link 25Gb
      alexvgg plan scaling --model vgg_d --gpus 8 --link 10Gb --per-gpu 64 --json
    """
    from alexvgg.engine.traffic import FLOAT, HALF
    from alexvgg.errors import InputError
    from alexvgg.recipes import find_recipe
    from alexvgg.scaling import Hardware, predict, to_text

    if global_batch and per_gpu:
        raise InputError("--global-batch and --per-gpu each say how large a step's batch is; give one of them")
    batch = global_batch or find_recipe(model, "256").global_batch
    hardware = Hardware(tflops * 1e12, link, FLOAT if fp32 else HALF)
    found = predict(model, gpus, hardware, global_batch=None if per_gpu else batch, per_rank=per_gpu)
    click.echo(json.dumps(found.to_dict(), indent=2) if as_json else to_text(found))
