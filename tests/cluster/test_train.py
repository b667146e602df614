"""Submitting to a real Ray cluster: from the command to MLflow, and through a killed worker."""

import json
import os
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest
from chaos import consumed_once, events, processes_of, send, workers_of
from processes import Command, wait_for

from alexvgg.attempts import Attempt, Claim, history
from alexvgg.data.index import write_dataset
from alexvgg.data.store import Store, open_store
from alexvgg.runs import read_run
from cluster import local
from cluster.services import LocalCluster

QUICK = ("--set", "train.epochs=2", "--set", "test_scales=[[256]]")


def mlflow(cluster: LocalCluster, path: str, body: dict[str, Any] | None = None) -> Any:
    data = None if body is None else json.dumps(body).encode()
    headers = {"Content-Type": "application/json"}
    with urllib.request.urlopen(urllib.request.Request(f"{cluster.mlflow_url}/{path}", data, headers)) as answer:
        text = answer.read()
    return json.loads(text) if text[:1] in b"{[" else text.decode()


def mlflow_run(cluster: LocalCluster, name: str) -> dict[str, Any]:
    experiment = mlflow(cluster, "api/2.0/mlflow/experiments/get-by-name?experiment_name=alexvgg")["experiment"]
    query = {"experiment_ids": [experiment["experiment_id"]], "filter": f"tags.`alexvgg.run` = '{name}'"}
    (run,) = mlflow(cluster, "api/2.0/mlflow/runs/search", query)["runs"]
    return run  # type: ignore[no-any-return]


def test_a_submission_trains_the_lineage_and_fills_the_table(
    local_cluster: LocalCluster, alexvgg: Command, storage: Store
) -> None:
    submit = ("submit", "--model", "vgg_b", "--nodes", "2", *QUICK)
    plan = json.loads(alexvgg(*submit, "--dry-run", "--json").stdout)
    a, b = (run["name"] for run in plan["runs"])
    assert all(run["state"] == "planned" for run in plan["runs"])

    out = alexvgg(*submit, "--wait").stdout
    assert f"Submitted {b}-d1" in out
    assert f"  MLflow         {local_cluster.mlflow_url}/#/experiments/" in out
    assert f"[1/2] {a} finished" in out
    assert f"{a}: epoch 2/2" in out
    assert f"[2/2] {b} finished" in out
    assert "2 of 2 runs are finished" in out

    # MLflow: one run for each, with curves, the paper's twins of our cells, and artifacts.
    run = mlflow_run(local_cluster, b)
    assert run["info"]["status"] == "FINISHED"
    params = {p["key"]: p["value"] for p in run["data"]["params"]}
    assert (params["model"], params["train.S"], params["init"], params["parent"]) == ("vgg_b", "256", "transplant", a)
    metrics = {m["key"]: m["value"] for m in run["data"]["metrics"]}
    for name in ("top1_error", "top5_error"):
        assert metrics[f"delta/table3/{name}"] == pytest.approx(
            metrics[f"table3/{name}"] - metrics[f"paper/table3/{name}"]
        )
    assert metrics["paper/table3/top1_error"] == 28.7
    run_id = run["info"]["run_id"]
    for curve, points in (("train/loss", 4), ("val/top1_error", 2), ("perf/images_per_s", 2)):
        history = mlflow(local_cluster, f"api/2.0/mlflow/metrics/get-history?run_id={run_id}&metric_key={curve}")
        assert len(history["metrics"]) == points, curve
    report = mlflow(local_cluster, f"get-artifact?path=transplant.txt&run_id={run_id}")
    assert report.count("copied") == 7
    assert mlflow(local_cluster, f"get-artifact?path=spec.json&run_id={run_id}")["recipe"] == "vgg_b-s256"

    # The storage alone says the same.
    record = read_run(storage, b)
    assert record.state == "finished"
    assert record.evaluation[0]["images"] == 360
    assert record.evaluation[0]["top1_error"] == metrics["table3/top1_error"]
    rows = json.loads(alexvgg("table", "table3", "--json").stdout)["rows"]
    assert {row["model"]: row["run"] for row in rows if row["run"]} == {"vgg_a": a, "vgg_b": b}
    (campaign,) = json.loads(alexvgg("status", b, "--json").stdout)["campaigns"]
    assert {work["name"]: work["phase"] for work in campaign["works"]} == {a: "finished", b: "finished"}
    assert campaign["driver"]["phase"] == "finished"

    # The same again starts nothing, and a dry run not even the nodes that it would need.
    assert "on 9 nodes" in alexvgg("submit", "--model", "vgg_e", "--nodes", "9", "--dry-run").stdout
    assert "node-9" not in alexvgg("cluster", "status").stdout
    again = alexvgg(*submit)
    assert "All are finished" in again.stdout
    jobs = [job["job"] for job in json.loads(alexvgg("status", "--json").stdout)["jobs"]]
    assert [job for job in jobs if job.startswith((a, b))] == [f"{b}-d1", f"{a}-a1", f"{b}-a1"]
    assert f"[2/2] {b} finished" in alexvgg("logs").stdout
    assert f"{b}: epoch 2/2" in alexvgg("logs", f"{b}-a1").stdout


def numbers_of(cluster: LocalCluster, name: str) -> str:
    """What Prometheus would collect of one of our numbers from all nodes."""
    places = json.loads((cluster.ray_folder / "prom_metrics_service_discovery.json").read_text())
    text = ""
    for target in (t for place in places for t in place["targets"]):
        with urllib.request.urlopen(f"http://{target}/metrics", timeout=10) as answer:
            text += answer.read().decode()
    return "\n".join(line for line in text.splitlines() if line.startswith(f"ray_alexvgg_{name}{{"))


def test_a_killed_worker_a_stop_and_a_resumption_cost_no_sample_and_repeat_none(
    local_cluster: LocalCluster, alexvgg: Command, storage: Store, tmp_path: Path
) -> None:
    epochs, steps = 12, 23
    submit = ("submit", "--model", "vgg_a", "--nodes", "4", "--set", f"train.epochs={epochs}", *QUICK[2:])
    sent = json.loads(alexvgg(*submit, "--exchange", "factors", "--sample-log", str(tmp_path), "--json").stdout)
    assert sent["new"]
    again = json.loads(alexvgg(*submit, "--json").stdout)
    assert (again["job"], again["new"]) == (sent["job"], False), "a running job was started twice"
    run = sent["run"]

    wait_for(lambda: events(storage, run, "epoch"), "the first epoch", 120)
    wait_for(lambda: f'run="{run}"' in numbers_of(local_cluster, "perf_images_per_s"), "a number in Ray's metrics")
    wait_for(lambda: len(events(storage, run, "epoch")) >= 2, "the second epoch", 120)
    workers = [process for node in workers_of(local_cluster).values() for process in node]
    assert len(workers) == 4
    workers[0].kill()

    wait_for(lambda: len(events(storage, run, "start")) == 2, "training again", 120)
    alexvgg("stop", sent["job"])
    assert f"Submitted {run}-d2" in alexvgg("resume", run).stdout, "it waits for the end of what was stopped"
    alexvgg("logs", "-f", sent["job"], code=103)
    alexvgg("logs", "-f", run)
    assert [r.end and r.end.outcome for r in history(storage, f"runs/{run}/")] == ["stopped", "finished"]
    assert f"{run}: epoch {epochs}/{epochs}" in alexvgg("logs", run, "--attempt", "2", "--rank", "0").stdout
    alexvgg("logs", run, "--attempt", "3", code=102)

    starts = [e["step"] for e in events(storage, run, "start")]
    assert len(starts) == 3, "before the kill, after it, and after the stop"
    assert starts[1] in range(2 * steps, epochs * steps, steps), "it went on from a checkpoint, not from the beginning"
    assert starts[2] >= starts[1]
    assert [e["epoch"] for e in events(storage, run, "epoch")] == list(range(1, epochs + 1))

    consumed_once(storage, run, tmp_path, epochs)

    # MLflow has one run for all attempts, and every point once.
    wait_for(lambda: mlflow_run(local_cluster, run)["info"]["status"] == "FINISHED", "MLflow's end")
    run_id = mlflow_run(local_cluster, run)["info"]["run_id"]
    points = mlflow(local_cluster, f"api/2.0/mlflow/metrics/get-history?run_id={run_id}&metric_key=train/loss")
    assert sorted(int(m["step"]) for m in points["metrics"]) == [e["step"] for e in events(storage, run, "steps")]


def write_profile(project: Path, cluster: LocalCluster, **changes: str) -> None:
    places = {
        "dashboard": cluster.dashboard_url, "storage": "s3://alexvgg", "dataset": "s3://alexvgg/datasets/digits",
        "geometry": "small", **changes,
    }  # fmt: skip
    (project / "alexvgg.toml").write_text(
        "[profile.test]\n" + "".join(f"{key} = {json.dumps(value)}\n" for key, value in places.items())
    )


@pytest.fixture
def on_profile(project: Path, local_cluster: LocalCluster) -> Command:
    """`submit` with a profile for the local cluster, as a user of any cluster has one."""

    def run(
        *arguments: str, token: bool = True, more: Mapping[str, str] = MappingProxyType({}), **changes: str
    ) -> "subprocess.CompletedProcess[str]":
        write_profile(project, local_cluster, **changes)
        environment = {k: v for k, v in os.environ.items() if not k.startswith("RAY")}
        environment |= {k: v for k, v in local_cluster.environment().items() if token or not k.startswith("RAY")}
        environment |= more
        command = [sys.executable, "-m", "alexvgg", "submit", "--profile", "test", *arguments]
        return subprocess.run(command, cwd=project, env=environment, capture_output=True, text=True)

    return run


def jobs(alexvgg: Command) -> list[dict[str, Any]]:
    return json.loads(alexvgg("status", "--json").stdout)["jobs"]  # type: ignore[no-any-return]


def test_what_cannot_run_is_refused_before_anything_starts(
    alexvgg: Command, on_profile: Command, storage: Store, local_cluster: LocalCluster
) -> None:
    before = jobs(alexvgg)
    about = {
        "name": "none", "classes": ["a"], "flip": True, "mean_rgb": [0, 0, 0],
        "colour_axes": [[1, 0, 0], [0, 1, 0], [0, 0, 1]], "colour_std": [0, 0, 0], "mean_image": None,
    }  # fmt: skip
    write_dataset(open_store("s3://alexvgg/datasets/empty"), about, {"train": [], "val": []})
    cases: list[tuple[tuple[str, ...], dict[str, Any], str]] = [
        (("--nodes", "9"), {}, "has 4 nodes with a free CPU, 9 were asked for"),
        ((), {"storage": "s3://no-such-bucket"}, "there is no such bucket"),
        ((), {"dataset": "s3://alexvgg/datasets/empty"}, "is empty: its train split has no image"),
        ((), {"dataset": "s3://alexvgg/datasets/none"}, "there is no dataset at"),
        ((), {"dashboard": "http://127.0.0.1:1"}, "no Ray cluster answers"),
        ((), {"token": False}, "asks for a token"),
    ]
    for arguments, changes, sentence in cases:
        refused = on_profile("--model", "vgg_a", "--set", "train.seed=9", *arguments, **changes)
        assert refused.returncode == 2, refused.stdout + refused.stderr
        assert sentence in refused.stderr
        assert "Traceback" not in refused.stderr
    assert jobs(alexvgg) == before


def test_a_run_waits_for_the_nodes_that_a_cluster_adds(
    alexvgg: Command, on_profile: Command, storage: Store, local_cluster: LocalCluster, digits_url: str
) -> None:
    """Its workers are what Ray's autoscaler is asked to make room for."""
    submit = partial(
        on_profile, "--model", "vgg_a", "--nodes", "4", "--set", "train.seed=12", *QUICK, dataset=digits_url
    )
    run = json.loads(submit("--dry-run", "--json").stdout)["runs"][0]["name"]
    send(processes_of(local_cluster, "node-4"), signal.SIGKILL)
    wait_for(lambda: len(local._joined(local_cluster)) == 4, "the node's end")  # of four and the head
    assert "has 3 nodes with a free CPU, 4 were asked for" in submit().stderr
    sent = submit(more={"ALEXVGG_MAX_NODES": "4"})
    assert "3 of 4 nodes are there; the cluster adds the others" in sent.stderr
    command = [sys.executable, "-m", "ray.scripts.scripts", "status", "--address", local_cluster.ray_address]
    asking = {**os.environ, **local_cluster.environment()}
    demand = "{'CPU': 1.0} * 4 (SPREAD): 1+ pending placement groups"
    wait_for(
        lambda: demand in subprocess.run(command, env=asking, capture_output=True, text=True).stdout, "the demand", 120
    )
    assert events(storage, run, "start") == []
    local.up(4, state=local_cluster.state)
    wait_for(lambda: read_run(storage, run).state == "finished", "the run's end", 120)
    wait_for(lambda: all(job["status"] != "RUNNING" for job in jobs(alexvgg)), "the driver's end")
    assert len(history(storage, f"runs/{run}/")) == 1


def test_a_failed_parent_keeps_its_children_back_until_it_is_retried(
    alexvgg: Command, on_profile: Command, storage: Store
) -> None:
    submit = ("--model", "vgg_b", "--nodes", "4", "--set", "train.seed=8", *QUICK)
    parent = json.loads(on_profile(*submit, "--dry-run", "--json").stdout)["runs"][0]["name"]
    attempt = Attempt(storage, f"runs/{parent}/", 1)
    attempt.claim(Claim(f"{parent}-a1", {}))
    attempt.end("failed", "RuntimeError: the GPU fell off the bus")
    before = jobs(alexvgg)
    refused = on_profile(*submit)
    assert refused.returncode == 2
    assert f"{parent} failed before: RuntimeError: the GPU fell off the bus" in refused.stderr
    assert "--retry" in refused.stderr
    assert jobs(alexvgg) == before


def test_an_evaluation_on_the_cluster_gives_what_one_process_gives(
    alexvgg: Command, storage: Store, digits_url: str, tmp_path: Path
) -> None:
    submit = ("submit", "--model", "vgg_a", "--nodes", "2", *QUICK)  # the lineage's: it is there already, as a rule
    run = json.loads(alexvgg(*submit, "--dry-run", "--json").stdout)["runs"][-1]["name"]
    alexvgg(*submit, "--wait")
    row = (run, "--method", "dense", "--test-scales", "288")
    out = alexvgg("evaluate", *row, "--nodes", "2", "--wait").stdout
    assert "Submitted evaluate-" in out
    assert f"{run} at Q=288, dense: top-1 error " in out
    again = alexvgg("evaluate", *row, "--json")
    assert "parts of this rank's images" not in again.stderr, "stored posteriors were computed again"

    elsewhere = open_store(tmp_path.as_uri())
    for key in storage.list(f"runs/{run}/"):
        if "/posteriors/" not in key:
            elsewhere.put(key, storage.get(key))
    places = ("--storage", tmp_path.as_uri(), "--dataset", digits_url)
    (here,), (there,) = (
        json.loads(text) for text in (alexvgg("evaluate", *row, *places, "--json").stdout, again.stdout)
    )
    assert [here[k] for k in ("images", "top1_wrong", "top5_wrong")] == [
        there[k] for k in ("images", "top1_wrong", "top5_wrong")
    ]

    before = jobs(alexvgg)
    refused = alexvgg("evaluate", f"{run}x", "--nodes", "2", code=102)
    assert f"did you mean '{run}'" in refused.stderr
    assert jobs(alexvgg) == before
