"""One global batch on 1 to 5 real gloo ranks with uneven shares: the same gradient of every parameter, by any exchange.

The reference is one process in float64 with the whole batch.
"""

import functools
import importlib.util
import itertools
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from processes import free_port
from safetensors.torch import load_file
from torch import Tensor

from alexvgg.engine.world import World

SCRIPT = Path(__file__).with_name("ranks.py")
# Of a parameter's gradient, relative to its norm. In float32 most are below 1e-6, and conv1_1's is as far (1e-6) from
# the float64 one with any cut of the batch, one process's included; float64 shows that nothing but rounding differs.
BOUND = {torch.float32: 2e-6, torch.float64: 4e-15}
ALONE = World(0, 1, torch.device("cpu"))
SIZES = [2, 3, 4, 5]


def _ranks() -> ModuleType:
    spec = importlib.util.spec_from_file_location("ranks", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["ranks"] = module
    spec.loader.exec_module(module)
    return module


ranks = _ranks()


@pytest.fixture(scope="module")
def several(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what every world computed."""
    folder, port = tmp_path_factory.mktemp("worlds"), free_port()
    commands = [[sys.executable, str(SCRIPT), str(rank), str(port), str(folder)] for rank in range(max(SIZES))]
    processes = [subprocess.Popen(c, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) for c in commands]
    try:
        for process in processes:
            _, errors = process.communicate(timeout=180)
            assert process.returncode == 0, errors
    finally:
        for process in processes:
            process.kill()
            process.communicate()
    return folder


@pytest.fixture(scope="module")
def expected() -> Callable[[str], dict[str, Tensor]]:
    """One process's gradients of a net, in float64."""
    return functools.cache(lambda net: ranks.gradients(ALONE, ranks.Case(net=net)))


def distance(a: Tensor, b: Tensor) -> float:
    return float((a.double() - b.double()).norm() / b.double().norm())


@pytest.mark.parametrize(
    ("case", "size"),
    [*itertools.product((*ranks.CASES, *ranks.SHARED), [1, *SIZES]), (ranks.COMPILED, SIZES[0])],
    ids=str,
)
def test_gradients_are_those_of_one_process(
    several: Path, expected: Callable[[str], dict[str, Tensor]], case: Any, size: int
) -> None:
    found = ranks.gradients(ALONE, case) if size == 1 else load_file(several / f"{size}-{case}")
    assert found.keys() == expected(case.net).keys()
    for name, gradient in expected(case.net).items():
        error = distance(found[name], gradient)
        assert error < BOUND[case.dtype], f"{name}: {error:.1e}"


@pytest.mark.parametrize("size", SIZES)
def test_factors_in_bf16_lose_nothing_that_the_products_have(several: Path, size: int) -> None:
    """Against a float64 product of the very bf16 numbers that the ranks' layers saw; an all-reduce has rounded each."""
    parts = [load_file(several / f"{size}-products-{rank}") for rank in range(size)]
    assert {part["dy"].dtype for part in parts} == {torch.bfloat16}
    exact = sum(part["dy"].double().t() @ part["x"].double() for part in parts) / size
    assert isinstance(exact, Tensor)
    for part in parts:
        assert distance(part["gradient"], exact) < 1e-6
    reduced, factors, compressed = (load_file(several / f"{size}-{case}") for case in ranks.ROUNDED)
    name = "classifier.fc6.weight"
    assert distance(factors[name], exact) < 1e-6
    assert 1e-4 < distance(reduced[name], exact) < 0.01
    assert compressed.keys() == factors.keys()


def test_bf16_rounds_and_nothing_else(several: Path, expected: Callable[[str], dict[str, Tensor]]) -> None:
    for size in SIZES:
        found = load_file(several / f"{size}-{ranks.ROUNDED[-1]}")
        errors = [distance(found[name], gradient) for name, gradient in expected("vgg_a").items() if name != "numbers"]
        assert 1e-4 < max(errors) < 0.02


def test_training_is_that_of_an_all_reduce_and_may_change_over_at_a_checkpoint(several: Path) -> None:
    reduced, *others = ["-".join(exchanges) for exchanges in ranks.SWITCHES]
    expected = load_file(several / f"trained-0-{reduced}")
    start = ranks.net_of(ranks.Case(dtype=torch.float32)).state_dict()
    assert max(float((expected[name] - start[name]).abs().max()) for name in start) > 1e-3, "nothing was learnt"
    for exchanges in others:
        for rank in range(3):
            found = load_file(several / f"trained-{rank}-{exchanges}")
            worst = max(float((found[name] - expected[name]).abs().max()) for name in expected)
            assert worst < 1e-6, f"{exchanges}: {worst:.1e}"


@pytest.mark.parametrize("exchange", ["allreduce", "factors"])
def test_on_three_ranks_a_resumed_run_is_bitwise_the_uninterrupted_one(several: Path, exchange: str) -> None:
    """On two, a sum has one order; from three on, it depends on where in DDP's buckets a gradient lies."""
    whole, resumed = (load_file(several / f"trained-0-{name}") for name in (exchange, f"{exchange}-{exchange}"))
    assert [name for name in whole if not torch.equal(whole[name], resumed[name])] == []


@pytest.mark.parametrize("size", SIZES)
def test_ranks_of_a_host_share_the_work_and_change_no_bit(several: Path, size: int) -> None:
    said = json.loads((several / f"{size}-said.json").read_text())
    assert said["shared"] == [size in (2, 4)] * 2, "fc6, fc7; in worlds of 3 and 5 the last host has one rank"
    assert said["unlike parts"] == [False] * 2, "part of a product hasn't the bits of the whole"
    for shared in ranks.SHARED:
        found, expected = (load_file(several / f"{size}-{c}") for c in (shared, shared._replace(sharing=False)))
        assert [name for name in expected if not torch.equal(found[name], expected[name])] == []


@pytest.mark.parametrize("size", SIZES)
def test_ranks_decide_together(several: Path, size: int) -> None:
    said = json.loads((several / f"{size}-said.json").read_text())
    assert said["one host"] == "allreduce"
    assert said["two hosts"] == "factors"
    assert said["large batch"] == "allreduce", "no layer's factors are fewer bytes"
    assert (said["unlike ranks"], said["unlike ranks' layers"]) == ("allreduce", [])
    assert "their weights would drift apart. Use --exchange allreduce" in said["unlike ranks, factors"]
    assert "rank 1 was started with --exchange bf16" in said["another exchange"]
    assert "rank 1 was started with --exchange factors and a global batch of 22, rank 0" in said["another batch"]
    assert "Start all ranks by the same command" in said["other rows"]
    one = f"the weights of rank {size - 1} aren't those of the other ranks"
    assert f"DriftError: after step 7 {one if size > 2 else 'ranks 0, 1 hold different weights'}" in said["drift"]
    assert "in classifier.fc7.weight." in said["drift"]
