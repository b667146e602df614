"""A dataset in a store: plain WebDataset tars, an index of each, and `dataset.json`, which is written last.

dataset.json            classes, colour statistics, fingerprint, the shards of each split
train-000000.tar        KEY.jpg + KEY.cls, as any WebDataset reader expects them
index/train-000000.tar.json   per sample: key, offset, size, label, crc32 of the image's bytes
"""

import hashlib
import io
import json
import tarfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np

from alexvgg.data.decode import EXTENSIONS
from alexvgg.data.keyed import Ints
from alexvgg.data.store import MissingKeyError, Store, StoreError
from alexvgg.errors import InputError

MAX_READ = 8 << 20  # bytes of one ranged GET
FORMAT = 1
ABOUT = ("name", "classes", "flip", "mean_rgb", "colour_axes", "colour_std", "fingerprint", "splits")  # of dataset.json


@dataclass(frozen=True)
class ShardIndex:
    """Where each sample of one shard lies. All lists have one entry per sample, in the order of the tar."""

    shard: str
    size: int  # of the tar, in bytes
    keys: list[str]
    offsets: list[int]
    sizes: list[int]
    labels: list[int]
    crc32: list[int]

    def to_json(self) -> bytes:
        return json.dumps(vars(self), separators=(",", ":")).encode()


def index_shard(shard: str, data: bytes) -> ShardIndex:
    """Index one tar in one pass. Raises InputError for a cut or damaged tar and for a sample without image or label.

    Python's tar reader takes a tar that is cut at a member's header for a shorter tar; the two zero blocks that end
    a tar are therefore required.
    """
    images: dict[str, tuple[int, int, int]] = {}
    labels: dict[str, int] = {}
    try:
        with tarfile.open(fileobj=io.BytesIO(data), mode="r:") as tar:
            for member in tar:
                key, _, extension = member.name.partition(".")
                body = data[member.offset_data : member.offset_data + member.size]
                if not member.isfile() or len(body) != member.size:
                    raise InputError(f"{shard}: {member.name} is cut off or no plain file")
                if extension.lower() in EXTENSIONS:
                    images[key] = (member.offset_data, member.size, zlib.crc32(body))
                elif extension == "cls":
                    labels[key] = int(body)
            end = tar.offset
    except (tarfile.TarError, ValueError) as error:
        raise InputError(f"{shard} is no intact tar of images and labels: {error}") from error
    if data[end - 512 : end + 512].count(0) < 512 or len(data) - end < 512:
        raise InputError(f"{shard} ends after {len(data)} bytes without a tar's end mark: it was cut off")
    if images.keys() != labels.keys():
        odd = sorted(images.keys() ^ labels.keys())[0]
        raise InputError(f"{shard}: sample {odd!r} has only one of image and label")
    places = list(images.values())
    return ShardIndex(
        shard=shard,
        size=len(data),
        keys=list(images),
        offsets=[offset for offset, _, _ in places],
        sizes=[size for _, size, _ in places],
        labels=[labels[key] for key in images],
        crc32=[crc for _, _, crc in places],
    )


def fingerprint(splits: Mapping[str, Sequence[ShardIndex]]) -> str:
    """sha256 over every sample's key, label, size and crc32 in order: says which images, not where they lie."""
    digest = hashlib.sha256()
    for split in sorted(splits):
        digest.update(f"[{split}]".encode())
        for index in splits[split]:
            for sample in zip(index.keys, index.labels, index.sizes, index.crc32, strict=True):
                digest.update(repr(sample).encode())
    return digest.hexdigest()


@dataclass(frozen=True)
class Split:
    """All samples of one split. A sample's id is its position here."""

    shards: tuple[str, ...]
    shard_sizes: tuple[int, ...]
    keys: tuple[str, ...]
    shard_of: Ints
    offsets: Ints
    sizes: Ints
    labels: Ints
    crc32: Ints

    def __len__(self) -> int:
        return len(self.keys)


@dataclass(frozen=True)
class Dataset:
    """What `dataset.json` says, with the index of both splits."""

    name: str
    classes: tuple[str, ...]
    flip: bool  # is a mirror image still of its class?
    mean_rgb: tuple[float, float, float]  # of the training pixels, 0 to 255
    colour_axes: tuple[tuple[float, ...], ...]  # principal components of the training pixels' RGB, as columns,
    colour_std: tuple[float, ...]  # and the standard deviation along each, in units of 1/255
    fingerprint: str
    train: Split
    val: Split
    store: Store


def read_about(store: Store) -> dict[str, Any]:
    """dataset.json. Raises InputError if there is none, or it is of another format."""
    try:
        about: dict[str, Any] = json.loads(store.get("dataset.json"))
    except MissingKeyError:
        raise InputError(
            f"there is no dataset at {store.url}. `alexvgg data sample digits {store.url}` packs a small one."
        ) from None
    except ValueError as error:
        raise InputError(f"{store.url}/dataset.json is damaged ({error}); pack or index the dataset again") from None
    if about.get("format") != FORMAT:
        raise InputError(f"the dataset at {store.url} has format {about.get('format')}; this version reads {FORMAT}")
    if missing := [name for name in ABOUT if name not in about]:
        raise InputError(f"{store.url}/dataset.json lacks {', '.join(missing)}; pack or index the dataset again")
    return about


def open_dataset(store: Store) -> Dataset:
    """Read a dataset's index. Raises InputError if there is none, or no image in it."""
    about = read_about(store)
    splits = {name: _open_split(store, shards) for name, shards in about["splits"].items()}
    for name, split in splits.items():
        if len(split) == 0:
            raise InputError(f"the dataset at {store.url} is empty: its {name} split has no image")
    return Dataset(
        name=about["name"], classes=tuple(about["classes"]), flip=about["flip"], mean_rgb=tuple(about["mean_rgb"]),
        colour_axes=tuple(map(tuple, about["colour_axes"])), colour_std=tuple(about["colour_std"]),
        fingerprint=about["fingerprint"], train=splits["train"], val=splits["val"], store=store,
    )  # fmt: skip


def _open_split(store: Store, shards: Sequence[str]) -> Split:
    with ThreadPoolExecutor(16) as pool:
        columns = [json.loads(text) for text in pool.map(lambda s: store.get(f"index/{s}.json"), shards)]
    sizes = tuple(len(c["keys"]) for c in columns)

    def column(name: str) -> Ints:
        return np.concatenate([np.asarray(c[name], np.int64) for c in columns]) if columns else np.empty(0, np.int64)

    return Split(
        shards=tuple(shards), shard_sizes=sizes, keys=tuple(k for c in columns for k in c["keys"]),
        shard_of=np.repeat(np.arange(len(shards)), sizes), offsets=column("offsets"), sizes=column("sizes"),
        labels=column("labels"), crc32=column("crc32"),
    )  # fmt: skip


def read_samples(store: Store, split: Split, samples: Ints) -> dict[int, bytes]:
    """The image bytes of `samples`, which lie in storage order, by as few ranged reads as 8 MiB each allow.

    Raises StoreError, with the shard and the offset, if a sample's bytes aren't the indexed ones.
    """
    found: dict[int, bytes] = {}
    for run in _contiguous(split, samples):
        shard = split.shards[split.shard_of[run[0]]]
        start = int(split.offsets[run[0]])
        data = store.get_range(shard, start, int(split.offsets[run[-1]] + split.sizes[run[-1]]) - start)
        for sample in run:
            offset = int(split.offsets[sample])
            body = data[offset - start : offset - start + int(split.sizes[sample])]
            if zlib.crc32(body) != split.crc32[sample]:
                raise StoreError(
                    f"{store.url}/{shard} at offset {offset}: sample {split.keys[sample]!r} isn't what was indexed "
                    "(crc32 differs). The shard was damaged or replaced; restore it, or pack and index it again."
                )
            found[int(sample)] = body
    return found


def _contiguous(split: Split, samples: Ints) -> Iterator[list[int]]:
    run: list[int] = []
    for sample in map(int, samples):
        if run and (
            sample != run[-1] + 1
            or split.shard_of[sample] != split.shard_of[run[0]]
            or split.offsets[sample] + split.sizes[sample] - split.offsets[run[0]] > MAX_READ
        ):
            yield run
            run = []
        run.append(sample)
    if run:
        yield run


def write_dataset(store: Store, about: dict[str, Any], splits: Mapping[str, Sequence[ShardIndex]]) -> None:
    """Write the index of shards that are already in the store, and `dataset.json` last."""
    for indexes in splits.values():
        for index in indexes:
            store.put(f"index/{index.shard}.json", index.to_json())
    document = {
        "format": FORMAT,
        **about,
        "fingerprint": fingerprint(splits),
        "splits": {name: [i.shard for i in indexes] for name, indexes in splits.items()},
    }
    store.put("dataset.json", json.dumps(document, indent=2).encode())
