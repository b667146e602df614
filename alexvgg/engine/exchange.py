"""Gradients of the global batch, the same bits on every rank: by DDP's all-reduce, or of linear layers by factors.

A linear layer's weight gradient is dY^T X over the global batch. Instead of all-reducing it, the ranks gather each
other's rows of X and dY, and each forms the whole gradient (`alexvgg.engine.traffic` has the arithmetic, and why this
depends on the global batch alone). It is DDP's gradient up to the order of float additions. Weights stay replicated;
checkpoints, names and the net itself are as without. In bf16 products' factors are bf16 anyway: they travel as such.
"""

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import bf16_compress_hook
from torch.nn.parallel import DistributedDataParallel

from alexvgg.architectures import Linear
from alexvgg.engine.replicas import fingerprint
from alexvgg.engine.sharing import Peers, Share, form, made_factors, share
from alexvgg.engine.traffic import EXCHANGES, Exchange, Gradient, Method, choose
from alexvgg.engine.world import World, collective_timeout
from alexvgg.errors import InputError
from alexvgg.process import host_id

# Once for each number of images, as a short last batch mustn't cost the others the sizes that their code is made for;
# and without trying which of several kernels is faster, as they add in another order: a resumed run could take another.
COMPILATION: dict[str, Any] = {"dynamic": False, "options": {"deterministic": True}}


def compile_here() -> None:
    """Let `torch.compile` compile in this process, not in a pool of others.

    A pool that had nothing to do for a minute forks its workers anew, from a process with threads, for the next code,
    which may be that of an epoch's short last batch: on an H100 a training stood still then (pytorch/pytorch#183884 is
    about those threads). It would save little: VGG D's code takes 13 s so, and took 10 s with 16 workers.
    """
    import torch._inductor.config as inductor

    inductor.compile_threads = 1


class Net(Protocol):
    """A net of crops of `crop` pixels, as several ranks need it.

    Its scores are `classifier(maps(images).flatten(1), keys)`.
    """

    crop: int
    features: nn.Module
    classifier: nn.Module

    def maps(self, images: Tensor) -> Tensor: ...


@dataclass(frozen=True)
class Agreement:
    """What all ranks do. `rows` is the most samples that one of them holds in a step, `hosts` each host's ranks."""

    method: Method
    layers: tuple[str, ...] = ()  # by factors
    rows: int = 0
    hosts: tuple[tuple[int, ...], ...] = ()


def gradient_of(net: nn.Module) -> Gradient:
    """The sizes of a net's gradient; the net may be on the meta device."""
    layers = tuple(Linear(name.rpartition(".")[2], m.in_features, m.out_features) for name, m in _linears(net))
    total = sum(p.numel() for p in net.parameters())
    return Gradient(layers, total - sum(layer.params for layer in layers))


def agree(net: nn.Module, world: World, asked: Exchange, global_batch: int, rows: int) -> Agreement:
    """How this world exchanges the gradients of `net`. Every rank calls this, with the same arguments.

    Raises InputError, on every rank, if they aren't the same, or if factors were asked for and can't be.
    """
    if world.size == 1:
        return Agreement("none")
    mine = [EXCHANGES.index(asked), global_batch, rows, host_id()]
    told = world.gather(torch.tensor(mine, device=world.device)).tolist()
    for rank, (*theirs, _) in enumerate(told):
        if theirs != told[0][:-1]:
            raise InputError(
                f"rank {rank} was started with --exchange {EXCHANGES[theirs[0]]} and a global batch of {theirs[1]}, "
                f"rank 0 with {EXCHANGES[told[0][0]]} and {told[0][1]}. Start all ranks by the same command."
            )
    gradient = gradient_of(net)
    hosts: dict[int, list[int]] = {}
    for rank, (*_, host) in enumerate(told):
        hosts.setdefault(host, []).append(rank)
    method = choose(asked, gradient, global_batch, world.size, hosts=len(hosts))
    layers = gradient.by_factors(global_batch) if method == "factors" else ()
    if not _same_products(net, layers, rows, world):
        if asked == "factors":
            raise InputError(
                "the same matrix product has other last bits on some ranks, whose processors or numbers of threads "
                "differ: by factors, their weights would drift apart. Use --exchange allreduce, or give all ranks the "
                "same kind of processor and OMP_NUM_THREADS."
            )
        method, layers = "allreduce", ()
    return Agreement(method, tuple(layer.name for layer in layers), rows, tuple(map(tuple, hosts.values())))


def distributed(net: nn.Module, world: World, agreed: Agreement | None = None, *, compiled: bool = False) -> nn.Module:
    """`net` with gradients averaged over ranks, by an all-reduce unless `agreed` otherwise; in a world of one itself.
    Compiled or not, `net` itself stays as it is: it is evaluated at other sizes.

    DDP's own bucket size: fc6, 400 MB of gradient, is a bucket of its own whatever the cap, and with gloo caps from 10
    to 400 MB made no difference beyond noise. `static_graph` would gain nothing: every parameter gets a gradient.
    """
    if compiled:
        compile_here()
    if world.size == 1:
        return cast(nn.Module, torch.compile(net, **COMPILATION)) if compiled else net
    if agreed is not None and agreed.method == "factors":
        return ByFactors(net, world, agreed, compiled=compiled)
    ddp = _ddp(net, world, compiled)
    if agreed is not None and agreed.method == "bf16":
        ddp.register_comm_hook(None, bf16_compress_hook)
    return ddp


def _ddp(module: nn.Module, world: World, compiled: bool) -> DistributedDataParallel:
    """Compiled from outside: dynamo then cuts the net at DDP's buckets, so that gradients still travel meanwhile."""
    devices = [world.device] if world.device.type == "cuda" else None
    ddp = DistributedDataParallel(module, device_ids=devices, gradient_as_bucket_view=True)
    if compiled:
        ddp.compile(**COMPILATION)
    return ddp


class Trunk(nn.Module):
    """What of a net DDP takes care of: everything before the classifier, and the classifier's layers `besides`.

    Those are run by the classifier, not here; DDP reduces a parameter's gradient whoever has computed with it.
    """

    def __init__(self, net: Net, besides: Collection[nn.Module]) -> None:
        super().__init__()
        self.features, self.besides = net.features, nn.ModuleList(besides)
        self._maps = net.maps

    def forward(self, images: Tensor) -> Tensor:
        return self._maps(images).flatten(1)


class ByFactors(nn.Module):
    """A net whose layers `agreed.layers` exchange factors, and all others gradients.

    Their parameters ask autograd for nothing: `complete` sets their gradients after the backward pass. From the
    optimizer's side all is as usual.
    """

    def __init__(self, net: nn.Module, world: World, agreed: Agreement, *, compiled: bool = False) -> None:
        super().__init__()
        # NCCL's groups mustn't be under way at the same time; gloo's may, and so don't wait for one another.
        group = dist.group.WORLD if world.device.type == "cuda" else dist.new_group(timeout=collective_timeout())
        assert isinstance(group, dist.ProcessGroup), "every rank is a member"
        parts = cast(Net, net)
        chosen = [layer for name, layer in _linears(net) if name.rpartition(".")[2] in agreed.layers]
        for parameter in (p for layer in chosen for p in layer.parameters()):
            dist.broadcast(parameter.detach(), src=0, group=group)  # as DDP's constructor does
            parameter.requires_grad_(False)
        self.classifier = parts.classifier
        trunk = Trunk(parts, [layer for _, layer in _linears(parts.classifier) if layer not in chosen])
        self.trunk = _ddp(trunk, world, compiled)
        peers, rows = Peers.of(agreed.hosts, world), world.size * agreed.rows
        shares = [share(layer, rows, world, peers) if peers is not None else None for layer in chosen]
        self._factors = [
            Factors(layer, agreed.rows, world, group, own) for layer, own in zip(chosen, shares, strict=True)
        ]

    def forward(self, images: Tensor, keys: Tensor | None = None) -> Tensor:
        with self._exchanging():
            return self.classifier(self.trunk(images), keys)  # type: ignore[no-any-return]

    @contextmanager
    def _exchanging(self) -> Iterator[None]:
        """The net's own forward pass is also called to evaluate it; then nothing travels."""
        for factors in self._factors:
            factors.active = True
        try:
            yield
        finally:
            for factors in self._factors:
                factors.active = False

    @contextmanager
    def no_sync(self) -> Iterator[None]:
        """As DDP's: inside, rows and gradients stay on this rank, and add to those of the next backward pass."""
        for factors in self._factors:
            factors.last = False
        try:
            with self.trunk.no_sync():
                yield
        finally:
            for factors in self._factors:
                factors.last = True

    def complete(self) -> None:
        """After the last backward pass of a step: set the gradients of the layers that exchange factors."""
        for factors in reversed(self._factors):  # as they were sent
            factors.form()


class Factors:
    """The factors of one layer's gradient: X (rows, inputs) and dY (rows, outputs), gathered while others compute.

    Every rank forms dY^T X of the same numbers in the same shapes, or has a `share` of it, so that all get the same
    bits.
    """

    def __init__(
        self, layer: nn.Linear, rows: int, world: World, group: dist.ProcessGroup, share: Share | None
    ) -> None:
        self.active, self.last = False, True
        self._layer, self._size = layer, world.size
        self.shared, self._form = share is not None, share.form if share is not None else form
        self._inputs, self._outputs = (Rows(rows, world, group) for _ in range(2))
        self._gradients = [torch.empty_like(p) for p in layer.parameters()]  # kept: fresh memory costs page faults
        layer.register_forward_hook(self._forward)

    def _forward(self, _layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        if not self.active:
            return
        last = self.last
        # The output's type is the product's: bf16 under autocast, whatever comes in.
        self._inputs.add(inputs[0].detach().to(output.dtype), last)
        output.register_hook(lambda gradient: self._outputs.add(gradient, last))  # type: ignore[no-untyped-call]

    def form(self) -> None:
        """The gradients of weight and bias: sums over ranks, divided by their number as DDP does."""
        x, dy = (rows.gathered().to(self._layer.weight.dtype) for rows in (self._inputs, self._outputs))
        for parameter, gradient in zip(self._layer.parameters(), self._gradients, strict=True):
            if parameter is self._layer.weight:
                self._form(gradient, dy, x, self._size)
            else:
                torch.sum(dy, dim=0, out=gradient).div_(self._size)
            parameter.grad = gradient


class Rows:
    """The rows of all ranks, `rows` of each. What a rank has less is zeros, which add nothing: no size is exchanged."""

    def __init__(self, rows: int, world: World, group: dist.ProcessGroup) -> None:
        self._rows, self._size, self._group = rows, world.size, group
        self._mine = self._all = torch.empty(0)
        self._filled = 0
        self._work: dist.Work | None = None

    def add(self, part: Tensor, last: bool) -> None:
        """Append a micro-batch's rows; with the step's last, begin to gather them."""
        if self._mine.dtype != part.dtype or len(self._mine) == 0:
            self._mine = part.new_zeros((self._rows, part.shape[1]))
            self._all = part.new_empty((self._size * self._rows, part.shape[1]))
        start, self._filled = self._filled, self._filled + len(part)
        assert self._filled <= self._rows, f"{self._filled} samples in a step, but a rank has at most {self._rows}"
        self._mine[start : self._filled] = part
        if last:
            self._mine[self._filled :] = 0
            self._filled = 0
            self._work = dist.all_gather_single(self._all, self._mine, group=self._group, async_op=True)

    def gathered(self) -> Tensor:
        """(ranks * rows, width), once they are here."""
        assert self._work is not None, "nothing was sent: the layer took no part in this step"
        self._work.wait()
        self._work = None
        return self._all


def _linears(module: nn.Module) -> list[tuple[str, nn.Linear]]:
    return [(name, m) for name, m in module.named_modules() if isinstance(m, nn.Linear)]


def _same_products(net: nn.Module, layers: Sequence[Linear], rows: int, world: World) -> bool:
    """Whether the layers' products, of made factors of the same shapes, have the same bits on every rank."""
    if not layers:
        return True
    names, found = {layer.name for layer in layers}, []
    for weight in (m.weight.detach() for name, m in _linears(net) if name.rpartition(".")[2] in names):
        gradient = torch.empty_like(weight)
        form(gradient, *made_factors(weight, world.size * rows), world.size)
        found.append(fingerprint(gradient))
    told = world.gather(torch.stack(found))
    return bool((told == told[0]).all())
