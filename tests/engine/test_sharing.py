"""Whether a host's ranks share the work on a gradient, in a group of one. Of several ranks: test_distributed.py."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import nn

from alexvgg.engine import sharing
from alexvgg.engine.sharing import Peers, share


@pytest.mark.parametrize(
    ("alone", "together", "theirs", "shares"),
    [
        (2.0, 1.0, (0.0, 0.0, 0.0), True),
        (1.0, 2.0, (0.0, 0.0, 0.0), False),
        (2.0, 1.0, (1.0, 3.0, 0.0), False),
        (1.0, 2.0, (3.0, 1.0, 0.0), True),
        (2.0, 1.0, (0.0, 0.0, 1.0), False),
    ],
)
def test_ranks_share_what_saves_time_and_changes_no_bit_on_all_of_them(
    group: dist.ProcessGroup, monkeypatch: pytest.MonkeyPatch, alone: float, together: float, theirs: Any, shares: bool
) -> None:
    """`theirs` is what another rank has measured: both ways' seconds, and whether its bits differed."""
    clock = iter([0.0, alone, 0.0, together])
    monkeypatch.setattr(sharing, "time", SimpleNamespace(perf_counter=lambda: next(clock)))
    world: Any = SimpleNamespace(size=2, device=torch.device("cpu"), sum=lambda told: told + torch.tensor(theirs))
    assert (share(nn.Linear(6, 4), 3, world, Peers(group, 0, 1)) is not None) == shares
