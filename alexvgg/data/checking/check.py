"""One shard read twice, as a tar from header to header and by its index, and held against itself."""

import hashlib
import json
from dataclasses import dataclass
from typing import Literal

from zlib_ng.zlib_ng import crc32

from alexvgg.data.decode import EXTENSIONS, UndecodableError, decode
from alexvgg.data.index import ShardIndex, described_label, index_key, sample_file
from alexvgg.data.store import MissingKeyError, Store
from alexvgg.data.tars import DamagedTarError, body, members, open_object
from alexvgg.errors import StoreError

COLUMNS = ("keys", "offsets", "sizes", "labels", "crc32")
DIGEST_BYTES = 16

Kind = Literal[
    "missing",  # a shard isn't there
    "unreadable",  # the storage doesn't give it
    "index",  # its index can't be used
    "size",  # it has another size than when it was indexed
    "tar",  # it is cut or damaged as a tar
    "lost",  # the index has an image that the tar doesn't
    "stray",  # the tar has something that the index doesn't
    "place",  # it lies elsewhere in the tar than the index says
    "crc32",  # the image's bytes were changed
    "image",  # no decoder can read it
    "label",  # its label is none, no class, or not what the tar says
    "leak",  # it is in train and in val
    "fingerprint",  # index, mean image and dataset.json don't belong together
]


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong. `where` is a shard or another object of the dataset, `offset` in bytes of it."""

    kind: Kind
    where: str
    key: str | None
    offset: int | None
    what: str

    def __str__(self) -> str:
        key = "" if self.key is None else f" sample {self.key!r}"
        offset = "" if self.offset is None else f" at offset {self.offset}"
        return f"{self.where}{offset}{key}: {self.what}"


@dataclass(frozen=True, slots=True)
class Place:
    """Where an image lies."""

    split: str
    shard: str
    key: str
    offset: int
    label: int | None


@dataclass(frozen=True)
class CheckedShard:
    """What one shard turned out to be. `index` is None if it can't be used."""

    index: ShardIndex | None
    size: int  # bytes
    problems: list[Problem]
    images: list[tuple[bytes, Place]]  # digest and place of each


def check_shard(store: Store, split: str, shard: str, classes: int) -> CheckedShard:
    """Read a whole shard of a dataset with so many classes, a few MB of it at a time."""
    index, problems = _read_index(store, shard)
    try:
        size = store.size(shard)
    except MissingKeyError:
        what = "the shard isn't there; restore it, or pack the dataset again"
        return CheckedShard(index, 0, [*problems, Problem("missing", shard, None, None, what)], [])
    except StoreError as error:
        return CheckedShard(index, 0, [*problems, Problem("unreadable", shard, None, None, str(error))], [])
    if index is not None and index.size != size:
        what = f"it has {size} bytes, but {index.size} when it was indexed"
        problems.append(Problem("size", shard, None, min(size, index.size), what))
    check = _Check(store, split, shard, size, index)
    try:
        check.follow()
        check.compare()
    except StoreError as error:  # with the storage's patience at its end, the rest is unknown
        check.stopped = True
        check.wrong("unreadable", None, None, str(error))
    check.labels(classes)
    return CheckedShard(index, size, problems + check.problems, check.images)


def _read_index(store: Store, shard: str) -> tuple[ShardIndex | None, list[Problem]]:
    """A shard's index if it can be used, and what is wrong with it."""
    where = index_key(shard)

    def wrong(what: str) -> tuple[None, list[Problem]]:
        remedy = "`alexvgg data pack` of the same images" if store.exists("pack.json") else "`alexvgg data index`"
        return None, [Problem("index", where, None, None, f"{what}; {remedy} makes it anew")]

    try:
        document = json.loads(store.get(where))
        columns = {name: list(document[name]) for name in COLUMNS}
        index = ShardIndex(shard=str(document["shard"]), size=int(document["size"]), **columns)
    except MissingKeyError:
        return wrong("it isn't there")
    except StoreError as error:
        return wrong(str(error))
    except (ValueError, KeyError, TypeError) as error:
        return wrong(f"it can't be understood ({type(error).__name__}: {error})")
    if index.shard != shard:
        return wrong(f"it is the index of {index.shard}")
    counts = {name: len(column) for name, column in columns.items()}
    if len(set(counts.values())) > 1:
        return wrong(f"its columns differ in length ({', '.join(f'{n} {c}' for n, c in counts.items())})")
    if not all(isinstance(n, int) for name in COLUMNS[1:] for n in columns[name]):
        return wrong("it has something else than numbers in its columns")
    return index, []


@dataclass(frozen=True)
class _Indexed:
    offset: int
    size: int
    label: int
    crc32: int


class _Check:
    """One shard, read as a tar and held against its index."""

    def __init__(self, store: Store, split: str, shard: str, size: int, index: ShardIndex | None) -> None:
        self.store, self.split, self.shard, self.size = store, split, shard, size
        self.indexed: dict[str, _Indexed] | None = None
        self.problems: list[Problem] = []
        self.images: list[tuple[bytes, Place]] = []
        self.seen: dict[str, int] = {}  # key -> offset of the image
        self.labelled: dict[str, tuple[int, int | None]] = {}  # key -> offset and value of the label
        self.stopped = False  # it couldn't be read to its end
        if index is not None:
            self.indexed = {}
            for key, *entry in zip(*(getattr(index, name) for name in COLUMNS), strict=True):
                if key in self.indexed:
                    self.wrong("index", key, entry[0], "the index has this key twice")
                self.indexed[key] = _Indexed(*entry)

    def wrong(self, kind: Kind, key: str | None, offset: int | None, what: str) -> None:
        self.problems.append(Problem(kind, self.shard, key, offset, what))

    def follow(self) -> None:
        """Read the tar from header to header."""
        try:
            file = open_object(self.store, self.shard, self.size)
            for member in members(file):
                name = sample_file(member.name)
                if name is None or member.isdir():
                    continue
                key, extension = name
                if not member.isreg():
                    self.wrong("tar", key, member.offset, f"{member.name} is no plain file")
                elif extension in EXTENSIONS:
                    self.image(key, member.offset_data, body(file, member))
                elif extension in ("cls", "json"):
                    self.label(key, extension, member.offset_data, body(file, member))
        except DamagedTarError as error:
            self.stopped = True
            self.wrong("tar", None, error.offset, f"it is no intact tar: {error}")

    def image(self, key: str, offset: int, data: bytes) -> None:
        """An image that the tar has."""
        if key in self.seen:
            self.wrong("stray", key, offset, f"a second image of this key; the first is at offset {self.seen[key]}")
            return
        self.seen[key] = offset
        entry = self.indexed.get(key) if self.indexed is not None else None
        if self.indexed is not None and entry is None:
            self.wrong("stray", key, offset, "the tar has this image, but the index doesn't: training never sees it")
        elif entry is not None and (entry.offset, entry.size) != (offset, len(data)):
            what = f"the tar has {len(data)} bytes here, but the index {entry.size} bytes at offset {entry.offset}"
            self.wrong("place", key, offset, what)
        self.content(key, offset, data, entry)

    def content(self, key: str, offset: int, data: bytes, entry: _Indexed | None) -> None:
        """The bytes of an image, wherever they were found."""
        self.images.append((hashlib.blake2b(data, digest_size=DIGEST_BYTES).digest(), self.place(key, offset, entry)))
        if entry is not None and crc32(data) != entry.crc32:
            self.wrong("crc32", key, offset, "the image isn't what was indexed (crc32 differs): damaged or replaced")
            return
        try:
            decode(data)
        except UndecodableError as error:
            self.wrong("image", key, offset, f"no decoder can read the image ({error})")

    def place(self, key: str, offset: int, entry: _Indexed | None) -> Place:
        return Place(self.split, self.shard, key, offset, None if entry is None else entry.label)

    def label(self, key: str, extension: str, offset: int, data: bytes) -> None:
        """A label that the tar has: a number in KEY.cls or, without it, "label" in KEY.json."""
        if extension == "json":
            value = described_label(data)
            if value is not None:
                self.labelled.setdefault(key, (offset, value))
            return
        try:
            self.labelled[key] = offset, int(data)
        except ValueError:
            self.labelled[key] = offset, None
            self.wrong("label", key, offset, f"the label is {data[:40]!r}, not a number")

    def compare(self) -> None:
        """What the index has and the tar didn't show."""
        for key, entry in (self.indexed or {}).items():
            if key in self.seen:
                continue
            if entry.offset < 0 or entry.size < 0 or entry.offset + entry.size > self.size:
                self.wrong("lost", key, entry.offset, f"the shard ends at byte {self.size}: the image is lost")
                continue
            self.content(key, entry.offset, self.store.get_range(self.shard, entry.offset, entry.size), entry)
            if not self.stopped:
                self.wrong("lost", key, entry.offset, "the index has this image, but the tar has no such member")

    def labels(self, classes: int) -> None:
        """Labels against the index, and both against the number of classes."""
        for key, entry in (self.indexed or {}).items():
            if not 0 <= entry.label < classes:
                what = f"label {entry.label} is not one of {classes} classes (0 to {classes - 1})"
                self.wrong("label", key, entry.offset, what)
            offset, value = self.labelled.get(key, (None, entry.label))
            if value is not None and value != entry.label:
                self.wrong("label", key, offset, f"the tar says label {value}, the index {entry.label}")
        for key, offset in self.seen.items():
            if key not in self.labelled and not self.stopped:
                self.wrong("label", key, offset, "the tar has no label for this image")
        for key, (offset, _) in self.labelled.items():
            if key not in self.seen and not self.stopped:
                self.wrong("stray", key, offset, "the tar has a label, but no image of this key")
