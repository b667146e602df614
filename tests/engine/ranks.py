"""One rank of several worlds in turn: `python ranks.py RANK PORT FOLDER`. Rank 0 writes each world's gradients.

`share_of` cuts one batch unevenly: rank r of R holds 1 + r shares of the samples.
"""

import os
import sys
from pathlib import Path

import torch
from safetensors.torch import save_file

from alexvgg.batch import Batch
from alexvgg.engine.loop import distributed
from alexvgg.engine.step import Normalisation, Updater, sgd
from alexvgg.engine.world import World
from alexvgg.models import build

SIZES = (2, 3, 4)
SAMPLES = 21
MICRO_BATCH = 3  # the ranks then have different numbers of micro-batches


class Double(Normalisation):
    def __call__(self, batch: Batch) -> torch.Tensor:
        return super().__call__(batch).double()


def whole_batch() -> Batch:
    g = torch.Generator().manual_seed(3)
    return Batch(
        images=torch.randint(0, 256, (SAMPLES, 3, 32, 32), generator=g, dtype=torch.uint8),
        colour=torch.randn(SAMPLES, 3, generator=g),
        labels=torch.randint(0, 10, (SAMPLES,), generator=g),
        weights=(torch.arange(SAMPLES) % 5 != 2).float(),
        keys=torch.randint(-(2**62), 2**62, (SAMPLES,), generator=g),
        samples=torch.arange(SAMPLES),
    )


def share_of(batch: Batch, rank: int, size: int) -> Batch:
    bounds = [SAMPLES * r * (r + 1) // (size * (size + 1)) for r in range(size + 1)]
    return Batch(*(getattr(batch, name)[bounds[rank] : bounds[rank + 1]] for name in Batch.__dataclass_fields__))


def gradients(world: World, dtype: torch.dtype, micro_batch: int | None) -> dict[str, torch.Tensor]:
    """Every parameter's gradient and the global loss, after one update of a small VGG A at this world's size."""
    torch.manual_seed(0)
    net = build("vgg_a", num_classes=10, width=0.125, crop=32).to(dtype).to(memory_format=torch.channels_last).train()
    normalise = (Double if dtype == torch.float64 else Normalisation)((120.0, 110.0, 100.0))
    optimizer = sgd(net, lr=0.0, momentum=0.9, weight_decay=5e-4)
    update = Updater(distributed(net, world), optimizer, normalise, world, micro_batch=micro_batch)
    share, flags = update(share_of(whole_batch(), world.rank, world.size), (1.0, float(world.rank)))
    assert flags.tolist() == [world.size, world.size * (world.size - 1) / 2], "every rank knows what any rank wants"
    found = {name: p.grad.contiguous() for name, p in net.named_parameters() if p.grad is not None}
    return found | {"loss": world.sum(share)}


def main() -> None:
    rank, port, folder = int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3])
    torch.set_num_threads(1)
    for size in SIZES:
        if rank < size:
            os.environ.update(
                RANK=str(rank), WORLD_SIZE=str(size), MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port + size)
            )
            with World.launched() as world:
                for dtype in (torch.float32, torch.float64):
                    for micro_batch in (None, MICRO_BATCH):
                        found = gradients(world, dtype, micro_batch)
                        if rank == 0:
                            save_file(found, folder / f"{size}-{dtype}-{micro_batch}")


if __name__ == "__main__":
    main()
