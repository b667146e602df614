"""Who else trains, and how long a rank waits for the others."""

from datetime import timedelta

import pytest
import torch

from alexvgg.engine.world import COLLECTIVE_VARIABLE, World, collective_timeout
from alexvgg.errors import InputError
from cluster.network import SETTINGS


def test_the_collectives_timeout_is_minutes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(COLLECTIVE_VARIABLE, raising=False)
    assert collective_timeout() == timedelta(minutes=3) == timedelta(seconds=SETTINGS[COLLECTIVE_VARIABLE])
    monkeypatch.setenv(COLLECTIVE_VARIABLE, "600")
    assert collective_timeout() == timedelta(minutes=10)


@pytest.mark.parametrize("size", [None, "1"])
def test_one_process_is_a_world_of_its_own(size: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", size) if size is not None else monkeypatch.delenv("WORLD_SIZE", raising=False)
    with World.launched() as world:
        assert (world.rank, world.size) == (0, 1)


@pytest.mark.usefixtures("one_thread")
def test_a_machine_with_fewer_gpus_than_ranks_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    for name, value in (("WORLD_SIZE", 4), ("RANK", 0), ("LOCAL_RANK", 2)):
        monkeypatch.setenv(name, str(value))
    with (
        pytest.raises(InputError, match="rank 2 of this machine needs a GPU of its own, and the machine has 2"),
        World.launched(),
    ):
        pass
