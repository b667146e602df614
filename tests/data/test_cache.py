"""The node's cache: what is kept is found, what is damaged or gone is read again, and it stays in its bounds."""

import logging
import os
import pickle
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from alexvgg.data import cache as caching
from alexvgg.data.augment import Augmentation
from alexvgg.data.cache import Cache
from alexvgg.data.loader import Loader, Prefetch
from alexvgg.data.plan import plan_epoch
from alexvgg.data.shards import Dataset
from alexvgg.data.undecodable import Undecodable

PLENTY = 1 << 30


@pytest.fixture(autouse=True)
def disk(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """A disk with room, whatever this machine's has."""
    disk = SimpleNamespace(total=100, free=50)
    monkeypatch.setattr(caching.shutil, "disk_usage", lambda _: disk)
    return disk


def pixels(dataset: Dataset, cache: Cache | None) -> torch.Tensor:
    """An epoch's images, one after the other."""
    augmentation = Augmentation(256, 32, False, 0.0, torch.eye(3).double().numpy())
    loader = Loader(dataset, augmentation, 1, 0, 1, Prefetch(), Undecodable(dataset.store.url), cache)
    plan = plan_epoch(dataset.train.shard_sizes, 64, 16, 1, 0)
    return torch.cat([b.images for b in loader.training(plan, 0, 0)])


class Counting:
    """A store that counts what is read from it."""

    def __init__(self, dataset: Dataset) -> None:
        self.inner, self.url, self.retries, self.streamed = dataset.store, dataset.store.url, 0, 0

    def stream(self, key: str, spans: list[tuple[int, int]]):  # noqa: ANN201
        self.streamed += len(spans)
        return self.inner.stream(key, spans)


@pytest.fixture
def counted(digits: Dataset) -> tuple[Dataset, Counting]:
    store = Counting(digits)
    return Dataset(**{**vars(digits), "store": store}), store


def files(folder: Path) -> list[Path]:
    return [p for p in folder.iterdir() if p.name != ".lock"]


def test_the_second_epoch_reads_nothing(digits: Dataset, counted: tuple[Dataset, Counting], tmp_path: Path) -> None:
    dataset, store = counted
    expected = pixels(digits, None)
    assert torch.equal(pixels(dataset, Cache(tmp_path, PLENTY)), expected)
    assert store.streamed == 1437
    assert torch.equal(pixels(dataset, Cache(tmp_path, PLENTY)), expected)
    assert store.streamed == 1437
    assert len(files(tmp_path)) == len(digits.train.shards)


@pytest.mark.parametrize("harm", ["flip", "cut", "delete"])
def test_a_damaged_or_vanished_file_is_read_again(counted: tuple[Dataset, Counting], tmp_path: Path, harm: str) -> None:
    dataset, store = counted
    expected = pixels(dataset, Cache(tmp_path, PLENTY))
    for path in files(tmp_path)[:2]:
        data = bytearray(path.read_bytes())
        middle = slice(len(data) // 2, len(data) // 2 + 5000)  # a few samples
        data[middle] = bytes(b ^ 255 for b in data[middle])
        if harm == "delete":
            path.unlink()
        else:
            path.write_bytes(data if harm == "flip" else data[: len(data) // 2])
    before = store.streamed
    assert torch.equal(pixels(dataset, Cache(tmp_path, PLENTY)), expected)
    again = store.streamed - before
    expected_again = {"flip": range(2, 60), "cut": range(200, 280), "delete": range(437, 481)}
    assert again in expected_again[harm]
    assert torch.equal(pixels(dataset, Cache(tmp_path, PLENTY)), expected)
    assert store.streamed == before + again, "what was read again isn't kept"


def test_a_full_cache_keeps_what_it_has_and_takes_no_more(counted: tuple[Dataset, Counting], tmp_path: Path) -> None:
    dataset, store = counted
    whole = sum(p.stat().st_size for p in Path(dataset.store.url.removeprefix("file://")).glob("train*.tar"))
    limit = whole // 2
    for _ in range(3):
        pixels(dataset, Cache(tmp_path, limit))
    on_disk = sum(p.stat().st_blocks * 512 for p in files(tmp_path))
    assert limit // 4 < on_disk <= limit
    assert store.streamed < 3 * 1437 - 400, "a cache of half the size saves reading"


def test_what_no_job_uses_makes_room(counted: tuple[Dataset, Counting], tmp_path: Path) -> None:
    dataset, _ = counted
    old = tmp_path / ("0" * 32)
    old.write_bytes(os.urandom(2_000_000))
    os.utime(old, (0, time.time() - 2 * caching.STALE_SECONDS))
    pixels(dataset, Cache(tmp_path, 2_010_000))
    assert not old.exists()
    assert files(tmp_path)


def test_what_is_only_read_stays_in_use(digits: Dataset, tmp_path: Path) -> None:
    cache, split, store = Cache(tmp_path, PLENTY), digits.train, digits.store
    data = store.get_range(split.shards[0], int(split.offsets[0]), int(split.sizes[0]))
    cache.keep(store, split, 0, data)
    (file,) = files(tmp_path)
    os.utime(file, (0, 0))
    assert [found for _, found in cache.find(store, split, [0])] == [data]
    assert time.time() - file.stat().st_mtime < 60


def test_a_full_disk_costs_the_cache_but_not_the_run(
    counted: tuple[Dataset, Counting], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    dataset, _ = counted

    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(caching.os, "pwrite", full)
    with caplog.at_level(logging.WARNING):
        assert len(pixels(dataset, Cache(tmp_path, PLENTY))) == 1437
    assert caplog.text.count("takes no more images: No space left on device. Images are read from the storage") == 1


def test_some_of_the_disk_is_left_to_others(
    counted: tuple[Dataset, Counting], tmp_path: Path, disk: SimpleNamespace, monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    dataset, _ = counted
    disk.free = 14
    cache = Cache(tmp_path, PLENTY)
    pixels(dataset, cache)
    assert files(tmp_path) == []
    assert caplog.text.count("takes no more images: less than 15% of the disk is free") == 1
    disk.free = 16
    monkeypatch.setattr(caching, "CHECKS", 10**9)  # it looks again at once
    pixels(dataset, cache)
    assert files(tmp_path)


def test_two_jobs_may_share_it(counted: tuple[Dataset, Counting], tmp_path: Path) -> None:
    from concurrent.futures import ThreadPoolExecutor

    dataset, _ = counted
    expected = pixels(dataset, None)
    with ThreadPoolExecutor(3) as pool:
        for result in pool.map(lambda _: pixels(dataset, Cache(tmp_path, PLENTY)), range(3)):
            assert torch.equal(result, expected)


def test_a_folder_that_refuses_to_be_measured_costs_the_cache_but_not_the_run(
    counted: tuple[Dataset, Counting], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / ".lock").mkdir()  # as good as another user's file, or a file system without locks
    with caplog.at_level(logging.WARNING):
        assert len(pixels(counted[0], Cache(tmp_path, 2_010_000))) == 1437
    assert caplog.text.count("takes no more images") == 1


def test_a_folder_that_cannot_be_made_costs_the_cache_but_not_the_run(
    counted: tuple[Dataset, Counting], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").touch()  # nobody can make a folder in it, root included
    with caplog.at_level(logging.WARNING):
        assert len(pixels(counted[0], Cache(tmp_path / "file" / "nvme", 2_010_000))) == 1437
    assert "file/nvme can't be used: Not a directory" in caplog.text
    assert caplog.text.count("the cache in") == 1


def test_a_full_cache_looks_again(counted: tuple[Dataset, Counting], tmp_path: Path) -> None:
    """What others left there becomes stale while a job runs."""
    dataset, store = counted
    other = tmp_path / ("0" * 32)
    other.write_bytes(os.urandom(2_000_000))
    cache = Cache(tmp_path, 2_010_000)
    pixels(dataset, cache)
    assert files(tmp_path) == [other]
    os.utime(other, (0, time.time() - 2 * caching.STALE_SECONDS))
    pixels(dataset, cache)
    before = store.streamed
    pixels(dataset, cache)
    assert not other.exists()
    assert store.streamed < before + 1437


def image(dataset: Dataset, sample: int) -> bytes:
    split = dataset.train
    place = int(split.offsets[sample]), int(split.sizes[sample])
    return dataset.store.get_range(split.shards[split.shard_of[sample]], *place)


def keep(cache: Cache, dataset: Dataset, samples: range) -> None:
    for sample in samples:
        cache.keep(dataset.store, dataset.train, sample, image(dataset, sample))


def found(cache: Cache, dataset: Dataset, samples: range) -> list[int]:
    return [sample for sample, _ in cache.find(dataset.store, dataset.train, samples)]


def test_it_goes_to_another_process_with_its_folder_and_limit(digits: Dataset, tmp_path: Path) -> None:
    cache = pickle.loads(pickle.dumps(Cache(tmp_path / "a" / "new one", PLENTY)))
    keep(cache, digits, range(3))
    assert found(cache, digits, range(5)) == [0, 1, 2]
    assert len(files(tmp_path / "a" / "new one")) == 1


def test_what_is_stale_goes_only_as_far_as_room_is_needed(digits: Dataset, tmp_path: Path) -> None:
    for name, hours in (("a", 26), ("b", 25), ("c", 23)):
        (tmp_path / name).write_bytes(os.urandom(1 << 20))
        os.utime(tmp_path / name, (0, time.time() - hours * 3600))
    for megabytes, left in ((4.0, "abc"), (2.5, "bc"), (1.5, "c"), (0.5, "c")):
        keep(Cache(tmp_path, int(megabytes * (1 << 20))), digits, range(1))
        assert [name for name in "abc" if (tmp_path / name).exists()] == [*left]


def test_the_folder_is_measured_after_each_hundredth_that_the_disk_gave(
    digits: Dataset, tmp_path: Path, disk: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Small images take whole blocks. To measure before each of them would cost more than reading it."""
    looks: list[str] = []
    monkeypatch.setattr(caching.shutil, "disk_usage", lambda folder: looks.append(folder) or disk)
    keep(Cache(tmp_path, PLENTY), digits, range(40))
    assert len(looks) == 1
    keep(Cache(tmp_path, 100 * 20 * caching.BLOCK), digits, range(40))
    assert len(looks) - 1 in (4, 5)


def test_what_can_be_read_but_not_touched_is_found(
    digits: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = Cache(tmp_path, PLENTY)
    keep(cache, digits, range(2))

    def refuse(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(caching.os, "utime", refuse)
    assert found(cache, digits, range(2)) == [0, 1]
