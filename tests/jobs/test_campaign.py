"""A campaign's driver outlives what doesn't answer for a while."""

import threading
from typing import Any

import pytest
from memory import MemoryStore

from alexvgg.lease import Lease, Turn
from jobs import campaign
from jobs.campaign import stand_by


class Newcomer:
    """One who wants the lease, with what happens each time."""

    def __init__(self, *moments: Any) -> None:
        self._moments = iter(moments)

    def take(self) -> Any:
        moment = next(self._moments)
        if isinstance(moment, Exception):
            raise moment
        return moment


def test_a_driver_that_stood_by_ends_with_the_one_that_was_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody wants it to go on then; with one that was lost it takes over."""
    monkeypatch.setattr(campaign, "TICK_SECONDS", 0.0)
    for outcome, takes_over in (("stopped", False), ("failed", True)):
        store = MemoryStore()
        first = Turn(store, "table4", 1)  # type: ignore[arg-type]
        first.end(outcome)  # type: ignore[arg-type]
        lease = Lease(first.next())
        newcomer: Any = Newcomer(None, lease)
        assert (stand_by(newcomer, "table4", threading.Event()) is lease) == takes_over
        assert lease.turn.outcome() == (None if takes_over else "stopped")


def test_a_hiccup_of_the_cluster_is_outlived_while_standing_by(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(campaign, "TICK_SECONDS", 0.0)
    lease, stop = Lease(Turn(MemoryStore(), "table4", 2)), threading.Event()  # type: ignore[arg-type]
    newcomer: Any = Newcomer(RuntimeError("the Jobs API answers 500"), None, None, lease)
    assert stand_by(newcomer, "table4", stop) is lease
    said = capsys.readouterr().out.splitlines()
    assert said[0] == "trying again: the Jobs API answers 500"
    assert said[1].startswith("another driver is at work on table4")
    assert len(said) == 2
    monkeypatch.setattr(campaign, "PATIENCE_SECONDS", -1.0)
    with pytest.raises(RuntimeError, match="answers 500"):
        stand_by(Newcomer(RuntimeError("the Jobs API answers 500")), "table4", stop)  # type: ignore[arg-type]
