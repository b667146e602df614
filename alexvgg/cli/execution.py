"""Options that say how a run is carried out, never what it is."""

import math
import re
from collections.abc import Callable, Iterable
from typing import Any

import click
from click.core import ParameterSource

UNITS = {"": 1, "B": 1, "KIB": 1 << 10, "MIB": 1 << 20, "GIB": 1 << 30, "TIB": 1 << 40,
         "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}  # fmt: skip


MOST_BYTES = 1 << 63
MOST_LINK = 1e9  # of its number before the unit


class Bytes(click.ParamType[int]):
    """A number of bytes: 1000000, 512MiB, 1.5GB."""

    name = "bytes"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        found = re.fullmatch(r"(\d+\.?\d*|\.\d+) *([a-zA-Z]*)", str(value))
        if found is None or found[2].upper() not in UNITS:
            self.fail(f"{value!r} is no number of bytes; write for example 512MiB or 2GB", param, ctx)
        size = float(found[1]) * UNITS[found[2].upper()]
        if not 1 <= size < MOST_BYTES:
            self.fail("it must be at least one byte, and less than 2^63", param, ctx)
        return int(size)


class Number(click.FloatRange):
    """A number in a range, and neither infinite nor NaN, which no JSON has."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        number = float(super().convert(value, param, ctx))
        if not math.isfinite(number):
            self.fail(f"{value!r} is no finite number", param, ctx)
        return number


class Link(click.ParamType[float]):
    """A link's bits a second: 25Gb, 100Mb, 10Gb/s."""

    name = "bits"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        found = re.fullmatch(r"(\d+(?:\.\d+)?) *([GMT])b(?:it)?(?:/s|ps)?", str(value))
        if found is None or not 0 < float(found[1]) < MOST_LINK:
            self.fail(f"{value!r} is no link; write for example 25Gb or 100Mb, in bits a second", param, ctx)
        return float(found[1]) * {"M": 1e6, "G": 1e9, "T": 1e12}[found[2]]


def of_a_cache(ctx: click.Context, _parameter: click.Parameter, size: int) -> int:
    """`--cache-bytes`, if it is given, with `--cache`."""
    if ctx.get_parameter_source("cache_bytes") is ParameterSource.COMMANDLINE and not ctx.params.get("cache_dir"):
        raise click.UsageError("--cache-bytes bounds the cache in --cache FOLDER; give that, too", ctx)
    return size


LOADER_OPTIONS = (
    click.option(
        "--decode-threads",
        type=click.IntRange(min=1),
        help="Threads of each worker; default: its share of cores, less a fifth.",
    ),
    click.option(
        "--prefetch-bytes", type=Bytes(), default="1GiB", show_default=True, help="Of each worker, read ahead."
    ),
    click.option(
        "--cache",
        "cache_dir",
        is_eager=True,
        help="Folder on the nodes to keep images in, shared by jobs; default: none.",
    ),
    click.option(
        "--cache-bytes",
        type=Bytes(),
        default="100GiB",
        show_default=True,
        callback=of_a_cache,
        help="Most bytes of the cache.",
    ),
)

OPTIONS = (
    *LOADER_OPTIONS,
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
    click.option(
        "--compile/--no-compile",
        "compiled",
        default=None,
        help="Run the net through torch.compile; default: on GPUs, if there is a C compiler for it.",
    ),
    click.option(
        "--exchange",
        type=click.Choice(["auto", "allreduce", "factors", "bf16"]),
        default="auto",
        show_default=True,
        help="How workers share gradients. factors: exact, a ninth of VGG's bytes; auto takes them between hosts, and "
        "an all-reduce inside one. bf16 rounds.",
    ),
    click.option(
        "--checkpoint-minutes",
        type=Number(min=0, min_open=True),
        default=10.0,
        show_default=True,
        help="Besides one after every epoch.",
    ),
    click.option("--sample-log", help="Folder, where it trains, for a log of the samples that every step consumed."),
)


def execution_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds OPTIONS; the command receives them under the names of `Execution`'s fields."""
    return _with(OPTIONS, command)


def loader_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Only those about reading ahead."""
    return _with(LOADER_OPTIONS, command)


def _with(options: Iterable[Callable[..., Any]], command: Callable[..., Any]) -> Callable[..., Any]:
    for option in reversed(list(options)):
        command = option(command)
    return command
