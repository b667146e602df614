"""Plain processes that want the same run: one of them trains it, the next one goes on when that has ended."""

import json
import os
import subprocess
import sys
import time
from contextlib import nullcontext, suppress
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from memory import MemoryStore
from processes import dead_process, wait_for

from alexvgg import plain
from alexvgg.attempts import (
    BEAT_SECONDS,
    DEAD_SECONDS,
    MAX_LOST,
    Attempt,
    Claim,
    Outcome,
    SupersededError,
    failure,
    history,
    standing,
)
from alexvgg.config import Execution, to_dict
from alexvgg.data.store import open_store
from alexvgg.engine.guards import DivergedError
from alexvgg.engine.wishes import Stopped, Wishes
from alexvgg.engine.world import World
from alexvgg.errors import InputError
from alexvgg.plain import Newcomer, claiming
from alexvgg.process import lives_here, this_process

ALONE = World(0, 1, torch.device("cpu"))
FOLDER = "runs/a/"


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def newcomer(store: MemoryStore, clock: Clock, name: str = "process 2 on b", process: str | None = "b 2 9") -> Newcomer:
    return Newcomer(store, FOLDER, Claim(name, {}, process=process), clock)  # type: ignore[arg-type]


def claimed(process: str | None) -> tuple[MemoryStore, Clock, Attempt]:
    """A run that another one carries out."""
    store, clock = MemoryStore(), Clock()
    first = Attempt(store, FOLDER, 1)  # type: ignore[arg-type]
    first.claim(Claim("process 1 on a", {}, process=process))
    first.begin()
    return store, clock, first


def test_a_process_of_this_machine_that_lives_is_left_alone() -> None:
    store, clock, _ = claimed(this_process())
    with pytest.raises(InputError, match="a is being trained already, by process 1 on a"):
        newcomer(store, clock).take()


def test_a_process_of_this_machine_that_is_dead_is_succeeded_at_once() -> None:
    dead = dead_process()
    assert lives_here(dead) is False
    store, clock, first = claimed(dead)
    second = newcomer(store, clock).take()
    assert second is not None
    assert (second.number, first.outcome()) == (2, "lost")
    assert second.signs() == (False, False)


def test_a_dead_process_whose_parent_has_not_noticed_is_dead() -> None:
    code = "from alexvgg.process import this_process; print(this_process())"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        name = child.stdout.read().strip()
        wait_for(lambda: lives_here(name) is False, "its death", 10)


@pytest.mark.parametrize("process", [None, "elsewhere pid:[7] 1 12345"])
def test_what_runs_elsewhere_is_left_alone_if_it_is_heard(process: str | None) -> None:
    store, clock, first = claimed(process)
    second = newcomer(store, clock)
    assert second.take() is None
    clock.now += BEAT_SECONDS
    assert second.take() is None
    first.beat(1)
    clock.now += BEAT_SECONDS
    with pytest.raises(InputError, match="is being trained already"):
        second.take()
    assert first.outcome() is None


@pytest.mark.parametrize("process", [None, "elsewhere pid:[7] 1 12345"])
def test_what_runs_elsewhere_is_succeeded_if_it_is_silent(process: str | None) -> None:
    store, clock, first = claimed(process)
    first.beat(7)
    second, began = newcomer(store, clock), clock.now
    while (attempt := second.take()) is None:
        clock.now += 1
        assert clock.now - began < DEAD_SECONDS + 2 * BEAT_SECONDS, "a long time, although it had begun"
    assert clock.now - began > DEAD_SECONDS
    assert (attempt.number, first.outcome()) == (2, "lost")
    with pytest.raises(SupersededError):
        first.check()


@pytest.mark.parametrize("outcome", ["failed", "stopped", "lost", "finished"])
def test_what_has_ended_is_tried_again(outcome: Outcome) -> None:
    store, clock, first = claimed(None)
    first.end(outcome, "the loss is NaN")
    second = newcomer(store, clock).take()
    assert second is not None
    assert second.number == 2


def test_of_two_at_the_same_moment_one_gets_it() -> None:
    store, clock = MemoryStore(), Clock()
    first, second = (newcomer(store, clock, f"process {n} on a", this_process()) for n in (1, 2))
    attempt = first.take()
    assert attempt is not None
    assert not attempt.begin(), "it has begun: nobody may think that it never will"
    with pytest.raises(InputError, match="by process 1 on a"):
        second.take()


def test_of_two_that_saw_the_same_end_one_gets_it(monkeypatch: pytest.MonkeyPatch) -> None:
    store, clock, first = claimed(None)
    first.end("stopped")
    other, put_new = newcomer(store, clock, "process 1 on a", this_process()), store.put_new

    def overtaken(key: str, data: bytes) -> bool:
        monkeypatch.undo()
        assert other.take() is not None
        return put_new(key, data)

    monkeypatch.setattr(store, "put_new", overtaken)
    second = newcomer(store, clock)
    assert second.take() is None
    with pytest.raises(InputError, match="by process 1 on a"):
        second.take()


def test_only_the_newest_attempt_is_looked_at() -> None:
    store, clock, first = claimed("elsewhere pid:[7] 1 12345")
    waiting = newcomer(store, clock)
    assert waiting.take() is None
    first.end("lost")
    Attempt(store, FOLDER, 2).claim(Claim("process 3 on c", {}))  # type: ignore[arg-type]
    clock.now += BEAT_SECONDS
    assert waiting.take() is None
    Attempt(store, FOLDER, 2).end("lost")  # type: ignore[arg-type]
    Attempt(store, FOLDER, 3).claim(Claim("process 4 on a", {}, process=this_process()))  # type: ignore[arg-type]
    with pytest.raises(InputError, match="by process 4 on a"):
        waiting.take()
    assert [r.end is None for r in history(store, FOLDER)] == [False, False, True]  # type: ignore[arg-type]


def test_whoever_gives_the_command_again_forgives_all_that_was_lost() -> None:
    store, clock = MemoryStore(), Clock()
    for number in range(1, MAX_LOST + 1):
        lost = Attempt(store, FOLDER, number)  # type: ignore[arg-type]
        lost.claim(Claim("process 1 on a", {}))
        lost.end("lost")
    assert standing(history(store, FOLDER)) == "failed"  # type: ignore[arg-type]
    again = newcomer(store, clock).take()
    assert again is not None
    again.end("lost")
    assert standing(history(store, FOLDER)) == "open"  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (None, "finished"),
        (Stopped("stopped at step 3"), "stopped"),
        (KeyboardInterrupt(), "stopped"),
        (DivergedError("the loss is NaN"), "failed"),
        (RuntimeError("CUDA out of memory"), "lost"),
    ],
)
def test_how_a_process_ended_is_written_down(tmp_path: Path, error: BaseException | None, outcome: Outcome) -> None:
    store = open_store(tmp_path.as_uri())
    raised = pytest.raises(type(error)) if error is not None else nullcontext()
    with raised, claiming("a", Execution("d", store.url), ALONE, Wishes()) as claim:
        assert claim().number == 1
        if error is not None:
            raise error
    (record,) = history(store, FOLDER)
    assert record.claim.job.startswith(f"process {os.getpid()} on ")
    assert (record.claim.process, record.claim.execution) == (this_process(), to_dict(Execution("d", store.url)))
    assert record.end is not None
    assert (record.end.outcome, record.end.error) == (outcome, str(error) if error is not None else None)
    assert failure([record]) == ("the loss is NaN" if outcome == "failed" else None)


def test_it_shows_that_it_lives_and_hears_of_wishes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plain, "BEAT_SECONDS", 0.01)
    store, wishes = open_store(tmp_path.as_uri()), Wishes()
    with claiming("a", Execution("d", store.url), ALONE, wishes) as claim:
        attempt = claim()
        wait_for(lambda: attempt.last_beat() is not None, "a beat", 10)
        first = attempt.last_beat()
        wait_for(lambda: attempt.last_beat() != first, "a second beat", 10)
        attempt.ask_to_stop()
        assert wishes.stop.wait(10)
        attempt.end("lost")
        wait_for(lambda: isinstance(wishes.failure, SupersededError), "its being given up", 10)
    time.sleep(0.1)
    last = attempt.last_beat()
    time.sleep(0.1)
    assert attempt.last_beat() == last, "it goes on after its end"
    assert json.loads(last or b"{}")["count"] > 1


def test_whoever_waits_says_so_once_and_where_it_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, seconds in (("attempts.BEAT", 0.01), ("attempts.DEAD", 0.05), ("plain.LOOK", 0.01)):
        monkeypatch.setattr(f"alexvgg.{name}_SECONDS", seconds)
    store, said = open_store(tmp_path.as_uri()), list[str]()
    first = Attempt(store, FOLDER, 1)
    first.claim(Claim("process 1 elsewhere", {}))
    first.beat(7)
    store.put(f"{FOLDER}checkpoints/00000023/commit.json", b"")
    with claiming("a", Execution("d", store.url), ALONE, Wishes(), said.append) as claim:
        assert claim().number == 2
    assert [line.split(";")[0] for line in said] == [
        "another attempt at this run hasn't ended",
        "going on from the checkpoint of step 23",
    ]


@pytest.mark.parametrize("error", [DivergedError("the loss is NaN"), RuntimeError("gloo: connection closed")])
def test_another_rank_writes_only_a_reason_of_its_own(tmp_path: Path, error: Exception) -> None:
    """Of what happens to its companions it sees broken connections."""
    store = open_store(tmp_path.as_uri())
    Attempt(store, FOLDER, 1).claim(Claim("process 1 on a", {}))
    second = SimpleNamespace(rank=1, texts=lambda _: ["[1, null]", "[0, null]"])
    how = Execution("d", store.url)
    with suppress(type(error)), claiming("a", how, second, Wishes()) as claim:  # type: ignore[arg-type]
        assert claim().number == 1
        raise error
    (record,) = history(store, FOLDER)
    assert (record.end is not None) == isinstance(error, DivergedError)


def test_a_refusal_before_the_claim_leaves_nothing(tmp_path: Path) -> None:
    store = open_store(tmp_path.as_uri())
    with (
        pytest.raises(InputError, match="no such dataset"),
        claiming("a", Execution("d", store.url), ALONE, Wishes()),
    ):
        raise InputError("no such dataset")
    assert store.list("") == []


def test_what_rank_0_is_refused_all_ranks_are(tmp_path: Path) -> None:
    store, told = open_store(tmp_path.as_uri()), list[str]()
    Attempt(store, FOLDER, 1).claim(Claim("process 1 on a", {}, process=this_process()))
    first = SimpleNamespace(rank=0, texts=lambda text: [told.append(text) or text])
    with (
        pytest.raises(InputError, match="a is being trained already") as refused,
        claiming("a", Execution("d", store.url), first, Wishes()) as claim,  # type: ignore[arg-type]
    ):
        claim()
    assert json.loads(told[0]) == [0, str(refused.value)]
    second = SimpleNamespace(rank=1, texts=lambda _: ['[0, "a is being trained already"]', "[0, null]"])
    how = Execution("d", tmp_path.as_uri())
    with (
        pytest.raises(InputError, match="a is being trained already"),
        claiming("a", how, second, Wishes()) as claim,  # type: ignore[arg-type]
    ):
        claim()


def test_a_storage_that_is_down_does_not_hide_what_ended_the_run(tmp_path: Path) -> None:
    with (  # noqa: PT012
        pytest.raises(DivergedError, match="the loss is NaN"),
        claiming("a", Execution("d", tmp_path.as_uri()), ALONE, Wishes()) as claim,
    ):
        claim()
        (tmp_path / "runs").rename(tmp_path / "gone")
        (tmp_path / "runs").touch()
        raise DivergedError("the loss is NaN")
