"""Images a second from tars to training views on one core, S in [256; 512], beside the same by other means.

All read the same synthetic images, packed once into plain WebDataset tars in a folder, and give batches of 256 random
views of 224x224 pixels. `make bench NAME=loader`
"""

import os
import random
import tempfile
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch
import webdataset
from PIL import Image
from report import report_rates

from alexvgg.data.augment import Augmentation
from alexvgg.data.fetch import read_samples, reads_of
from alexvgg.data.keyed import sample_keys
from alexvgg.data.loader import Loader, Prefetch
from alexvgg.data.packing.synthetic import SyntheticSpec, pack_synthetic
from alexvgg.data.plan import plan_epoch
from alexvgg.data.shards import Dataset, open_dataset
from alexvgg.data.store import open_store
from alexvgg.data.undecodable import Undecodable

IMAGES, BATCH, SIDE, SCALES = 1500, 250, 224, (256, 512)
ROUNDS = 3
MANY = 20_000  # images, over which memory must stay flat


def augmentation(dataset: Dataset) -> Augmentation:
    return Augmentation(SCALES, SIDE, True, 0.1, dataset.colour_steps)


def ours(dataset: Dataset, threads: int) -> Callable[[], int]:
    """An epoch by our loader, of which a run has one for all its epochs."""
    depth = Prefetch(batches=2, decode_threads=threads, read_threads=2)
    loader = Loader(dataset, augmentation(dataset), 0, 0, 1, depth, Undecodable(dataset.store.url))
    plan = plan_epoch(dataset.train.shard_sizes, BATCH, 128, seed=0, epoch=0)
    return lambda: sum(int(b.weights.sum()) for b in loader.training(plan, 0, 0))


class Bare:
    """The same decode calls in a bare loop over bytes in memory: what no loader can beat."""

    def __init__(self, dataset: Dataset) -> None:
        reads = reads_of(dataset.train, range(len(dataset.train)))
        self.data = [data for r in reads for _, data in read_samples(dataset.store, dataset.train, r.samples)]
        self.augmentation, self.undecodable = augmentation(dataset), Undecodable("")
        self.split = dataset.train
        self.draws = self.augmentation.draw(sample_keys(0, 0, np.arange(len(self.data))))

    def __call__(self) -> int:
        batch = np.empty((BATCH, 3, SIDE, SIDE), np.uint8)
        for row, data in enumerate(self.data):
            image = self.undecodable.decode(self.split, row, data, partial(self.augmentation.bottom, self.draws, row))
            assert image is not None
            batch[row % BATCH] = self.augmentation.view(image, self.draws, row)
        return len(self.data)


def stock_view(image: Image.Image) -> np.ndarray:
    """Rescale the whole image, crop, flip: what a training script does with Pillow."""
    shorter = random.randint(*SCALES)
    factor = shorter / min(image.size)
    image = image.resize([max(shorter, round(side * factor)) for side in image.size], Image.Resampling.BILINEAR)
    x, y = (random.randint(0, side - SIDE) for side in image.size)
    view = image.crop((x, y, x + SIDE, y + SIDE))
    if random.random() < 0.5:
        view = view.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return np.array(view)


def stock(urls: list[str]) -> Any:
    pipeline = webdataset.WebDataset(urls, shardshuffle=False).shuffle(256).decode("pil")
    return pipeline.to_tuple("jpg;jpeg", "cls").map_tuple(stock_view, int).batched(BATCH)


def by_webdataset(urls: list[str]) -> int:
    return count(stock(urls))


def by_torch(urls: list[str]) -> int:
    return count(torch.utils.data.DataLoader(stock(urls), batch_size=None, num_workers=2))


def by_datasets(urls: list[str]) -> int:
    from datasets import load_dataset

    stream = load_dataset("webdataset", data_files=urls, split="train", streaming=True).shuffle(0, buffer_size=256)
    views = (stock_view(row["jpg"].convert("RGB")) for row in stream if row["jpg"] is not None)  # it drops .jpeg
    return count(batches(views))


def batches(views: Iterator[np.ndarray]) -> Iterator[tuple[np.ndarray]]:
    while batch := list(islice(views, BATCH)):
        yield (np.stack(batch),)


def count(stream: Iterable[Any]) -> int:
    return sum(len(batch[0]) for batch in stream)


def rate(work: Callable[[], int], cores: int) -> float:
    """Images a second, on `cores` cores."""
    available = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, available[:cores])
    try:
        began = time.perf_counter()
        return work() / (time.perf_counter() - began)
    finally:
        os.sched_setaffinity(0, available)


def resident(dataset: Dataset) -> tuple[float, float]:
    """MB of this process after some images and after many, on two decode threads."""
    seen, early, epoch = 0, 0.0, ours(dataset, 2)
    while seen < MANY:
        seen += epoch()
        early = early or (psutil.Process().memory_info().rss if seen >= 2000 else 0.0)
    return early / 1e6, psutil.Process().memory_info().rss / 1e6


def main() -> None:
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        store = open_store(Path(folder).as_uri())
        pack_synthetic(store, SyntheticSpec(images=IMAGES, val=1, shard_bytes=24 << 20))
        dataset = open_dataset(store)
        urls = [f"{folder}/{shard}" for shard in dataset.train.shards]
        bare = Bare(dataset)
        ways: dict[str, tuple[Callable[[], int], int]] = {
            "ours, 1 core": (ours(dataset, 1), 1),
            "webdataset + Pillow, 1 core": (lambda: by_webdataset(urls), 1),
            "bare decode loop, 1 core": (bare, 1),
            "ours, 2 threads on 2 cores": (ours(dataset, 2), 2),
            "torch DataLoader, 2 processes": (lambda: by_torch(urls), 2),
        }
        try:
            import datasets  # noqa: F401
        except ImportError:
            print("Hugging Face datasets isn't installed; `pip install datasets` adds its figure.")
        else:
            ways["Hugging Face datasets, 1 core"] = (lambda: by_datasets(urls), 1)
        for work, cores in ways.values():
            rate(work, cores)
        rates: dict[str, list[float]] = {name: [] for name in ways}
        for _ in range(ROUNDS):
            for name, (work, cores) in ways.items():
                rates[name].append(rate(work, cores))
        memory = resident(dataset)
    print(f"memory: {memory[0]:.0f} MB after 2,000 images, {memory[1]:.0f} MB after {MANY:,}")
    report_rates("loader", rates, "images/s")


if __name__ == "__main__":
    main()
