"""What only a GPU can show, and the same on the CPU, so that these tests themselves are tried everywhere.

`CUDA_VISIBLE_DEVICES=0 python -m pytest --noconftest tests/test_gpu.py`: without a GPU in sight, the CPU's half runs.
Nothing of the other tests is needed, nor Ray or MLflow.
"""

import math
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist

import alexvgg.run as run
from alexvgg.batch import Batch
from alexvgg.config import Execution, RunSpec
from alexvgg.data.augment import Augmentation
from alexvgg.data.loader import Loader, Prefetch
from alexvgg.data.loader_processes import LoaderProcesses
from alexvgg.data.packing.sample import pack_digits
from alexvgg.data.plan import plan_epoch
from alexvgg.data.shards import Dataset, open_dataset
from alexvgg.data.store import open_store
from alexvgg.data.undecodable import Undecodable
from alexvgg.engine.device import OnDevice, copy_stream
from alexvgg.engine.exchange import Agreement, ByFactors
from alexvgg.engine.step import Normalisation, Updater, sgd
from alexvgg.engine.wishes import Stopped, Wishes
from alexvgg.engine.world import World
from alexvgg.models import build
from alexvgg.models.layers import keyed_mask
from alexvgg.planning import images_of, plan_runs
from alexvgg.recipes import GEOMETRIES, RECIPES
from alexvgg.runs import RunRecord, read_run

CPU = torch.device("cpu")
SETTINGS = {"test_scales": "[[224]]", "train.epochs": "2"}


@pytest.fixture(params=["cpu", "cuda"])
def device(request: pytest.FixtureRequest) -> torch.device:
    if request.param == "cuda" and not torch.cuda.is_available():
        pytest.skip("no GPU is in sight")
    return torch.device(request.param)


@pytest.fixture(params=[False, True], ids=["eager", "compiled"])
def compiled(request: pytest.FixtureRequest, device: torch.device) -> bool:
    """Generated code is a GPU's matter; that a compiled net is the same net, other tests try without."""
    if request.param and device.type == "cpu":
        pytest.skip("for CPUs, code takes a minute to generate")
    return bool(request.param)


@pytest.fixture(scope="module")
def digits_url(tmp_path_factory: pytest.TempPathFactory) -> str:
    url = tmp_path_factory.mktemp("digits").as_uri()
    pack_digits(open_store(url))
    return url


@pytest.fixture(scope="module")
def digits(digits_url: str) -> Dataset:
    return open_dataset(open_store(digits_url))


@pytest.fixture
def spec(digits: Dataset) -> RunSpec:
    return plan_runs([RECIPES["vgg_a-s256"]], images_of(digits), GEOMETRIES["small"], overrides=SETTINGS)[-1]


def trained(spec: RunSpec, digits_url: str, storage: Path, device: torch.device, **how: Any) -> tuple[bytes, RunRecord]:
    """The final weights, and what was written down."""
    run.train(spec, Execution(digits_url, storage.as_uri(), **how), World(0, 1, device))
    store = open_store(storage.as_uri())
    return store.get(f"runs/{spec.name}/final/model.safetensors"), read_run(store, spec.name)


def losses(record: RunRecord) -> list[float]:
    return [e["metrics"]["train/loss"] for e in record.journal if e["event"] == "steps"]


def test_batches_arrive_whole_while_the_device_is_at_work(digits: Dataset, device: torch.device) -> None:
    augmentation = Augmentation((256, 512), 32, digits.flip, 0.0, torch.eye(3).numpy())
    plan = plan_epoch(digits.train.shard_sizes, 64, 128, 0, 0)

    loader = Loader(digits, augmentation, 0, 0, 1, Prefetch(batches=2, decode_threads=5), Undecodable(""))
    work = torch.ones(3000, 3000, device=device)
    with closing(LoaderProcesses(loader, 64)) as processes:
        moved = OnDevice(processes.training(plan, 0, 0), device, copy_stream(device))
        for expected in loader.training(plan, 0, 0):
            found = next(moved)
            for _ in range(20 if device.type == "cuda" else 0):
                work = work @ work / 3000
            assert torch.equal(found.images.cpu(), expected.images)
            assert torch.equal(found.labels.cpu(), expected.labels)
    assert math.isfinite(moved.waited)


def test_dropout_masks_are_the_same_everywhere(device: torch.device) -> None:
    keys = torch.randint(-(2**62), 2**62, (64,), generator=torch.Generator().manual_seed(0))
    assert torch.equal(keyed_mask(keys.to(device), 4096, 0.5, stream=1).cpu(), keyed_mask(keys, 4096, 0.5, stream=1))


@pytest.mark.parametrize("how", [{"precision": "fp32"}, {"precision": "bf16"}, {"micro_batch": 24}], ids=str)
def test_training_goes_as_it_does_on_the_cpu(
    how: dict[str, Any], spec: RunSpec, digits_url: str, tmp_path: Path, device: torch.device, compiled: bool
) -> None:
    _, there = trained(spec, digits_url, tmp_path / "there", device, compiled=compiled, **how)
    _, here = trained(spec, digits_url, tmp_path / "here", CPU, precision="fp32")
    assert losses(there) == pytest.approx(losses(here), rel=0.02)


def test_a_stopped_run_goes_on_to_the_same_bits(
    spec: RunSpec, digits_url: str, tmp_path: Path, device: torch.device, compiled: bool
) -> None:
    whole, _ = trained(spec, digits_url, tmp_path / "whole", device, compiled=compiled)
    wishes = Wishes()
    wishes.stop.set()
    cut = Execution(digits_url, (tmp_path / "cut").as_uri(), compiled=compiled)
    with pytest.raises(Stopped):
        run.train(spec, cut, World(0, 1, device), wishes=wishes)
    torch.compiler.reset()  # as in another process
    assert trained(spec, digits_url, tmp_path / "cut", device, compiled=compiled)[0] == whole


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_factors_give_the_gradient(precision: Any, device: torch.device, compiled: bool) -> None:
    """In a group of one: NCCL takes one rank on each GPU. Its calls, streams and hooks are those of many ranks."""
    world, normalise, found = World(0, 1, device), Normalisation((120.0, 110.0, 100.0)), []
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        for factors in (False, True):
            torch.manual_seed(0)
            net = build("vgg_a", num_classes=10, width=0.125, crop=32).to(device).to(memory_format=torch.channels_last)
            batch = next(OnDevice(iter([made_batch()]), device, copy_stream(device)))
            agreed = Agreement("factors", ("fc6", "fc7"), 48, ((0,),))
            by = ByFactors(net, world, agreed, compiled=compiled) if factors else net
            Updater(by.train(), sgd(net, lr=0.0, momentum=0.9, weight_decay=0.0), normalise, world, precision)(batch)
            found.append({name: p.grad.cpu() for name, p in net.named_parameters() if p.grad is not None})
    finally:
        dist.destroy_process_group()
    for name, gradient in found[0].items():
        scale = gradient.abs().max().item()
        close = 1e-5 if precision == "fp32" else 0.02
        torch.testing.assert_close(found[1][name], gradient, rtol=0, atol=close * scale, msg=name)


def made_batch() -> Batch:
    g = torch.Generator().manual_seed(0)
    return Batch(
        torch.randint(0, 256, (48, 3, 32, 32), generator=g, dtype=torch.uint8), torch.randn(48, 3, generator=g),
        torch.arange(48) % 10, torch.ones(48), torch.arange(48), torch.arange(48),
    )  # fmt: skip
