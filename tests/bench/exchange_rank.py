"""One rank of `exchange.py`, which tells it by a line each when to go on: between two links' rates, and at the start.

`python exchange_rank.py NET STEPS INTERFACE EXCHANGE:RATES…`, with torchrun's variables in the environment. Prints a
line of JSON for the convolutions' backward pass, then for each exchange and each of so many rates; `none` exchanges
nothing.
"""

import gc
import json
import sys
import time
from collections import OrderedDict
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from alexvgg.architectures import architecture
from alexvgg.batch import Batch
from alexvgg.engine.exchange import agree, distributed
from alexvgg.engine.step import Normalisation, Updater, sgd
from alexvgg.engine.world import World
from alexvgg.models import build
from alexvgg.models.layers import Head

GLOBAL_BATCH = 8


class SizedAsD(nn.Module):
    """VGG D's gradient, byte for byte in the classifier and within 0.1 % in the convolutions, of images of 3x3 pixels.

    Its real convolutions take a CPU seconds an image, which would hide the exchange as no GPU does.
    """

    def __init__(self) -> None:
        super().__init__()
        shapes = [(3, 3), *[(512, 3)] * 6, *[(512, 1)] * 2]  # input channels, kernel
        layers: OrderedDict[str, nn.Module] = OrderedDict()
        for number, (channels, kernel) in enumerate(shapes):
            layers[f"conv{number}"] = nn.Conv2d(channels, 512, kernel, padding=kernel // 2)
            layers[f"relu{number}"] = nn.ReLU(inplace=True)
        layers["wider"] = nn.Upsample((7, 7))
        self.features = nn.Sequential(layers)
        self.classifier = Head(architecture("vgg_d").linears, 7, 0.5)

    def maps(self, images: Tensor) -> Tensor:
        return self.features(images)  # type: ignore[no-any-return]

    def forward(self, images: Tensor, keys: Tensor) -> Tensor:
        return self.classifier(self.maps(images).flatten(1), keys)  # type: ignore[no-any-return]


NETS = {"vgg_d": (SizedAsD, 3), "alexnet": (lambda: build("alexnet"), 224)}


def share(n: int, side: int, rank: int) -> Batch:
    g = torch.Generator().manual_seed(rank)
    return Batch(
        images=torch.randint(0, 256, (n, 3, side, side), generator=g, dtype=torch.uint8),
        colour=torch.zeros(n, 3), labels=torch.randint(0, 1000, (n,), generator=g), weights=torch.ones(n),
        keys=torch.randint(-(2**62), 2**62, (n,), generator=g), samples=torch.arange(n),
    )  # fmt: skip


class Meter:
    """Seconds and sent bytes of each step, this rank's bytes by the interface's own counter."""

    def __init__(self, world: World, interface: str) -> None:
        self._world = world
        self._sent = Path(f"/sys/class/net/{interface}/statistics/tx_bytes")

    def step(self, run: Any) -> tuple[float, int]:
        self._world.barrier()
        before, began = int(self._sent.read_text()), time.perf_counter()
        run()
        sent = int(self._sent.read_text()) - before
        self._world.barrier()
        return time.perf_counter() - began, sent


def measured(how: str, meter: Meter, steps: int, run: Any) -> None:
    sys.stdin.readline()
    run()  # the first step allocates
    times, sent = zip(*(meter.step(run) for _ in range(steps)), strict=True)
    print(json.dumps({"what": how, "seconds": times, "bytes": sent}), flush=True)


def hidden(net: Any, images: Tensor, batch: Batch) -> float:
    """Seconds that the convolutions' backward pass takes: what an exchange hides behind."""
    maps, began = net.maps(images), []
    maps.register_hook(lambda _: began.append(time.perf_counter()))
    F.cross_entropy(net.classifier(maps.flatten(1), batch.keys), batch.labels).backward()  # type: ignore[no-untyped-call]
    return time.perf_counter() - began[0]


def main() -> None:
    name, steps, interface, *exchanges = sys.argv[1], int(sys.argv[2]), *sys.argv[3:]
    torch.set_num_threads(1)
    with World.launched() as world:
        meter = Meter(world, interface)
        (make, side), mine = NETS[name], -(-GLOBAL_BATCH // world.size)
        torch.manual_seed(0)
        net = make().to(memory_format=torch.channels_last).train()
        batch, normalise = share(mine, side, world.rank), Normalisation((120.0, 110.0, 100.0))
        behind = [hidden(net, normalise(batch), batch) for _ in range(1 + steps)][1:]
        print(json.dumps({"what": "hidden", "seconds": behind, "bytes": [0] * steps}), flush=True)
        optimizer = sgd(net, lr=0.0, momentum=0.9, weight_decay=5e-4)
        for how, _, rates in (asked.partition(":") for asked in exchanges):
            model = net
            if how != "none":
                model = distributed(net, world, agree(net, world, how, GLOBAL_BATCH, mine))  # type: ignore[arg-type]
            update = Updater(model, optimizer, normalise, world)
            for _ in range(int(rates)):
                measured(how, meter, steps, lambda update=update: update(batch))
            optimizer.zero_grad()
            del model, update
            gc.collect()


if __name__ == "__main__":
    main()
