"""Reads in the order of need, held to the budget, handed over once; what is late is asked for again."""

import threading
import time
import zlib
from collections.abc import Iterator, Sequence
from concurrent.futures import CancelledError
from dataclasses import replace
from itertools import chain, pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from alexvgg.data import fetch
from alexvgg.data.fetch import Fetcher, Read, plan_reads, read_samples, reads_of, step_bytes, working_set
from alexvgg.data.meter import Meters
from alexvgg.data.plan import EpochPlan, plan_epoch
from alexvgg.data.shards import Dataset, Split
from alexvgg.data.store import Span
from alexvgg.errors import StoreError

PLENTY = 1 << 40


def split_of(shard_sizes: Sequence[int], seed: int = 0) -> Split:
    """A split of samples of 1 to 100 bytes, with gaps between them as tars have."""
    n = sum(shard_sizes)
    sizes = np.random.default_rng(seed).integers(1, 100, n)
    starts = np.concatenate([[0], np.cumsum(shard_sizes)])
    offsets = np.concatenate([np.cumsum(sizes[a:b] + 512) - sizes[a:b] for a, b in pairwise(starts)])
    crc32 = np.array([zlib.crc32(body(i, int(size))) for i, size in enumerate(sizes)])
    return Split(
        shards=tuple(f"{s}.tar" for s in range(len(shard_sizes))), shard_sizes=tuple(shard_sizes),
        keys=tuple(map(str, range(n))), shard_of=np.repeat(np.arange(len(shard_sizes)), shard_sizes),
        offsets=offsets.astype(np.int64), sizes=sizes, labels=np.zeros(n, np.int64), crc32=crc32,
    )  # fmt: skip


def body(sample: int, size: int) -> bytes:
    return (b"%d " % sample * size)[:size]


class MemoryStore:
    """Holds a split's samples. `slow(key, spans)` is called before each read."""

    url, retries = "memory://", 0

    def __init__(self, split: Split) -> None:
        self.contents = {
            (split.shards[split.shard_of[i]], int(split.offsets[i])): body(i, int(split.sizes[i]))
            for i in range(len(split))
        }
        self.reads: list[tuple[str, Sequence[Span]]] = []

    def before(self, key: str, spans: Sequence[Span]) -> None:
        """Nothing, unless a test puts something here."""

    def stream(self, key: str, spans: Sequence[Span]) -> Iterator[bytes]:
        self.reads.append((key, spans))
        self.before(key, spans)
        for start, length in spans:
            data = self.contents[key, start]
            assert len(data) == length
            yield data

    def get_range(self, key: str, start: int, length: int) -> bytes:
        return next(self.stream(key, [(start, length)]))


shard_sizes = st.lists(st.integers(1, 60), min_size=1, max_size=6)
worlds = st.integers(1, 64).flatmap(lambda world: st.tuples(st.integers(0, world - 1), st.just(world)))
batches = st.sampled_from([1, 6, 64, 128])


@given(shard_sizes, batches, st.sampled_from([1, 5, 16]), st.integers(0, 99), worlds, st.data())
def test_any_rank_from_any_step_on_reads_what_it_needs_once_and_in_time(
    sizes: list[int], batch: int, window: int, seed: int, place: tuple[int, int], data: st.DataObject
) -> None:
    split, plan = split_of(sizes), plan_epoch(sizes, batch, window, seed, 0)
    rank, world = place[0] % min(place[1], len(plan.order)), min(place[1], len(plan.order))
    lanes, first = plan.lanes_of(rank, world), data.draw(st.integers(0, plan.steps - 1))
    wanted = [plan.batch(step, rank, world).tolist() for step in range(first, plan.steps)]
    enough = working_set(split, plan, lanes, first)
    least = step_bytes(split, plan, lanes, first)
    for budget in {least, max(least, enough), PLENTY}:
        reads = list(plan_reads(split, plan, lanes, first, budget))
        assert sorted(s for r in reads for s in r.samples) == sorted(chain(*wanted))
        assert all(r.size == split.sizes[list(r.samples)].sum() for r in reads)
        assert_no_deadlock(split, reads, wanted, budget)


def assert_no_deadlock(split: Split, reads: list[Read], wanted: list[list[int]], budget: int) -> None:
    """Reads that start in their order whenever there is room bring every step's samples, within the budget."""
    coming, held, here = list(reversed(reads)), 0, set[int]()
    for step in wanted:
        while coming and held + coming[-1].size <= budget:
            read = coming.pop()
            held += read.size
            here.update(read.samples)
        for sample in step:
            while sample not in here:
                assert coming, "a sample is in no read"
                assert held + coming[-1].size <= budget, "the budget is full of what is needed later"
                read = coming.pop()
                held += read.size
                here.update(read.samples)
            held -= int(split.sizes[sample])
    assert not coming
    assert held == 0


def test_a_window_is_one_read_and_the_first_step_is_read_sample_by_sample() -> None:
    split, plan = split_of([640] * 2), plan_epoch([640] * 2, 64, 16, 0, 0)
    reads = list(plan_reads(split, plan, range(64), 0, PLENTY))
    assert [len(r.samples) for r in reads[:64]] == [1] * 64
    full = [r for r in reads if len(r.samples) == 16]
    assert len(full) == 16, "of the lanes of 20 samples, those with a first window of up to 4 have a full one"
    starved = list(plan_reads(split, plan, range(64), 0, step_bytes(split, plan, range(64), 0)))
    assert [len(r.samples) for r in starved] == [1] * 1280


def test_reads_go_over_small_gaps_but_not_over_large_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    split = split_of([50, 50])
    monkeypatch.setattr(fetch, "MAX_GAP", 1200)
    near = [r.samples for r in reads_of(split, [3, 4, 6, 20, 21, 60, 61])]
    assert near == [(3, 4, 6), (20, 21), (60, 61)]
    monkeypatch.setattr(fetch, "MAX_READ", 2000)
    assert max(len(r.samples) for r in reads_of(split, range(50))) <= 4
    assert [s for r in reads_of(split, range(100)) for s in r.samples] == list(range(100))


def test_a_read_never_spans_two_shards() -> None:
    """By their offsets the second one's samples lie just behind the first one's."""
    assert [r.samples for r in reads_of(split_of([5, 5]), [0, 1, 7, 8])] == [(0, 1), (7, 8)]


def test_far_into_a_shard_reads_are_as_long_as_at_its_beginning() -> None:
    near = replace(split_of([40]), offsets=np.arange(40) << 20)
    far = replace(near, offsets=near.offsets + (1 << 30))
    assert [len(r.samples) for r in reads_of(near, range(40))] == [16, 16, 8]
    assert list(reads_of(far, range(40))) == list(reads_of(near, range(40)))


def fetcher(store: MemoryStore, split: Split, plan: EpochPlan, budget: int = PLENTY, threads: int = 4) -> Fetcher:
    reads = plan_reads(split, plan, range(len(plan.order)), 0, budget)
    return Fetcher(store, split, reads, budget=budget, threads=threads, meters=Meters())  # type: ignore[arg-type]


@pytest.mark.parametrize("threads", [1, 3, 16])
@pytest.mark.parametrize("room", ["one step", "the windows in use", "plenty"])
def test_every_sample_is_handed_over_and_the_budget_is_never_exceeded(threads: int, room: str) -> None:
    sizes = [70, 31, 128]
    split, plan = split_of(sizes), plan_epoch(sizes, 64, 16, 1, 0)
    lanes = range(64)
    budget = {
        "one step": step_bytes(split, plan, lanes, 0), "the windows in use": working_set(split, plan, lanes, 0),
        "plenty": PLENTY,
    }[room]  # fmt: skip
    source = fetcher(MemoryStore(split), split, plan, budget, threads)
    fills = []
    for step in range(plan.steps):
        for sample in plan.batch(step).tolist():
            fills.append(source.fill)
            assert source.take(sample) == body(sample, int(split.sizes[sample]))
    source.close()
    assert max(fills) <= 1
    assert source.fill == 0


def test_bytes_changed_on_the_way_are_read_again_and_damage_is_named() -> None:
    split = split_of([20])
    store = MemoryStore(split)
    place = ("0.tar", int(split.offsets[7]))
    good, flips = store.contents[place], iter([1, 0])

    def flip_once(key: str, spans: Sequence[Span]) -> None:
        store.contents[place] = good if next(flips, 0) == 0 else bytes([good[0] ^ 1]) + good[1:]

    store.before = flip_once  # type: ignore[method-assign]
    assert [data for _, data in read_samples(store, split, range(20))][7] == good  # type: ignore[arg-type]
    store.before = lambda *_: None  # type: ignore[method-assign]
    store.contents[place] = good[:-1] + b"?"
    with pytest.raises(StoreError, match=rf"memory:///0.tar at offset {place[1]}: sample '7' isn't what was indexed"):
        list(read_samples(store, split, range(20)))  # type: ignore[arg-type]


def test_a_failed_read_reaches_whoever_takes_its_samples() -> None:
    split, plan = split_of([64]), plan_epoch([64], 64, 16, 1, 0)
    store = MemoryStore(split)

    def fail(key: str, spans: Sequence[Span]) -> None:
        raise StoreError("the disk is gone")

    store.before = fail  # type: ignore[method-assign]
    source = fetcher(store, split, plan)
    for sample in plan.batch(0).tolist():
        with pytest.raises(StoreError, match="the disk is gone"):
            source.take(sample)


def test_closing_wakes_whoever_waits() -> None:
    split, plan = split_of([64]), plan_epoch([64], 64, 16, 1, 0)
    store, stuck = MemoryStore(split), threading.Event()
    store.before = lambda *_: stuck.wait(30)  # type: ignore[method-assign, assignment, return-value]
    source = fetcher(store, split, plan)
    threading.Timer(0.1, source.close).start()
    began = time.monotonic()
    with pytest.raises(CancelledError):
        source.take(int(plan.batch(0)[0]))
    assert time.monotonic() - began < 2
    stuck.set()


def test_what_is_waited_for_too_long_is_asked_for_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetch, "PATIENCE_SECONDS", 0.05)
    split, plan = split_of([64]), plan_epoch([64], 64, 16, 1, 0)
    store, stuck = MemoryStore(split), threading.Event()
    victim = int(plan.batch(0)[5])
    asked = []

    def hang_once(key: str, spans: Sequence[Span]) -> None:
        if spans[0][0] == split.offsets[victim]:
            asked.append(spans)
            if len(asked) == 1:
                stuck.wait(30)

    store.before = hang_once  # type: ignore[method-assign]
    source = fetcher(store, split, plan)
    began = time.monotonic()
    for sample in plan.batch(0).tolist():
        assert source.take(sample) == body(sample, int(split.sizes[sample]))
    assert time.monotonic() - began < 10
    assert len(asked) == 2
    stuck.set()  # the first request's answer comes after all, and is dropped
    deadline = time.monotonic() + 10
    while any(t.name.startswith("read-") and t.is_alive() for t in threading.enumerate()):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert source.fill == 0
    assert source._arrived == {}


def test_a_whole_dataset_streams_from_its_tars(digits: Dataset) -> None:
    ids = [s for r in reads_of(digits.train, range(len(digits.train))) for s, _ in read_samples(
        digits.store, digits.train, r.samples)]  # fmt: skip
    assert ids == list(range(1437))
    wrong = replace(digits.train, crc32=digits.train.crc32 + 1)
    with pytest.raises(StoreError, match="crc32 differs"):
        next(read_samples(digits.store, wrong, (0,)))
