"""Images per second of training AlexNet and VGG A, D, E at full size, beside a plain PyTorch script's.

The plain script is torchvision's net (vgg11, 16, 19; its `alexnet` is another net), channels last, autocast on a GPU,
torch.optim.SGD as it comes, float images that are on the device already. Ours takes uint8 images on the device,
normalises them, draws keyed dropout masks and counts samples. Both see the same batch in turn. The last part trains
AlexNet with everything: JPEGs from shards, decoding, augmentation, the copy to the device.

On a CPU: small batches and few steps. On a GPU: batches as large as the papers'.
"""

import io
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import numpy as np
import torch
import torch.nn.functional as F
import torchvision
from PIL import Image
from report import hardware, report

from alexvgg.architectures import architecture
from alexvgg.batch import Batch
from alexvgg.config import TrainConfig
from alexvgg.data.augment import Augmentation
from alexvgg.data.loader import Loader
from alexvgg.data.packing.colour import ColourSums
from alexvgg.data.plan import plan_epoch
from alexvgg.data.shards import Dataset, index_shard, open_dataset, write_dataset
from alexvgg.data.store import open_store
from alexvgg.data.undecodable import Undecodable
from alexvgg.engine.guards import StuckStart
from alexvgg.engine.loop import Trainer
from alexvgg.engine.step import Normalisation, Updater, autocast, sgd
from alexvgg.engine.world import World
from alexvgg.models import build

CUDA = torch.cuda.is_available()
DEVICE = torch.device("cuda" if CUDA else "cpu")
WORLD = World(0, 1, DEVICE)
MEAN = (123.7, 116.3, 103.5)
STEPS = 20 if CUDA else 2
NETS = {  # name: (torchvision's twin, batch on a GPU, batch on a CPU)
    "alexnet": (None, 512, 16),
    "vgg_a": ("vgg11", 256, 4),
    "vgg_d": ("vgg16", 128, 2),
    "vgg_e": ("vgg19", 128, 2),
}


def seconds(run: Callable[[], object]) -> float:
    if CUDA:
        torch.cuda.synchronize()
    began = time.perf_counter()
    run()
    if CUDA:
        torch.cuda.synchronize()
    return time.perf_counter() - began


def ceiling() -> float:
    """FLOP/s of a large matrix product at the precision that training uses: the best within three seconds."""
    n = 8192 if CUDA else 2048
    a, b = (torch.randn(n, n, device=DEVICE, dtype=torch.bfloat16 if CUDA else torch.float32) for _ in range(2))
    times, end = [seconds(lambda: a @ b)], time.perf_counter() + 3
    while time.perf_counter() < end:
        times.append(seconds(lambda: a @ b))
    return 2 * n**3 / min(times)


def synthetic(n: int) -> Batch:
    return Batch(
        images=torch.randint(0, 256, (n, 3, 224, 224), dtype=torch.uint8),
        colour=torch.randn(n, 3), labels=torch.randint(0, 1000, (n,)), weights=torch.ones(n),
        keys=torch.randint(-(2**62), 2**62, (n,)), samples=torch.arange(n),
    ).to(DEVICE)  # fmt: skip


def ours(name: str, n: int) -> Callable[[], object]:
    torch.manual_seed(0)
    net = build(name).to(DEVICE).to(memory_format=torch.channels_last).train()
    optimizer = sgd(net, lr=1e-4, momentum=0.9, weight_decay=5e-4)
    update, batch = Updater(net, optimizer, Normalisation(MEAN), WORLD), synthetic(n)
    return lambda: update(batch)


def plain(name: str, n: int) -> Callable[[], object]:
    torch.manual_seed(0)
    net = getattr(torchvision.models, name)().to(DEVICE).to(memory_format=torch.channels_last).train()
    optimizer = torch.optim.SGD(net.parameters(), lr=1e-4, momentum=0.9, weight_decay=5e-4)
    images = torch.randn(n, 3, 224, 224, device=DEVICE).to(memory_format=torch.channels_last)
    labels = torch.randint(0, 1000, (n,), device=DEVICE)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        with autocast(DEVICE):
            loss = F.cross_entropy(net(images), labels)
        loss.backward()
        optimizer.step()

    return step


class Silent:
    def step(self, batch: Batch, share: torch.Tensor) -> None: ...
    def point(self, step: int, loss: float) -> None: ...
    def warning(self, step: int, message: str) -> None: ...


def dataset(folder: Path, images: int) -> Dataset:
    """Smooth noise as JPEGs of ImageNet's usual 500x375 pixels."""
    from webdataset import TarWriter

    random, store, shard = np.random.default_rng(0), open_store(folder.as_uri()), "train-000000.tar"
    with (folder / shard).open("wb") as file, TarWriter(file, encoder=False, mtime=0) as writer:
        for i in range(images):
            picture, jpeg = random.integers(0, 256, (47, 63, 3), dtype=np.uint8), io.BytesIO()
            Image.fromarray(picture).resize((500, 375)).save(jpeg, "JPEG", quality=90)
            writer.write({"__key__": f"{i:06d}", "jpg": jpeg.getvalue(), "cls": str(i % 1000).encode()})
    index = index_shard(shard, (folder / shard).read_bytes())
    about = {"name": "noise", "classes": [str(c) for c in range(1000)], "flip": True, "mean_image": None}
    write_dataset(store, about | ColourSums.of(picture).statistics(), {"train": [index], "val": [index]})
    return open_dataset(store)


def end_to_end() -> dict[str, float]:
    """AlexNet for an epoch, from shards: the metrics that a run records."""
    n, threads = (128, 12) if CUDA else (4, 2)
    with tempfile.TemporaryDirectory() as folder:
        d = dataset(Path(folder), 40 * n if CUDA else 6 * n)
        axes = np.array(d.colour_axes) * np.array(d.colour_std)
        augmentation = Augmentation(scale=256, side=224, flip=True, colour_std=0.1, colour_axes=axes)
        loader = Loader(d, augmentation, 0, 0, 1, threads, 4, Undecodable(d.store.url))
        plan = plan_epoch(d.train.shard_sizes, n, 256, 0, 0)
        trainer = Trainer(
            build("alexnet"), TrainConfig(global_batch=n, lr=1e-4, epochs=1), WORLD, Normalisation(d.mean_rgb),
            Silent(), StuckStart(1000, 10**6, ""),
        )  # fmt: skip
        return trainer.epoch(loader.training(plan, 0, 0), len(d.train), plan.steps)


def main() -> None:
    device = torch.cuda.get_device_name() if CUDA else hardware()
    peak = ceiling()
    precision = "bf16" if CUDA else "float32"
    print(f"{device}; matrix product {peak / 1e12:.2f} TFLOP/s in {precision}, {torch.get_num_threads()} threads")
    print(f"{'net':<9}{'batch':>6}{'images/s':>10}{'TFLOP/s':>9}{'of peak':>9}{'plain, images/s':>17}{'ratio':>7}")
    paired: dict[str, tuple[list[float], list[float]]] = {}
    for name, (twin, on_gpu, on_cpu) in NETS.items():
        n = on_gpu if CUDA else on_cpu
        runs = [ours(name, n)] + ([plain(twin, n)] if twin else [])
        for run in runs:
            seconds(run)  # the first step allocates, and picks algorithms
        times = [[1000 * seconds(run) / n for run in runs] for _ in range(STEPS)]
        mine, theirs = ([t[i] for t in times if i < len(t)] for i in (0, 1))
        flops = 6 * architecture(name).macs * 1000 / median(mine)  # forward, and twice as much backward
        row = f"{name:<9}{n:>6}{1000 / median(mine):>10.1f}{flops / 1e12:>9.2f}{flops / peak:>9.0%}"
        row += (
            f"{1000 / median(theirs):>17.1f}{median(theirs) / median(mine):>7.2f}" if theirs else f"{'-':>17}{'-':>7}"
        )
        print(row, flush=True)
        if theirs:
            paired[name] = (mine, theirs)
    metrics = end_to_end()
    print(
        f"AlexNet from JPEG shards, all included: {metrics['perf/images_per_s']:.1f} images/s; "
        f"{metrics['perf/data_wait_share']:.0%} of the time waiting for data"
    )
    report("train_step", *paired["vgg_e"], "ms per image", ("VGG E, alexvgg", "VGG-19, plain script"))


main()
