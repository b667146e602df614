"""A group of workers on Ray Train, as training and evaluation need it."""

import tempfile
from collections.abc import Callable
from typing import Any

from ray.train import ControllerError, FailureConfig, LoggingConfig, RunConfig, ScalingConfig, WorkerGroupError
from ray.train.v2._internal.exceptions import WorkerGroupStartupTimeoutError

from alexvgg.config import Execution
from alexvgg.data.store import MissingKeyError
from jobs.elastic import Trainer
from jobs.network import Launch

# What neither a lost node nor a service that is away raises.
MISTAKES = (ArithmeticError, AssertionError, AttributeError, ImportError, LookupError, NameError, TypeError)


class MistakeError(RuntimeError):
    """What runs on the workers has a mistake in its code: trying again ends the same."""


class UnplacedError(RuntimeError):
    """The cluster had no room for the workers: whoever has sent this waits for it, and says so."""


def run_workers(worker: Callable[[dict[str, Any]], None], config: dict[str, Any], execution: Execution) -> None:
    """Call `worker(config)` on `execution.workers` workers in torchrun's environment, or on at least `min_workers`.

    A lost worker or node restarts the group, `execution.max_failures` times. A group of fixed size for which there are
    no nodes is given up as often, a minute each, with UnplacedError.
    After that, raises MistakeError if a worker met one, else ray.train.TrainingFailedError.
    """
    gpus, most, least = execution.gpus_per_worker, execution.workers, execution.min_workers
    # Ray Train's own bookkeeping stays on the driver's node: what must outlive it is in the storage.
    with tempfile.TemporaryDirectory(prefix="alexvgg-") as scratch:
        trainer = Trainer(
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
        )
        try:
            trainer.fit()
        except ControllerError as failure:
            if not isinstance(failure.controller_failure, WorkerGroupStartupTimeoutError):
                raise
            raise UnplacedError(
                f"the cluster had no room for {most} workers; others hold it, or nodes are gone"
            ) from failure
        except WorkerGroupError as group:
            for rank, error in group.worker_failures.items():
                if isinstance(error, MISTAKES) and not isinstance(error, MissingKeyError):
                    raise MistakeError(
                        f"rank {rank}: {error!r}, a mistake in the code that trying again doesn't mend; "
                        f"`alexvgg logs {execution.job}` shows where it is"
                    ) from group
            raise
