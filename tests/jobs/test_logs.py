"""A job's log as a person follows it: whole lines, children before the driver's end, nothing that only looks bad."""

import io
import json
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import requests
from ray.job_submission import JobStatus

from alexvgg.cli.jobs import follow_to_end
from alexvgg.errors import NotFoundError
from jobs import client, groups, logs
from jobs.logs import follow, logs_of

NOISE = (
    "(TrainController pid=7) [2026-01-01 00:00:00,0 E 7 8] core_worker.cc:2465: Actor with class name: "
    "'PreemptionWatcher' and ID: 'b3' has constructor arguments in the object store and max_restarts > 0.\n"
)


class Jobs:
    """The Jobs API, at moments that follow one another: {job: (status, log)}."""

    def __init__(self, *moments: dict[str, tuple[JobStatus, str]]) -> None:
        self._moments: Iterator[dict[str, tuple[JobStatus, str]]] = iter(moments)

    def list_jobs(self) -> list[Any]:
        self._now = next(self._moments)
        return [
            SimpleNamespace(
                submission_id=name, status=status, start_time=0,
                metadata={"alexvgg": "e", "kind": "driver", "storage": "s"} if name == "e-d1"
                else {"alexvgg": "a", "kind": "training", "storage": "s", "campaign": "e"},
            )
            for name, (status, _) in self._now.items()
        ]  # fmt: skip

    def get_address(self) -> str:
        return "http://ray"

    def get_job_logs(self, name: str) -> str:
        return self._now[name][1]


def test_a_log_is_followed_line_by_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs.time, "sleep", lambda _: None)
    running, done = JobStatus.RUNNING, JobStatus.SUCCEEDED
    jobs = Jobs(
        {"e-d1": (running, "[1/2] a starts\n")},
        {"e-d1": (running, "[1/2] a starts\n"), "a-a1": (running, f"one\n{NOISE}tw")},
        {"e-d1": (running, "[1/2] a starts\n"), "a-a1": (running, f"one\n{NOISE}two\n{NOISE[:30]}")},
        {"e-d1": (done, "[1/2] a starts\n[1/2] a finished"), "a-a1": (done, f"one\n{NOISE}two\n{NOISE}")},
    )
    assert list(follow(jobs, "e-d1")) == ["[1/2] a starts\n", "one\n", "two\n", "[1/2] a finished"]  # type: ignore[arg-type]


def test_a_log_beside_json_goes_to_stderr(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(logs.time, "sleep", lambda _: None)
    jobs = Jobs({"e-d1": (JobStatus.SUCCEEDED, "all done\n")})
    monkeypatch.setattr(jobs, "get_job_status", lambda _: JobStatus.SUCCEEDED, raising=False)
    assert follow_to_end(jobs, "e-d1", aside=True) == 0  # type: ignore[arg-type]
    assert capsys.readouterr() == ("", "all done\n")


def test_a_broken_connection_is_outlived(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs.time, "sleep", lambda _: None)
    jobs: Any = Jobs(
        {"e-d1": (JobStatus.RUNNING, "one\n")}, {}, {"e-d1": (JobStatus.SUCCEEDED, "one\ntwo\n")},
    )  # fmt: skip
    listed, said, times = jobs.list_jobs, list[str](), iter(range(9))

    def broken() -> list[Any]:
        if next(times) == 1:
            raise requests.ConnectionError("the tunnel is gone")
        found: list[Any] = listed()
        return found or broken()

    jobs.list_jobs = broken
    assert list(follow(jobs, "e-d1", said.append)) == ["one\n", "two\n"]
    assert said == ["http://ray doesn't answer; trying again. The job goes on meanwhile"]
    jobs.list_jobs = list
    with pytest.raises(NotFoundError, match="doesn't know e-d1 any more"):
        list(follow(jobs, "e-d1"))
    jobs.list_jobs = lambda: next(iter(()), None) or (_ for _ in ()).throw(requests.ConnectionError("gone"))
    monkeypatch.setattr(logs, "PATIENCE_SECONDS", -1.0)
    with pytest.raises(ConnectionError, match="http://ray doesn't answer: gone"):
        list(follow(jobs, "e-d1"))


def test_a_job_is_found_in_its_storage_only() -> None:
    """Two teams on one cluster may train runs of the same name."""

    def job(name: str, storage: str, kind: str, **more: str) -> Any:
        return SimpleNamespace(
            submission_id=name, start_time=0, metadata={"alexvgg": "vgg_e", "storage": storage, "kind": kind, **more}
        )

    ours, theirs = "s3://ours", "s3://theirs"
    listed = [
        job("vgg_e-d1", ours, "driver"), job("vgg_e-a1", ours, "training", campaign="vgg_e", attempt="1"),
        job("vgg_e-d1-2", theirs, "driver"),
        SimpleNamespace(submission_id="pack", start_time=1, metadata={"alexvgg": "p"}),
    ]  # fmt: skip
    jobs: Any = SimpleNamespace(list_jobs=lambda: listed, get_address=lambda: "http://ray")
    assert [client.find_job(jobs, ours, name) for name in ("vgg", None)] == ["vgg_e-d1", "vgg_e-d1"]
    assert client.find_job(jobs, theirs, "vgg_e") == client.find_job(jobs, ours, "vgg_e-d1-2") == "vgg_e-d1-2"
    assert client.find_job(jobs, ours, "vgg_e", workers=True) == client.find_job(jobs, ours, "vgg_e", 1) == "vgg_e-a1"
    assert client.find_job(jobs, ours, "pack") == "pack"
    with pytest.raises(NotFoundError, match=r"vgg_e has no attempt 7 of s3://ours .*; it has 1"):
        client.find_job(jobs, ours, "vgg_e", 7)
    with pytest.raises(NotFoundError, match=r"vgg_e has no workers yet of s3://theirs"):
        client.find_job(jobs, theirs, "vgg_e", workers=True)
    listed.append(SimpleNamespace(  # newer than the campaign, and nobody's
        submission_id="e-a1", start_time=2, metadata={"alexvgg": "e", "storage": ours, "kind": "evaluation"}
    ))  # fmt: skip
    assert client.find_job(jobs, ours, None) == "vgg_e-d1"
    with pytest.raises(NotFoundError, match="there is no 'vgg_d' of s3://ours on the cluster at http://ray; did you"):
        client.find_job(jobs, ours, "vgg_d")
    with pytest.raises(NotFoundError, match=r"no job for 'alexnet' of s3://ours .* A cluster forgets its jobs"):
        client.find_job(jobs, ours, "alexnet")
    with pytest.raises(NotFoundError, match=r"there is no job of s3://new .* A cluster forgets its jobs"):
        client.find_job(jobs, "s3://new", None)


def test_without_following_what_there_is_comes_at_once() -> None:
    now = {"e-d1": (JobStatus.RUNNING, "[1/2] a starts\n"), "a-a1": (JobStatus.RUNNING, f"one\n{NOISE}tw")}
    shown = "".join(logs_of(Jobs(now), "e-d1"))  # type: ignore[arg-type]
    assert shown == "==> a-a1 <==\none\ntw\n==> e-d1 <==\n[1/2] a starts\n"
    assert list(logs_of(Jobs(now), "a-a1")) == ["one\ntw"]  # type: ignore[arg-type]


def test_a_workers_file_has_lines_of_rays_own(monkeypatch: pytest.MonkeyPatch) -> None:
    worker = {"world_rank": 3, "node_ip": "127.0.0.5", "status": "RUNNING", "actor_id": "b3"}
    train = {"train_runs": [{"name": "a-a1", "attempts": [{"start_time_ns": 1, "workers": [worker]}]}]}
    file = b":job_id:01000000\n:actor_name:RayTrainWorker\nthis is rank 3\n"

    def get(_: str, path: str, **__: Any) -> Any:
        return io.BytesIO(file if "actor_id=b3" in path else json.dumps(train).encode())

    for module in (groups, logs):
        monkeypatch.setattr(module, "get", get)
    assert list(logs.worker_log("http://ray", "a-a1", 3, follow=False)) == ["this is rank 3\n"]
    with pytest.raises(NotFoundError, match="has ranks 0 to 0, no rank 1"):
        list(logs.worker_log("http://ray", "a-a1", 1, follow=False))


def test_another_error_of_the_same_file_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs.time, "sleep", lambda _: None)
    text = "core_worker.cc:1: The node is out of memory\n"
    assert list(follow(Jobs({"e-d1": (JobStatus.FAILED, text)}), "e-d1")) == [text]  # type: ignore[arg-type]
