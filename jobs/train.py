"""One training run on Ray Train: the same `alexvgg.run.train`, on every worker of a group that Ray restarts."""

import logging
import tempfile
from typing import Any

from ray.train import FailureConfig, LoggingConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchConfig, TorchTrainer

from alexvgg.config import Execution, RunSpec, from_dict, to_dict
from alexvgg.engine.world import COLLECTIVE_TIMEOUT, World
from alexvgg.run import train


def fit(spec: RunSpec, execution: Execution) -> None:
    """Train `spec` to its end on `execution.workers` workers.

    A lost worker or node restarts the group from the last checkpoint in storage, `execution.max_failures` times.
    Raises ray.train.TrainingFailedError with the worker's error after that.
    """
    gpus = execution.gpus_per_worker
    # Ray Train's own bookkeeping stays on the driver's node: what must outlive it is in the run's storage.
    with tempfile.TemporaryDirectory(prefix="alexvgg-") as scratch:
        TorchTrainer(
            worker,
            train_loop_config={"spec": to_dict(spec), "execution": to_dict(execution)},
            torch_config=TorchConfig(timeout_s=int(COLLECTIVE_TIMEOUT.total_seconds())),
            scaling_config=ScalingConfig(
                num_workers=execution.workers,
                use_gpu=gpus > 0,
                resources_per_worker={"CPU": 1, "GPU": gpus} if gpus else {"CPU": 1},
                placement_strategy="SPREAD",
            ),
            run_config=RunConfig(
                name=spec.name,
                storage_path=scratch,
                failure_config=FailureConfig(max_failures=execution.max_failures),
                logging_config=LoggingConfig(log_level="WARNING"),  # type: ignore[call-arg]  # only V2 has it
            ),
        ).fit()


def worker(config: dict[str, Any]) -> None:
    """What runs on every rank. Ray Train has joined the process group already."""
    logging.getLogger("botocore").setLevel(logging.WARNING)  # Ray Train shows every library's INFO
    spec, execution = from_dict(RunSpec, config["spec"]), from_dict(Execution, config["execution"])
    world = World.current()

    def progress(event: dict[str, Any]) -> None:
        if world.rank == 0:
            print(
                f"{event['run']}: epoch {event['epoch']}/{spec.train.epochs}, step {event['step']}, "
                f"loss {event['train/loss_epoch']:.3f}, top-1 error {event['val/top1_error']:.1f} %, "
                f"{event['perf/images_per_s']:.0f} images/s",
                flush=True,
            )

    train(spec, execution, world, progress)
