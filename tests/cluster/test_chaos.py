"""Everything that can be lost is lost under a training, which must not show in a single bit of its weights."""

import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import namespaces
import pytest
from chaos import (
    Watch,
    consumed_once,
    events,
    job_process,
    processes_of,
    send,
    undisturbed,
    workers_of,
)
from hosts import ClusterOfHosts
from processes import Command, wait_for

from alexvgg.attempts import history
from alexvgg.data.packing.sample import pack_digits
from alexvgg.data.store import Store, open_store
from alexvgg.lease import turns
from alexvgg.runs import read_run
from cluster import local
from cluster.services import LocalCluster

pytestmark = pytest.mark.chaos

RANKS = 2
LONG, MIDDLE, SHORT = 90, 40, 12  # epochs
STORAGE_DOWN_SECONDS = 60.0
PREEMPTION_SECONDS = 15


def settings(epochs: int) -> list[str]:
    return ["--set", f"train.epochs={epochs}", "--set", "test_scales=[[256]]"]


def submission(model: str, epochs: int, place: str, log: Path) -> list[str]:
    storage = ["--storage", f"s3://alexvgg/{place}"]
    return ["submit", "--model", model, "--nodes", str(RANKS), *settings(epochs), *storage, "--sample-log", str(log)]


def outcomes(storage: Store, run: str) -> list[str | None]:
    return [record.end.outcome if record.end else None for record in history(storage, f"runs/{run}/")]


def up_again(cluster: LocalCluster) -> None:
    local.up(cluster.nodes, state=cluster.state, say=lambda _: None)


def preempt(cluster: LocalCluster, node: str) -> None:
    """Give notice that a node will be taken away, as a cloud does, and take it away at that time."""
    token = {"Authorization": f"Bearer {cluster.token.read_text()}"}
    with urllib.request.urlopen(
        urllib.request.Request(f"{cluster.dashboard_url}/api/v0/nodes", headers=token)
    ) as answer:
        nodes = json.loads(answer.read())["data"]["result"]["result"]
    (node_id,) = [n["node_id"] for n in nodes if n["node_ip"] == cluster.addresses()[node] and n["state"] == "ALIVE"]
    notice = [
        "drain-node", "--address", cluster.ray_address, "--node-id", node_id, "--reason-message", "a test",
        "--reason", "DRAIN_NODE_REASON_PREEMPTION", "--deadline-remaining-seconds", str(PREEMPTION_SECONDS),
    ]  # fmt: skip
    command = [sys.executable, "-c", "from ray.scripts.scripts import main; main()", *notice]
    done = subprocess.run(command, env={**os.environ, **cluster.environment()}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    time.sleep(PREEMPTION_SECONDS)
    send(processes_of(cluster, node), signal.SIGKILL)


def test_one_run_through_everything(
    local_cluster: LocalCluster, alexvgg: Command, storage: Store, digits_url: str, tmp_path: Path
) -> None:
    send(processes_of(local_cluster, "mlflow"), signal.SIGKILL)
    sent = json.loads(alexvgg(*submission("vgg_a", LONG, "everything", tmp_path / "log"), "--json").stdout)
    kept = open_store("s3://alexvgg/everything")
    run = Watch(kept, sent["run"])
    wait_for(lambda: run.epochs() >= 2, "the second epoch", 400)

    def victim() -> str:
        return sorted(workers_of(local_cluster))[0]

    run.after("a worker killed", lambda: workers_of(local_cluster)[victim()][0].kill())
    run.until_epochs(2)
    run.after("a node killed", lambda: send(processes_of(local_cluster, victim()), signal.SIGKILL))
    run.until_epochs(2)
    up_again_but_mlflow(local_cluster)
    node = victim()
    run.after("a node frozen", lambda: send(processes_of(local_cluster, node), signal.SIGSTOP))
    run.until_epochs(2)
    send(processes_of(local_cluster, node), signal.SIGCONT)  # what wakes up must not do any harm
    run.until_epochs(1)
    send(processes_of(local_cluster, node), signal.SIGKILL)
    up_again_but_mlflow(local_cluster)
    node = victim()
    run.after("a node preempted", lambda: preempt(local_cluster, node))
    run.until_epochs(1)

    before = run.starts()
    send(processes_of(local_cluster, "s3"), signal.SIGSTOP)  # not killed: its port may be taken meanwhile
    time.sleep(STORAGE_DOWN_SECONDS)
    send(processes_of(local_cluster, "s3"), signal.SIGCONT)
    run.until_epochs(2)
    assert run.starts() == before, "the storage was away for a while: that needs patience, no new start"
    run.until_finished()

    steps = [e["step"] for e in events(kept, run.run, "start")]
    assert steps == sorted(steps)
    assert steps[0] == 0
    assert all(step > 0 for step in steps[1:]), "it went on from a checkpoint each time"
    consumed_once(kept, run.run, tmp_path / "log", LONG)
    calm = undisturbed(["vgg_a-s256"], settings(LONG), digits_url, tmp_path / "calm", RANKS)
    assert read_run(kept, run.run).weights == calm[run.run]
    up_again(local_cluster)


def up_again_but_mlflow(cluster: LocalCluster) -> None:
    up_again(cluster)
    send(processes_of(cluster, "mlflow"), signal.SIGKILL)


def runs_of(alexvgg: Command, submit: list[str]) -> list[str]:
    """The runs that a submission takes, parents first."""
    return [run["name"] for run in json.loads(alexvgg(*submit, "--dry-run", "--json").stdout)["runs"]]


def test_campaigns_that_share_a_parent_through_lost_drivers_and_stops(
    local_cluster: LocalCluster, alexvgg: Command, storage: Store, digits_url: str, tmp_path: Path
) -> None:
    of_b, of_c = (submission(model, SHORT, "shared", tmp_path / "log") for model in ("vgg_b", "vgg_c"))
    (a, b), (_, c) = runs_of(alexvgg, of_b), runs_of(alexvgg, of_c)
    kept = open_store("s3://alexvgg/shared")
    with ThreadPoolExecutor(3) as pool:
        once, twice, other = pool.map(lambda s: json.loads(alexvgg(*s, "--json").stdout), (of_b, of_b, of_c))
    assert once["job"] == twice["job"] == f"{b}-d1"
    assert {once["new"], twice["new"]} == {True, False}, "submitting twice at once started two drivers"
    assert other["job"] == f"{c}-d1"

    wait_for(lambda: Watch(kept, a).epochs() >= 2, "the parent's second epoch", 400)
    job_process(local_cluster, "jobs.campaign", f"{b}-d1").kill()
    began = time.monotonic()
    wait_for(lambda: f"{b}-d1" not in running(alexvgg), "the driver's end", 120)
    again = json.loads(alexvgg(*of_b, "--json").stdout)
    assert (again["job"], again["new"]) == (f"{b}-d2", True)
    wait_for(lambda: len(turns(kept, b)) == 2, "the next driver's first action", 120)
    print(f"a driver killed: the next one acts after {time.monotonic() - began:.1f} s")

    wait_for(lambda: Watch(kept, b).epochs() >= 1 and Watch(kept, c).epochs() >= 1, "both children's first epoch", 400)
    alexvgg("stop", f"{b}-d2")
    wait_for(lambda: outcomes(kept, b) == ["stopped"], "the end of what was stopped", 200)
    assert outcomes(kept, c) == [None], "a campaign was stopped, and another one's run ended with it"
    assert f"Submitted {b}-d3" in alexvgg(*of_b, "--wait").stdout
    Watch(kept, c).until_finished()

    assert [outcomes(kept, run) for run in (a, b, c)] == [["finished"], ["stopped", "finished"], ["finished"]]
    assert [len(events(kept, run, "start")) for run in (a, b, c)] == [1, 2, 1]
    for run in (a, b, c):
        consumed_once(kept, run, tmp_path / "log", SHORT)
    calm = undisturbed(["vgg_a-s256", "vgg_b-s256"], settings(SHORT), digits_url, tmp_path / "calm", RANKS)
    assert {run: read_run(kept, run).weights for run in (a, b)} == calm


def running(alexvgg: Command) -> set[str]:
    jobs = json.loads(alexvgg("status", "--json").stdout)["jobs"]
    return {job["job"] for job in jobs if job["status"] in ("PENDING", "RUNNING")}


def test_a_cluster_that_is_lost_with_its_head_and_built_again(
    local_cluster: LocalCluster, alexvgg: Command, storage: Store, digits_url: str, tmp_path: Path
) -> None:
    submit = submission("vgg_a", SHORT, "rebuilt", tmp_path / "log")
    sent = json.loads(alexvgg(*submit, "--json").stdout)
    kept = open_store("s3://alexvgg/rebuilt")
    wait_for(lambda: Watch(kept, sent["run"]).epochs() >= 2, "the second epoch", 400)
    send(processes_of(local_cluster, "head"), signal.SIGKILL)
    up_again(local_cluster)
    assert f"Submitted {sent['run']}-d2" in alexvgg(*submit, "--wait").stdout
    assert outcomes(kept, sent["run"]) == ["lost", "finished"]
    consumed_once(kept, sent["run"], tmp_path / "log", SHORT)
    calm = undisturbed(["vgg_a-s256"], settings(SHORT), digits_url, tmp_path / "calm", RANKS)
    assert read_run(kept, sent["run"]).weights == calm[sent["run"]]


def test_an_elastic_run_goes_on_with_fewer_nodes_and_grows_again(
    local_cluster: LocalCluster, alexvgg: Command, storage: Store, tmp_path: Path
) -> None:
    log = tmp_path / "log"
    submit = [*submission("vgg_a", LONG, "elastic", log), "--nodes", "2:4", "--checkpoint-minutes", "0.25"]
    sent = json.loads(alexvgg(*submit, "--json").stdout)
    kept = open_store("s3://alexvgg/elastic")
    run = Watch(kept, sent["run"])
    wait_for(lambda: run.epochs() >= 2, "the second epoch", 400)
    run.after("a node of an elastic run killed", lambda: send(processes_of(local_cluster, "node-4"), signal.SIGKILL))
    run.until_epochs(1)
    run.after("the node is back", lambda: up_again(local_cluster))
    run.until_finished()
    workers = [e["workers"] for e in events(kept, run.run, "start")]
    assert (workers[0], workers[-1]) == (4, 4)
    assert 3 in workers
    consumed_once(kept, run.run, log, LONG)


@pytest.fixture
def full_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "full"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)]
    if subprocess.run(mount, capture_output=True).returncode != 0:
        pytest.skip("mounting a small disk needs root")
    try:
        with pytest.raises(OSError, match="No space left"):
            (folder / "everything").write_bytes(bytes(1 << 20))
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def test_a_nodes_full_disk_costs_its_cache_only(
    local_cluster: LocalCluster, alexvgg: Command, storage: Store, digits_url: str, tmp_path: Path, full_disk: Path
) -> None:
    submit = [*submission("vgg_a", SHORT, "full", tmp_path / "log"), "--cache", str(full_disk)]
    run = json.loads(alexvgg(*submit, "--json").stdout)["run"]
    kept = open_store("s3://alexvgg/full")
    Watch(kept, run).until_finished()
    (attempt,) = history(kept, f"runs/{run}/")
    assert "takes no more images" in alexvgg("logs", attempt.claim.job).stdout
    consumed_once(kept, run, tmp_path / "log", SHORT)
    calm = undisturbed(["vgg_a-s256"], settings(SHORT), digits_url, tmp_path / "calm", RANKS)
    assert read_run(kept, run).weights == calm[run]


def test_a_link_that_is_cut_and_healed(digits_url: str, tmp_path: Path) -> None:
    if (reason := namespaces.missing()) is not None:
        pytest.skip(reason)
    project = tmp_path / "project"
    bucket = (project / ".alexvgg" / "s3" / "alexvgg").as_uri()
    pack_digits(open_store(f"{bucket}/datasets/digits"))
    with ClusterOfHosts(project, 5) as hosts:
        cluster = hosts.up()
        submit = [*submission("vgg_a", MIDDLE, "cut", tmp_path / "log"), "--profile", "hosts", "--nodes", "4"]
        sent = json.loads(hosts.alexvgg(*submit, "--json"))
        kept = open_store(f"{bucket}/cut")
        run = Watch(kept, sent["run"])
        wait_for(lambda: run.epochs() >= 2, "the second epoch", 400)
        node = int(sorted(workers_of(cluster))[0].removeprefix("node-"))
        run.after("a link cut", lambda: hosts.cut(node))
        run.until_epochs(1)
        hosts.heal(node)
        run.until_epochs(1)
        hosts.up()
        run.until_finished()
        consumed_once(kept, run.run, tmp_path / "log", MIDDLE)
        calm = undisturbed(["vgg_a-s256"], settings(MIDDLE), digits_url, tmp_path / "calm", ranks=4)
        assert read_run(kept, run.run).weights == calm[run.run]
