"""Everything that can be wrong with a dataset, found by reading all of it.

The tars are followed as tars, as stock WebDataset reads them; the index says where training expects each sample. What
only one of the two knows, and every image whose bytes, label or pixels aren't right, is a Problem with shard, key and
offset. Equal images are found by content: one that is both in train and in val is a problem, too.
"""

import hashlib
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any

from alexvgg.data.checking.check import CheckedShard, Place, Problem, check_shard
from alexvgg.data.index import ShardIndex, digest_of, fingerprint
from alexvgg.data.progress import Progress, Say
from alexvgg.data.shards import AGAIN, MEAN_IMAGE, read_about
from alexvgg.data.store import MissingKeyError, Store
from alexvgg.errors import StoreError
from alexvgg.process import cores


@dataclass(frozen=True)
class Report:
    """What was read and found. `duplicates` are groups of places that hold the same image."""

    url: str
    fingerprint: str
    shards: int
    samples: int
    bytes: int
    problems: list[Problem]
    duplicates: list[list[Place]]

    @property
    def intact(self) -> bool:
        return not self.problems

    def to_dict(self) -> dict[str, Any]:
        """As JSON types."""
        return {**asdict(self), "intact": self.intact}


def verify(store: Store, say: Say = lambda line: None, threads: int | None = None) -> Report:
    """Read the whole dataset. Raises InputError if there is no dataset, or one of another format."""
    about = read_about(store)
    todo: list[tuple[str, str]] = [(split, shard) for split, shards in about["splits"].items() for shard in shards]
    classes, progress = len(about["classes"]), Progress("read", len(todo), say)

    def check(place: tuple[str, str]) -> CheckedShard:
        checked = check_shard(store, *place, classes)
        progress.add(checked.size)
        return checked

    with ThreadPoolExecutor(threads or 2 * cores()) as pool:
        found = list(pool.map(check, todo))
    duplicates = _duplicates(found)
    problems = [problem for shard in found for problem in shard.problems]
    problems += _check_mean_image(store, about)
    problems += _check_fingerprint(about, [split for split, _ in todo], found)
    problems += [_leak(group) for group in duplicates if len({place.split for place in group}) > 1]
    samples = sum(len(shard.images) for shard in found)
    size = sum(shard.size for shard in found)
    return Report(store.url, about["fingerprint"], len(todo), samples, size, problems, duplicates)


def _check_mean_image(store: Store, about: Mapping[str, Any]) -> list[Problem]:
    if about["mean_image"] is None:
        return []
    try:
        data = store.get(MEAN_IMAGE)
    except MissingKeyError:
        return [Problem("missing", MEAN_IMAGE, None, None, f"the mean image isn't there. {AGAIN}")]
    except StoreError as error:
        return [Problem("unreadable", MEAN_IMAGE, None, None, str(error))]
    if hashlib.sha256(data).hexdigest() == about["mean_image"]:
        return []
    return [Problem("fingerprint", MEAN_IMAGE, None, None, "it isn't the mean image that dataset.json names")]


def _check_fingerprint(about: Mapping[str, Any], split_of: list[str], found: list[CheckedShard]) -> list[Problem]:
    splits: dict[str, list[ShardIndex]] = {split: [] for split in about["splits"]}
    for split, shard in zip(split_of, found, strict=True):
        if shard.index is None:
            return []  # that was said already
        splits[split].append(shard.index)
    if digest_of(splits) == about["samples"] and fingerprint(about) == about["fingerprint"]:
        return []
    what = (
        "its fingerprint isn't that of the index and of what it says of colours, mean and mirror images: something was "
        "changed after packing"
    )
    return [Problem("fingerprint", "dataset.json", None, None, what)]


def _duplicates(found: list[CheckedShard]) -> list[list[Place]]:
    first: dict[bytes, Place] = {}
    groups: dict[bytes, list[Place]] = {}
    for shard in found:
        for digest, place in shard.images:
            if digest in first:
                groups.setdefault(digest, [first[digest]]).append(place)
            else:
                first[digest] = place
    return list(groups.values())


def _leak(group: list[Place]) -> Problem:
    first = group[0]
    others = ", ".join(f"{p.key!r} in {p.shard}" for p in group if p.split != first.split)
    what = f"the same image is {others}: errors measured on it say nothing"
    return Problem("leak", first.shard, first.key, first.offset, what)


def summary(report: Report, most: int = 10) -> Iterator[str]:
    """The report in lines; of each object at most `most` problems."""
    shown: dict[str, int] = {}
    for problem in report.problems:
        shown[problem.where] = shown.get(problem.where, 0) + 1
        if shown[problem.where] <= most:
            yield str(problem)
    for where, count in shown.items():
        if count > most:
            yield f"{where}: and {count - most} more problems; a report (--report FILE) names all"
    again = sum(len(group) - 1 for group in report.duplicates)
    mixed = sum(len({place.label for place in group}) > 1 for group in report.duplicates)
    if again:
        yield f"{again} images are there more than once (by content), {mixed} of them under several labels"
    what = "intact" if report.intact else f"{len(report.problems)} problem{'s' if len(report.problems) > 1 else ''}"
    yield (
        f"{report.url}: {what}; {report.samples} samples, {report.shards} shards, {report.bytes / 1e9:.3f} GB, "
        f"fingerprint {report.fingerprint}"
    )
