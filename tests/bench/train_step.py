"""Images per second of training VGG E, D, A and AlexNet at full size, beside a plain PyTorch script's.

The plain script is torchvision's net (vgg11, 16, 19; its `alexnet` is another net), channels last, autocast on a GPU,
torch.optim.SGD as it comes, float images that are on the device already. Ours takes uint8 images on the device,
normalises them, draws keyed dropout masks and counts samples. All see a batch in turns. On a GPU ours is compiled, and
there are two more: ours with `--no-compile`, and the plain script with `torch.compile`.

And each is trained with everything: JPEGs from shards, decoding, augmentation, the copy to the device. On a GPU, what
the loader gives by itself is measured first, with all threads in one process and in several.

On a CPU: small batches and few steps. On a GPU: batches as large as the papers'. `make bench NAME=train_step`
"""

import json
import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from statistics import median
from unittest.mock import patch

import torch
import torch.nn.functional as F
import torchvision
from report import hardware, report

from alexvgg.architectures import architecture
from alexvgg.batch import Batch
from alexvgg.config import TrainConfig
from alexvgg.data import loader_processes
from alexvgg.data.augment import Augmentation
from alexvgg.data.index import read_index, write_dataset
from alexvgg.data.loader import Loader, Prefetch, decoding_threads
from alexvgg.data.loader_processes import LoaderProcesses
from alexvgg.data.packing.synthetic import SyntheticSpec, pack_synthetic
from alexvgg.data.plan import EpochPlan, plan_epoch
from alexvgg.data.shards import Dataset, open_dataset
from alexvgg.data.store import open_store
from alexvgg.data.undecodable import Undecodable
from alexvgg.engine.exchange import distributed
from alexvgg.engine.guards import Learning
from alexvgg.engine.loop import Trainer
from alexvgg.engine.step import Normalisation, Updater, autocast, chosen_compile, sgd
from alexvgg.engine.world import World
from alexvgg.models import build

CUDA = torch.cuda.is_available()
DEVICE = torch.device("cuda" if CUDA else "cpu")
MEAN = (123.7, 116.3, 103.5)
# Steps are timed in blocks: on a GPU single ones would count the time that it takes to tell it what to do.
WARM, BLOCK, BLOCKS = (5, 10, 4) if CUDA else (1, 1, 5)
NETS = {  # name: (torchvision's twin, batch on a GPU, batch on a CPU)
    "vgg_e": ("vgg19", 256, 2),
    "vgg_d": ("vgg16", 256, 2),
    "vgg_a": ("vgg11", 256, 4),
    "alexnet": (None, 512, 16),
}
FROM_SHARDS = ("vgg_e", "vgg_d", "vgg_a") if CUDA else ("alexnet",)
# As in NETS. Until the last step to warm up has been made, the loader has filled its buffers: what they hold is little
# beside the steps that are timed.
SHARD_BATCH, SHARD_STEPS, SHARD_WARM = (256, 460, 60) if CUDA else (16, 6, 2)
ALONE_STEPS, ALONE_WARM = 50, 15
COPIES = 115 if CUDA else 1  # of each image: to make one takes longer than to train with it

Step = Callable[[], object]


def seconds(run: Step, times: int = 1) -> float:
    """Of one of so many runs on end."""
    if CUDA:
        torch.cuda.synchronize()
    began = time.perf_counter()
    for _ in range(times):
        run()
    if CUDA:
        torch.cuda.synchronize()
    return (time.perf_counter() - began) / times


def ceiling() -> float:
    """FLOP/s of a large matrix product at the precision that training uses, once the clocks have settled."""
    n = 8192 if CUDA else 2048
    a, b = (torch.randn(n, n, device=DEVICE, dtype=torch.bfloat16 if CUDA else torch.float32) for _ in range(2))
    times, end = [], time.perf_counter() + 3
    while time.perf_counter() < end:
        times.append(seconds(lambda: a @ b, BLOCK))
    return 2 * n**3 / median(times[len(times) // 2 :])


def synthetic(n: int) -> Batch:
    return Batch(
        images=torch.randint(0, 256, (n, 3, 224, 224), dtype=torch.uint8),
        colour=torch.randn(n, 3), labels=torch.randint(0, 1000, (n,)), weights=torch.ones(n),
        keys=torch.randint(-(2**62), 2**62, (n,)), samples=torch.arange(n),
    ).to(DEVICE)  # fmt: skip


def ours(name: str, n: int, world: World, *, compiled: bool = False) -> Step:
    torch.manual_seed(0)
    net = build(name).to(DEVICE).to(memory_format=torch.channels_last).train()
    optimizer = sgd(net, lr=1e-4, momentum=0.9, weight_decay=5e-4)
    update = Updater(distributed(net, world, compiled=compiled), optimizer, Normalisation(MEAN), world)
    batch = synthetic(n)
    return lambda: update(batch)


def plain(name: str, n: int, *, compiled: bool = False) -> Step:
    torch.manual_seed(0)
    net = getattr(torchvision.models, name)().to(DEVICE).to(memory_format=torch.channels_last).train()
    model = torch.compile(net) if compiled else net
    optimizer = torch.optim.SGD(net.parameters(), lr=1e-4, momentum=0.9, weight_decay=5e-4)
    images = torch.randn(n, 3, 224, 224, device=DEVICE).to(memory_format=torch.channels_last)
    labels = torch.randint(0, 1000, (n,), device=DEVICE)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        with autocast(DEVICE):
            loss = F.cross_entropy(model(images), labels)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()

    return step


class Silent:
    def step(self, batch: Batch, share: torch.Tensor) -> None: ...
    def point(self, step: int, loss: float, pace: dict[str, float]) -> None: ...
    def warning(self, step: int, message: str) -> None: ...


def packed(folder: Path) -> Dataset:
    """A dataset whose training images are there COPIES times, under other shards' names."""
    store = open_store(folder.as_uri())
    pack_synthetic(store, SyntheticSpec(SHARD_BATCH * SHARD_STEPS // COPIES, 1, classes=1000))
    about = json.loads(store.get("dataset.json"))
    splits = {split: [read_index(store, shard) for shard in shards] for split, shards in about["splits"].items()}
    for shard in list(splits["train"]):
        for copy in range(1, COPIES):
            splits["train"].append(replace(shard, shard=f"{copy}-{shard.shard}"))
            (folder / splits["train"][-1].shard).hardlink_to(folder / shard.shard)
    write_dataset(store, about, splits)
    return open_dataset(store)


def loader_of(dataset: Dataset) -> Loader:
    augmentation = Augmentation((256, 512), 224, True, 0.1, dataset.colour_steps)
    prefetch = Prefetch(decode_threads=decoding_threads(None))
    return Loader(dataset, augmentation, 0, 0, 1, prefetch, Undecodable(dataset.store.url))


def plan_of(dataset: Dataset) -> EpochPlan:
    return plan_epoch(dataset.train.shard_sizes, SHARD_BATCH, 128, 0, 0)


def alone(dataset: Dataset, per_process: int) -> None:
    """What the loader gives to nobody, with so many threads in each of its processes."""
    with patch.object(loader_processes, "THREADS", per_process):
        loader = LoaderProcesses(loader_of(dataset), SHARD_BATCH)
    with closing(loader), closing(loader.training(plan_of(dataset), 0, 0)) as batches:
        threads = loader.threads
        for _ in range(ALONE_WARM):
            next(batches)
        rate = SHARD_BATCH / seconds(lambda: next(batches), ALONE_STEPS)
    print(f"the loader alone, {threads} threads, {per_process} a process: {rate:.1f} images/s", flush=True)


def from_shards(dataset: Dataset, name: str, world: World, *, compiled: bool) -> dict[str, float]:
    """Training from JPEGs for one epoch: the metrics that a run records, from when all has been begun."""
    loader = LoaderProcesses(loader_of(dataset), SHARD_BATCH) if CUDA else loader_of(dataset)
    plan = plan_of(dataset)
    config = TrainConfig(global_batch=SHARD_BATCH, lr=1e-4, epochs=1)
    stuck = Learning(1000, 10**6, "")
    trainer = Trainer(build(name), config, world, Normalisation(dataset.mean_rgb), Silent(), stuck, compiled=compiled)
    with closing(loader), closing(loader.training(plan, 0, 0)) as batches:
        trainer.epoch(batches, len(dataset.train), SHARD_WARM)
        return trainer.epoch(batches, len(dataset.train), plan.steps - SHARD_WARM)


def steps(name: str, peak: float, world: World, *, compiled: bool) -> dict[str, list[float]]:
    """Lines of the table; returns ms per image by way."""
    twin, on_gpu, on_cpu = NETS[name]
    n = on_gpu if CUDA else on_cpu
    ways = {"ours": ours(name, n, world, compiled=compiled)}
    if compiled:
        ways["ours, eager"] = ours(name, n, world)
    if twin:
        ways["plain"] = plain(twin, n)
    if twin and compiled:
        ways["plain, compiled"] = plain(twin, n, compiled=True)
    for run in ways.values():
        seconds(run, WARM)  # the first steps allocate, choose algorithms, compile
    times: dict[str, list[float]] = {way: [] for way in ways}
    for _ in range(BLOCKS):
        for way, run in ways.items():
            times[way].append(1000 * seconds(run, BLOCK) / n)
    for way, measured in times.items():
        flops = 6 * architecture(name).macs * 1000 / median(measured)  # forward, and twice as much backward
        line = f"{name:<9}{n:>6}  {way:<16}{1000 / median(measured):>10.1f}{flops / 1e12:>9.2f}{flops / peak:>9.0%}"
        print(f"{line}{median(measured) / median(times['ours']):>16.2f}", flush=True)
    return times


def main() -> None:
    print(f"{torch.cuda.get_device_name() + ', ' if CUDA else ''}{hardware()}; PyTorch {torch.__version__}")
    with World.launched() as world, tempfile.TemporaryDirectory() as folder:
        compiled = chosen_compile(DEVICE, None)  # here: the loader's process imports this file, too
        dataset = packed(Path(folder))
        for per_process in (decoding_threads(None), loader_processes.THREADS, 2) if CUDA else ():
            alone(dataset, per_process)
        peak = ceiling()
        print(f"matrix product {peak / 1e12:.2f} TFLOP/s in {'bf16' if CUDA else 'float32'}")
        print(f"{'net':<9}{'batch':>6}  {'':<16}{'images/s':>10}{'TFLOP/s':>9}{'of peak':>9}{'ours is, times':>16}")
        found = {}
        for name in NETS:
            found[name] = steps(name, peak, world, compiled=compiled)
            if name in FROM_SHARDS:
                metrics = from_shards(dataset, name, world, compiled=compiled)
                rate = metrics["perf/images_per_s"]
                share = rate * median(found[name]["ours"]) / 1000
                print(
                    f"{name} from JPEG shards, all included: {rate:.1f} images/s, {share:.1%} "
                    f"of ours; the device waits for data {metrics['perf/data_wait_share']:.1%} of the time",
                    flush=True,
                )
    compared = found["vgg_e"]["ours"], found["vgg_e"]["plain"]
    report("train_step", *compared, "ms per image", ("VGG E, alexvgg", "VGG-19, plain script"))


if __name__ == "__main__":
    main()
