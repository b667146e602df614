"""One training run on Ray Train: the same `alexvgg.run.train`, on every worker of a group that Ray restarts."""

import logging
from collections.abc import Callable
from typing import Any

import ray
from ray.actor import ActorHandle
from ray.train import PreemptionInfo, get_preemption_info

from alexvgg.config import Execution, RunSpec, from_dict, to_dict
from alexvgg.data.store import open_store
from alexvgg.engine.guards import DivergedError
from alexvgg.engine.wishes import Stopped, Wishes
from alexvgg.engine.world import World
from alexvgg.run import train
from alexvgg.runs import mark_failed
from jobs.metrics import Gauges
from jobs.workers import run_workers


class StopSign:
    """An actor: set by the driver when it is asked to end, and looked at by rank 0 of the run that it drives."""

    def __init__(self) -> None:
        self._set = False

    def set(self) -> None:
        self._set = True

    def is_set(self) -> bool:
        return self._set

    @classmethod
    def start(cls) -> "ActorHandle[StopSign]":
        return ray.remote(cls).options(num_cpus=0).remote()  # type: ignore[return-value]


def fit(spec: RunSpec, execution: Execution, stop_sign: "ActorHandle[StopSign]") -> None:
    """Train `spec` on `execution.workers` workers, to its end or until `stop_sign` is set: then up to a checkpoint.

    The storage says which it was; a run that diverged is marked there as failed.

    A lost worker or node restarts the group from the last checkpoint in storage, `execution.max_failures` times; nodes
    that are taken away after a notice, of which training writes a checkpoint, don't count.
    Raises ray.train.TrainingFailedError with the worker's error after that.
    """
    config = {"spec": to_dict(spec), "execution": to_dict(execution), "stop_sign": stop_sign}
    run_workers(worker, config, spec.name, execution)


def worker(config: dict[str, Any]) -> None:
    """What runs on every rank. Ray Train has joined the process group already."""
    logging.getLogger("botocore").setLevel(logging.WARNING)  # Ray Train shows every library's INFO
    spec, execution = from_dict(RunSpec, config["spec"]), from_dict(Execution, config["execution"])
    world = World.current()

    gauges = Gauges(spec.name, world.rank)

    def progress(event: dict[str, Any]) -> None:
        gauges.set(event)
        if world.rank == 0:
            print(
                f"{event['run']}: epoch {event['epoch']}/{spec.train.epochs}, step {event['step']}, "
                f"loss {event['train/loss_epoch']:.3f}, top-1 error {event['val/top1_error']:.1f} %, "
                f"{event['perf/images_per_s']:.0f} images/s",
                flush=True,
            )

    try:
        train(spec, execution, world, progress, Wishes(look=look_around(world, config["stop_sign"])))
    except Stopped as stopped:
        if world.rank == 0:
            print(f"{spec.name}: {stopped}", flush=True)
    except DivergedError as error:  # not raised: Ray would start again from the checkpoint and arrive at the same
        if world.rank == 0:
            mark_failed(open_store(execution.storage_url), spec.name, str(error))


def look_around(world: World, stop_sign: "ActorHandle[StopSign]") -> Callable[[Wishes], None]:
    """What a run asks Ray every few seconds: is a node about to be taken away, does the driver want to stop?"""
    noticed: PreemptionInfo | None = None

    def look(wishes: Wishes) -> None:
        nonlocal noticed
        info = get_preemption_info()  # a barrier, which is why every rank looks at the same step
        if info is not None and info != noticed:
            # Ray restarts the group when the node is gone; training goes on until then.
            noticed = info
            wishes.checkpoint.set()
        if world.rank == 0 and ray.get(stop_sign.is_set.remote()):
            wishes.stop.set()

    return look
