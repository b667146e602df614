"""Every rank holds the same weights, to the bit: looked at every so often, as nothing else would show it."""

from collections import Counter
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from alexvgg.engine.world import World

WORDS = {2: torch.int16, 4: torch.int32, 8: torch.int64}
ODD = -7046029254386353131  # 2^64 / the golden ratio, as int64


class DriftError(RuntimeError):
    """Ranks hold different weights. The message names the rank and the layer."""


def fingerprint(tensor: Tensor) -> Tensor:
    """An int64 of all bits of `tensor`, on its device: the sums of its rows, weighted by the rows' numbers."""
    words = tensor.detach().view(WORDS[tensor.element_size()])
    rows = words.sum(dim=tuple(range(1, words.ndim)), dtype=torch.int64) if words.ndim > 1 else words.to(torch.int64)
    weights = torch.arange(1, 2 * len(rows), 2, device=rows.device) * ODD
    return (rows * weights).sum()


def check_replicas(net: nn.Module, world: World, step: int) -> None:
    """Compare the weights of all ranks. Every rank calls this; raises DriftError on every rank."""
    if world.size == 1:
        return
    names = [name for name, _ in net.named_parameters()]
    found = world.gather(torch.stack([fingerprint(p) for p in net.parameters()])).tolist()
    whole = [tuple(rank) for rank in found]
    common, votes = Counter(whole).most_common(1)[0]
    if votes == world.size:
        return
    odd = [rank for rank in range(world.size) if whole[rank] != common]
    layers = [n for n, values in zip(names, zip(*found, strict=True), strict=True) if len(set(values)) > 1]
    who = f"the weights of rank {_listed(odd)} aren't those of the other ranks"
    if 2 * votes <= world.size:
        who = f"ranks {_listed(range(world.size))} hold different weights"
    raise DriftError(
        f"after step {step} {who}, in {_listed(layers)}. Ranks on unlike processors can round differently, and memory "
        "can fail. Start the run again: it goes on from its last checkpoint, where all ranks agreed. If it comes "
        "again, look at that rank's host, or use --exchange allreduce."
    )


def _listed(things: Sequence[object]) -> str:
    return ", ".join(map(str, things[:3])) + (f" and {len(things) - 3} more" if len(things) > 3 else "")
