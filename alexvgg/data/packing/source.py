"""What can be packed: every image is a range of bytes in some file, so that none is copied or extracted before."""

import hashlib
import os
import sys
from array import array
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from types import TracebackType
from typing import NamedTuple

import numpy as np

from alexvgg.data.keyed import Ints
from alexvgg.errors import InputError

LONGEST_NAME = 100  # bytes: what fits into a plain tar header, which every reader understands


class Member(NamedTuple):
    """One image as a source finds it: `size` bytes at `offset` of file number `file`."""

    key: str
    extension: str
    label: int
    file: int
    offset: int
    size: int


@dataclass(frozen=True)
class Members:
    """The images of one split, sorted by key; an image's number is its position.

    Columns, not objects: the 1,281,167 of ILSVRC2012 take 145 MB, 8 bytes a number and some 65 a key.
    """

    files: tuple[str, ...]
    keys: tuple[str, ...]
    extensions: tuple[str, ...]
    labels: Ints
    file_of: Ints
    offsets: Ints
    sizes: Ints

    def __len__(self) -> int:
        return len(self.keys)


def members(files: Sequence[str], found: Iterable[Member]) -> Members:
    """`found` as columns. Raises InputError for a key that comes twice and for one that no shard can hold."""
    keys, extensions = list[str](), list[str]()
    columns = [array("q") for _ in ("label", "file", "offset", "size")]
    for key, extension, *numbers in found:
        if not _fits(f"{key}.{extension}"):
            raise InputError(
                f"the image name {key!r} does not fit into a shard: it must be UTF-8 of at most "
                f"{LONGEST_NAME - 1 - len(extension)} bytes; rename it"
            )
        keys.append(key)
        extensions.append(sys.intern(extension))
        for column, number in zip(columns, numbers, strict=True):
            column.append(number)
    order = sorted(range(len(keys)), key=keys.__getitem__)
    labels, file_of, offsets, sizes = (np.array(column, np.int64)[order] for column in columns)
    for one, two in pairwise(order):
        if keys[one] == keys[two]:
            places = " and ".join(files[columns[1][i]] for i in (one, two))
            raise InputError(f"two images are called {keys[one]!r}, in {places}; rename or remove one")
    return Members(
        tuple(files), tuple(keys[i] for i in order), tuple(extensions[i] for i in order),
        labels, file_of, offsets, sizes,
    )  # fmt: skip


def _fits(name: str) -> bool:
    try:
        return len(name.encode()) <= LONGEST_NAME
    except UnicodeEncodeError:
        return False


@dataclass(frozen=True)
class Source:
    """A labelled set of images on this machine's file system. A label is the rank of its class among the sorted."""

    kind: str
    name: str
    classes: tuple[str, ...]
    splits: Mapping[str, Members]
    about: Mapping[str, object] = field(default_factory=dict)  # more to say in dataset.json
    notes: tuple[str, ...] = ()  # what the person should know about it

    def digest(self) -> str:
        """sha256 over the list of images: key, label and size of each, in order. Their bytes aren't read."""
        sha = hashlib.sha256("\n".join(self.classes).encode())
        for split, m in sorted(self.splits.items()):
            sha.update(f"[{split}]".encode())
            for image in zip(m.keys, m.extensions, m.labels.tolist(), m.sizes.tolist(), strict=True):
                sha.update(repr(image).encode())
        return sha.hexdigest()


class Reader:
    """Reads members of one split by their numbers. Keeps the file it read last open, so that a tar is opened once."""

    def __init__(self, source: Members) -> None:
        self.members, self._number, self._file = source, -1, -1

    def __enter__(self) -> "Reader":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._close()

    def _close(self) -> None:
        if self._file >= 0:
            os.close(self._file)
        self._number, self._file = -1, -1

    def read(self, image: int) -> bytes:
        """The image's bytes. Raises InputError if its file has become shorter or can't be read."""
        m = self.members
        number, offset, size = int(m.file_of[image]), int(m.offsets[image]), int(m.sizes[image])
        try:
            if number != self._number:
                self._close()
                self._file, self._number = os.open(m.files[number], os.O_RDONLY), number
            data = os.pread(self._file, size, offset)
        except OSError as error:
            raise InputError(f"image {m.keys[image]!r} can't be read: {error}") from error
        if len(data) != size:
            raise InputError(f"image {m.keys[image]!r} is cut off in {m.files[number]}, or that changed while packing")
        return data


def open_source(folder: Path, threads: int) -> Source:
    """ILSVRC2012 as distributed, or a folder with train/CLASS/ and val/CLASS/. Raises InputError for anything else."""
    from alexvgg.data.packing.ilsvrc import TRAIN, VAL, is_ilsvrc, open_ilsvrc
    from alexvgg.data.packing.imagefolder import is_imagefolder, open_imagefolder

    if is_ilsvrc(folder):
        return open_ilsvrc(folder, threads)
    if is_imagefolder(folder):
        return open_imagefolder(folder)
    raise InputError(
        f"{folder} holds no images that can be packed. It must have either {TRAIN}, {VAL} and the devkit, "
        "or train/CLASS/ and val/CLASS/ with images, or WebDataset shards named *train*.tar and *val*.tar."
    )
