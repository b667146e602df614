"""The bytes of samples, ahead of their use: ranged reads in the order of need, several at a time, in a byte budget."""

import heapq
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import CancelledError
from contextlib import suppress
from dataclasses import dataclass

import numpy as np
from zlib_ng.zlib_ng import crc32

from alexvgg.data.cache import Cache
from alexvgg.data.meter import Meters
from alexvgg.data.plan import EpochPlan
from alexvgg.data.shards import Split
from alexvgg.data.store import MissingKeyError, Span, Store
from alexvgg.errors import DamagedError

MAX_READ = 16 << 20  # bytes of one ranged GET
MAX_GAP = 1 << 20  # bytes that are read and dropped rather than asked for around
PATIENCE_SECONDS = 3.0  # then a sample that is waited for is asked for once more, by itself


@dataclass(frozen=True)
class Read:
    """One ranged GET: samples that lie close together in one shard, in storage order, and their bytes."""

    samples: tuple[int, ...]
    size: int


def reads_of(split: Split, samples: Iterable[int]) -> Iterator[Read]:
    """`samples`, in storage order, as few reads: over small gaps, but not longer than MAX_READ."""
    run: list[int] = []
    for sample in samples:
        if run:
            shard, start, end = (
                split.shard_of[run[0]],
                split.offsets[run[0]],
                split.offsets[run[-1]] + split.sizes[run[-1]],
            )
            near = 0 <= split.offsets[sample] - end <= MAX_GAP
            short = split.offsets[sample] + split.sizes[sample] - start <= MAX_READ
            if split.shard_of[sample] != shard or not near or not short:
                yield _read(split, run)
                run = []
        run.append(sample)
    if run:
        yield _read(split, run)


def _read(split: Split, run: Sequence[int]) -> Read:
    return Read(tuple(run), int(split.sizes[list(run)].sum()))


def plan_reads(split: Split, plan: EpochPlan, lanes: Sequence[int], first_step: int, budget: int) -> Iterator[Read]:
    """All reads of an epoch's lanes from `first_step` on, in the order of need.

    A read is a window of a lane. The first step's samples are read one by one, so that it needn't wait for windows
    whose samples lie in any order. If the budget can't hold the windows that are in use at the same time, every
    sample is read by itself: the same order, more requests. It has to hold one step (`step_bytes`).
    """
    ranged = working_set(split, plan, lanes, first_step) <= budget
    return _reads(split, plan, lanes, first_step, first_step + 1 if ranged else plan.steps)


def _reads(split: Split, plan: EpochPlan, lanes: Sequence[int], first_step: int, single_until: int) -> Iterator[Read]:
    for step in range(first_step, single_until):
        for lane in lanes:
            for sample in plan.order[lane][step * plan.per_lane : (step + 1) * plan.per_lane]:
                yield _read(split, [int(sample)])
    windows = (_window_reads(split, plan, lane, single_until) for lane in lanes)
    for _, _, read in heapq.merge(*windows, key=lambda item: item[:2]):
        yield read


def _window_reads(split: Split, plan: EpochPlan, lane: int, first_step: int) -> Iterator[tuple[int, int, Read]]:
    """(step of first need, lane, read) for what a lane needs from `first_step` on."""
    begin = first_step * plan.per_lane
    for start, stop in plan.windows(lane):
        if stop > begin:
            needed = plan.order[lane][max(start, begin) : stop]
            in_storage_order = plan.reading[lane][start:stop]
            rest = in_storage_order[np.isin(in_storage_order, needed)]
            for read in reads_of(split, rest.tolist()):
                yield max(start, begin) // plan.per_lane, lane, read


def step_bytes(split: Split, plan: EpochPlan, lanes: Sequence[int], first_step: int) -> int:
    """The most image bytes that one step of `lanes` needs."""
    need = np.zeros(plan.steps + 1, np.int64)
    for lane in lanes:
        np.add.at(need, np.arange(len(plan.order[lane])) // plan.per_lane, split.sizes[plan.order[lane]])
    return int(need[first_step:].max(initial=0))


def working_set(split: Split, plan: EpochPlan, lanes: Sequence[int], first_step: int) -> int:
    """The most image bytes that must be held at once if each window is read when its first sample is needed."""
    change = np.zeros(plan.steps + 2, np.int64)
    for lane in lanes:
        steps = np.arange(len(plan.order[lane])) // plan.per_lane
        sizes = split.sizes[plan.order[lane]]
        rest = steps >= first_step
        np.add.at(change, steps[rest] + 1, -sizes[rest])
        for start, stop in plan.windows(lane):
            begin = max(start, first_step * plan.per_lane)
            if stop > begin:
                change[begin // plan.per_lane] += sizes[begin:stop].sum()
    return int(np.cumsum(change).max(initial=0))


class Fetcher:
    """Carries out `reads` in `threads` threads; `take` hands each sample's bytes over once.

    At most `budget` bytes are being read or waiting to be taken at any moment. Reads start in their order, so samples
    must be taken about in the order of the reads' first samples, or the budget would fill with what isn't wanted yet.
    """

    def __init__(
        self,
        store: Store,
        split: Split,
        reads: Iterable[Read],
        *,
        budget: int,
        threads: int,
        meters: Meters,
        cache: Cache | None = None,
    ) -> None:
        self._store, self._split, self._reads = store, split, iter(reads)
        self._budget, self._meters, self._cache = budget, meters, cache
        self._lock = threading.Lock()
        self._room = threading.Condition(self._lock)
        self._arrived: dict[int, bytes | Exception] = {}
        self._waiting: dict[int, threading.Condition] = {}  # samples that a thread waits for
        self._asked_again: set[int] = set()
        self._answered: set[int] = set()  # of those, so that a second answer is dropped
        self._next: Read | None = None
        self._held, self._closed = 0, False
        for number in range(threads):
            threading.Thread(target=self._work, name=f"read-{number}", daemon=True).start()

    @property
    def fill(self) -> float:
        """The share of the budget that is in use."""
        return self._held / self._budget

    def take(self, sample: int) -> bytes:
        """The image bytes, once they are here. Raises StoreError if they can't be had, CancelledError on `close`."""
        with self._lock:
            if sample not in self._arrived:
                self._wait_for(sample)
            if self._closed:
                raise CancelledError
            data = self._arrived.pop(sample)
            self._held -= int(self._split.sizes[sample])
            if self._next is not None and self._held + self._next.size <= self._budget:
                self._room.notify()
        if isinstance(data, Exception):
            raise data
        return data

    def _wait_for(self, sample: int) -> None:
        began = time.perf_counter()
        self._meters.starving[0] += 1
        arrival = self._waiting[sample] = threading.Condition(self._lock)
        if not arrival.wait_for(lambda: sample in self._arrived or self._closed, PATIENCE_SECONDS):
            self._asked_again.add(sample)
            threading.Thread(target=self._ask_again, args=(sample,), daemon=True).start()
            arrival.wait_for(lambda: sample in self._arrived or self._closed)
        del self._waiting[sample]
        self._meters.starving[0] -= 1
        self._meters.starve.record(time.perf_counter() - began)

    def close(self) -> None:
        """Stop reading; what is under way is dropped."""
        with self._lock:
            self._closed = True
            self._room.notify_all()
            for arrival in self._waiting.values():
                arrival.notify()

    def _work(self) -> None:
        while (read := self._start_next()) is not None:
            began, missing = time.perf_counter(), set(read.samples)
            try:
                for sample, data in self._carry_out(read):
                    if self._closed:
                        return
                    self._deliver(sample, data)
                    missing.discard(sample)
            except Exception as error:  # whoever takes a sample gets it
                for sample in missing:
                    self._deliver(sample, error)
            self._meters.read.record(time.perf_counter() - began, read.size)

    def _carry_out(self, read: Read) -> Iterator[tuple[int, bytes]]:
        if self._cache is None:
            yield from read_samples(self._store, self._split, read.samples)
            return
        missing = set(read.samples)
        for sample, data in self._cache.find(self._store, self._split, read.samples):
            missing.discard(sample)
            yield sample, data
        for rest in reads_of(self._split, [s for s in read.samples if s in missing]):
            for sample, data in read_samples(self._store, self._split, rest.samples):
                yield sample, data
                self._cache.keep(self._store, self._split, sample, data)

    def _start_next(self) -> Read | None:
        with self._room:
            while not self._closed:
                if self._next is None:
                    self._next = next(self._reads, None)
                    if self._next is None:
                        return None
                if self._held + self._next.size <= self._budget:
                    read, self._next = self._next, None
                    self._held += read.size
                    return read
                self._room.wait()
            return None

    def _ask_again(self, sample: int) -> None:
        # Of two answers the first counts. If this one fails, the first request's own patience decides.
        with suppress(Exception):
            for _, data in read_samples(self._store, self._split, (sample,)):
                self._deliver(sample, data)

    def _deliver(self, sample: int, data: bytes | Exception) -> None:
        with self._lock:
            if sample in self._answered:
                return
            if sample in self._asked_again:
                self._answered.add(sample)
            self._arrived[sample] = data
            if sample in self._waiting:
                self._waiting[sample].notify()


def read_samples(store: Store, split: Split, samples: Sequence[int]) -> Iterator[tuple[int, bytes]]:
    """(sample, its image bytes) as they arrive, of samples that lie in one shard, in storage order.

    Bytes that aren't the indexed ones are read once more, in case they were changed on the way. Raises
    DamagedError with the shard and the offset if they stay so, or if the shard ends before or isn't there.
    """
    shard = split.shards[split.shard_of[samples[0]]]
    spans = [(int(split.offsets[s]), int(split.sizes[s])) for s in samples]
    for sample, span, data in zip(samples, spans, _stream(store, shard, spans), strict=True):
        intact = data
        if crc32(data) != split.crc32[sample]:
            intact = store.get_range(shard, *span)
            if crc32(intact) != split.crc32[sample]:
                raise DamagedError(
                    f"{store.url}/{shard} at offset {span[0]}: sample {split.keys[sample]!r} isn't what was indexed "
                    "(crc32 differs). The shard was damaged or replaced; restore it, or pack and index it again."
                )
        yield sample, intact


def _stream(store: Store, shard: str, spans: Sequence[Span]) -> Iterator[bytes]:
    try:
        yield from store.stream(shard, spans)
    except MissingKeyError as error:
        raise DamagedError(f"{error}, though the dataset's index names it. {_restore(store)}") from None
    except DamagedError as error:
        raise DamagedError(f"{error}, though the dataset's index names more. {_restore(store)}") from None


def _restore(store: Store) -> str:
    return f"Restore it; `alexvgg data verify {store.url}` names all that is missing or damaged."


def read_all(store: Store, split: Split, samples: Iterable[int]) -> dict[int, bytes]:
    """The image bytes of `samples`, which are in storage order, by as few reads as may be. Raises StoreError."""
    reads = reads_of(split, samples)
    return {sample: data for read in reads for sample, data in read_samples(store, split, read.samples)}
