"""`alexvgg data pack` and `alexvgg data index`"""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from alexvgg.cli.jobs import follow_to_end
from alexvgg.cli.options import flags_of, insecure_option, profile_option
from alexvgg.cli.place import connect, reach
from alexvgg.cli.progress import telling
from alexvgg.process import cores

THREADS = min(16, cores())


def image_count(text: str) -> int | None:
    """A number of images, or `all` (None)."""
    if text == "all":
        return None
    if not text.isdecimal() or int(text) < 1:
        raise click.BadParameter(f"{text!r} is neither a number of images nor `all`")
    return int(text)


def about_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """What every new dataset needs and no image says."""
    for option in (
        click.option(
            "--threads", type=click.IntRange(min=1), default=THREADS, show_default="one a core, at most 16",
            help="Threads.",
        ),
        click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Of what is drawn."),
        click.option(
            "--colour-images", type=image_count, default="20000", show_default=True, metavar="N|all",
            help="Training images, drawn at random, whose colours are measured.",
        ),
        click.option(
            "--flip/--no-flip", default=None,
            help="Do mirror images keep their class?  [default: flip, or what a dataset.json there says]",
        ),
        click.option("--name", help="The dataset's name; that of the source by default."),
    ):  # fmt: skip
        command = option(command)
    return command


def shard_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Which of existing shards are which, and their classes."""
    for option in (
        click.option("--classes", type=click.File(), help="For shards: names of the classes by label, one a line."),
        click.option("--val", default="*val*.tar", show_default=True, help="Which shards hold validation images."),
        click.option("--train", default="*train*.tar", show_default=True, help="Which shards hold training images."),
    ):
        command = option(command)
    return command


@click.command()
@click.argument("src", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.argument("dst", metavar="URL")
@click.option("--shard-bytes", type=click.IntRange(min=1), default=150_000_000, show_default=True, help="Aimed at.")
@click.option("--resize-shorter", type=click.IntRange(min=1), help="Re-encode larger images (JPEG, quality 95).")
@shard_options
@about_options
@click.option("--nodes", type=click.IntRange(min=1), help="Pack on so many nodes of a Ray cluster that all see SRC.")
@profile_option
@insecure_option
def pack(src: Path, dst: str, nodes: int | None, profile: str | None, **options: Any) -> None:
    """Pack the images in the folder SRC into shuffled WebDataset shards at URL (s3://… or file://…).

    SRC is ILSVRC2012 as distributed (two tars and the devkit, which are read in place), or has train/CLASS/ and
    val/CLASS/ with images, or holds WebDataset shards, which are copied as they are. Image bytes are kept. Run again
    after an interruption, it goes on. To S3 each thread holds 32 MiB of its shard.

    \b
    Examples:
      alexvgg data pack /data/ILSVRC2012 s3://my-bucket/imagenet
      alexvgg data pack /data/ILSVRC2012 s3://my-bucket/imagenet --nodes 4 --profile lab
    """
    from alexvgg.data.packing.adopt import copy_shards, is_shards
    from alexvgg.data.packing.pack import pack as pack_images
    from alexvgg.data.packing.source import open_source
    from alexvgg.data.store import open_store
    from alexvgg.errors import InputError

    threads = options["threads"]
    if (src.resolve() / "x").as_uri().startswith(dst.rstrip("/") + "/"):
        raise InputError(f"{dst} holds the images themselves; name another folder for the shards")
    if nodes is not None:
        _, jobs = connect(profile)
        from jobs.pack import submit  # only now: Ray reads where its token lies when it is imported

        job = submit(jobs, src, dst, _pack_options(options), threads, nodes)
        sys.exit(follow_to_end(jobs, job, flags_of(profile=profile)))
    store = open_store(reach(dst))
    with telling() as tell:
        if is_shards(src):
            summary = copy_shards(src, store, _shard_options(src.resolve().name, options), threads, tell)
        else:
            summary = pack_images(open_source(src, threads), store, _pack_options(options), threads, tell)
    click.echo("\n".join(summary.lines()))


@click.command()
@click.argument("url")
@shard_options
@about_options
def index(url: str, **options: Any) -> None:
    """Make a dataset of the WebDataset shards that lie at URL: index each, and describe them. No shard is changed.

    A sample is KEY.jpg, .jpeg, .png or .webp with KEY.cls, or with KEY.json that has a "label".

    \b
    Example:
      alexvgg data index s3://my-bucket/imagenet-wds --train '*train*.tar' --val '*val*.tar' --name imagenet
    """
    from alexvgg.data.packing.adopt import index_shards
    from alexvgg.data.store import open_store

    with telling() as tell:
        summary = index_shards(open_store(reach(url)), _shard_options(None, options), options["threads"], tell)
    click.echo("\n".join(summary.lines()))


def _shard_options(name: str | None, given: dict[str, Any]) -> Any:
    from alexvgg.data.packing.adopt import ShardOptions

    classes = given["classes"]
    return ShardOptions(
        name=given["name"] or name, train=given["train"], val=given["val"],
        classes=tuple(classes.read().splitlines()) if classes else None,
        flip=given["flip"], colour_images=given["colour_images"], seed=given["seed"],
    )  # fmt: skip


def _pack_options(given: dict[str, Any]) -> Any:
    from dataclasses import fields

    from alexvgg.data.packing.pack import PackOptions

    return PackOptions(**{f.name: given[f.name] for f in fields(PackOptions) if given[f.name] is not None})
