"""Attempts: one claim wins, the first end counts, and what is tried again is what trying again can mend."""

import time

import pytest
from memory import MemoryStore
from processes import dead_process

from alexvgg import attempts
from alexvgg.attempts import MAX_LOST, Attempt, Claim, Outcome, SupersededError
from alexvgg.process import this_process

RUN = "runs/vgg_a/"


def attempt(store: MemoryStore, number: int) -> Attempt:
    """A claimed attempt."""
    a = Attempt(store, RUN, number)  # type: ignore[arg-type]
    assert a.claim(Claim(f"vgg_a-a{number}", {}, "vgg_b", 1))
    return a


def after(store: MemoryStore) -> attempts.Standing:
    return attempts.standing(attempts.history(store, RUN))  # type: ignore[arg-type]


def test_one_claim_wins_and_one_begins() -> None:
    store = MemoryStore()
    first = attempt(store, 1)
    assert not Attempt(store, RUN, 1).claim(Claim("other", {}))  # type: ignore[arg-type]
    assert first.read().job == "vgg_a-a1"
    assert first.begin()
    assert not first.begin()
    assert first.signs() == (False, False)
    first.ask_to_stop()
    assert first.signs() == (True, False)


def test_the_first_end_counts() -> None:
    store = MemoryStore()
    first = attempt(store, 1)
    assert after(store) == "live"
    assert first.outcome() is None
    first.end("stopped")
    first.end("lost", "its job is gone")
    assert first.outcome() == after(store) == "stopped"
    assert first.signs() == (False, True)


def test_an_attempt_that_was_given_up_must_not_write() -> None:
    store = MemoryStore()
    first = attempt(store, 1)
    first.check()
    first.end("lost")
    first.check()  # nobody goes on yet: what it writes is still good
    attempt(store, 2)
    with pytest.raises(SupersededError, match="attempt 1 at runs/vgg_a/ was given up"):
        first.check()


def test_what_failed_waits_to_be_forgiven() -> None:
    store = MemoryStore()
    first = attempt(store, 1)
    first.end("failed", "the loss is nan")
    assert after(store) == "failed"
    assert attempts.failure(attempts.history(store, RUN)) == "the loss is nan"  # type: ignore[arg-type]
    first.forgive()
    assert after(store) == "open"
    attempt(store, 2).end("failed", "the loss is nan again")
    assert after(store) == "failed"


def test_losses_without_progress_are_counted() -> None:
    store = MemoryStore()
    for number in range(1, MAX_LOST):
        attempt(store, number).end("lost", "node died")
        assert after(store) == "open"
    store.put(f"{RUN}checkpoints/00000023/commit.json", b"")
    attempt(store, MAX_LOST).end("lost", "node died")
    records = attempts.history(store, RUN)  # type: ignore[arg-type]
    assert attempts.lost_in_a_row(records) == 1, "the checkpoint was progress"
    for number in range(MAX_LOST + 1, 2 * MAX_LOST):
        assert after(store) == "open"
        attempt(store, number).end("lost", "node died")
    records = attempts.history(store, RUN)  # type: ignore[arg-type]
    assert attempts.standing(records) == "failed"
    assert (
        attempts.failure(records)
        == f"{MAX_LOST} attempts in a row were lost without progress, the last because: node died"
    )
    Attempt(store, RUN, records[-1].number).forgive()  # type: ignore[arg-type]
    assert after(store) == "open"


def test_only_lost_attempts_count_as_lost() -> None:
    store = MemoryStore()
    outcomes: tuple[Outcome, ...] = ("lost", "stopped", "stopped", "lost", "lost")
    for number, outcome in enumerate(outcomes, start=1):
        attempt(store, number).end(outcome)
    records = attempts.history(store, RUN)  # type: ignore[arg-type]
    assert [attempts.lost_in_a_row(records[:n]) for n in range(6)] == [0, 1, 0, 0, 1, 2]


def test_a_process_of_this_machine_that_is_gone_does_not_seem_alive() -> None:
    def seems_alive(process: str, age: float = 0) -> bool:
        claim = Claim("a process", {}, process=process, time=time.time() - age)
        return attempts.seems_alive(attempt(MemoryStore(), 1), claim)

    assert seems_alive(this_process())
    assert not seems_alive(dead_process())
    assert seems_alive("elsewhere 1 2")
    assert not seems_alive("elsewhere 1 2", age=99)


def test_pauses_double_up_to_a_limit() -> None:
    assert [attempts.pause(n) for n in (0, 1, 2, 3)] == [0, 2, 4, 8]
    assert attempts.pause(50) == 300


def test_other_keys_are_no_attempts() -> None:
    keys = {
        f"{RUN}attempts/1.json": b'{"job": "j", "execution": {}}',
        f"{RUN}attempts/1.beat": b"{}",
        f"{RUN}spec.json": b"{}",
    }
    (record,) = attempts.history(MemoryStore(keys), RUN)  # type: ignore[arg-type]
    assert (record.number, record.end, record.claim.campaign) == (1, None, None)
