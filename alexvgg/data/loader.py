"""From plan to batches: I/O threads fetch windows ahead, decode threads make views, batches come out in order.

Threads, not processes: JPEG decoding and resizing release the interpreter lock.
"""

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from alexvgg.batch import Batch
from alexvgg.data.augment import Augmentation, central_view, training_view
from alexvgg.data.decode import Pixels, UndecodableError, decode, whole
from alexvgg.data.plan import EpochPlan, Ints, sample_keys
from alexvgg.data.shards import Dataset, Split, read_samples
from alexvgg.errors import InputError

IO_THREADS = 8
EVALUATION_RUN = 64  # images that are read and decoded together
View = tuple[Pixels, NDArray[np.float32]]  # pixels and colour shift

MAX_BAD_SHARE = 0.001  # of a split; more undecodable images than this stop the run (at least 10 are allowed)


@dataclass
class Loader:
    """Streams one dataset for one rank. The same for any number of threads and any prefetch depth."""

    dataset: Dataset
    augmentation: Augmentation
    seed: int
    rank: int
    world: int
    decode_threads: int
    prefetch_batches: int
    undecodable: dict[str, str] = field(default_factory=dict)  # key of the sample -> why

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
                image = self._decode(split, sample, source.result()[sample])
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

    def _decode(self, split: Split, sample: int, data: bytes) -> Image.Image | None:
        try:
            return decode(data)
        except UndecodableError as error:
            self.undecodable[split.keys[sample]] = str(error)
            if len(self.undecodable) > max(10, MAX_BAD_SHARE * len(split)):
                raise InputError(
                    f"{len(self.undecodable)} images of {self.dataset.store.url} can't be decoded, the last is "
                    f"{split.keys[sample]!r}: {error}. Check that the shards hold JPEG, PNG or WebP images."
                ) from None
            return None

    def validation(self) -> Iterator[tuple[Ints, list[Image.Image | None]]]:
        """This rank's contiguous share of the validation images, each exactly once: (sample ids, images) in runs."""
        split, store = self.dataset.val, self.dataset.store
        first, last = (r * len(split) // self.world for r in (self.rank, self.rank + 1))
        runs = [np.arange(a, min(a + EVALUATION_RUN, last)) for a in range(first, last, EVALUATION_RUN)]
        with ThreadPoolExecutor(1) as io, ThreadPoolExecutor(self.decode_threads) as decoders:
            reads = [io.submit(read_samples, store, split, ids) for ids in runs]
            for ids, read in zip(runs, reads, strict=True):
                found = read.result()
                yield ids, list(decoders.map(lambda i, found=found: self._decode(split, i, found[i]), map(int, ids)))

    def central(self, scale: int) -> Iterator[Batch]:
        """This rank's validation images as centre crops at Q=`scale`."""
        side = self.augmentation.side
        blank = np.zeros((3, side, side), np.uint8)
        for ids, images in self.validation():
            views = np.stack([blank if i is None else central_view(i, scale, side) for i in images])
            yield self._plain(ids, images, views)

    def whole(self, shorter: int) -> Iterator[Batch]:
        """This rank's validation images uncropped, a shorter side of `shorter` pixels, in batches of equal shape."""
        for ids, images in self.validation():
            by_shape: dict[tuple[int, ...], list[tuple[int, Pixels]]] = {}
            for i, image in enumerate(images):
                view = whole(image, shorter) if image is not None else np.zeros((3, shorter, shorter), np.uint8)
                by_shape.setdefault(view.shape, []).append((i, view))
            for group in by_shape.values():
                rows = [i for i, _ in group]
                yield self._plain(ids[rows], [images[i] for i in rows], np.stack([v for _, v in group]))

    def _plain(self, ids: Ints, images: list[Image.Image | None], views: Pixels) -> Batch:
        weights = np.array([image is not None for image in images], np.float32)
        colour, keys = np.zeros((len(ids), 3), np.float32), np.zeros(len(ids), np.int64)
        labels = self.dataset.val.labels[ids]
        return Batch(*map(torch.from_numpy, (views, colour, labels, weights, keys, ids)))
