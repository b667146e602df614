"""How long training waits for a checkpoint of VGG E (1.15 GB with momentum), beside writing it on the spot.

On the spot: what `torch.save` of both state dicts into a file takes, before the next step. Ours: the time until `save`
returns. The next steps run while it hashes and uploads; how much slower they are is shown as well.
"""

import tempfile
import time
from pathlib import Path
from statistics import median

import torch
from report import report

from alexvgg.batch import Batch
from alexvgg.data.store import open_store
from alexvgg.engine.saver import Saver
from alexvgg.engine.step import Normalisation, Updater, sgd
from alexvgg.engine.world import World
from alexvgg.models import build

CUDA = torch.cuda.is_available()
DEVICE = torch.device("cuda" if CUDA else "cpu")
RUNS = 3
BATCH = 128 if CUDA else 2
MINUTES = 10  # between checkpoints

torch.manual_seed(0)
net = build("vgg_e").to(DEVICE).to(memory_format=torch.channels_last).train()
optimizer = sgd(net, lr=1e-4, momentum=0.9, weight_decay=5e-4)
update = Updater(net, optimizer, Normalisation((120.0, 120.0, 120.0)), World(0, 1, DEVICE))
batch = Batch(
    torch.randint(0, 256, (BATCH, 3, 224, 224), dtype=torch.uint8), torch.zeros(BATCH, 3),
    torch.zeros(BATCH, dtype=torch.int64), torch.ones(BATCH), torch.arange(BATCH), torch.arange(BATCH),
).to(DEVICE)  # fmt: skip


def timed_step() -> float:
    began = time.perf_counter()
    update(batch)
    if CUDA:
        torch.cuda.synchronize()
    return time.perf_counter() - began


def on_the_spot(folder: Path) -> float:
    began = time.perf_counter()
    torch.save({"model": net.state_dict(), "optimizer": optimizer.state_dict()}, folder / "checkpoint.pt")
    return time.perf_counter() - began


with tempfile.TemporaryDirectory() as name:
    folder = Path(name)
    saver = Saver(open_store(folder.as_uri()), "checkpoints/", keep=1)
    timed_step()
    alone = median(timed_step() for _ in range(2))
    ours, baseline, beside = [], [], []
    for number in range(1 + RUNS):
        momentum = {k: optimizer.state[p]["momentum_buffer"] for k, p in net.named_parameters()}
        began = time.perf_counter()
        saver.save(number, {"model": net.state_dict(), "momentum": momentum}, {})
        stall = time.perf_counter() - began
        during = timed_step()
        saver.wait()
        spot = on_the_spot(folder)
        if number > 0:  # the first lays the file out
            ours.append(1000 * stall)
            baseline.append(1000 * spot)
            beside.append(during)
    saver.close()

cost = median(ours) / 1000 + max(0.0, median(beside) - alone)
print(f"a step of {BATCH} images: {alone:.2f} s alone, {median(beside):.2f} s while a checkpoint is hashed and stored")
print(f"every {MINUTES} minutes that is {cost / (60 * MINUTES):.3%} of the time")
report("checkpoint", ours, baseline, "ms of stall", ("snapshot, then in the background", "torch.save on the spot"))
