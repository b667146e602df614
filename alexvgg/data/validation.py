"""The validation images, each exactly once whatever the number of ranks, as the views that are scored.

During training a rank scores a contiguous share of them as centre crops. Evaluation cuts them into parts, which are the
same for any number of ranks and are scored, stored and resumed on their own.
"""

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import TypeVar

import numpy as np
import torch

from alexvgg.batch import Batch
from alexvgg.config import pixels
from alexvgg.data.decode import Pixels
from alexvgg.data.fetch import read_all
from alexvgg.data.keyed import Ints
from alexvgg.data.shards import Dataset, Split
from alexvgg.data.undecodable import Undecodable
from alexvgg.data.views import central, resized_size, whole

READS_AHEAD = 8  # one connection to S3 gives some 600 images a second, and a GPU scores thousands
RUN, RUN_BYTES = 64, 16 << 20  # at most so many images, and about so many of their bytes, are decoded together
MOST_PARTS, SMALLEST_PART, LARGEST_PART = 64, 32, 512  # images: 98 parts of ImageNet's 50,000, 12 of 360
SPAN_PIXELS = 1 << 27  # of decoded images that are held at once: 384 MiB of RGB

Images = list[Pixels | None]
T = TypeVar("T")


def parts(images: int) -> list[range]:
    """The sample ids of each part: a function of the number of images alone."""
    size = min(max(SMALLEST_PART, -(-images // MOST_PARTS)), LARGEST_PART)
    return [range(start, min(start + size, images)) for start in range(0, images, size)]


@dataclass(frozen=True)
class Span:
    """Decoded images, to be scored at any number of scales before the next span is asked for."""

    samples: Ints
    images: list[Pixels]
    labels: Ints
    pool: Executor  # resizes

    def whole(self, shorter: int, pixels_per_batch: int) -> Iterator[Batch]:
        """All images uncropped, a shorter side of `shorter` pixels, in batches of one shape.

        A batch has at most `pixels_per_batch` pixels, or one image. The next one is resized while one is in use.
        """
        by_shape: dict[tuple[int, int], list[int]] = {}
        for i, image in enumerate(self.images):
            by_shape.setdefault(resized_size(image.shape[1], image.shape[0], shorter), []).append(i)
        groups = []
        for (width, height), members in sorted(by_shape.items()):
            n = max(1, pixels_per_batch // (width * height))
            groups += [members[start : start + n] for start in range(0, len(members), n)]

        def resize(group: list[int]) -> list[Future[Pixels]]:
            return [self.pool.submit(whole, self.images[i], shorter) for i in group]

        ahead = resize(groups[0]) if groups else []
        for group, following in zip(groups, [*groups[1:], []], strict=True):
            views, ahead = ahead, resize(following)
            stacked = np.stack([v.result() for v in views])
            yield _batch(self.samples[group], self.labels[group], stacked, np.ones(len(group), np.float32))


@dataclass
class Validation:
    """Streams one dataset's validation images for one rank."""

    dataset: Dataset
    rank: int
    world: int
    decode_threads: int
    undecodable: Undecodable

    def central(self, scale: int, side: int) -> Iterator[Batch]:
        """This rank's contiguous share of the images as centre crops of `side` pixels at Q=`scale`.

        An image that can't be decoded is a blank of weight 0.
        """
        split = self.dataset.val
        first, last = (r * len(split) // self.world for r in (self.rank, self.rank + 1))
        blank, shorter = np.zeros((3, side, side), np.uint8), pixels(scale, side)
        with self._pools() as (io, pool):
            for ids, images in self._runs(range(first, last), io, pool):
                views = np.stack(list(pool.map(lambda i: blank if i is None else central(i, shorter, side), images)))
                yield _batch(ids, split.labels[ids], views, np.array([i is not None for i in images], np.float32))

    def spans(self, samples: range) -> Iterator[Span]:
        """The given images, decoded once each, without those that can't be decoded: all of them, or as many as fit
        into SPAN_PIXELS."""
        with self._pools() as (io, pool):
            ids, images, held = [], [], 0
            for run, decoded in self._runs(samples, io, pool):
                for sample, image in zip(run.tolist(), decoded, strict=True):
                    if image is not None:
                        ids.append(sample)
                        images.append(image)
                        held += image.size // 3
                if held > SPAN_PIXELS:
                    yield self._span(ids, images, pool)
                    ids, images, held = [], [], 0
            if images:
                yield self._span(ids, images, pool)

    def _span(self, ids: list[int], images: list[Pixels], pool: Executor) -> Span:
        samples = np.array(ids, np.int64)
        return Span(samples, images, self.dataset.val.labels[samples], pool)

    @contextmanager
    def _pools(self) -> Iterator[tuple[Executor, Executor]]:
        with ThreadPoolExecutor(READS_AHEAD) as io, ThreadPoolExecutor(self.decode_threads) as decoders:
            yield io, decoders

    def _runs(self, samples: range, io: Executor, pool: Executor) -> Iterator[tuple[Ints, Images]]:
        """Images in short runs; one run is decoded and those after it are read while one is in use."""
        split, store = self.dataset.val, self.dataset.store
        runs = _runs_of(samples, split.sizes)

        def decoding(run: Ints, found: dict[int, bytes]) -> list[Future[Pixels | None]]:
            return [pool.submit(self._decode, split, int(i), found[int(i)]) for i in run]

        reads = _begun((io.submit(read_all, store, split, run.tolist()) for run in runs), READS_AHEAD)
        decodes = _begun((decoding(run, read.result()) for run, read in zip(runs, reads, strict=True)), 1)
        for run, images in zip(runs, decodes, strict=True):
            yield run, [image.result() for image in images]

    def _decode(self, split: Split, sample: int, data: bytes) -> Pixels | None:
        return self.undecodable.decode(split, sample, data)


def _begun(tasks: Iterator[T], ahead: int) -> Iterator[T]:
    """`tasks`, each of which begins when it is taken, so many before they are asked for."""
    begun = deque(islice(tasks, ahead))
    while begun:
        begun.extend(islice(tasks, 1))
        yield begun.popleft()


def _runs_of(samples: range, sizes: Ints) -> list[Ints]:
    """`samples` in runs of RUN and RUN_BYTES, but of one image at least."""
    runs: list[list[int]] = []
    held = 0
    for sample in samples:
        size = int(sizes[sample])
        if not runs or len(runs[-1]) == RUN or held + size > RUN_BYTES:
            runs.append([])
            held = 0
        runs[-1].append(sample)
        held += size
    return [np.array(run) for run in runs]


def _batch(samples: Ints, labels: Ints, views: Pixels, weights: np.ndarray[tuple[int], np.dtype[np.float32]]) -> Batch:
    colour, keys = np.zeros((len(samples), 3), np.float32), np.zeros(len(samples), np.int64)
    return Batch(*map(torch.from_numpy, (views, colour, labels, weights, keys, samples)))
