"""A host's ranks form a gradient together: each computes some of its rows, and passes them on to the others.

By factors every rank could form the whole gradient by itself. Between GPUs that NVLink joins, passing rows on takes
less time than computing them; over PCIe it mostly doesn't. Which is so is measured when training starts. As a part of a
product may have other last bits than the whole, it is only done where it hasn't: so the measurement, which comes out
anew whenever a run goes on, can't change the run.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor, nn

from alexvgg.engine.world import World, collective_timeout


@dataclass(frozen=True)
class Peers:
    """The ranks of this host: this one is number `index` of `size`."""

    group: dist.ProcessGroup
    index: int
    size: int

    @classmethod
    def of(cls, hosts: Sequence[Sequence[int]], world: World) -> "Peers | None":
        """`hosts` are the ranks of each. None if there is nobody to share with, or not as many on each host.

        Every rank calls this.
        """
        if len({len(ranks) for ranks in hosts}) != 1 or len(hosts[0]) == 1:
            return None
        found = None
        for ranks in hosts:
            group = dist.new_group(list(ranks), timeout=collective_timeout())
            if world.rank in ranks:
                assert isinstance(group, dist.ProcessGroup), "this rank is a member"
                found = cls(group, list(ranks).index(world.rank), len(ranks))
        return found


class Share:
    """The rows of one layer's gradient (outputs, inputs) that this rank computes for its host."""

    def __init__(self, weight: Tensor, peers: Peers) -> None:
        rows = len(weight) // peers.size
        self._group, self._own = peers.group, slice(peers.index * rows, (peers.index + 1) * rows)
        self._part = weight.new_empty(rows, weight.shape[1])

    def form(self, gradient: Tensor, dy: Tensor, x: Tensor, ranks: int) -> None:
        """`form` of this module, with the host's other ranks."""
        form(self._part, dy[:, self._own], x, ranks)
        dist.all_gather_single(gradient, self._part, group=self._group)


def form(gradient: Tensor, dy: Tensor, x: Tensor, ranks: int) -> None:
    """Write dy^T x / ranks into `gradient` (outputs, inputs), of dy (rows, outputs) and x (rows, inputs)."""
    gradient.addmm_(dy.t(), x, beta=0, alpha=1 / ranks)


def made_factors(weight: Tensor, rows: int) -> tuple[Tensor, Tensor]:
    """dy and x of so many rows, the same on every rank, for trying out."""
    generator = torch.Generator().manual_seed(0)
    dy, x = (torch.randn(rows, width, generator=generator) for width in weight.shape)
    return dy.to(weight), x.to(weight)


def share(layer: nn.Linear, rows: int, world: World, peers: Peers) -> Share | None:
    """How this host forms the layer's gradient of `rows` rows together, if that gives the same bits sooner; else None.

    Every rank calls this, and all get the same answer.
    """
    if layer.out_features % peers.size:
        return None
    weight = layer.weight.detach()
    shared, (dy, x) = Share(weight, peers), made_factors(weight, rows)
    whole, parts = torch.empty_like(weight), torch.empty_like(weight)
    alone = _seconds(lambda: form(whole, dy, x, world.size), world)
    together = _seconds(lambda: shared.form(parts, dy, x, world.size), world)
    told = [alone, together, float(not torch.equal(whole, parts))]
    alone, together, unlike = world.sum(torch.tensor(told, dtype=torch.float64, device=world.device)).tolist()
    return shared if not unlike and pays(alone, together) else None


def pays(alone: float, together: float) -> bool:
    """Whether sharing saves time, by the seconds that each way took."""
    return together < alone


def _seconds(act: Callable[[], None], world: World) -> float:
    act()  # the first time there is more to do
    _settle(world)
    began = time.perf_counter()
    act()
    _settle(world)
    return time.perf_counter() - began


def _settle(world: World) -> None:
    if world.device.type == "cuda":
        torch.cuda.synchronize(world.device)
