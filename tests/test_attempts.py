"""Attempts: one claim wins, the first end counts, and what is tried again is what trying again can mend."""

import json
import time

import pytest
from memory import MemoryStore
from processes import dead_process

from alexvgg import attempts
from alexvgg.attempts import MAX_LOST, Attempt, Claim, Outcome, SupersededError
from alexvgg.engine.wishes import Wishes
from alexvgg.errors import InputError
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


@pytest.mark.parametrize("asked", [False, True])
@pytest.mark.parametrize("over", ["", "ended", "succeeded"])
def test_who_carries_it_out_hears_of_a_stop_and_of_being_given_up(asked: bool, over: str) -> None:
    store, wishes = MemoryStore(), Wishes()
    first = attempt(store, 1)
    if asked:
        first.ask_to_stop()
    if over == "ended":
        first.end("lost")
    elif over == "succeeded":
        attempt(store, 2)
    first.hear(wishes)
    assert first.signs() == (wishes.stop.is_set(), wishes.failure is not None) == (asked, over != "")
    assert attempts.history(store, RUN)[0].asked == asked  # type: ignore[arg-type]


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
    assert attempts.failure(attempts.history(store, RUN)) == "the loss is nan again"  # type: ignore[arg-type]


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


def test_to_find_no_room_is_no_loss() -> None:
    """On a cluster that others use, too: it is tried again however long they stay, between losses and alone."""
    store = MemoryStore()
    for number in range(1, 3 * MAX_LOST, 3):
        attempt(store, number).end("unplaced", "no room")
        attempt(store, number + 1).end("unplaced", "no room")
        assert after(store) == "open"
        attempt(store, number + 2).end("lost", "node died")
    assert after(store) == "failed", "but what is lost again and again is so whatever was between"


def test_an_end_says_how_far_it_came_by_whole_checkpoints() -> None:
    store = MemoryStore()
    for key in ("00000009/commit.json", "00000023/commit.json", "00000047/model.safetensors", "00000048/part.json"):
        store.put(f"{RUN}checkpoints/{key}", b"")
    attempt(store, 1).end("lost")
    (record,) = attempts.history(store, RUN)  # type: ignore[arg-type]
    assert record.end is not None
    assert record.end.step == 23


def test_attempts_come_in_their_order() -> None:
    store = MemoryStore()
    for number in range(1, 12):
        attempt(store, number).end("stopped")
    present = [*store.list(RUN), "runs/other/attempts/12.json"]
    for records in (attempts.history(store, RUN), attempts.history(store, RUN, present)):  # type: ignore[arg-type]
        assert [r.number for r in records] == list(range(1, 12))
    assert attempts.history(store, RUN, present[:3]) == records[:1]  # type: ignore[arg-type]


def test_what_lives_or_is_done_has_not_failed() -> None:
    store = MemoryStore()
    attempt(store, 1).end("lost", "node died")
    assert attempts.failure(attempts.history(store, RUN)) is None  # type: ignore[arg-type]
    second = attempt(store, 2)
    assert attempts.lost_in_a_row(attempts.history(store, RUN)) == 0  # type: ignore[arg-type]
    second.end("finished")
    second.forgive()
    assert after(store) == "finished"


def test_a_beat_or_a_claim_of_just_now_is_a_sign_of_life() -> None:
    first, now = attempt(MemoryStore(), 1), time.time()
    assert not attempts.is_fresh(first.last_beat(), now - 99)
    assert attempts.is_fresh(first.last_beat(), now - attempts.DEAD_SECONDS / 2)
    for count in (1, 2):
        first.beat(count)
        beat = first.last_beat() or b""
        assert json.loads(beat)["count"] == count
        assert attempts.is_fresh(beat, now - 99)
    assert attempts.is_fresh(json.dumps({"count": 1, "time": now - 99}).encode(), now)
    assert [attempts.beaten(b) for b in (None, b"", b"nonsense", b"[]", b"{}", b'{"time": null}')] == [0] * 6


def test_an_end_is_seen_at_once_and_looked_for_now_and_then() -> None:
    now, looks = 0.0, list[float]()
    first = attempt(MemoryStore(before=lambda: looks.append(now)), 1)
    silence = attempts.Silence(first, lambda: now)
    looks.clear()
    for tick in range(20):
        now = tick * attempts.BEAT_SECONDS / 10
        assert not silence.is_over()
    assert set(looks) == {0.0, attempts.BEAT_SECONDS}
    now += attempts.BEAT_SECONDS
    first.end("lost")
    assert silence.is_over()


def test_what_began_late_and_never_beat_is_given_up_after_all() -> None:
    now, first = 0.0, attempt(MemoryStore(), 1)
    silence = attempts.Silence(first, lambda: now)
    first.begin()
    while not silence.is_over():
        now += 1
        assert now < 3 * attempts.DEAD_SECONDS
    assert now > 2 * attempts.DEAD_SECONDS


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


def test_what_another_version_wrote_is_named() -> None:
    store = MemoryStore({f"{RUN}attempts/1.json": b'{"job": "j", "execution": {}, "future": 1}'})
    with pytest.raises(InputError, match=f"{RUN}attempts/1.json isn't what alexvgg writes"):
        attempts.history(store, RUN)  # type: ignore[arg-type]
