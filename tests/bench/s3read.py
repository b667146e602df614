"""Reading windows of images through our store, checked, against bare `get_object().read()` of the same ranges.

An S3 service on this machine, in a process of its own; rounds in turn, with more and more threads. Each way counts at
the number of threads at which it is fastest: where the network isn't the limit, more only get into each other's way.
CPU is this process's, the service's is not in it. `make bench NAME=s3read`
"""

import functools
import json
import os
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from statistics import median
from typing import Any

import boto3
import numpy as np
from botocore.config import Config
from processes import s3_environment, s3_service
from report import report_rates

from alexvgg.data.augment import Augmentation
from alexvgg.data.fetch import Read, read_samples, reads_of
from alexvgg.data.index import ShardIndex, write_dataset
from alexvgg.data.loader import Loader, Prefetch
from alexvgg.data.packing.synthetic import SyntheticSpec, pack_synthetic
from alexvgg.data.plan import plan_epoch
from alexvgg.data.shards import Dataset, open_dataset
from alexvgg.data.store import create_bucket, open_store
from alexvgg.data.undecodable import Undecodable

IMAGES, ROUNDS, LANES = 4000, 9, 64
THREADS = (1, 2, 4, 8)
Work = Callable[[Dataset, list[Read], int], None]
SETTINGS = Config(max_pool_connections=64, response_checksum_validation="when_required")  # as our store has it


def bare(s3: Any, dataset: Dataset, reads: list[Read], threads: int) -> None:
    split = dataset.train

    def get(read: Read) -> int:
        first, last = read.samples[0], read.samples[-1]
        span = f"bytes={split.offsets[first]}-{split.offsets[last] + split.sizes[last] - 1}"
        key = f"synthetic/{split.shards[split.shard_of[first]]}"
        return len(s3.get_object(Bucket="bucket", Key=key, Range=span)["Body"].read())

    with ThreadPoolExecutor(threads) as pool:
        sum(pool.map(get, reads))


def ours(dataset: Dataset, reads: list[Read], threads: int) -> None:
    def get(read: Read) -> int:
        return sum(len(data) for _, data in read_samples(dataset.store, dataset.train, read.samples))

    with ThreadPoolExecutor(threads) as pool:
        sum(pool.map(get, reads))


def timed(work: Work, dataset: Dataset, reads: list[Read], threads: int) -> tuple[float, float]:
    """(seconds, CPU seconds)"""
    began, cpu = time.perf_counter(), time.process_time()
    work(dataset, reads, threads)
    return time.perf_counter() - began, time.process_time() - cpu


def first_batch(dataset: Dataset) -> float:
    """Seconds to the first batch of 256, from 64 lanes each in its own 100 MB of shards: the first 64 are one tar's
    copies under other names, so that the bucket holds 6.4 GB of them."""
    loader = Loader(dataset, Augmentation((256, 512), 224, True, 0.1, np.eye(3)), 0, 0, 1, Prefetch(),
                    Undecodable(""))  # fmt: skip
    began = time.perf_counter()
    plan = plan_epoch(dataset.train.shard_sizes, 256, 128, 0, 0)
    with closing(loader.training(plan, 0, 0)) as batches:
        next(batches)
        return time.perf_counter() - began


def many_lanes(dataset: Dataset, url: str) -> Dataset:
    """64 shards of about 100 MB: the packed ones again and again."""
    index = json.loads(dataset.store.get(f"index/{dataset.train.shards[0]}.json"))
    tar = dataset.store.get(dataset.train.shards[0])
    store = open_store(url)
    indexes = []
    for number in range(LANES):
        name = f"train-{number:06d}.tar"
        store.put(name, tar)
        indexes.append(ShardIndex(**{**index, "shard": name}))
    about = json.loads(dataset.store.get("dataset.json"))
    write_dataset(store, {**about, "mean_image": None}, {"train": indexes, "val": indexes[:1]})
    return open_dataset(store)


def main() -> None:
    with tempfile.TemporaryDirectory() as folder, s3_service(Path(folder)) as endpoint:
        os.environ |= s3_environment(endpoint)
        create_bucket("s3://bucket")
        store = open_store("s3://bucket/synthetic")
        pack_synthetic(store, SyntheticSpec(images=IMAGES, val=1, shard_bytes=100 << 20))
        measure(open_dataset(store))


def measure(dataset: Dataset) -> None:
    reads = [r for a in range(0, IMAGES, 128) for r in reads_of(dataset.train, range(a, min(a + 128, IMAGES)))]
    size = sum(r.size for r in reads) / 1e6
    works: dict[str, Work] = {
        "ours, crc32 of every image checked": ours,
        "bare get_object().read()": functools.partial(bare, boto3.client("s3", config=SETTINGS)),
    }
    rates: dict[str, list[float]] = {}
    for threads in THREADS:
        rounds = [[timed(work, dataset, reads, threads) for work in works.values()] for _ in range(1 + ROUNDS)][1:]
        speed, cpu = ([median(pair[i] for pair in rounded) for rounded in zip(*rounds, strict=True)] for i in (0, 1))
        print(
            f"{threads} threads: {size / speed[0]:.0f} MB/s, bare {size / speed[1]:.0f}: {speed[1] / speed[0]:.2f};   "
            f"CPU {1e3 * cpu[0] / size:.3f} ms a MB, bare {1e3 * cpu[1] / size:.3f}: {cpu[0] / cpu[1]:.2f} times"
        )
        for name, times in zip(works, zip(*rounds, strict=True), strict=True):
            rate = [size / seconds for seconds, _ in times]
            rates[name] = max(rates.get(name, rate), rate, key=median)
    lanes = many_lanes(dataset, "s3://bucket/lanes")
    print(
        f"first batch of 256 from {LANES} lanes, 100 MB a shard: {median(first_batch(lanes) for _ in range(3)):.2f} s"
    )
    report_rates("s3read", rates, "MB/s")


if __name__ == "__main__":
    main()
