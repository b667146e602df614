"""WebDataset shards that exist already, ours or anyone's: indexed where they lie, or copied as they are and indexed."""

import hashlib
import json
import shutil
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from alexvgg.data.index import ShardIndex, index_shard, read_index, write_index
from alexvgg.data.keyed import Ints
from alexvgg.data.packing import colour
from alexvgg.data.packing.commit import RECORD, Summary, begin, finish, missing, summarise
from alexvgg.data.packing.ilsvrc import is_ilsvrc
from alexvgg.data.packing.imagefolder import is_imagefolder
from alexvgg.data.progress import Progress, Say
from alexvgg.data.shards import write_mean_image
from alexvgg.data.store import MissingKeyError, Store
from alexvgg.data.tars import READ_AHEAD, open_object
from alexvgg.errors import InputError


@dataclass(frozen=True)
class ShardOptions:
    """What shards don't say themselves. Shards whose names match neither pattern aren't part of the dataset.

    What is None stays as a `dataset.json` that lies beside the shards has it.
    """

    name: str | None = None  # else the last part of the URL
    train: str = "*train*.tar"  # patterns of shard names, with * and ?
    val: str = "*val*.tar"
    classes: tuple[str, ...] | None = None  # their names, by label; None: as many as there are labels, called 0, 1, …
    flip: bool | None = None  # is a mirror image still of its class? Else it is
    colour_images: int | None = 20_000  # training images, drawn at random, that colour statistics are from; None: all
    seed: int = 0  # of that draw


def assign(names: Iterable[str], options: ShardOptions) -> dict[str, list[str]]:
    """The shards of each split, sorted. Raises InputError if a split has none, or two splits the same."""
    tars = sorted(name for name in names if name.endswith(".tar"))
    patterns = {"train": options.train, "val": options.val}
    splits = {split: [t for t in tars if fnmatchcase(t, pattern)] for split, pattern in patterns.items()}
    for split, shards in splits.items():
        if not shards:
            there = f"there are {', '.join(tars[:3])} and so on" if tars else "there is no tar at all"
            raise InputError(f"no shard matches --{split} {patterns[split]!r}; {there}")
    both = set(splits["train"]) & set(splits["val"])
    if both:
        raise InputError(f"{min(both)} matches both --train {options.train!r} and --val {options.val!r}")
    return splits


def is_shards(folder: Path) -> bool:
    """Whether a folder holds tars and nothing that its images could be packed from."""
    return not is_ilsvrc(folder) and not is_imagefolder(folder) and any(folder.rglob("*.tar"))


def index_shards(store: Store, options: ShardOptions, threads: int, say: Say) -> Summary:
    """Make the shards in a store a dataset: an index of each and `dataset.json`; no shard is changed.

    Raises InputError for a shard that isn't intact, and before anything is written.
    """
    if store.exists(RECORD):
        raise InputError(f"{store.url} was packed by `alexvgg data pack`, so it has its index; run that again instead")
    splits = assign(store.list(""), options)
    progress = Progress("indexed", sum(map(len, splits.values())), say)

    def index(shard: str) -> ShardIndex:
        found = index_shard(shard, open_object(store, shard, store.size(shard)))
        progress.add(found.size)
        return found

    with ThreadPoolExecutor(threads) as pool:
        try:
            indexes = {split: list(pool.map(index, shards)) for split, shards in splits.items()}
        finally:
            pool.shutdown(cancel_futures=True)
    about, found = _describe(store, indexes, options, threads, say)
    for shards in indexes.values():
        for each in shards:
            write_index(store, each)
    return finish(store, about, splits, found)


def copy_shards(folder: Path, store: Store, options: ShardOptions, threads: int, say: Say) -> Summary:
    """Upload a folder's shards as they are, each followed by its index; a rerun uploads only what is missing.

    Raises InputError for a shard that isn't intact, and if the store holds something else.
    """
    if (folder / "dataset.json").exists():
        raise InputError(f"{folder} is a dataset already, with index and description: copy the whole folder instead")
    splits = assign((p.relative_to(folder).as_posix() for p in folder.rglob("*.tar")), options)
    shards = [shard for names in splits.values() for shard in names]
    listing = [(shard, (folder / shard).stat().st_size) for shard in shards]
    images = hashlib.sha256(repr(listing).encode()).hexdigest()
    # Through JSON, which has no tuples, so that it equals what a rerun reads back.
    begin(store, json.loads(json.dumps({"source": "shards", "images": images, **asdict(options)})))
    todo = missing(store, shards)
    progress = Progress("copied", len(todo), say)

    def copy(shard: str) -> None:
        path = folder / shard
        with path.open("rb", READ_AHEAD) as file:
            index = index_shard(shard, file)
        with path.open("rb") as file, store.writer(shard) as out:
            shutil.copyfileobj(file, out, READ_AHEAD)
        write_index(store, index)
        progress.add(index.size)

    with ThreadPoolExecutor(threads) as pool:
        try:
            list(pool.map(copy, todo))
            indexes = {
                split: list(pool.map(lambda shard: read_index(store, shard), names)) for split, names in splits.items()
            }
        finally:
            pool.shutdown(cancel_futures=True)
    about, found = _describe(store, indexes, options, threads, say)
    return finish(store, about, splits, found)


def _describe(
    store: Store, indexes: Mapping[str, Sequence[ShardIndex]], options: ShardOptions, threads: int, say: Say
) -> tuple[dict[str, Any], Summary]:
    """What `dataset.json` says of shards that lie in the store, after checking their keys and labels."""
    highest = max((label for shards in indexes.values() for i in shards for label in i.labels), default=-1)
    known = _known(store)
    kept = {key: known[key] for key in ("classes", "words") if len(known.get(key, ())) > highest}
    if options.classes is not None or "classes" not in kept:
        kept = {"classes": list(options.classes or map(str, range(highest + 1)))}
    classes = kept["classes"]
    summary = summarise(store.url, indexes, len(classes))
    for split, images in summary.images.items():
        if not images:
            raise InputError(f"the {split} shards at {store.url} have no sample")
    places = [(i.shard, *place) for i in indexes["train"] for place in zip(i.offsets, i.sizes, strict=True)]
    drawn = colour.chosen(len(places), options.colour_images, options.seed)
    say(f"measuring the colours of {len(drawn):,} training images")

    def read(images: Ints) -> Iterable[bytes]:
        return (store.get_range(*places[image]) for image in images.tolist())

    colours, mean_image = colour.measure(read, drawn, threads)
    about = {
        "name": options.name or known.get("name") or store.url.rpartition("/")[2],
        "flip": options.flip if options.flip is not None else known.get("flip", True), **kept,
        **colours, "mean_image": write_mean_image(store, mean_image),
        "packed": {"source": "shards", "seed": options.seed},
    }  # fmt: skip
    return about, summary


def _known(store: Store) -> dict[str, Any]:
    """What was said of the shards before; nothing, if that can't be read."""
    try:
        known = json.loads(store.get("dataset.json"))
    except (MissingKeyError, ValueError):
        return {}
    return known if isinstance(known, dict) else {}
