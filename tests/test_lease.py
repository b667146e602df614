"""Leases: one holder at a time by number, taken over when it has ended or is silent, by the newcomer's own clock."""

import json

import pytest
from memory import MemoryStore

from alexvgg.errors import InputError
from alexvgg.lease import (
    BEAT_SECONDS,
    DEAD_SECONDS,
    Lease,
    LeaseLostError,
    Newcomer,
    is_ending,
    turns,
)


class World:
    """A store, a clock, and the jobs that have ended."""

    def __init__(self) -> None:
        self.store, self.now, self.ended = MemoryStore(), 0.0, set[str]()

    def newcomer(self, job: str) -> Newcomer:
        return Newcomer(self.store, "c", job, self.ended.__contains__, lambda: self.now)  # type: ignore[arg-type]

    def lease(self, job: str) -> Lease:
        lease = self.newcomer(job).take()
        assert lease is not None
        return lease


def test_a_holder_that_beats_is_waited_for() -> None:
    world = World()
    held = world.lease("c-d1")
    other = world.newcomer("c-d2")
    for _ in range(20):
        world.now += BEAT_SECONDS
        held.keep()
        assert other.take() is None
    assert [turn.fence for turn in turns(world.store, "c")] == [1]  # type: ignore[arg-type]


def test_a_silent_holder_loses_the_lease_and_notices() -> None:
    world = World()
    held, other = world.lease("c-d1"), world.newcomer("c-d2")
    assert other.take() is None
    world.now += DEAD_SECONDS
    assert other.take() is None
    world.now += 0.1
    taken = other.take()
    assert taken is not None
    assert taken.turn.fence == 2
    taken.check()
    for act in (held.check, held.keep, held.stopping):
        with pytest.raises(LeaseLostError, match="taken over c"):
            act()


def test_a_holder_that_has_ended_is_not_waited_for() -> None:
    world = World()
    world.lease("c-d1")
    world.ended.add("c-d1")
    second = world.lease("c-d2")
    second.turn.end("stopped")
    second.turn.end("failed")  # the first word counts
    assert world.lease("c-d3").turn.fence == 3
    assert [turn.outcome() for turn in turns(world.store, "c")] == [None, "stopped", None]  # type: ignore[arg-type]


def test_of_two_newcomers_one_wins() -> None:
    world = World()
    world.lease("c-d1").turn.end("failed")
    first, second = world.newcomer("c-d2"), world.newcomer("c-d3")
    assert first.take() is not None
    assert second.take() is None


def test_of_two_that_saw_the_same_end_one_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World()
    world.lease("c-d1").turn.end("failed")
    first, put_new = world.newcomer("c-d2"), world.store.put_new

    def overtaken(key: str, data: bytes) -> bool:
        monkeypatch.undo()
        assert first.take() is not None
        return put_new(key, data)

    monkeypatch.setattr(world.store, "put_new", overtaken)
    assert world.newcomer("c-d3").take() is None


def test_a_holder_beats_now_and_then() -> None:
    world = World()
    held = world.lease("c-d1")
    for _ in range(12):
        world.now += BEAT_SECONDS / 3
        held.keep()
    assert json.loads(held.turn.last_beat() or b"")["count"] == 4


def test_the_silence_of_one_holder_is_not_the_nexts() -> None:
    """Neither has beaten yet, so their beats look the same."""
    world = World()
    world.lease("c-d1")
    waiting = world.newcomer("c-d3")
    assert waiting.take() is None
    world.now += DEAD_SECONDS
    world.ended.add("c-d1")
    world.lease("c-d2")
    world.now += 1
    assert waiting.take() is None


def test_the_twelfth_driver_follows_the_eleventh() -> None:
    world = World()
    for number in range(1, 13):
        lease = world.lease(f"c-d{number}")
        assert lease.turn.fence == number
        assert world.newcomer("other").take() is None
        world.ended.add(f"c-d{number}")
    lease.turn.end("finished")
    assert [turn.fence for turn in turns(world.store, "c")] == list(range(1, 13))  # type: ignore[arg-type]
    assert is_ending(world.store, "c", "c-d12")  # type: ignore[arg-type]
    assert not is_ending(world.store, "another", "c-d12")  # type: ignore[arg-type]


def test_a_holder_that_cannot_be_read_is_named() -> None:
    world = World()
    world.store.put("campaigns/c/drivers/1.json", b'{"job": "c-d1", "future": 1}')
    with pytest.raises(InputError, match=r"campaigns/c/drivers/1\.json isn't what alexvgg writes"):
        world.newcomer("c-d2").take()
