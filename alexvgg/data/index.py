"""The index of a tar: where each sample lies and what it is. Read off in one pass, kept beside the shards.

A shard's `index/SHARD.json` is written after the shard: where it exists, the shard is complete.
"""

import hashlib
import io
import json
import re
import tarfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, BinaryIO

from zlib_ng.zlib_ng import crc32

from alexvgg.data.decode import EXTENSIONS, MAX_BYTES, can_open
from alexvgg.data.documents import encode
from alexvgg.data.store import Store
from alexvgg.data.tars import DamagedTarError, body, members
from alexvgg.errors import InputError

FORMAT = 2
# What of `dataset.json` decides a number that is measured on the images.
IDENTITY = ("samples", "flip", "mean_rgb", "colour_axes", "colour_std", "mean_image")
SAMPLE_FILE = re.compile(r"((?:.*/|)[^.]+)[.]([^/]*)")
META_FILE = re.compile(r"__[^/]*__($|/)")


@dataclass(frozen=True)
class ShardIndex:
    """Where each sample of one shard lies. The first five lists have one entry per sample, in the order of the tar."""

    shard: str
    size: int  # of the tar, in bytes
    keys: list[str]
    offsets: list[int]
    sizes: list[int]
    labels: list[int]
    crc32: list[int]
    unreadable: list[str] = field(default_factory=list)  # keys of images that no decoder can open

    def to_json(self) -> bytes:
        return json.dumps(vars(self), separators=(",", ":")).encode()


def sample_file(name: str) -> tuple[str, str] | None:
    """Key and lower-case ending of a sample's file, None for other names, as WebDataset takes them.

    The key ends at the first dot of the last part of the path.
    """
    found = SAMPLE_FILE.fullmatch(name)
    return None if found is None or META_FILE.match(name) else (found[1], found[2].lower())


def index_shard(shard: str, tar: BinaryIO | bytes) -> ShardIndex:
    """Index a tar of WebDataset samples in one pass over its bytes, one sample of which is held at a time.

    A sample is KEY.jpg, .jpeg, .png or .webp in any case, and KEY.cls or, without it, "label" in KEY.json. Raises
    InputError for a cut or damaged tar, a key that comes twice, and a sample without image or without label.
    """
    file = io.BytesIO(tar) if isinstance(tar, bytes) else tar
    found = _Found(shard, file)
    try:
        for member in members(file):
            found.take(member)
    except DamagedTarError as error:
        raise InputError(f"{shard} is no intact tar: {error}") from error
    return found.index(file.tell())


class _Found:
    """The samples of one tar as they come by."""

    def __init__(self, shard: str, file: BinaryIO) -> None:
        self.shard, self.file = shard, file
        self.images: dict[str, tuple[int, int, int]] = {}  # key -> offset, size, crc32
        self.labels: dict[str, int] = {}
        self.described: dict[str, int] = {}  # labels in .json files
        self.unreadable: list[str] = []

    def take(self, member: tarfile.TarInfo) -> None:
        name = sample_file(member.name)
        if name is None or member.isdir():
            return
        key, extension = name
        if extension in EXTENSIONS:
            image = self._body(member)
            self._once(key, self.images, "image")
            self.images[key] = (member.offset_data, member.size, crc32(image))
            if not can_open(image):
                self.unreadable.append(key)
        elif extension == "cls":
            self._once(key, self.labels, "label")
            self.labels[key] = self._label(key, self._body(member))
        elif extension == "json":
            label = described_label(self._body(member))
            if label is not None:
                self.described[key] = label

    def _body(self, member: tarfile.TarInfo) -> bytes:
        if not member.isreg():
            raise InputError(f"{self.shard}: {member.name} is a link or a device, not a plain file")
        if member.size > MAX_BYTES:
            raise InputError(f"{self.shard}: {member.name} has {member.size} bytes, over the limit of {MAX_BYTES}")
        return body(self.file, member)

    def _once(self, key: str, seen: Mapping[str, object], what: str) -> None:
        if key in seen:
            raise InputError(f"{self.shard}: sample {key!r} has a second {what}; every key must be there once")

    def _label(self, key: str, text: bytes) -> int:
        try:
            return int(text)
        except ValueError:
            raise InputError(f"{self.shard}: the label of {key!r} is {text[:40]!r}, not a number") from None

    def index(self, size: int) -> ShardIndex:
        labels = {key: label for key, label in self.described.items() if key in self.images} | self.labels
        if self.images.keys() != labels.keys():
            odd = min(self.images.keys() ^ labels.keys())
            raise InputError(
                f"{self.shard}: sample {odd!r} has only one of image and label; a label is a number in KEY.cls, or "
                'called "label" in KEY.json'
            )
        offsets, sizes, checksums = ([place[i] for place in self.images.values()] for i in range(3))
        return ShardIndex(
            self.shard, size, list(self.images), offsets, sizes, [labels[k] for k in self.images], checksums,
            self.unreadable,
        )  # fmt: skip


def described_label(text: bytes) -> int | None:
    """The label in a sample's JSON, if it has one."""
    try:
        label = json.loads(text)["label"]
    except (ValueError, KeyError, TypeError):
        return None
    return label if isinstance(label, int) else None


def digest_of(splits: Mapping[str, Iterable[ShardIndex]]) -> str:
    """sha256 over every sample's key, label, size and crc32 in order: says which images, not where they lie."""
    digest = hashlib.sha256()
    for split in sorted(splits):
        digest.update(f"[{split}]".encode())
        for index in splits[split]:
            for sample in zip(index.keys, index.labels, index.sizes, index.crc32, strict=True):
                digest.update(repr(sample).encode())
    return digest.hexdigest()


def fingerprint(about: Mapping[str, Any]) -> str:
    """sha256 over what makes a dataset another one: its images, their mean and colours, whether they are mirrored.

    What it is called and where it lies doesn't.
    """
    return hashlib.sha256(json.dumps({name: about[name] for name in IDENTITY}).encode()).hexdigest()


def index_key(shard: str) -> str:
    return f"index/{shard}.json"


def write_index(store: Store, index: ShardIndex) -> None:
    """Commit a shard that is in the store already."""
    store.put(index_key(index.shard), index.to_json())


def read_index(store: Store, shard: str) -> ShardIndex:
    return ShardIndex(**json.loads(store.get(index_key(shard))))


def write_dataset(store: Store, about: Mapping[str, Any], splits: Mapping[str, Sequence[ShardIndex]]) -> None:
    """Write the index of shards that are already in the store, and `dataset.json` last."""
    for indexes in splits.values():
        for index in indexes:
            write_index(store, index)
    shards = {name: [i.shard for i in indexes] for name, indexes in splits.items()}
    write_about(store, about, shards, digest_of(splits))


def write_about(store: Store, about: Mapping[str, Any], shards: Mapping[str, Sequence[str]], samples: str) -> str:
    """Write `dataset.json`: with it, the dataset is complete. `samples` is their digest. Returns the fingerprint."""
    told = {"format": FORMAT, **about, "samples": samples}
    document = {**told, "fingerprint": fingerprint(told), "splits": {k: list(v) for k, v in shards.items()}}
    store.put("dataset.json", encode(document))
    return str(document["fingerprint"])
