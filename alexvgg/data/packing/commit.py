"""How a dataset comes to be complete: what is being made is recorded first, then shards with their index, then
`dataset.json`. Whatever dies in between can be started again and does only what is missing.
"""

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

from alexvgg.data.documents import encode
from alexvgg.data.index import ShardIndex, digest_of, index_key, read_index, write_about
from alexvgg.data.store import Store
from alexvgg.errors import InputError

RECORD = "pack.json"
READERS = 16


def begin(store: Store, record: Mapping[str, Any]) -> None:
    """Note what is to be made here. Raises InputError if something else is here, complete or begun."""
    if not store.exists(RECORD):
        check_free(store)
    if store.put_new(RECORD, encode(dict(record))):
        return
    there = json.loads(store.get(RECORD))
    for name in sorted(record.keys() | there.keys()):
        if record.get(name) != there.get(name):
            what = "other images" if name == "images" else f"{name} {there.get(name)!r}, not {record.get(name)!r}"
            raise InputError(
                f"{store.url} holds a dataset that was packed, or begun, from {what}. "
                "Pack with the same input and options to go on with it, or to an empty prefix."
            )


def check_free(store: Store) -> None:
    """Raise InputError if a dataset, whole or not, or someone's shards are here: new ones might have their names."""
    if found := [key for key in store.list("") if key in ("dataset.json", RECORD) or key.endswith(".tar")]:
        raise InputError(f"{store.url} holds {found[0]} already, made in another way; name an empty folder or prefix")


def missing(store: Store, shards: Iterable[str]) -> list[str]:
    """Those of `shards` that aren't complete."""
    there = set(store.list("index/"))
    return [shard for shard in shards if index_key(shard) not in there]


@dataclass(frozen=True)
class Summary:
    """What was made. `images` and `bytes` (of the tars) are by split, `per_class` counts the training images.

    `samples` is their digest; there is a `fingerprint` when there is a `dataset.json`.
    """

    url: str
    samples: str
    shards: int
    images: dict[str, int]
    bytes: dict[str, int]
    per_class: tuple[int, ...]
    unreadable: tuple[str, ...]
    fingerprint: str | None = None

    def lines(self) -> list[str]:
        """For people: counts, what is odd, and the fingerprint last."""
        sizes = ", ".join(
            f"{n:,} {split} images ({self.bytes[split] / 1e9:.2f} GB)" for split, n in self.images.items()
        )
        few, many = min(self.per_class), max(self.per_class)
        lines = [
            f"{self.url}: {sizes} in {self.shards} shards",
            f"{len(self.per_class)} classes with {few} to {many} training images each",
        ]
        if few == 0:
            lines.append(f"classes without a training image: {sum(n == 0 for n in self.per_class)}")
        if self.unreadable:
            named = ", ".join(self.unreadable[:10]) + (", …" if len(self.unreadable) > 10 else "")
            lines.append(f"{len(self.unreadable)} images can't be opened and will be skipped in training: {named}")
        return [*lines, f"fingerprint {self.fingerprint}"]


def summarise(url: str, splits: Mapping[str, Iterable[ShardIndex]], classes: int) -> Summary:
    """Read every index once. Raises InputError for a label outside 0 to classes-1 and a key that a split has twice."""
    shards, unreadable = 0, list[str]()
    images, sizes, per_class = Counter[str](), Counter[str](), Counter[int]()
    passed: dict[str, Iterable[ShardIndex]] = {}

    def checked(split: str, indexes: Iterable[ShardIndex]) -> Iterable[ShardIndex]:
        nonlocal shards
        seen: set[str] = set()
        for index in indexes:
            _check(index, seen, classes)
            shards, images[split], sizes[split] = shards + 1, images[split] + len(index.keys), sizes[split] + index.size
            unreadable.extend(index.unreadable)
            if split == "train":
                per_class.update(index.labels)
            yield index

    for split, indexes in splits.items():
        images[split] = sizes[split] = 0
        passed[split] = checked(split, indexes)
    samples = digest_of(passed)
    counts = tuple(per_class[label] for label in range(classes))
    return Summary(url, samples, shards, dict(images), dict(sizes), counts, tuple(unreadable))


def _check(index: ShardIndex, seen: set[str], classes: int) -> None:
    for key, label in zip(index.keys, index.labels, strict=True):
        if key in seen:
            raise InputError(f"{index.shard}: sample {key!r} is in another shard of its split too")
        if not 0 <= label < classes:
            raise InputError(f"{index.shard}: sample {key!r} has label {label}, but labels are 0 to {classes - 1}")
        seen.add(key)


def summary(store: Store, shards: Mapping[str, Sequence[str]], classes: int) -> Summary:
    """`summarise` the indexes that lie in the store, of which only a few are held at a time."""
    with ThreadPoolExecutor(READERS) as pool:
        indexes = {split: pool.map(lambda shard: read_index(store, shard), names) for split, names in shards.items()}
        return summarise(store.url, indexes, classes)


def finish(store: Store, about: Mapping[str, Any], shards: Mapping[str, Sequence[str]], found: Summary) -> Summary:
    """Write `dataset.json` of what was found in the shards' indexes."""
    return replace(found, fingerprint=write_about(store, about, shards, found.samples))
