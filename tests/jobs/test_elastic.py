"""How large an elastic group may be on a cluster that others use, too."""

from types import SimpleNamespace
from typing import Any

import pytest
from ray.train.v2._internal.execution.scaling_policy import FixedScalingPolicy, NoopDecision
from ray.train.v2.api import data_parallel_trainer
from ray.train.v2.api.config import RunConfig, ScalingConfig
from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer

from jobs import elastic
from jobs.elastic import SETTLE_SECONDS, RoomPolicy, Trainer

NODES = {"a": {"CPU": 96.0, "GPU": 8.0}, "b": {"CPU": 96.0, "GPU": 8.0}}  # in total


class Cluster:
    """Two nodes of 8 GPUs, and what of them is free."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.free, self.now, self.there = 16.0, 0.0, NODES
        monkeypatch.setattr(elastic.ray, "available_resources", lambda: {"CPU": 150.0, "GPU": self.free})
        monkeypatch.setattr(elastic, "time", SimpleNamespace(monotonic=lambda: self.now, sleep=lambda _: None))
        self.policy = RoomPolicy(
            ScalingConfig(num_workers=(4, 64), use_gpu=True, resources_per_worker={"CPU": 1, "GPU": 1})
        )
        monkeypatch.setattr(self.policy, "_maybe_send_resource_request", lambda: None)
        monkeypatch.setattr(self.policy, "_get_reserved_resources", lambda: self.there)

    def idle(self) -> int | None:
        """The size with which a group would start now."""
        return self._size(self.policy.make_decision_for_non_running_worker_group())

    def running(self, workers: int) -> int | None:
        """The size to which such a group would be changed now."""
        self.policy._latest_monitor_time = float("-inf")
        state = SimpleNamespace(num_workers=workers, start_time=float("-inf"))
        return self._size(self.policy.make_decision_for_running_worker_group(state, None))

    def _size(self, decision: Any) -> int | None:
        return None if isinstance(decision, NoopDecision) else decision.num_workers


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Cluster:
    return Cluster(monkeypatch)


def test_what_others_hold_is_left_to_them(cluster: Cluster) -> None:
    assert cluster.idle() == 16
    cluster.free = 15.0  # a colleague's notebook
    assert cluster.idle() is None, "what a group before held may be given back in a moment"
    cluster.now = SETTLE_SECONDS + 1
    assert cluster.idle() == 15
    cluster.free = 3.0
    assert cluster.idle() is None, "that is less than the least"


def test_what_is_given_back_in_time_is_taken(cluster: Cluster) -> None:
    cluster.free = 4.0
    assert cluster.idle() is None
    cluster.now, cluster.free = SETTLE_SECONDS - 1, 16.0
    assert cluster.idle() == 16
    cluster.free, cluster.now = 4.0, SETTLE_SECONDS + 5
    assert cluster.idle() is None, "a next shortage is waited for as long"


def test_a_healthy_group_grows_into_free_room_only(cluster: Cluster) -> None:
    cluster.free = 0.0
    assert cluster.running(8) is None, "the other node is somebody else's"
    cluster.free = 8.0
    assert cluster.running(8) == 16
    cluster.free = 4.0
    assert cluster.running(8) == 12


def test_a_group_that_lost_a_node_holds_the_rest_until_it_is_started_anew(cluster: Cluster) -> None:
    cluster.free = 0.0
    assert cluster.running(16) is None
    cluster.there = {"a": NODES["a"]}
    assert cluster.idle() == 8, "at once, though nothing is free"
    assert cluster.idle() is None, "after a start that came to nothing it holds no more"
    cluster.free = 8.0
    assert cluster.idle() == 8


def test_ray_train_asks_this_rule(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    def run(_: DataParallelTrainer, *, scaling_policy: Any, **__: Any) -> Any:
        asked.append(scaling_policy)
        return SimpleNamespace(error=None)

    monkeypatch.setattr(DataParallelTrainer, "_initialize_and_run_controller", run)
    monkeypatch.setattr(data_parallel_trainer, "ObjectRefWrapper", lambda _: None)  # it would look for a cluster
    for workers in (2, (1, 2)):
        trainer = object.__new__(Trainer)
        trainer.scaling_config, trainer.run_config = ScalingConfig(num_workers=workers), RunConfig()
        trainer.running_in_local_mode, trainer.validation_config = False, None
        trainer.train_run_context = trainer._get_train_func = trainer._create_default_callbacks = lambda: None
        trainer.fit()
    assert isinstance(asked[0], FixedScalingPolicy)
    assert isinstance(asked[1], RoomPolicy)
    assert asked[1].scaling_config.max_workers == 2
