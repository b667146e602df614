"""From labelled images to shuffled WebDataset shards in a store: planned as a pure function, packed in any order.

The same images, seed and options give the same bytes on any number of threads and nodes.
"""

import io
import tarfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import asdict, dataclass, replace
from typing import Any, cast

import numpy as np
from PIL import Image
from zlib_ng.zlib_ng import crc32

from alexvgg.data.decode import MAX_BYTES, UndecodableError, can_open, decode
from alexvgg.data.index import ShardIndex, write_index
from alexvgg.data.keyed import Ints
from alexvgg.data.packing import colour
from alexvgg.data.packing.commit import Summary, begin, finish, missing, summary
from alexvgg.data.packing.source import Reader, Source
from alexvgg.data.progress import Progress, Say
from alexvgg.data.shards import is_complete, read_about, write_mean_image
from alexvgg.data.store import Store, Writer
from alexvgg.data.tars import BLOCK
from alexvgg.data.views import whole

JPEG_QUALITY = 95  # of images that --resize-shorter encodes anew


@dataclass(frozen=True)
class PackOptions:
    """What decides the bytes of a packed dataset, beside its images."""

    seed: int = 0
    shard_bytes: int = 150_000_000
    resize_shorter: int | None = None  # pixels; larger images are re-encoded at that shorter side
    colour_images: int | None = 20_000  # training images, drawn at random, that colour statistics are from; None: all
    flip: bool = True  # is a mirror image still of its class?
    name: str | None = None  # the source's if None


@dataclass(frozen=True)
class Shard:
    """One shard to be: which images of its split, by number, in which order."""

    name: str
    split: str
    images: Ints


Elsewhere = Callable[[Sequence[Shard], Callable[[int], None]], None]  # packs shards, telling the size of each


def plan_shards(sizes: Ints, order: Ints, shard_bytes: int) -> list[Ints]:
    """`order`, cut into tars of equal size, as far as whole images allow, near `shard_bytes`; `sizes` are of images."""
    ends = np.cumsum(_in_tar(sizes)[order])
    shards = min(len(order), max(1, round(int(ends[-1]) / shard_bytes)))
    cuts = np.searchsorted(ends, ends[-1] * np.arange(1, shards) // shards, side="right")
    return [part for part in np.split(order, cuts) if len(part)]


def _in_tar(sizes: Ints) -> Ints:
    """What a sample takes in a tar: header and one block of label, header and image in whole blocks."""
    return 3 * BLOCK + -(-sizes // BLOCK) * BLOCK


def plan(source: Source, options: PackOptions) -> list[Shard]:
    """All shards. Training images are shuffled globally, a function of the seed and their number; others stay sorted.

    Validation images keep the order of their names: an epoch over them has no need of chance.
    """
    shards = []
    for split, images in source.splits.items():
        order = np.arange(len(images))
        if split == "train":
            # Raw generator output and a stable sort: NumPy promises never to change these.
            random = np.random.Philox(key=np.array([options.seed, 0], np.uint64))
            order = np.argsort(random.random_raw(len(images)), kind="stable")
        parts = plan_shards(images.sizes, order, options.shard_bytes)
        shards += [Shard(f"{split}-{n:06d}.tar", split, part) for n, part in enumerate(parts)]
    return shards


def pack(
    source: Source, store: Store, options: PackOptions, threads: int, say: Say, elsewhere: Elsewhere | None = None
) -> Summary:
    """Pack everything that isn't in the store yet, here or `elsewhere`, and complete the dataset.

    Raises InputError if the store holds something else, StoreError if it fails.
    """
    begin(store, record(source, options))
    shards = plan(source, options)
    todo = set(missing(store, (s.name for s in shards)))
    report_plan(source, shards, todo, say)
    progress, waiting = Progress("packed", len(todo), say), [s for s in shards if s.name in todo]
    if elsewhere is None:
        pack_shards(source, waiting, store, options, threads, progress.add)
    else:
        elsewhere(waiting, progress.add)
    return complete(source, store, options, shards, threads, say)


def record(source: Source, options: PackOptions) -> dict[str, Any]:
    """What is packed and how: one that differs in anything is another dataset."""
    return {
        "source": source.kind, "images": source.digest(), **asdict(options), "name": options.name or source.name,
        "jpeg_quality": JPEG_QUALITY if options.resize_shorter else None,
    }  # fmt: skip


def report_plan(source: Source, shards: Sequence[Shard], todo: set[str], say: Say) -> None:
    """Say what there is, what is left to do, and what is odd about the source."""
    for note in source.notes:
        say(note)
    images = sum(len(s.images) for s in shards)
    there = f", {len(shards) - len(todo)} of which are there already" if len(todo) < len(shards) else ""
    say(f"{images:,} images in {len(shards)} shards{there}")


def pack_shards(
    source: Source,
    shards: Iterable[Shard],
    store: Store,
    options: PackOptions,
    threads: int,
    done: Callable[[int], None],
) -> None:
    """Pack and commit `shards`, several at a time, calling `done` with the size of each, in bytes.

    The first error stops the others between two shards.
    """
    with ThreadPoolExecutor(threads) as pool:
        running = [pool.submit(pack_shard, source, shard, store, options, done) for shard in shards]
        try:
            for ended in wait(running, return_when=FIRST_EXCEPTION).done:
                ended.result()
        finally:
            pool.shutdown(cancel_futures=True)


def pack_shard(source: Source, shard: Shard, store: Store, options: PackOptions, done: Callable[[int], None]) -> None:
    """Write one tar to the store, then its index, which commits it."""
    with store.writer(shard.name) as out:
        index = write_shard(source, shard, out, options)
    write_index(store, index)
    done(index.size)


def write_shard(source: Source, shard: Shard, out: Writer, options: PackOptions) -> ShardIndex:
    """Write one tar, and index it on the way."""
    from webdataset import TarWriter

    index = ShardIndex(shard.name, 0, [], [], [], [], [], [])
    members = source.splits[shard.split]
    with Reader(members) as reader:
        with TarWriter(out, encoder=False, mtime=0) as writer:
            # The same tar, but an image in one piece: by itself TarWriter cuts it into pieces of 10 KiB, twice over.
            writer.tarstream = tarfile.TarFile(fileobj=cast(Any, out), mode="w", copybufsize=MAX_BYTES)
            for image in shard.images.tolist():
                key, label = members.keys[image], int(members.labels[image])
                data, extension = _wanted(reader.read(image), members.extensions[image], options)
                writer.write({"__key__": key, extension: data, "cls": b"%d" % label})
                index.keys.append(key)
                index.labels.append(label)
                # The writer sorts a sample's files by ending, so the image comes last.
                index.offsets.append(writer.tarstream.offset - -(-len(data) // BLOCK) * BLOCK)
                index.sizes.append(len(data))
                index.crc32.append(crc32(data))
                if not can_open(data):
                    index.unreadable.append(key)
        size = out.tell()
    return ShardIndex(**{**vars(index), "size": size})


def _wanted(data: bytes, extension: str, options: PackOptions) -> tuple[bytes, str]:
    """The original bytes; or, if its shorter side is over `resize_shorter`, the image at that size as a JPEG."""
    if options.resize_shorter is None:
        return data, extension
    try:
        image = decode(data)
    except UndecodableError:
        return data, extension
    if min(image.shape[:2]) <= options.resize_shorter:
        return data, extension
    smaller = np.moveaxis(whole(image, options.resize_shorter), 0, -1)
    jpeg = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(smaller)).save(jpeg, "JPEG", quality=JPEG_QUALITY)
    return jpeg.getvalue(), "jpg"


def complete(
    source: Source, store: Store, options: PackOptions, shards: Sequence[Shard], threads: int, say: Say
) -> Summary:
    """Measure the training images' colours and write `dataset.json`, when every shard is there."""
    names = {split: [s.name for s in shards if s.split == split] for split in source.splits}
    found = summary(store, names, len(source.classes))
    if is_complete(store):
        say("the dataset is complete already")
        return replace(found, fingerprint=read_about(store)["fingerprint"])
    train = source.splits["train"]
    drawn = colour.chosen(len(train), options.colour_images, options.seed)
    say(f"measuring the colours of {len(drawn):,} training images")

    def read(images: Ints) -> Iterable[bytes]:
        with Reader(train) as reader:
            for image in images.tolist():
                yield reader.read(image)

    colours, mean_image = colour.measure(read, drawn, threads)
    about: Mapping[str, Any] = {
        "name": options.name or source.name, "classes": list(source.classes), "flip": options.flip,
        **colours, "mean_image": write_mean_image(store, mean_image), "packed": record(source, options), **source.about,
    }  # fmt: skip
    return finish(store, about, names, found)
