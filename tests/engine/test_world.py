"""Who else trains, and how long a rank waits for the others."""

from datetime import timedelta

import pytest

from alexvgg.engine.world import COLLECTIVE_VARIABLE, World, collective_timeout
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
