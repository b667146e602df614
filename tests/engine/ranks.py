"""One rank of several worlds in turn: `python ranks.py RANK PORT FOLDER`.

Each world computes every case's gradients (rank 0 writes them), trains, and is asked for what it must refuse.
`share_of` cuts one batch unevenly: rank r of R holds 1 + r shares of the samples.
"""

import functools
import itertools
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import fields, replace
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import torch
from safetensors.torch import save, save_file
from torch import Tensor, nn

from alexvgg.batch import Batch
from alexvgg.config import TrainConfig
from alexvgg.data.store import open_store
from alexvgg.engine import checkpoint, exchange, sharing
from alexvgg.engine.checkpoint import Checkpoint
from alexvgg.engine.exchange import agree, distributed
from alexvgg.engine.guards import Learning
from alexvgg.engine.loop import Trainer
from alexvgg.engine.replicas import DriftError, check_replicas, fingerprint
from alexvgg.engine.step import Normalisation, Precision, Updater, sgd
from alexvgg.engine.traffic import Exchange
from alexvgg.engine.world import World
from alexvgg.errors import InputError
from alexvgg.models import build

SIZES = (2, 3, 4, 5)
SAMPLES = 21
MICRO_BATCH = 3  # the ranks then have different numbers of micro-batches
STEPS = 20
SWITCHES: tuple[tuple[Exchange, ...], ...] = (("allreduce",), ("factors",), ("factors", "allreduce"))
RESUMED: tuple[tuple[Exchange, ...], ...] = (("allreduce", "allreduce"), ("factors", "factors"))


class Case(NamedTuple):
    """What is computed; `empty` leaves rank 0 without a sample, `compiled` runs the net through dynamo.

    With `sharing` two ranks are a host, and share the work on gradients whether it pays or not.
    """

    net: str = "vgg_a"
    exchange: Exchange = "factors"
    dtype: torch.dtype = torch.float64
    micro_batch: int | None = None
    precision: Precision = "auto"
    empty: bool = False
    compiled: bool = False
    sharing: bool = False

    def __str__(self) -> str:
        return "-".join(str(part) for part in self)


CASES = (
    *(
        Case(dtype=dtype, micro_batch=micro_batch, exchange=how)
        for dtype, micro_batch, how in itertools.product(
            (torch.float32, torch.float64), (None, MICRO_BATCH), ("allreduce", "factors")
        )
    ),
    Case(net="alexnet"),
    Case(net="fourlayer_relu"),
    Case(empty=True),
    Case(empty=True, micro_batch=MICRO_BATCH),
)
SHARED = tuple(Case(dtype=dtype, sharing=True) for dtype in (torch.float32, torch.float64))
COMPILED = Case(compiled=True)  # in the smallest world only: dynamo takes seconds to import
ROUNDED = (
    Case(dtype=torch.float32, precision="bf16", exchange="allreduce"),
    Case(dtype=torch.float32, precision="bf16", exchange="factors"),
    Case(dtype=torch.float32, exchange="bf16"),
)
INPUTS = {"vgg_a": 32, "alexnet": 64, "fourlayer_relu": 32}


class Double(Normalisation):
    def __call__(self, batch: Batch) -> Tensor:
        return super().__call__(batch).double()


def whole_batch(side: int = 32, seed: int = 3) -> Batch:
    g = torch.Generator().manual_seed(seed)
    return Batch(
        images=torch.randint(0, 256, (SAMPLES, 3, side, side), generator=g, dtype=torch.uint8),
        colour=torch.randn(SAMPLES, 3, generator=g),
        labels=torch.randint(0, 10, (SAMPLES,), generator=g),
        weights=(torch.arange(SAMPLES) % 5 != 2).float(),
        keys=torch.randint(-(2**62), 2**62, (SAMPLES,), generator=g),
        samples=torch.arange(SAMPLES),
    )


def share_of(batch: Batch, rank: int, size: int, *, empty: bool = False) -> Batch:
    """`empty`: rank 0 has nothing but the loader's row of weight 0, and the others its samples as well."""
    first = 1 if empty and size > 1 else 0
    if rank < first:
        part = Batch(*(getattr(batch, f.name)[:1] for f in fields(batch)))
        return Batch(part.images, part.colour, part.labels, torch.zeros(1), part.keys, part.samples)
    rank, size = rank - first, size - first
    bounds = [SAMPLES * r * (r + 1) // (size * (size + 1)) for r in range(size + 1)]
    return Batch(*(getattr(batch, f.name)[bounds[rank] : bounds[rank + 1]] for f in fields(batch)))


def net_of(case: Case, seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    net = build(case.net, num_classes=10, width=0.125, crop=INPUTS[case.net])
    return net.to(case.dtype).to(memory_format=torch.channels_last).train()


@contextmanager
def dynamo_alone() -> Iterator[None]:
    """Inside, modules are compiled without code being generated, which takes minutes."""
    with patched("compile", functools.partial(torch.compile, backend="aot_eager"), torch):
        yield


def gradients(world: World, case: Case) -> dict[str, Tensor]:
    """Every parameter's gradient and the global loss, after one update of a small net at this world's size."""
    net = net_of(case, seed=world.rank)  # rank 0's weights are everybody's
    normalise = (Double if case.dtype == torch.float64 else Normalisation)((120.0, 110.0, 100.0))
    optimizer = sgd(net, lr=0.0, momentum=0.9, weight_decay=5e-4)
    pairs = world.rank // 2 if case.sharing else 0
    with dynamo_alone(), patched("host_id", lambda: pairs), patched("pays", lambda *_: case.sharing, sharing):
        model = distributed(net, world, agree(net, world, case.exchange, SAMPLES, SAMPLES), compiled=case.compiled)
    update = Updater(model, optimizer, normalise, world, case.precision, micro_batch=case.micro_batch)
    share = share_of(whole_batch(INPUTS[case.net]), world.rank, world.size, empty=case.empty)
    numbers, flags = update(share, (1.0, float(world.rank)))
    assert flags.tolist() == [world.size, world.size * (world.size - 1) / 2], "every rank knows what any rank wants"
    found = {name: p.grad.contiguous() for name, p in net.named_parameters() if p.grad is not None}
    prints = world.gather(torch.stack([fingerprint(gradient) for gradient in found.values()]))
    assert (prints == prints[0]).all(), "a gradient hasn't the same bits on all ranks"
    check_replicas(net, world, 1)
    net.eval()(torch.zeros(1, 3, INPUTS[case.net], INPUTS[case.net], dtype=case.dtype))  # nothing travels
    return found | {"numbers": world.sum(numbers)}


class Silent:
    def step(self, batch: Batch, share: Tensor) -> None: ...
    def point(self, step: int, loss: float, pace: dict[str, float]) -> None: ...
    def warning(self, step: int, message: str) -> None: ...


def trained(world: World, exchanges: tuple[Exchange, ...]) -> dict[str, Tensor]:
    """The weights after STEPS updates; each exchange has as many of them, from the checkpoint of the one before."""
    saved, steps = None, STEPS // len(exchanges)
    for how in exchanges:
        trainer = Trainer(
            net_of(Case(dtype=torch.float32), seed=world.rank),
            TrainConfig(global_batch=SAMPLES, lr=1e-3, epochs=1), world, Normalisation((120.0, 110.0, 100.0)), Silent(),
            Learning(10, 10**6, ""), exchange=how, micro_batch=MICRO_BATCH,
        )  # fmt: skip
        if saved is not None:
            epoch = {"sums": [3.0, 20.0, 40.0], "steps": 4, "tail": [[1.0, 3.0, 10.0], [0.5, 0.0, 7.0]]}
            trainer.resume(replace(saved, progress=saved.progress | {"epoch": epoch}))
            assert trainer.progress()["epoch"] == epoch, "what all ranks hold of it is their sum"
            trainer.resume(saved)
        trainer.epoch(shares(world, trainer.step), SAMPLES * STEPS, steps)
        kept = {file: {k: v.clone() for k, v in group.items()} for file, group in trainer.tensors().items()}
        saved = Checkpoint(trainer.step, kept["model"], kept["momentum"], trainer.progress())
    assert saved is not None
    return {name: weight.contiguous() for name, weight in saved.model.items()}


def shares(world: World, first: int) -> Iterator[Batch]:
    for seed in range(first, STEPS):
        yield share_of(whole_batch(seed=seed), world.rank, world.size)


def refusal(ask: Callable[[], object]) -> str:
    try:
        ask()
    except (InputError, DriftError) as error:
        return f"{type(error).__name__}: {error}"
    return "done"


def answers(world: World) -> dict[str, Any]:
    """What this world says when ranks disagree, drift apart or compute differently, and how it takes `auto`."""
    net = net_of(Case())
    asked = functools.partial(agree, net, world)
    said: dict[str, Any] = {"one host": asked("auto", SAMPLES, SAMPLES).method}
    tried, made = set[int](), sharing.made_factors

    def trial(weight: Tensor, rows: int) -> tuple[Tensor, Tensor]:
        tried.add(rows)
        return made(weight, rows)

    with patched("host_id", lambda: world.rank // 2), patched("pays", lambda *_: True, sharing):
        with patched("made_factors", trial), patched("made_factors", trial, sharing):
            said["shared"] = shared(world)
        assert tried == {world.size * SAMPLES}, "another shape's product may have other last bits"
        with patched("form", lambda gradient, *_: gradient.fill_(len(gradient)), sharing):
            said["unlike parts"] = shared(world)
    with patched("host_id", lambda: world.rank % 2):
        said["two hosts"] = asked("auto", SAMPLES, SAMPLES).method
        said["large batch"] = asked("auto", 10_000, SAMPLES).method
        with patched("fingerprint", lambda _: torch.tensor(world.rank)):
            said["unlike ranks"] = (agreed := asked("auto", SAMPLES, SAMPLES)).method
            said["unlike ranks' layers"] = agreed.layers
            said["unlike ranks, factors"] = refusal(lambda: asked("factors", SAMPLES, SAMPLES))
    said["another exchange"] = refusal(lambda: asked("bf16" if world.rank == 1 else "factors", SAMPLES, SAMPLES))
    said["another batch"] = refusal(lambda: asked("factors", SAMPLES + (world.rank == 1), SAMPLES))
    said["other rows"] = refusal(lambda: asked("factors", SAMPLES, SAMPLES + (world.rank == 1)))
    if world.rank == world.size - 1:
        net.classifier.fc7.weight.data[3, 5] *= 1 + 1e-15
    said["drift"] = refusal(lambda: check_replicas(net, world, 7))
    return said


def shared(world: World) -> list[bool]:
    """Of each layer by factors: do the ranks of a host share the work?"""
    net = net_of(Case())
    model = distributed(net, world, agree(net, world, "factors", SAMPLES, SAMPLES))
    assert [name for name, p in net.named_parameters() if not p.requires_grad] == [
        f"classifier.{layer}.{part}" for layer in ("fc6", "fc7") for part in ("weight", "bias")
    ], "autograd would compute for nothing"
    return [factors.shared for factors in model._factors]  # type: ignore[union-attr,operator]


class patched:  # noqa: N801  # reads as a word
    """One name of a module, by default of `alexvgg.engine.exchange`, replaced inside."""

    def __init__(self, name: str, value: Any, module: ModuleType = exchange) -> None:
        self.name, self.value, self.module = name, value, module

    def __enter__(self) -> None:
        self.before = getattr(self.module, self.name)
        setattr(self.module, self.name, self.value)

    def __exit__(self, *_: object) -> None:
        setattr(self.module, self.name, self.before)


def products(world: World) -> dict[str, Tensor]:
    """fc6's weight gradient under autocast, and this rank's own bf16 factors of it."""
    case = ROUNDED[1]
    net, kept = net_of(case), {}
    layer = net.classifier.fc6

    def keep(_: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        kept["x"] = inputs[0].detach().bfloat16()
        output.register_hook(lambda gradient: kept.update(dy=gradient.clone()))

    layer.register_forward_hook(keep)
    model = distributed(net, world, agree(net, world, "factors", SAMPLES, SAMPLES))
    optimizer = sgd(net, lr=0.0, momentum=0.9, weight_decay=5e-4)
    update = Updater(model, optimizer, Normalisation((120.0, 110.0, 100.0)), world, "bf16")
    update(share_of(whole_batch(), world.rank, world.size))
    assert layer.weight.grad is not None
    found = {**kept, "gradient": layer.weight.grad}
    net.eval()(torch.zeros(SAMPLES + 1, 3, INPUTS[case.net], INPUTS[case.net]))  # more than a step: it isn't one
    return found


class Flipping:
    """A store that one rank reads over a bad network: every weight of step 2 is another there."""

    def __init__(self, inner: Any) -> None:
        self.put, self.put_new, self.list, self.delete = inner.put, inner.put_new, inner.list, inner.delete
        self._inner = inner

    def get(self, key: str) -> bytes:
        data: bytes = self._inner.get(key)
        return data[:-1] + bytes([data[-1] ^ 1]) if "/00000002/model" in key else data


def together(world: World, folder: Path) -> None:
    """No rank leaves a barrier before all are there."""
    if world.rank == 0:
        time.sleep(0.05)
        folder.mkdir()
    world.barrier()
    assert folder.exists()


def load_together(world: World, folder: Path) -> None:
    """All ranks take the same checkpoint, though one of them can't read the newest."""
    store: Any = open_store(folder.as_uri())
    if world.rank == 0:
        for step in (1, 2):
            files = {name: save({"w": torch.full((3,), float(step))}) for name in ("model", "momentum")}
            checkpoint.write(store, "c/", step, files, {})
    world.barrier()
    found = checkpoint.load_latest(Flipping(store) if world.rank == world.size - 1 else store, "c/", world)
    assert found is not None
    assert found.step == 1
    whole = checkpoint.load_latest(store, "c/", world)
    assert whole is not None
    assert whole.step == 2
    assert checkpoint.load_latest(store, "nothing/", world) is None


def main() -> None:
    rank, port, folder = int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3])
    torch.set_num_threads(1)
    for size in (size for size in SIZES if rank < size):
        os.environ.update(RANK=str(rank), WORLD_SIZE=str(size), MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port + size))
        with World.launched() as world:
            assert world.texts(f" rank {rank} é " * (1000 * rank)) == [
                f" rank {r} é " * (1000 * r) for r in range(size)
            ]
            together(world, folder / f"here-{size}")
            answers_of_mine = itertools.chain([False] * rank, itertools.repeat(True))
            world.wait_until(lambda answers=answers_of_mine: next(answers))
            assert next(answers_of_mine), "it was asked until all were ready"
            load_together(world, folder / f"checkpoints-{size}")
            for case in (*CASES, *SHARED, *ROUNDED, *([COMPILED] if size == SIZES[0] else [])):
                found = gradients(world, case)
                if rank == 0:
                    save_file(found, folder / f"{size}-{case}")
            save_file(products(world), folder / f"{size}-products-{rank}")
            said = answers(world)
            if rank == 0:
                (folder / f"{size}-said.json").write_text(json.dumps(said))
            if size == 3:
                for exchanges in (*SWITCHES, *RESUMED):
                    save_file(trained(world, exchanges), folder / f"trained-{rank}-{'-'.join(exchanges)}")


if __name__ == "__main__":
    main()
