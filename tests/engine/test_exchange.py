"""Rows that travel and sums, in a group of one rank. The exchange of several: test_distributed.py."""

import pytest
import torch
import torch.distributed as dist

from alexvgg.engine.exchange import Rows, gradient_of
from alexvgg.engine.world import World
from alexvgg.models import build
from alexvgg.scaling import Cost

CPU = torch.device("cpu")


@pytest.mark.parametrize("name", ["alexnet", "vgg_a"])
def test_a_nets_gradient_has_the_sizes_of_its_plan(name: str) -> None:
    with torch.device("meta"):
        net = build(name, num_classes=1000, width=1.0, crop=224)
    assert gradient_of(net) == Cost.of(name).gradient


def test_a_short_step_holds_no_row_of_the_step_before(group: dist.ProcessGroup) -> None:
    rows = Rows(4, World(0, 1, CPU), group)
    rows.add(torch.ones(1, 3), last=False)
    rows.add(torch.full((3, 3), 2.0), last=True)
    assert rows.gathered()[:, 0].tolist() == [1, 2, 2, 2]
    rows.add(torch.full((2, 3), 5.0), last=True)
    assert rows.gathered()[:, 0].tolist() == [5, 5, 0, 0]


def test_rows_travel_in_the_type_in_which_they_come(group: dist.ProcessGroup) -> None:
    rows = Rows(2, World(0, 1, CPU), group)
    for dtype in (torch.float32, torch.bfloat16):
        rows.add(torch.ones(2, 3, dtype=dtype), last=True)
        assert rows.gathered().dtype == dtype


def test_a_layer_that_took_no_part_or_more_samples_than_agreed_is_no_gradient(group: dist.ProcessGroup) -> None:
    rows = Rows(2, World(0, 1, CPU), group)
    rows.add(torch.ones(2, 3), last=True)
    rows.gathered()
    with pytest.raises(AssertionError, match="took no part in this step"):
        rows.gathered()
    with pytest.raises(AssertionError, match="3 samples in a step, but a rank has at most 2"):
        rows.add(torch.ones(3, 3), last=True)


@pytest.mark.usefixtures("group")
def test_a_sum_leaves_what_is_summed() -> None:
    world, mine = World(0, 2, CPU), torch.ones(3)  # a world of one would leave the collective out
    assert world.sum(mine) is not mine
    assert world.sum(mine).tolist() == mine.tolist() == [1, 1, 1]
