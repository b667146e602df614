"""MLflow may hang, be gone or come back: training doesn't wait for it, and nothing is lost."""

import socket
import time

import pytest
from mlserver import MlflowServer

from alexvgg.tracking import sink as module
from alexvgg.tracking.journal import Event, points
from alexvgg.tracking.remote import Description, RemoteRun, connect, identities, lacking
from alexvgg.tracking.sink import MlflowSink


def event(step: int, value: float = 1.0) -> Event:
    return {"event": "steps", "step": step, "time": 1000.0 + step, "metrics": {"train/loss": value}}


@pytest.mark.filterwarnings("ignore::ResourceWarning")  # the thread that hangs holds its connection
def test_a_hanging_mlflow_holds_nothing_up(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(module, "CLOSE_SECONDS", 1.0)
    events: list[Event] = []
    with socket.create_server(("127.0.0.1", 0)) as server:
        sink = MlflowSink(f"http://127.0.0.1:{server.getsockname()[1]}", Description("run-1"), events, "sync")
        began = time.monotonic()
        for step in range(1, 20_001):
            events.append(event(step))
            sink.notify()
        assert time.monotonic() - began < 2
        sink.close("FINISHED")
        assert time.monotonic() - began < 4
    assert "It lacks the end of run-1 and 20000 of its points" in caplog.text
    assert "and `sync` brings them over" in caplog.text


def test_a_resumed_run_repeats_no_step(mlflow: MlflowServer) -> None:
    first, again = [event(10), event(20), event(30, 0.5)], [event(10), event(20), event(30, 0.25) | {"time": 2e3}]
    for events in (first, [*again, event(40)]):
        MlflowSink(mlflow.url, Description("run-2"), events, "sync").close("KILLED")
    run = RemoteRun.find(connect(mlflow.url), "run-2")
    assert run is not None
    assert run.history() == list(points([*first, event(40)]))
    assert run.status == "KILLED"


def test_more_points_than_one_request_takes(mlflow: MlflowServer) -> None:
    events = [event(step) for step in range(1, 2502)]
    MlflowSink(mlflow.url, Description("run-3"), events, "sync").close("FINISHED")
    run = RemoteRun.find(connect(mlflow.url), "run-3")
    assert run is not None
    assert run.history() == list(points(events))


def test_what_is_lacking_goes_by_metric_and_step() -> None:
    have = list(points([event(10), event(20, 7.0)]))
    assert lacking(points([event(10, 3.0), event(20), event(30)]), identities(have)) == list(points([event(30)]))
