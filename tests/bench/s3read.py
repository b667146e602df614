"""Reading windows of images through our store, checked, against bare `get_object().read()` of the same ranges.

An S3 service on this machine, in a process of its own; rounds in turn. CPU is this process's, the service's is not in
it. `make bench NAME=s3read`
"""

import json
import os
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from statistics import median

import boto3
import numpy as np
from botocore.config import Config
from processes import s3_service
from report import report_rates

from alexvgg.data.augment import Augmentation
from alexvgg.data.fetch import Read, read_samples, reads_of
from alexvgg.data.loader import Loader, Prefetch
from alexvgg.data.packing.synthetic import SyntheticSpec, pack_synthetic
from alexvgg.data.plan import plan_epoch
from alexvgg.data.shards import Dataset, ShardIndex, open_dataset, write_dataset
from alexvgg.data.store import create_bucket, open_store
from alexvgg.data.undecodable import Undecodable

IMAGES, THREADS, ROUNDS, LANES = 4000, 8, 9, 64
SETTINGS = Config(max_pool_connections=64, response_checksum_validation="when_required")  # as our store has it


def bare(dataset: Dataset, reads: list[Read]) -> None:
    s3, split = boto3.client("s3", config=SETTINGS), dataset.train

    def get(read: Read) -> int:
        first, last = read.samples[0], read.samples[-1]
        span = f"bytes={split.offsets[first]}-{split.offsets[last] + split.sizes[last] - 1}"
        key = f"synthetic/{split.shards[split.shard_of[first]]}"
        return len(s3.get_object(Bucket="bucket", Key=key, Range=span)["Body"].read())

    with ThreadPoolExecutor(THREADS) as pool:
        sum(pool.map(get, reads))


def ours(dataset: Dataset, reads: list[Read]) -> None:
    def get(read: Read) -> int:
        return sum(len(data) for _, data in read_samples(dataset.store, dataset.train, read.samples))

    with ThreadPoolExecutor(THREADS) as pool:
        sum(pool.map(get, reads))


def timed(work: Callable[[Dataset, list[Read]], None], dataset: Dataset, reads: list[Read]) -> tuple[float, float]:
    """(seconds, CPU seconds)"""
    began, cpu = time.perf_counter(), time.process_time()
    work(dataset, reads)
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
    kept = {k: about[k] for k in ("name", "classes", "flip", "mean_rgb", "colour_axes", "colour_std")}
    write_dataset(store, kept, {"train": indexes, "val": indexes[:1]})
    return open_dataset(store)


def main() -> None:
    with tempfile.TemporaryDirectory() as folder, s3_service(Path(folder)) as endpoint:
        os.environ |= {
            "AWS_ENDPOINT_URL_S3": endpoint, "AWS_ACCESS_KEY_ID": "bench", "AWS_SECRET_ACCESS_KEY": "bench",
            "AWS_DEFAULT_REGION": "us-east-1",
        }  # fmt: skip
        create_bucket("s3://bucket")
        store = open_store("s3://bucket/synthetic")
        pack_synthetic(store, SyntheticSpec(images=IMAGES, val=1, shard_bytes=100 << 20))
        measure(open_dataset(store))


def measure(dataset: Dataset) -> None:
    reads = [r for a in range(0, IMAGES, 128) for r in reads_of(dataset.train, range(a, min(a + 128, IMAGES)))]
    size = sum(r.size for r in reads) / 1e6
    for work in (bare, ours):
        work(dataset, reads)
    rounds = [(timed(ours, dataset, reads), timed(bare, dataset, reads)) for _ in range(ROUNDS)]
    our_cpu, bare_cpu = (median(1e3 * r[i][1] / size for r in rounds) for i in (0, 1))
    print(f"CPU: {our_cpu:.3f} ms per MB, bare reads {bare_cpu:.3f}: ours is {our_cpu / bare_cpu:.2f} times theirs")
    lanes = many_lanes(dataset, "s3://bucket/lanes")
    print(
        f"first batch of 256 from {LANES} lanes, 100 MB a shard: {median(first_batch(lanes) for _ in range(3)):.2f} s"
    )
    names = ("ours, crc32 of every image checked", "bare get_object().read()")
    report_rates("s3read", {name: [size / r[i][0] for r in rounds] for i, name in enumerate(names)}, "MB/s")


if __name__ == "__main__":
    main()
