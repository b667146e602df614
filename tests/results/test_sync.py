"""MLflow can be lost and made again from the storage, point for point."""

import json
import time
from collections import Counter
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from mlserver import MlflowServer

import alexvgg.run as run
from alexvgg.attempts import Attempt, Claim
from alexvgg.config import Execution, RunSpec, to_dict
from alexvgg.data.shards import Dataset
from alexvgg.data.store import Store, open_store
from alexvgg.engine.world import World
from alexvgg.errors import ServiceError
from alexvgg.evaluate import evaluate
from alexvgg.planning import images_of, plan_runs
from alexvgg.recipes import GEOMETRIES, RECIPES
from alexvgg.request import Request
from alexvgg.results.sync import SILENT_SECONDS, Synced, sync
from alexvgg.runs import list_fusions, list_runs, read_run
from alexvgg.tracking import sink
from alexvgg.tracking.journal import points
from alexvgg.tracking.live import Point as LivePoint
from alexvgg.tracking.remote import RemoteRun, connect

ALONE = World(0, 1, torch.device("cpu"))


def specs_of(dataset: Dataset, recipe: str, seed: int = 0) -> list[RunSpec]:
    settings = {"test_scales": "[[256]]", "train.epochs": "3", "train.seed": str(seed)}
    return plan_runs([RECIPES[recipe]], images_of(dataset), GEOMETRIES["small"], overrides=settings)


def remote(server: MlflowServer, name: str) -> RemoteRun:
    found = RemoteRun.find(connect(server.url), name)
    assert found is not None
    return found


def synced(server: MlflowServer, storage: Store, now: float | None = None) -> dict[str, Synced]:
    done = sync(server.url, storage, list_runs(storage), list_fusions(storage), now or time.time())
    return {one.run: one for one in done}


def assert_equal_to_the_journal(server: MlflowServer, storage: Store, name: str) -> None:
    stored, shown = list(points(read_run(storage, name).journal)), remote(server, name).history()
    assert Counter(shown) == Counter(stored)
    assert len(stored) > 10


def shown(server: MlflowServer) -> dict[str, Any]:
    """What people see of all runs, without ids that MLflow makes up."""
    client = connect(server.url)
    experiment = client.get_experiment_by_name("alexvgg")
    found: dict[str, Any] = {}
    for listed in client.search_runs([experiment.experiment_id]):
        r, one = client.get_run(listed.info.run_id), RemoteRun(client, listed.info.run_id)
        found[r.info.run_name] = {
            "status": r.info.status, "params": r.data.params, "tags": r.data.tags, "metrics": r.data.metrics,
            "points": Counter(one.history()),
            "datasets": [(i.dataset.name, i.dataset.digest) for i in r.inputs.dataset_inputs],
            "parents": [client.get_logged_model(m.model_id).name for m in r.inputs.model_inputs],
            "model": [client.get_logged_model(m.model_id).tags["alexvgg.sha256"] for m in r.outputs.model_outputs],
            "artifacts": sorted(a.path for a in client.list_artifacts(r.info.run_id)),
        }  # fmt: skip
    return found


@pytest.mark.usefixtures("one_thread")
def test_mlflow_that_comes_back_without_its_database_gets_the_whole_run(
    mlflow: MlflowServer, digits: Dataset, digits_url: str, tmp_path: Path
) -> None:
    (spec,) = specs_of(digits, "vgg_a-s256", seed=1)

    def disturb(event: dict[str, Any]) -> None:
        if event["epoch"] == 1:
            mlflow.stop()
            mlflow.forget()
        elif event["epoch"] == 2:
            mlflow.start()

    execution = Execution(digits_url, tmp_path.as_uri(), mlflow.url)
    run.train(spec, execution, ALONE, disturb)
    storage = open_store(execution.storage_url)
    assert remote(mlflow, spec.name).status == "FINISHED"
    assert_equal_to_the_journal(mlflow, storage, spec.name)
    assert synced(mlflow, storage)[spec.name].action == "unchanged"


@pytest.mark.usefixtures("one_thread")
def test_mlflow_stopped_in_mid_run_then_synced_then_lost_then_made_again(
    mlflow: MlflowServer,
    digits: Dataset,
    digits_url: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    parent, child = specs_of(digits, "vgg_b-s256")
    execution = Execution(digits_url, tmp_path.as_uri(), mlflow.url)
    storage = open_store(execution.storage_url)
    run.train(parent, execution, ALONE)
    monkeypatch.setattr(sink, "CLOSE_SECONDS", 0.5)
    run.train(child, execution, ALONE, lambda event: mlflow.stop() if event["epoch"] == 1 else None)
    assert f"`alexvgg mlflow sync {child.name} --storage " in caplog.text
    evaluate(Request((parent.name, child.name), "dense", (256,), fuse=True), replace(execution, mlflow_url=None), ALONE)

    mlflow.start()
    assert remote(mlflow, child.name).status == "RUNNING"
    done = synced(mlflow, storage)
    assert (done[parent.name].action, done[child.name].action) == ("unchanged", "completed")
    for spec in (parent, child):
        assert_equal_to_the_journal(mlflow, storage, spec.name)
    assert {one.action for one in synced(mlflow, storage).values()} == {"unchanged"}, "doing it twice changes nothing"

    before = {name: about for name, about in shown(mlflow).items() if name in (parent.name, child.name)}
    assert before[child.name]["parents"] == [parent.name]
    assert before[child.name]["metrics"]["paper/table3/top1_error"] == 28.7
    mlflow.stop()
    mlflow.forget()
    mlflow.start()
    going = sync(mlflow.url, storage, list_runs(storage), list_fusions(storage), time.time())
    assert next(going).action == "created"
    mlflow.stop()
    with pytest.raises(ServiceError, match=f"failed on {child.name}: .* The same command goes on from there"):
        list(going)
    mlflow.start()
    done = synced(mlflow, storage)
    assert [done.pop(parent.name).action, *{one.action for one in done.values()}] == ["unchanged", "created"]
    assert shown(mlflow) == before


def started(storage: Store, name: str, spec: RunSpec, now: float) -> None:
    """A run that has logged two points and nothing else, without training it."""
    events = [
        {"event": "start", "step": 0, "time": now, "attempt": 1, "workers": 1},
        {"event": "steps", "step": 10, "time": now + 1, "metrics": {"train/loss": 2.0}},
        {"event": "steps", "step": 20, "time": now + 2, "metrics": {"train/loss": 1.0}},
    ]
    storage.put(f"runs/{name}/spec.json", json.dumps(to_dict(spec)).encode())
    storage.put(f"runs/{name}/transplant.json", b"[]")
    storage.put(f"runs/{name}/journal.jsonl", "\n".join(map(json.dumps, events)).encode())


def test_runs_that_died_are_ended_and_those_alive_are_left(
    mlflow: MlflowServer, digits: Dataset, tmp_path: Path
) -> None:
    storage, now = open_store(tmp_path.as_uri()), time.time()
    long_ago = now - SILENT_SECONDS - 60
    silent, lost, alive, failed, beating = (specs_of(digits, "vgg_a-s256", seed)[0] for seed in range(11, 16))
    specs = silent, lost, alive, failed, beating
    claims = {spec.name: Attempt(storage, f"runs/{spec.name}/", 1) for spec in specs}
    for spec in specs:
        began = long_ago if spec in (silent, beating) else now
        started(storage, spec.name, spec, began)
        claims[spec.name].claim(Claim(f"{spec.name}-a1", {}, time=began))
    claims[beating.name].beat(1)
    assert {one.status for one in synced(mlflow, storage, now - SILENT_SECONDS).values()} == {"RUNNING"}
    claims[lost.name].end("lost", "its node is gone")
    claims[failed.name].end("failed", "it diverged")
    done = synced(mlflow, storage, now)
    assert (done[silent.name].action, done[silent.name].status) == ("ended", "KILLED")
    assert [remote(mlflow, s.name).status for s in specs] == ["KILLED", "KILLED", "RUNNING", "FAILED", "RUNNING"]


@pytest.mark.parametrize("sign", ["beat", "point"])
def test_a_run_that_lives_is_never_made_anew(mlflow: MlflowServer, digits: Dataset, tmp_path: Path, sign: str) -> None:
    """Between two checkpoints MLflow has points that the stored journal lacks, for hours if they are far apart."""
    storage, long_ago = open_store(tmp_path.as_uri()), time.time() - 2 * SILENT_SECONDS
    (spec,) = specs_of(digits, "vgg_a-s256", seed=31 + len(sign))
    started(storage, spec.name, spec, long_ago)
    synced(mlflow, storage, long_ago)
    before = remote(mlflow, spec.name)
    before.log(points([{"event": "steps", "step": 30, "time": long_ago + 9, "metrics": {"train/loss": 0.5}}]))
    if sign == "beat":
        claim = Attempt(storage, f"runs/{spec.name}/", 1)
        claim.claim(Claim(f"{spec.name}-a1", {}, time=long_ago))
        claim.beat(7)
    else:
        storage.put(f"runs/{spec.name}/live.json", json.dumps(asdict(LivePoint(1, 30, 0.5, 640.0))).encode())
    assert synced(mlflow, storage)[spec.name].status == "RUNNING"
    assert remote(mlflow, spec.name).id == before.id
    assert 30 in {p.step for p in remote(mlflow, spec.name).history()}


def test_what_was_evaluated_again_is_shown(mlflow: MlflowServer, digits: Dataset, tmp_path: Path) -> None:
    storage, now = open_store(tmp_path.as_uri()), time.time()
    (spec,) = specs_of(digits, "vgg_a-s256", seed=41)
    started(storage, spec.name, spec, now)
    final = {"event": "final", "step": 20, "time": now + 3, "sha256": "0", "metrics": {"table3/top1_error": 9.0}}
    journal = storage.get(f"runs/{spec.name}/journal.jsonl")
    storage.put(f"runs/{spec.name}/journal.jsonl", journal + b"\n" + json.dumps(final).encode())
    member = {"run": spec.name, "weights": "0", "test_scales": [256]}
    again = {"method": "dense", "members": [member], "top1_error": 8.0, "top5_error": 1.0, "time": now + 4}
    storage.put(f"runs/{spec.name}/final/record.json", json.dumps({"sha256": "0"}).encode())
    storage.put(f"runs/{spec.name}/eval/dense-q256.json", json.dumps(again).encode())
    synced(mlflow, storage)
    found = [p.value for p in remote(mlflow, spec.name).history() if p.metric == "table3/top1_error"]
    assert found == [8.0]


def test_points_that_the_journal_does_not_have_make_the_run_anew(
    mlflow: MlflowServer, digits: Dataset, tmp_path: Path
) -> None:
    storage, now = open_store(tmp_path.as_uri()), time.time() - 2 * SILENT_SECONDS
    (spec,) = specs_of(digits, "vgg_a-s256", seed=21)
    started(storage, spec.name, spec, now)
    synced(mlflow, storage)
    before = remote(mlflow, spec.name)
    lost = {"event": "steps", "step": 20, "time": now + 1, "metrics": {"train/loss": 9.0}}
    before.log(points([lost]))
    assert synced(mlflow, storage)[spec.name].action == "replaced"
    after = remote(mlflow, spec.name)
    assert after.id != before.id
    assert [(p.step, p.value) for p in after.history()] == [(10, 2.0), (20, 1.0)]
    assert synced(mlflow, storage)[spec.name].action == "unchanged"
