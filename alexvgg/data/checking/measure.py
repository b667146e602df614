"""How fast a dataset streams on this host, stage by stage, with nothing behind the loader: `alexvgg data bench`."""

import time
from contextlib import closing
from dataclasses import dataclass
from typing import Any

from alexvgg.config import DataConfig, Scale
from alexvgg.data.augment import Augmentation
from alexvgg.data.cache import Cache
from alexvgg.data.loader import Loader, Prefetch
from alexvgg.data.loader_processes import THREADS, LoaderProcesses, apart
from alexvgg.data.meter import Figures
from alexvgg.data.plan import plan_epoch
from alexvgg.data.shards import Dataset, Split
from alexvgg.data.undecodable import Undecodable

STARVED = 0.1  # of the decode threads' time: more than this waiting for bytes means that reading is what lacks


@dataclass(frozen=True)
class Speed:
    """What was measured. `share` of a stage is of the decode threads' time."""

    images_per_s: float
    images: int
    seconds: float
    first_batch_seconds: float
    decode_threads: int
    stages: dict[str, dict[str, float]]
    prefetch_fill: float
    retries: int

    @property
    def bottleneck(self) -> str:
        """The stage that limits the rate, and what would help."""
        if self.stages["starve"]["share"] > STARVED:
            return "reading: decode threads wait for bytes. Try a nearer storage, or --cache for the epochs to come."
        return "decoding: its threads are busy. More cores for each worker would help."

    def to_dict(self) -> dict[str, Any]:
        """For `--json`."""
        return {**vars(self), "bottleneck": self.bottleneck}

    def to_text(self) -> str:
        """For a terminal."""
        titles = {"read": "read from storage", "starve": "wait for bytes", "decode": "decode and crop"}
        head = f"{'stage':<20}{'count':>9}{'MB/s':>9}{'p50 ms':>9}{'p99 ms':>9}{'of threads':>12}"
        rows = [
            f"{titles[name]:<20}{stage['count']:>9.0f}{stage['mb_per_s']:>9.1f}{stage['p50_ms']:>9.2f}"
            f"{stage['p99_ms']:>9.2f}" + (f"{100 * stage['share']:>10.0f} %" if name != "read" else "")
            for name, stage in self.stages.items()
        ]
        return "\n".join([
            f"{self.images_per_s:.0f} images/s on {self.decode_threads} decode threads; the first batch took "
            f"{self.first_batch_seconds:.2f} s; {self.retries} retries",
            "", head, "-" * len(head), *rows, "", f"Bottleneck: {self.bottleneck}",
        ])  # fmt: skip


def measure(
    dataset: Dataset,
    scale: Scale,
    crop: int,
    *,
    batch: int,
    world: int,
    prefetch: Prefetch,
    cache: Cache | None,
    seconds: float,
) -> Speed:
    """Stream epochs as rank 0 of `world` for `seconds`; the figures are those of the last epoch that was begun."""
    augmentation = Augmentation(scale, crop, dataset.flip, 0.1, dataset.colour_steps)
    threads = Loader(dataset, augmentation, 0, 0, world, prefetch, Undecodable(dataset.store.url), cache)
    several = prefetch.decode_threads > THREADS  # in one process they would queue, which on a GPU they don't
    with closing(apart(threads, batch) if several else threads) as loader:
        loader.ready()
        return _measured(loader, dataset.train, batch, seconds)


def _measured(loader: Loader | LoaderProcesses, split: Split, batch: int, seconds: float) -> Speed:
    began, first, retries, epoch = time.perf_counter(), 0.0, 0, 0
    while True:
        plan = plan_epoch(split.shard_sizes, batch, DataConfig.window, 0, epoch)
        loader.check(plan)
        epoch_began, images = time.perf_counter(), 0
        with closing(loader.training(plan, epoch, 0)) as batches:
            for shown in batches:
                first = first or time.perf_counter() - began
                images += int((shown.samples >= 0).sum())
                if time.perf_counter() - began > seconds:
                    wall, work = time.perf_counter() - epoch_began, loader.work()
                    stages = {"read": work.read, "starve": work.starve, "decode": work.decode}
                    return Speed(
                        images_per_s=images / wall, images=images, seconds=wall, first_batch_seconds=first,
                        decode_threads=loader.threads, retries=retries + work.retries,
                        stages={n: _shown(figures, work.seconds, loader.threads) for n, figures in stages.items()},
                        prefetch_fill=work.fill,
                    )  # fmt: skip
        retries += loader.work().retries
        epoch += 1


def _shown(stage: Figures, seconds: float, threads: int) -> dict[str, float]:
    return {
        "count": stage.count, "mb_per_s": stage.size / seconds / 1e6, "share": stage.seconds / (threads * seconds),
        "p50_ms": 1e3 * stage.p50, "p99_ms": 1e3 * stage.p99,
    }  # fmt: skip
