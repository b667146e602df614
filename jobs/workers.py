"""A group of workers on Ray Train, as training and evaluation need it."""

import tempfile
from collections.abc import Callable
from typing import Any

from ray.train import FailureConfig, LoggingConfig, RunConfig, ScalingConfig
from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer

from alexvgg.config import Execution
from jobs.network import Launch


def run_workers(worker: Callable[[dict[str, Any]], None], config: dict[str, Any], execution: Execution) -> None:
    """Call `worker(config)` on `execution.workers` workers in torchrun's environment, or on at least `min_workers`.

    A lost worker or node restarts the group, `execution.max_failures` times. A group of fixed size for which there are
    no nodes is given up as often, a minute each: whoever has sent this waits for nodes, and says so.
    Raises ray.train.TrainingFailedError with the worker's error, or Ray's own, after that.
    """
    gpus, most, least = execution.gpus_per_worker, execution.workers, execution.min_workers
    # Ray Train's own bookkeeping stays on the driver's node: what must outlive it is in the storage.
    with tempfile.TemporaryDirectory(prefix="alexvgg-") as scratch:
        DataParallelTrainer(
            worker,
            train_loop_config=config,
            backend_config=Launch(),
            scaling_config=ScalingConfig(
                num_workers=most if least is None else (least, most),  # type: ignore[arg-type]  # only V2 has ranges
                use_gpu=gpus > 0,
                resources_per_worker={"CPU": 1, "GPU": gpus} if gpus else {"CPU": 1},
                placement_strategy="PACK" if gpus else "SPREAD",  # a host's GPUs are nearer than its network
                # Growing costs the steps since the last checkpoint: not more often than there is one.
                elastic_resize_monitor_interval_s=60 * execution.checkpoint_minutes,  # type: ignore[call-arg]
            ),
            run_config=RunConfig(
                name=execution.job,  # by which `jobs.groups` finds its workers
                storage_path=scratch,
                failure_config=FailureConfig(  # type: ignore[call-arg]  # only V2 has the limit and LoggingConfig
                    max_failures=execution.max_failures,
                    controller_failure_limit=execution.max_failures if least is None else -1,
                ),
                logging_config=LoggingConfig(log_level="WARNING"),
            ),
        ).fit()
