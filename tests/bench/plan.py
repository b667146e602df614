"""What ImageNet's size costs before the first byte of an image: 1.28 million samples in 1,024 shards, index only.

Beside our plan: torch's DistributedSampler, which gives an order but no place to read from. `make bench NAME=plan`
"""

import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

import numpy as np
from report import result
from torch.utils.data import DistributedSampler

from alexvgg.data.fetch import plan_reads, working_set
from alexvgg.data.index import ShardIndex, write_dataset
from alexvgg.data.plan import plan_epoch
from alexvgg.data.shards import open_dataset
from alexvgg.data.store import open_store

SHARDS, SAMPLES, BATCH, WINDOW, ROUNDS = 1024, 1_281_167, 256, 128, 5


def generate(url: str) -> None:
    """The index that packing ImageNet would leave."""
    random = np.random.default_rng(0)
    bounds = [s * SAMPLES // SHARDS for s in range(SHARDS + 1)]
    indexes = []
    for shard in range(SHARDS):
        n = bounds[shard + 1] - bounds[shard]
        sizes = random.lognormal(np.log(100_000), 0.5, n).astype(np.int64)
        offsets = np.cumsum(sizes + 2560) - sizes
        indexes.append(ShardIndex(
            shard=f"train-{shard:06d}.tar", size=int(offsets[-1] + sizes[-1] + 10240),
            keys=[f"n{random.integers(10**8):08d}_{i}" for i in range(n)], offsets=offsets.tolist(),
            sizes=sizes.tolist(), labels=random.integers(0, 1000, n).tolist(),
            crc32=random.integers(0, 2**32, n).tolist(),
        ))  # fmt: skip
    about = {
        "name": "generated", "classes": [str(c) for c in range(1000)], "flip": True, "mean_rgb": [0, 0, 0],
        "colour_axes": np.eye(3).tolist(), "colour_std": [0, 0, 0], "mean_image": None,
    }  # fmt: skip
    write_dataset(open_store(url), about, {"train": indexes, "val": indexes[:1]})


def load(url: str) -> None:
    """In a process of its own, so that memory can be told: prints seconds and MB."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    began = time.perf_counter()
    dataset = open_dataset(open_store(url))
    seconds = time.perf_counter() - began
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    assert len(dataset.train) == SAMPLES
    print(json.dumps([seconds, grown]))


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        url = Path(folder).as_uri()
        generate(url)
        loads = [json.loads(subprocess.check_output([sys.executable, __file__, url])) for _ in range(3)]
        split = open_dataset(open_store(url)).train
    planning, steps, sampling, reading = [], [], [], []
    for epoch in range(ROUNDS):
        began = time.perf_counter()
        plan = plan_epoch(split.shard_sizes, BATCH, WINDOW, 0, epoch)
        planning.append(time.perf_counter() - began)
        began = time.perf_counter()
        for step in range(500):
            plan.batch(step, 0, 4)
        steps.append((time.perf_counter() - began) / 500)
        began = time.perf_counter()
        lanes = plan.lanes_of(0, 4)
        held = working_set(split, plan, lanes, 0)
        next(plan_reads(split, plan, lanes, 0, 1 << 30))
        reading.append(time.perf_counter() - began)
        sampler: DistributedSampler[int] = DistributedSampler(range(SAMPLES), num_replicas=4, rank=0)  # type: ignore[arg-type]
        began = time.perf_counter()
        list(sampler)
        sampling.append(time.perf_counter() - began)
    print(
        f"index of {SAMPLES:,} samples in {SHARDS} shards   {median(s for s, _ in loads):8.3f} s   "
        f"{median(mb for _, mb in loads):6.0f} MB"
    )
    print(f"plan of an epoch                              {median(planning):8.3f} s")
    print(f"a rank's batch of one step                    {1e3 * median(steps):8.3f} ms")
    print(
        f"reads up to the first                         {median(reading):8.3f} s   "
        f"(of 4 ranks, each must hold {held / 1e6:.0f} MB)"
    )
    print(f"torch's DistributedSampler                    {median(sampling):8.3f} s")
    ratio = median(sampling) / median(planning)
    result("plan", ours=median(planning), baseline=median(sampling), unit="s", ratio=ratio, n=ROUNDS)


if __name__ == "__main__":
    load(sys.argv[1]) if len(sys.argv) > 1 else main()
