"""`alexvgg data …`"""

import json
import sys
from pathlib import Path

import click

from alexvgg.cli.commands import Commands
from alexvgg.cli.options import dataset_argument, json_option, loader_options
from alexvgg.cli.pack import index, pack
from alexvgg.cli.parameters import Number, OutputFile
from alexvgg.cli.place import dataset_url, reach
from alexvgg.cli.progress import telling
from alexvgg.exits import Exit


@click.group(cls=Commands)
def data() -> None:
    """Make and check datasets in object storage."""


@data.command()
@click.argument("name", type=click.Choice(["digits", "synthetic"]))
@click.argument("url")
@click.option("--images", type=click.IntRange(min=1), help="Training images.  [synthetic: 1000]")
@click.option("--val", type=click.IntRange(min=1), help="Validation images.  [synthetic: 100]")
@click.option("--classes", type=click.IntRange(min=1), help="Classes.  [synthetic: 100]")
@click.option("--shard-bytes", type=click.IntRange(min=1), help="Most bytes of a shard.  [synthetic: 64 MiB]")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True)
def sample(
    name: str, url: str, images: int | None, val: int | None, classes: int | None, shard_bytes: int | None, seed: int
) -> None:
    """Pack a dataset that needs no download as WebDataset shards at URL (s3://… or file://…).

    digits: scikit-learn's 1,797 scans of handwritten digits.

    synthetic: images with ImageNet's sizes and weights but no content, for benchmarks; about 110 KB each.

    \b
    Examples:
      alexvgg data sample digits s3://my-bucket/digits
      alexvgg data sample synthetic file:///tmp/synthetic --images 5000 --val 500 --classes 1000
    """
    from alexvgg.data.packing.commit import check_free
    from alexvgg.data.packing.sample import pack_digits
    from alexvgg.data.packing.synthetic import SyntheticSpec, pack_synthetic
    from alexvgg.data.shards import open_dataset
    from alexvgg.data.store import open_store
    from alexvgg.errors import InputError, reading

    given = {"images": images, "val": val, "classes": classes, "shard_bytes": shard_bytes}
    chosen = {option: value for option, value in given.items() if value is not None}
    if name == "digits" and chosen:
        options = ", ".join("--" + option.replace("_", "-") for option in chosen)
        raise InputError(f"the digits are what they are: {options} belongs to `alexvgg data sample synthetic`")
    store = open_store(reach(url))
    if store.exists("dataset.json"):  # of any format: a sample may be packed anew by a newer version
        with reading(f"{url}/dataset.json"):
            there = json.loads(store.get("dataset.json"))["name"]
        if there != name:
            raise InputError(f"{url} holds another dataset, {there!r}; name an empty folder or prefix for the sample")
    else:
        check_free(store)
    if name == "digits":
        pack_digits(store, seed)
    else:
        pack_synthetic(store, SyntheticSpec(seed=seed, **chosen))
    packed = open_dataset(store)
    click.echo(f"{url}: {len(packed.train)} train, {len(packed.val)} validation, fingerprint {packed.fingerprint}")


@data.command()
@dataset_argument
@click.option("--scale", default="jitter", show_default=True, help="S: 256, 384 or jitter.")
@click.option("--crop", type=click.IntRange(min=1), default=224, show_default=True, help="Side of the crop in pixels.")
@click.option("--batch", type=click.IntRange(min=1), default=256, show_default=True, help="The global batch.")
@click.option("--workers", type=click.IntRange(1, 64), default=1, show_default=True, help="That would share the batch.")
@click.option("--seconds", type=Number(min=0.1), default=20.0, show_default=True, help="How long.")
@loader_options
@json_option
def bench(
    url: str | None,
    profile: str | None,
    scale: str,
    crop: int,
    batch: int,
    workers: int,
    seconds: float,
    decode_threads: int | None,
    prefetch_bytes: int,
    cache_dir: str | None,
    cache_bytes: int,
    as_json: bool,
) -> None:
    """Measure how fast one worker gets a dataset's training images, and what limits it.

    The dataset is the one at URL, or the profile's.

    \b
    Example:
      alexvgg data bench s3://my-bucket/imagenet --workers 8
    """
    from alexvgg.data.cache import Cache
    from alexvgg.data.checking.measure import measure
    from alexvgg.data.loader import Prefetch, decoding_threads
    from alexvgg.data.shards import open_dataset
    from alexvgg.data.store import open_store
    from alexvgg.recipes import SCALES, choose

    prefetch = Prefetch(bytes=prefetch_bytes, decode_threads=decoding_threads(decode_threads))
    dataset = open_dataset(open_store(dataset_url(url, profile)))
    speed = measure(
        dataset, choose(SCALES, scale, "scale"), crop, batch=batch, world=workers,
        prefetch=prefetch, cache=Cache(Path(cache_dir), cache_bytes) if cache_dir else None, seconds=seconds,
    )  # fmt: skip
    click.echo(json.dumps(speed.to_dict(), indent=2) if as_json else speed.to_text())


@data.command()
@dataset_argument
@click.option("--report", type=OutputFile(), help="Write all that was found, as JSON.")
@click.option("--threads", type=click.IntRange(min=1), help="Shards read at a time; two for each core by default.")
@click.option("--json", "as_json", is_flag=True, help="Print the report.")
def verify(url: str | None, profile: str | None, report: Path | None, threads: int | None, as_json: bool) -> None:
    """Read a whole dataset, at URL or the profile's, and name all that is damaged, by shard and offset.

    Tars and index must agree; checksums, labels and the pixels of every image must be right; no image may be in train
    and val. Exits with 1 if anything is wrong.

    \b
    Example:
      alexvgg data verify s3://my-bucket/imagenet --report report.json
    """
    from alexvgg.data.checking.verify import summary
    from alexvgg.data.checking.verify import verify as read_all
    from alexvgg.data.store import open_store

    with telling() as tell:
        found = read_all(open_store(dataset_url(url, profile)), tell, threads)
    document = json.dumps(found.to_dict(), indent=2)
    if report is not None:
        report.write_text(document)
    click.echo(document if as_json else "\n".join(summary(found)))
    sys.exit(Exit.DONE if found.intact else Exit.FAILED)


@data.command()
@dataset_argument
@click.option("--images", type=click.IntRange(min=1), default=2000, show_default=True, help="Headers to read, a split.")
@json_option
def stat(url: str | None, profile: str | None, images: int, as_json: bool) -> None:
    """Describe a dataset, at URL or the profile's: classes, images, bytes, sizes, kinds of files.

    Sizes and kinds come from the headers of images that are evenly spread over each split; no pixel is decoded.

    \b
    Example:
      alexvgg data stat s3://my-bucket/imagenet --json
    """
    from alexvgg.data.checking.stat import describe, to_text
    from alexvgg.data.store import open_store

    facts = describe(open_store(dataset_url(url, profile)), images)
    click.echo(json.dumps(facts.to_dict(), indent=2) if as_json else "\n".join(to_text(facts)))


data.add_command(pack)
data.add_command(index)
