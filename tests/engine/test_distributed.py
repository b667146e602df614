"""One global batch on 1, 2, 3 and 4 real gloo ranks with uneven shares: the same gradient of every parameter."""

import importlib.util
import subprocess
import sys
from pathlib import Path
from types import ModuleType

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


@pytest.fixture(scope="module")
def ranks() -> ModuleType:
    spec = importlib.util.spec_from_file_location("ranks", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def several(ranks: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the gradients of every world."""
    folder, port = tmp_path_factory.mktemp("gradients"), free_port()
    commands = [[sys.executable, str(SCRIPT), str(rank), str(port), str(folder)] for rank in range(max(ranks.SIZES))]
    processes = [subprocess.Popen(c, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) for c in commands]
    try:
        for process in processes:
            _, errors = process.communicate(timeout=120)
            assert process.returncode == 0, errors
    finally:
        for process in processes:
            process.kill()
            process.communicate()
    return folder


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("size", [1, 2, 3, 4])
def test_gradients_are_those_of_one_process(ranks: ModuleType, several: Path, size: int, dtype: torch.dtype) -> None:
    def relative(a: Tensor, b: Tensor) -> float:
        return float((a - b).norm() / b.norm())

    alone = World(0, 1, torch.device("cpu"))
    expected = ranks.gradients(alone, dtype, None)
    for micro_batch in (None, ranks.MICRO_BATCH):
        if size == 1:
            found = ranks.gradients(alone, dtype, micro_batch)
        else:
            found = load_file(several / f"{size}-{dtype}-{micro_batch}")
        assert found.keys() == expected.keys()
        for name in expected:
            error = relative(found[name].double(), expected[name].double())
            assert error < BOUND[dtype], f"{name}, micro-batch {micro_batch}: {error:.1e}"
