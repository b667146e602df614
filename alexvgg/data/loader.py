"""From plan to batches: I/O threads fetch bytes ahead, decode threads make views, batches come out in order.

Threads, not processes: reading, JPEG decoding and resizing release the interpreter lock.
"""

import math
import os
import time
import weakref
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, fields
from functools import partial
from itertools import islice
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from alexvgg.batch import Batch
from alexvgg.data.augment import Augmentation, Draws
from alexvgg.data.cache import Cache
from alexvgg.data.decode import Pixels
from alexvgg.data.fetch import Fetcher, plan_reads, step_bytes
from alexvgg.data.keyed import Ints, sample_keys
from alexvgg.data.meter import Meters, Work
from alexvgg.data.plan import EpochPlan
from alexvgg.data.shards import Dataset
from alexvgg.data.undecodable import Undecodable
from alexvgg.errors import InputError
from alexvgg.process import cores

MOST_THREADS = 32  # that decode, unless more are asked for


@dataclass(frozen=True)
class Prefetch:
    """How far the loader works ahead, and with how many threads. None of it changes a pixel.

    `bytes` bounds what is in memory: image bytes that are being read or wait to be decoded, and decoded batches.
    """

    bytes: int = 1 << 30
    batches: int = 4
    read_threads: int = 16
    decode_threads: int = 2


def decoding_threads(asked: int | None) -> int:
    """How many threads decode on one rank: as many as asked, or one for each core that the rank has for itself.

    Of five cores one is left to reading and to the thread that tells a GPU what to do; and there are no more than feed
    VGG A to an H100 on slow cores.
    """
    own = max(1, cores() // int(os.environ.get("LOCAL_WORLD_SIZE", "1")))
    return asked or min(MOST_THREADS, own - own // 5)


class Memory(Protocol):
    """Where the images of batches lie. New memory is dear: its pages are mapped and zeroed when they are first written,
    which takes a tenth of the time of decoding."""

    def take(self, shape: tuple[int, ...]) -> Tensor:
        """uint8 of that shape, with any content."""


class _Reused:
    """Memory of batches that nobody refers to any more, for new ones."""

    def __init__(self) -> None:
        self._free: list[Pixels] = []

    def take(self, shape: tuple[int, ...]) -> Tensor:
        size = math.prod(shape)
        while self._free:
            if (memory := self._free.pop()).size >= size:
                break
        else:
            memory = np.empty(size, np.uint8)
        array = memory[:size].reshape(shape)  # a tensor of it, and all that are made of that, keep it alive
        weakref.finalize(array, self._free.append, memory).atexit = False
        return torch.from_numpy(array)


@dataclass
class Loader:
    """Streams a dataset's training images for one rank. The same for any number of threads and any prefetch depth.

    Several can work for one rank: each reads its `part` of the rank's lanes and fills their rows of each batch, whose
    other rows it leaves as they are, with weight 0.
    """

    dataset: Dataset
    augmentation: Augmentation
    seed: int
    rank: int
    world: int
    prefetch: Prefetch
    undecodable: Undecodable
    cache: Cache | None = None
    on_the_way: int = 1  # batches between here and the trainer, which has one more
    part: int = 0
    parts: int = 1
    starving: Ints = field(default_factory=lambda: np.zeros(1, np.int64))  # threads that wait for bytes just now
    meters: Meters = field(default_factory=Meters, init=False, repr=False)
    memory: Memory = field(default_factory=_Reused, init=False, repr=False)

    def __reduce__(self) -> tuple[Any, ...]:
        """In another process, a loader begins anew."""
        return Loader, tuple(getattr(self, f.name) for f in fields(self) if f.init)

    def training(self, plan: EpochPlan, epoch: int, first_step: int) -> Generator[Batch, None, None]:
        """This rank's share of every batch of an epoch from `first_step` on.

        What one step needs is read whatever the prefetch bytes are; `check` refuses too few of them.
        """
        self.meters = Meters(self.dataset.store.retries, self.starving)
        split, lanes = self.dataset.train, plan.lanes_of(*self._share)
        decoded, needed = self._least(plan, lanes, first_step)
        budget = max(self.prefetch.bytes - decoded, needed, 1)
        reads = plan_reads(split, plan, lanes, first_step, budget)
        fetcher = Fetcher(
            self.dataset.store, split, reads,
            budget=budget, threads=self.prefetch.read_threads, meters=self.meters, cache=self.cache,
        )  # fmt: skip
        steps = iter(range(first_step, plan.steps))
        with ThreadPoolExecutor(self.prefetch.decode_threads, "decode") as decoders:
            pending: deque[_Pending] = deque()
            try:
                for step in islice(steps, self.prefetch.batches):
                    pending.append(self._start(plan, epoch, step, fetcher, decoders))
                while pending:
                    batch = pending.popleft().result()
                    if (step := next(steps, plan.steps)) < plan.steps:
                        pending.append(self._start(plan, epoch, step, fetcher, decoders))
                    yield batch
            finally:
                fetcher.close()
                decoders.shutdown(wait=False, cancel_futures=True)

    def check(self, plan: EpochPlan) -> None:
        """Raise InputError unless the prefetch bytes can hold two of the largest step: others epochs' may be larger."""
        lanes, batches = plan.lanes_of(self.rank, self.world), self._batches
        decoded, needed = self._least(plan, lanes, 0)
        if decoded + 2 * needed > self.prefetch.bytes:
            raise InputError(
                f"{self.prefetch.bytes:,} prefetch bytes can't hold {batches} batches of {_rows(plan, lanes)} decoded "
                f"images ({decoded:,}) and what is read for the next ({2 * needed:,}). Give --prefetch-bytes "
                f"{decoded + 2 * needed} at least, a smaller batch, or more workers."
            )

    @property
    def _batches(self) -> int:
        """That are there at once."""
        return self.prefetch.batches + self.on_the_way + 1

    def _least(self, plan: EpochPlan, lanes: Sequence[int], first_step: int) -> tuple[int, int]:
        """Bytes of decoded batches, and the most that one step reads."""
        decoded = self._batches * _rows(plan, lanes) * 3 * self.augmentation.side**2
        return decoded, step_bytes(self.dataset.train, plan, lanes, first_step)

    @property
    def _share(self) -> tuple[int, int]:
        """The rank, of how many, that would have just the lanes of this part."""
        return self.rank + self.part * self.world, self.parts * self.world

    @property
    def threads(self) -> int:
        """That decode."""
        return self.prefetch.decode_threads

    def work(self) -> Work:
        """What was read and decoded since the epoch's beginning."""
        return self.meters.work(self.dataset.store.retries)

    def ready(self) -> None:
        """Nothing to wait for."""

    def stage(self) -> str:
        """What a batch is waiting for, in words."""
        return "waiting for bytes from the storage" if self.starving[0] else "decoding images"

    def close(self) -> None:
        """Nothing to end here: threads end with their epoch. `LoaderProcesses` have processes."""

    def _start(
        self, plan: EpochPlan, epoch: int, step: int, fetcher: Fetcher, decoders: ThreadPoolExecutor
    ) -> "_Pending":
        ids = plan.batch(step, self.rank, self.world)
        keys = sample_keys(self.seed, epoch, ids)
        draws = self.augmentation.draw(keys)
        batch = self._empty(len(ids))
        if len(ids) == 0:
            batch.images.zero_()
        else:
            batch.samples.copy_(torch.from_numpy(ids))
            batch.keys.copy_(torch.from_numpy(keys))
            batch.labels.copy_(torch.from_numpy(self.dataset.train.labels[ids]))
            batch.colour.copy_(torch.from_numpy(draws.colour))
        self.meters.fill.record(fetcher.fill)
        own = set(plan.batch(step, *self._share).tolist())
        rows = iter([item for item in enumerate(ids.tolist()) if item[1] in own])  # each thread takes the next
        return _Pending(
            batch,
            [decoders.submit(self._fill, batch, rows, fetcher, draws) for _ in range(self.prefetch.decode_threads)],
        )

    def _empty(self, n: int) -> Batch:
        """n rows of weight 0; at least one, as every rank takes part in every step."""
        n, side = max(1, n), self.augmentation.side
        return Batch(
            images=self.memory.take((n, 3, side, side)),
            colour=torch.zeros((n, 3)), labels=torch.zeros(n, dtype=torch.int64),
            weights=torch.zeros(n), keys=torch.zeros(n, dtype=torch.int64), samples=torch.full((n,), -1),
        )  # fmt: skip

    def _fill(self, batch: Batch, rows: Iterator[tuple[int, int]], fetcher: Fetcher, draws: Draws) -> None:
        images, weights = batch.images.numpy(), batch.weights.numpy()
        for row, sample in rows:
            data = fetcher.take(sample)
            began = time.perf_counter()
            bottom = partial(self.augmentation.bottom, draws, row)
            image = self.undecodable.decode(self.dataset.train, sample, data, bottom)
            if image is None:
                images[row] = 0
            else:
                images[row] = self.augmentation.view(image, draws, row)
                weights[row] = 1
            self.meters.decode.record(time.perf_counter() - began)


def _rows(plan: EpochPlan, lanes: Sequence[int]) -> int:
    """The most images of a step that these lanes have."""
    return min(len(lanes) * plan.per_lane, sum(len(plan.order[lane]) for lane in lanes))


@dataclass(frozen=True)
class _Pending:
    """A batch whose rows are being filled."""

    batch: Batch
    threads: "list[Future[None]]"

    def result(self) -> Batch:
        for thread in self.threads:
            thread.result()
        return self.batch
