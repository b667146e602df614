"""The journal is the truth; MLflow may hang without anyone waiting for it."""

import socket
import time
from pathlib import Path

import pytest

from alexvgg import tracking
from alexvgg.data.store import open_store
from alexvgg.tracking import Journal, MlflowSink, read_journal


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


@pytest.mark.filterwarnings("ignore::ResourceWarning")  # the thread that hangs holds its connection
def test_a_hanging_mlflow_holds_nothing_up(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(tracking, "CLOSE_SECONDS", 1.0)
    monkeypatch.setattr(tracking, "QUEUE_LENGTH", 100)
    with socket.create_server(("127.0.0.1", 0)) as server:
        sink = MlflowSink(f"http://127.0.0.1:{server.getsockname()[1]}", "run", {}, {})
        began = time.monotonic()
        for step in range(20_000):
            sink.metrics({"train/loss": 1.0}, step)
        assert time.monotonic() - began < 2
        sink.close("FINISHED")
        assert time.monotonic() - began < 4
    assert "the run's journal has them all" in caplog.text
