"""Options that several commands have: where, how a run is carried out, and how an answer is printed."""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable, Iterable
from typing import Any

import click
from click.core import ParameterSource

from alexvgg.cli.parameters import Bytes, Number, Scales

FLAGS = {
    "storage": "Storage URL instead of the profile's.",
    "dataset": "Dataset URL instead of the profile's.",
    "geometry": "paper or small, instead of the profile's.",
}

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
profile_option = click.option("--profile", help="A [profile.NAME] of alexvgg.toml; the local cluster by default.")
test_scales_option = click.option(
    "--test-scales",
    type=Scales(),
    metavar="Q,…",
    help="Q's to average, e.g. 256,384,512; the run's own by default.",
)  # a tuple, or None


def place_options(*settings: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """`--profile`, and flags that replace these settings of it; what they name needs no profile."""

    def add(command: Callable[..., Any]) -> Callable[..., Any]:
        for setting in reversed(settings):
            command = click.option(f"--{setting}", help=FLAGS[setting])(command)
        return profile_option(command)

    return add


def flags_of(**given: str | None) -> str:
    """What `place_options` were given, for the end of another command: ` --profile lab`."""
    return "".join(f" --{flag} {shlex.quote(value)}" for flag, value in given.items() if value is not None)


def insecure_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """`--insecure`, for commands that talk to Ray; it sets what `jobs.client` looks at, so they needn't pass it on."""

    def allow(_context: click.Context, _parameter: click.Parameter, value: bool) -> None:
        if value:
            os.environ["ALEXVGG_INSECURE"] = "1"

    about = "Talk to Ray on another machine even if it asks nobody for a token."
    return click.option("--insecure", is_flag=True, expose_value=False, callback=allow, help=about)(command)


def dataset_argument(command: Callable[..., Any]) -> Callable[..., Any]:
    """`[URL]` and `--profile`: the dataset at URL, or the profile's."""
    return click.argument("url", required=False)(profile_option(command))


def of_a_cache(ctx: click.Context, _parameter: click.Parameter, size: int) -> int:
    """`--cache-bytes`, if it is given, with `--cache`."""
    if ctx.get_parameter_source("cache_bytes") is ParameterSource.COMMANDLINE and not ctx.params.get("cache_dir"):
        raise click.UsageError("--cache-bytes bounds the cache in --cache FOLDER; give that, too", ctx)
    return size


LOADER_OPTIONS = (
    click.option(
        "--decode-threads",
        type=click.IntRange(min=1),
        help="Threads of each worker; default: its share of cores, less a fifth, and at most 32.",
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

EXECUTION_OPTIONS = (
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
    """Adds EXECUTION_OPTIONS; the command receives them under the names of `Execution`'s fields."""
    return _with(EXECUTION_OPTIONS, command)


def loader_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Only those about reading ahead."""
    return _with(LOADER_OPTIONS, command)


def _with(options: Iterable[Callable[..., Any]], command: Callable[..., Any]) -> Callable[..., Any]:
    for option in reversed(list(options)):
        command = option(command)
    return command
