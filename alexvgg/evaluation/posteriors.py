"""Softmax posteriors in storage: each image meets each net once per method and scale, and every table row that averages
scales, methods or nets is a sum of what is stored.

    runs/<run>/eval/posteriors/dense-q256.safetensors            all images
    runs/<run>/eval/posteriors/dense-q256/00000000-00000512…     a part, until all are there

They are kept as float32 and summed as float64. float16 would halve them, but rounds posteriors to three digits and
those below 3e-8 to zero, so that classes tie which didn't: in 29 rows of the digits, 360 images each, it turned one
right answer into a wrong one, and that is the last digit of a table's cell.
"""

import hashlib
import json
from collections.abc import Collection, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from alexvgg.data.store import MissingKeyError
from alexvgg.errors import DamagedError, StoreError
from alexvgg.evaluation.counts import Counts
from alexvgg.evaluation.views import Method
from alexvgg.keys import posteriors_key

FORMAT = 1  # raised when a method's arithmetic changes, so that nobody mixes its old posteriors with new ones
SUFFIX = ".safetensors"
ABOUT = "alexvgg"
MOST_HEADER = 1 << 16  # bytes; ours have some hundred, and what is damaged may claim any
READS = 8  # parts that are fetched at a time


class Objects(Protocol):
    """The part of a store that posteriors need."""

    def get(self, key: str) -> bytes: ...
    def get_range(self, key: str, start: int, length: int) -> bytes: ...
    def put(self, key: str, data: bytes) -> None: ...
    def list(self, prefix: str) -> list[str]: ...
    def delete(self, key: str) -> None: ...


class StaleError(DamagedError):
    """Stored posteriors are damaged, or of other weights or images than asked for."""


@dataclass(frozen=True)
class Scoring:
    """One pass of a net over a dataset's validation images, completely: equal scorings have equal posteriors."""

    run: str
    weights: str  # sha256 of the final weights' file
    fingerprint: str  # of the dataset, and of whether its mirror images are averaged in
    method: Method
    q: int

    @property
    def key(self) -> str:
        return posteriors_key(self.run, f"{self.method}-q{self.q}")

    def part_key(self, part: range) -> str:
        return f"{self.key.removesuffix(SUFFIX)}/{part.start:08d}-{part.stop:08d}{SUFFIX}"


@dataclass(frozen=True)
class Posteriors:
    """Of the images that can be decoded, by sample id."""

    samples: Tensor  # int64 (n,), ascending
    labels: Tensor  # int64 (n,)
    values: Tensor  # float32 (n, classes)

    @classmethod
    def of(cls, samples: Tensor, labels: Tensor, values: Tensor) -> "Posteriors":
        """Rows in any order and of any precision."""
        order = samples.argsort()
        return cls(samples[order], labels[order], values[order].float())


def write(store: Objects, key: str, scoring: Scoring, posteriors: Posteriors) -> None:
    """Store posteriors with what they are of."""
    tensors = {name: t.contiguous() for name, t in vars(posteriors).items()}
    about = asdict(scoring) | {"format": FORMAT, "sha256": _digest(posteriors)}
    # In one entry: safetensors writes several in random order, and equal posteriors shall be equal bytes.
    store.put(key, safetensors.torch.save(tensors, {ABOUT: json.dumps(about)}))


def is_stored(store: Objects, key: str, scoring: Scoring) -> bool:
    """Whether the object at `key` holds posteriors of exactly this scoring. Reads its header only.

    What has no header that can be read counts as nothing.
    """
    try:
        length = int.from_bytes(store.get_range(key, 0, 8), "little")
        header = store.get_range(key, 8, length) if length <= MOST_HEADER else b""
    except (KeyError, StoreError):  # a part that another rank has merged since it was listed, or one that was cut off
        return False
    return _is_of(_about(header), scoring)


def read(store: Objects, key: str, scoring: Scoring) -> Posteriors:
    """Raises StaleError if they are of another scoring or aren't what was written."""
    data = store.get(key)
    about = _about(data[8 : 8 + int.from_bytes(data[:8], "little")])
    if not _is_of(about, scoring):
        raise StaleError(f"{key} holds posteriors of other weights or images; evaluate {scoring.run} again")
    with suppress(SafetensorError, TypeError):
        posteriors = Posteriors(**safetensors.torch.load(data))
        if about.get("sha256") == _digest(posteriors):
            return posteriors
    raise StaleError(f"{key} is damaged: its sha256 isn't the recorded one. Delete it and evaluate again.")


def missing_parts(store: Objects, scoring: Scoring, parts: Sequence[range]) -> list[range]:
    """The parts that nobody has scored yet; none if the whole is stored."""
    stored = set(store.list(scoring.key.removesuffix(SUFFIX)))
    if scoring.key in stored and is_stored(store, scoring.key, scoring):
        return []
    return [p for p in parts if (key := scoring.part_key(p)) not in stored or not is_stored(store, key, scoring)]


def merge(store: Objects, scoring: Scoring, parts: Sequence[range]) -> None:
    """Make one object of all parts, then delete the parts. Does nothing if that was done, meanwhile, too."""
    folder = scoring.key.removesuffix(SUFFIX) + "/"
    if not is_whole(store, scoring):
        try:
            with ThreadPoolExecutor(READS) as pool:
                pieces = list(pool.map(lambda p: read(store, scoring.part_key(p), scoring), parts))
        except MissingKeyError:
            if not is_whole(store, scoring):
                raise
            return
        columns = ([getattr(p, name) for p in pieces] for name in ("samples", "labels", "values"))
        write(store, scoring.key, scoring, Posteriors(*map(torch.cat, columns)))
    for key in store.list(folder):
        store.delete(key)


def is_whole(store: Objects, scoring: Scoring) -> bool:
    """Whether one object holds this scoring's posteriors of all images."""
    return scoring.key in store.list(scoring.key) and is_stored(store, scoring.key, scoring)


def count(store: Objects, members: Collection[Sequence[Scoring]]) -> Counts:
    """Errors of the mean posteriors: over each member's scales and methods first, then over the members.

    A member is one net; members are fused as in VGG section 4.4. Only one scoring's posteriors are held beside the sum.
    """
    total: Tensor | None = None
    labels = samples = torch.empty(0, dtype=torch.int64)
    for scoring, weight in _weighted(members):
        stored = read(store, scoring.key, scoring)
        if total is None:
            total, labels, samples = torch.zeros_like(stored.values, dtype=torch.float64), stored.labels, stored.samples
        if not torch.equal(samples, stored.samples):
            raise StaleError(f"{scoring.key} has other images than its companions; delete it and evaluate again")
        total.add_(stored.values, alpha=weight)
    assert total is not None, "a row has at least one scoring"
    return Counts.of(total, labels, torch.ones(len(labels)))


def _weighted(members: Collection[Sequence[Scoring]]) -> Iterable[tuple[Scoring, float]]:
    return ((s, 1 / (len(scorings) * len(members))) for scorings in members for s in scorings)


def _about(header: bytes) -> dict[str, Any]:
    """What `write` says of the posteriors; empty if something else wrote the object."""
    try:
        about = json.loads(json.loads(header).get("__metadata__", {}).get(ABOUT, "{}"))
    except (ValueError, AttributeError):
        return {}
    return about if isinstance(about, dict) else {}


def _is_of(about: dict[str, Any], scoring: Scoring) -> bool:
    return about.items() >= (asdict(scoring) | {"format": FORMAT}).items()


def _digest(posteriors: Posteriors) -> str:
    digest = hashlib.sha256()
    for tensor in vars(posteriors).values():
        digest.update(tensor.contiguous().numpy().tobytes())
    return digest.hexdigest()
