"""The fingerprint of weights: any bit counts, the layout in memory doesn't. Comparing ranks: test_distributed.py."""

import pytest
import torch
from torch import nn

from alexvgg.engine.replicas import check_replicas, fingerprint
from alexvgg.engine.world import World


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("shape", [(7,), (40, 30), (8, 4, 3, 3)])
def test_every_single_bit_counts(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    tensor = torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(dtype)
    seen = {fingerprint(tensor).item()}
    words = tensor.view(torch.uint8).flatten()
    for byte in range(0, len(words), 5):
        words[byte] ^= 1 << byte % 8
        seen.add(fingerprint(tensor).item())
    assert len(seen) == 1 + len(range(0, len(words), 5))


def test_rows_that_change_places_count() -> None:
    tensor = torch.randn(5, 3)
    assert fingerprint(tensor) != fingerprint(tensor.flip(0))


def test_the_layout_in_memory_does_not_count() -> None:
    tensor = torch.randn(8, 4, 3, 3)
    assert fingerprint(tensor) == fingerprint(tensor.to(memory_format=torch.channels_last))


def test_a_world_of_one_has_nothing_to_compare() -> None:
    check_replicas(nn.Linear(2, 2), World(0, 1, torch.device("cpu")), 1)
