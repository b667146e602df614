"""From plan to batches: I/O threads fetch windows ahead, decode threads make views, batches come out in order.

Threads, not processes: JPEG decoding and resizing release the interpreter lock.
"""

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice

import numpy as np
import torch
from numpy.typing import NDArray

from alexvgg.batch import Batch
from alexvgg.data.augment import Augmentation, training_view
from alexvgg.data.decode import Pixels
from alexvgg.data.plan import EpochPlan, Ints, sample_keys
from alexvgg.data.shards import Dataset, read_samples
from alexvgg.data.undecodable import Undecodable

IO_THREADS = 8
View = tuple[Pixels, NDArray[np.float32]]  # pixels and colour shift


@dataclass
class Loader:
    """Streams a dataset's training images for one rank. The same for any number of threads and any prefetch depth."""

    dataset: Dataset
    augmentation: Augmentation
    seed: int
    rank: int
    world: int
    decode_threads: int
    prefetch_batches: int
    undecodable: Undecodable

    def training(self, plan: EpochPlan, epoch: int, first_step: int) -> Iterator[Batch]:
        """This rank's share of every batch of an epoch from `first_step` on."""
        split, store = self.dataset.train, self.dataset.store
        with ThreadPoolExecutor(IO_THREADS) as io, ThreadPoolExecutor(self.decode_threads) as decoders:
            windows: dict[tuple[int, int], Future[dict[int, bytes]]] = {}

            def window(lane: int, number: int) -> Future[dict[int, bytes]] | None:
                ids = plan.reading[lane][number * plan.window : (number + 1) * plan.window]
                if len(ids) and (lane, number) not in windows:
                    windows[lane, number] = io.submit(read_samples, store, split, ids)
                return windows.get((lane, number))

            def view(source: Future[dict[int, bytes]], sample: int, key: int) -> View | None:
                image = self.undecodable.decode(split, sample, source.result()[sample])
                return None if image is None else training_view(image, self.augmentation, key)

            def submit(step: int) -> tuple[Ints, Ints, list[Future[View | None]]]:
                ids = plan.batch(step, self.rank, self.world)
                keys = sample_keys(self.seed, epoch, ids)
                key_of = dict(zip(ids.tolist(), keys.tolist(), strict=True))
                views = []
                for lane in plan.lanes_of(self.rank, self.world):
                    for position in range(step * plan.per_lane, min((step + 1) * plan.per_lane, len(plan.order[lane]))):
                        number = position // plan.window
                        source = window(lane, number)
                        assert source is not None
                        window(lane, number + 1)  # the next one is read while this one is consumed
                        windows.pop((lane, number - 1), None)
                        sample = int(plan.order[lane][position])
                        views.append(decoders.submit(view, source, sample, key_of[sample]))
                return ids, keys, views

            steps = iter(range(first_step, plan.steps))
            pending = deque(submit(step) for step in islice(steps, self.prefetch_batches))
            try:
                while pending:
                    ids, keys, views = pending.popleft()
                    batch = self._collate(ids, keys, [v.result() for v in views])
                    if (step := next(steps, None)) is not None:
                        pending.append(submit(step))
                    yield batch
            finally:
                io.shutdown(wait=False, cancel_futures=True)
                decoders.shutdown(wait=False, cancel_futures=True)

    def _collate(self, ids: Ints, keys: Ints, views: list[View | None]) -> Batch:
        side = self.augmentation.side
        n = max(1, len(ids))  # an empty share is one sample of weight 0: every rank takes part in every step
        images, colour = np.zeros((n, 3, side, side), np.uint8), np.zeros((n, 3), np.float32)
        labels, weights = np.zeros(n, np.int64), np.zeros(n, np.float32)
        for i, view in enumerate(views):
            labels[i] = self.dataset.train.labels[ids[i]]
            if view is not None:
                images[i], colour[i] = view
                weights[i] = 1.0
        if len(ids) == 0:
            ids, keys = np.array([-1]), np.zeros(1, np.int64)
        return Batch(*map(torch.from_numpy, (images, colour, labels, weights, keys, ids)))
