"""The journal is the truth, and says which points MLflow gets."""

from pathlib import Path

from alexvgg.data.store import open_store
from alexvgg.tracking.journal import Journal, Point, points, read_journal


def test_journal_there_and_back(tmp_path: Path) -> None:
    store = open_store(tmp_path.as_uri())
    assert read_journal(store, "j") == []
    journal = Journal(store, "j")
    journal.write("start", 0, attempt=1)
    journal.write("epoch", 23, metrics={"val/top1_error": 12.5})
    assert read_journal(store, "j") == [], "nothing is written before it is flushed"
    journal.flush()
    again = Journal(store, "j")
    assert again.events == journal.events
    assert [e["step"] for e in again.events] == [0, 23]


def test_rewinding_forgets_lost_steps_but_no_attempt(tmp_path: Path) -> None:
    journal = Journal(open_store(tmp_path.as_uri()), "j")
    for event, step in (("start", 0), ("steps", 10), ("epoch", 23), ("steps", 30), ("start", 23), ("steps", 40)):
        journal.write(event, step)
    journal.rewind(23)
    assert [(e["event"], e["step"]) for e in journal.events] == [
        ("start", 0), ("steps", 10), ("epoch", 23), ("start", 23),
    ]  # fmt: skip


def test_what_is_no_number_is_null(tmp_path: Path) -> None:
    store = open_store(tmp_path.as_uri())
    store.put("j", b'{"event": "epoch", "step": 1, "time": 1.0, "metrics": {"val/top1_error": NaN, "a": Infinity}}\n')
    (event,) = read_journal(store, "j")
    assert event["metrics"] == {"val/top1_error": None, "a": None}
    assert list(points([event])) == []


def test_points_are_measured_when_the_event_was_and_cells_stand_at_step_0() -> None:
    events = [
        {"event": "start", "step": 0, "time": 1.0},
        {"event": "steps", "step": 10, "time": 2.001, "metrics": {"train/loss": 0.5}},
        {"event": "epoch", "step": 23, "time": 3.0, "metrics": {"val/top1_error": float("nan"), "train/lr": 0.01}},
        {"event": "final", "step": 23, "time": 4.0, "metrics": {"table3/top1_error": 9.5}},
    ]
    assert list(points(events)) == [
        Point("train/loss", 10, 2001, 0.5), Point("train/lr", 23, 3000, 0.01), Point("table3/top1_error", 0, 4000, 9.5),
    ]  # fmt: skip
