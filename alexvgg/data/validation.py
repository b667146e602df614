"""The validation images of one rank, each exactly once whatever the number of ranks, as the views that are scored."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch

from alexvgg.batch import Batch
from alexvgg.config import pixels
from alexvgg.data.decode import Pixels
from alexvgg.data.keyed import Ints
from alexvgg.data.shards import Dataset, read_samples
from alexvgg.data.undecodable import Undecodable
from alexvgg.data.views import central, whole

RUN = 64  # images that are read and decoded together


@dataclass
class Validation:
    """Streams one dataset's validation images for one rank."""

    dataset: Dataset
    rank: int
    world: int
    decode_threads: int
    undecodable: Undecodable

    def images(self) -> Iterator[tuple[Ints, list[Pixels | None]]]:
        """This rank's contiguous share of the validation images, each exactly once: (sample ids, images) in runs."""
        split, store = self.dataset.val, self.dataset.store
        first, last = (r * len(split) // self.world for r in (self.rank, self.rank + 1))
        runs = [np.arange(a, min(a + RUN, last)) for a in range(first, last, RUN)]
        with ThreadPoolExecutor(1) as io, ThreadPoolExecutor(self.decode_threads) as decoders:
            reads = [io.submit(read_samples, store, split, ids) for ids in runs]
            for ids, read in zip(runs, reads, strict=True):
                found = read.result()
                yield (
                    ids,
                    list(
                        decoders.map(lambda i, found=found: self.undecodable.decode(split, i, found[i]), map(int, ids))
                    ),
                )

    def central(self, scale: int, side: int) -> Iterator[Batch]:
        """This rank's validation images as centre crops of `side` pixels at Q=`scale`."""
        blank = np.zeros((3, side, side), np.uint8)
        for ids, images in self.images():
            views = np.stack([blank if i is None else central(i, pixels(scale, side), side) for i in images])
            yield self._plain(ids, images, views)

    def whole(self, shorter: int) -> Iterator[Batch]:
        """This rank's validation images uncropped, a shorter side of `shorter` pixels, in batches of equal shape."""
        for ids, images in self.images():
            by_shape: dict[tuple[int, ...], list[tuple[int, Pixels]]] = {}
            for i, image in enumerate(images):
                view = whole(image, shorter) if image is not None else np.zeros((3, shorter, shorter), np.uint8)
                by_shape.setdefault(view.shape, []).append((i, view))
            for group in by_shape.values():
                rows = [i for i, _ in group]
                yield self._plain(ids[rows], [images[i] for i in rows], np.stack([v for _, v in group]))

    def _plain(self, ids: Ints, images: list[Pixels | None], views: Pixels) -> Batch:
        weights = np.array([image is not None for image in images], np.float32)
        colour, keys = np.zeros((len(ids), 3), np.float32), np.zeros(len(ids), np.int64)
        labels = self.dataset.val.labels[ids]
        return Batch(*map(torch.from_numpy, (views, colour, labels, weights, keys, ids)))
