"""How large an elastic group may be: as many workers as the cluster has room for, whoever holds the rest.

Ray Train sizes a group by what nodes have in total, less what other groups of Ray Train and Ray Data have asked for. On
a cluster that others use, too, it would end a healthy group for one that can't be placed, again and again. It has no
public place for another rule; `tests/jobs/test_elastic.py` sees to it that this one is asked.
"""

import time
from typing import Any

import ray
from ray.train import Result
from ray.train.v2._internal.execution.scaling_policy import ElasticScalingPolicy, ResizeDecision
from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer

SETTLE_SECONDS = 10.0  # after which what a group held that has ended is given back
LOOK_SECONDS = 0.5  # between decisions while nothing runs: Ray's loop has no pause of its own


class Trainer(DataParallelTrainer):
    """Ray Train's, with `RoomPolicy` for groups that are elastic."""

    def _initialize_and_run_controller(self, **how: Any) -> Result:
        if isinstance(how["scaling_policy"], ElasticScalingPolicy):
            how["scaling_policy"] = RoomPolicy(how["scaling_policy"].scaling_config)
        return super()._initialize_and_run_controller(**how)


class RoomPolicy(ElasticScalingPolicy):
    """Ray's own rule, and no more workers than there is room for beside everything else that runs."""

    _own = 0  # workers of the group that runs, or has failed: it holds their resources until the next one is started
    _short_since: float | None = None

    def make_decision_for_running_worker_group(self, worker_group_state: Any, worker_group_status: Any) -> Any:
        self._own, self._short_since = worker_group_state.num_workers, None
        return super().make_decision_for_running_worker_group(worker_group_state, worker_group_status)

    def make_decision_for_non_running_worker_group(self) -> Any:
        time.sleep(LOOK_SECONDS)
        decision = super().make_decision_for_non_running_worker_group()
        if isinstance(decision, ResizeDecision):
            self._own = 0
        return decision

    def _count_possible_workers(self, reserved_resources: Any) -> int:
        """None at all while what was just ended may still be giving back what it held."""
        wanted: int = super()._count_possible_workers(reserved_resources)
        free: dict[str, float] = ray.available_resources()  # type: ignore[no-untyped-call]
        each = self.scaling_config._resources_per_worker_not_none
        room = self._own + int(min(free.get(what, 0.0) // amount for what, amount in each.items() if amount))
        if room >= wanted or self._own:
            self._short_since = None
            return min(room, wanted)
        now = time.monotonic()
        self._short_since = now if self._short_since is None else self._short_since
        return room if now - self._short_since > SETTLE_SECONDS else 0
