"""What Ray Train is asked for, and how many workers a node holds."""

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
from ray.train import ControllerError, WorkerGroupError
from ray.train.v2._internal.exceptions import WorkerGroupStartupTimeoutError

from alexvgg.config import Execution
from alexvgg.data.store import MissingKeyError
from alexvgg.errors import InputError
from alexvgg.profiles import Profile
from jobs import capacity, network, submission, workers
from jobs.capacity import worker_slots
from jobs.submission import check_cluster, execution_on

EXECUTION = Execution("s3://b/d", "s3://b/s", workers=4)


def node(name: str, **resources: float) -> Any:
    return SimpleNamespace(node_id=name, state="ALIVE", resources_total=resources)


def asked(monkeypatch: pytest.MonkeyPatch, execution: Execution) -> dict[str, Any]:
    kept: dict[str, Any] = {}
    monkeypatch.setattr(workers, "Trainer", lambda _, **k: kept.update(k) or SimpleNamespace(fit=int))
    workers.run_workers(lambda _: None, {}, execution)
    return kept


def test_only_a_group_that_can_shrink_waits_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    def limit(execution: Execution) -> int:
        found: int = asked(monkeypatch, execution)["run_config"].failure_config.controller_failure_limit
        return found

    assert limit(EXECUTION) == EXECUTION.max_failures
    assert limit(replace(EXECUTION, min_workers=2)) == -1


@pytest.mark.parametrize(
    ("error", "raised"),
    [
        (KeyError("fc9"), workers.MistakeError),
        (RuntimeError("connection closed by peer"), WorkerGroupError),
        (MissingKeyError("runs/a/checkpoints/7/commit.json"), WorkerGroupError),  # deleted by another attempt, say
    ],
)
def test_a_mistake_in_the_code_is_told_from_a_loss(
    monkeypatch: pytest.MonkeyPatch, error: Exception, raised: type[Exception]
) -> None:
    def fit() -> None:
        raise WorkerGroupError("rank 0: the network; rank 1: ...", {0: RuntimeError("the network"), 1: error})

    monkeypatch.setattr(workers, "Trainer", lambda *_, **__: SimpleNamespace(fit=fit))
    with pytest.raises(raised, match="rank 1: "):
        workers.run_workers(lambda _: None, {}, EXECUTION)


def test_workers_without_room_are_told_from_a_loss(monkeypatch: pytest.MonkeyPatch) -> None:
    def fit() -> None:
        raise ControllerError(failures.pop())

    failures = [RuntimeError("the controller's disk is full"), WorkerGroupStartupTimeoutError(4)]
    monkeypatch.setattr(workers, "Trainer", lambda *_, **__: SimpleNamespace(fit=fit))
    with pytest.raises(workers.UnplacedError, match="the cluster had no room for 4 workers"):
        workers.run_workers(lambda _: None, {}, EXECUTION)
    with pytest.raises(ControllerError, match="disk is full"):
        workers.run_workers(lambda _: None, {}, EXECUTION)


def test_a_hosts_gpus_are_filled_before_the_next_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    places = [
        asked(monkeypatch, replace(EXECUTION, gpus_per_worker=gpus))["scaling_config"].placement_strategy
        for gpus in (0, 1)
    ]
    assert places == ["SPREAD", "PACK"]


def test_a_node_without_gpus_holds_one_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    nodes = [node("head", CPU=0), node("cpus", CPU=16), node("gpus", CPU=96, GPU=8)]
    monkeypatch.setattr(capacity, "list_nodes", lambda **_: nodes)
    assert worker_slots(EXECUTION) == {"head": 0, "cpus": 1, "gpus": 1}
    assert worker_slots(replace(EXECUTION, gpus_per_worker=1)) == {"head": 0, "cpus": 0, "gpus": 8}


@pytest.mark.parametrize(("cpus", "beside", "threads"), [(1.0, 1, "1"), (16.0, 1, "16"), (16.0, 2, "8"), (1.0, 4, "1")])
def test_a_worker_without_gpus_takes_its_nodes_cores(
    monkeypatch: pytest.MonkeyPatch, cpus: float, beside: int, threads: str
) -> None:
    about = SimpleNamespace(get_accelerator_ids=lambda: {"GPU": []}, get_node_id=lambda: "this")
    me = SimpleNamespace(
        get_world_rank=lambda: 0,
        get_world_size=lambda: 4,
        get_local_rank=lambda: 0,
        get_local_world_size=lambda: beside,
    )
    nodes = [{"NodeID": "this", "Resources": {"CPU": cpus}}, {"NodeID": "other", "Resources": {}}]
    monkeypatch.setattr(network, "use_interface", lambda _: None)
    monkeypatch.setattr(network, "get_context", lambda: me)
    monkeypatch.setattr(network.ray.util, "get_node_ip_address", lambda: "127.0.0.1")
    monkeypatch.setattr(network.ray, "get_runtime_context", lambda: about)
    monkeypatch.setattr(network.ray, "nodes", lambda: nodes)
    environment: dict[str, str] = {}
    monkeypatch.setattr(network.os, "environ", environment)
    network._describe_group("127.0.0.1", 20_000)
    assert environment["OMP_NUM_THREADS"] == threads


def test_forgotten_gpus_are_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(capacity, "list_nodes", lambda **_: [node("head", CPU=0), node("a", CPU=96, GPU=8)])
    said: list[str] = []
    check_cluster(replace(LAB, gpus_per_node=0), 1, say=said.append)
    assert said == ["warning: nodes have up to 8 GPUs, but the profile's gpus_per_node is 0: runs train on CPUs"]
    check_cluster(LAB, 1, say=pytest.fail)


LAB = Profile("s3://b/s", "s3://b/d", "http://ray-head:8265", gpus_per_node=8)


def test_nodes_that_a_cluster_adds_by_itself_are_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    grows, said = replace(LAB, max_nodes=2), list[str]()
    monkeypatch.setattr(capacity, "list_nodes", lambda **_: [node("head", CPU=0)])
    check_cluster(grows, 2, say=said.append)
    assert said == ["0 of 2 nodes are there; the cluster adds the others when they are waited for"]
    assert execution_on(grows, (1, 2)).most_workers == 16
    assert execution_on(LAB, (1, 2)).most_workers is None
    with pytest.raises(InputError, match="grows to max_nodes = 2, and 3 nodes were asked for: use --nodes 1:2, or"):
        execution_on(grows, (1, 3))


def test_nodes_that_come_are_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    full, said = node("a", CPU=96, GPU=8), list[str]()
    moments = iter([[], [], [full], [full, node("b", CPU=96, GPU=8)]])
    monkeypatch.setattr(capacity, "list_nodes", lambda **_: next(moments))
    monkeypatch.setattr(submission.time, "sleep", lambda _: None)
    check_cluster(LAB, 2, 30.0, said.append)
    assert said == ["waiting for nodes: 0 of 2", "waiting for nodes: 1 of 2"]


@pytest.mark.parametrize(
    ("there", "minutes", "sentence"),
    [
        (0, 0.0, "has 0 nodes with 8 GPUs, 2 were asked for. Add nodes, or wait for those that are coming, by --wait"),
        (1, 0.0, "2 were asked for. Add nodes, or use --nodes 1, or use --nodes 1:2 if it grows by itself, or wait"),
        (1, None, "2 were asked for. Add nodes, or use --nodes 1.$"),  # `evaluate` has no more ways
    ],
)
def test_too_few_nodes_are_refused(
    monkeypatch: pytest.MonkeyPatch, there: int, minutes: float | None, sentence: str
) -> None:
    monkeypatch.setattr(capacity, "list_nodes", lambda **_: [node("a", CPU=96, GPU=8)] * there)
    with pytest.raises(InputError, match=sentence):
        check_cluster(LAB, 2, minutes)
