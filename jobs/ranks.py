"""What runs on every rank of a group: training and evaluation, the same as under torchrun, with Ray Train around it.

The only module of these that needs torch; the jobs themselves and Ray Train's controller start without it.
"""

import logging
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from ray.train import PreemptionInfo, get_preemption_info

from alexvgg.attempts import BEAT_SECONDS, Attempt
from alexvgg.config import Execution, RunSpec
from alexvgg.data.store import open_store
from alexvgg.engine.wishes import Stopped, Wishes
from alexvgg.engine.world import World
from alexvgg.errors import InputError
from alexvgg.evaluate import describe, evaluate
from alexvgg.keys import evaluation_folder, run_folder
from alexvgg.repeating import repeating
from alexvgg.request import Request
from alexvgg.run import HOPELESS, epoch_line, train
from jobs.metrics import Gauges

# Ray looks for more nodes as often as there is a checkpoint, counted from when the group began. The checkpoint has to
# be the earlier one, by more than a group takes to be here: to grow costs the steps since then.
HEAD_START = 120.0


def train_rank(spec: RunSpec, execution: Execution, number: int) -> None:
    """This rank's part of attempt `number` at a run."""
    attempt = _attempt(execution, run_folder(spec.name), number)
    if attempt.signs()[1]:  # another rank ended it before Ray restarted the group
        return
    with _failing(attempt), _world(execution) as world:
        wishes = Wishes(look=look_around(), saved=time.monotonic() - HEAD_START)
        gauges = Gauges(spec.name, world.rank)
        try:
            with _listening(attempt, wishes) if world.rank == 0 else nullcontext():
                train(spec, execution, world, reporter(spec, world, gauges), wishes, lambda: attempt, gauges.set)
        except Stopped as stopped:
            if world.rank == 0:
                print(f"{spec.name}: {stopped}", flush=True)
                attempt.end("stopped", str(stopped))
        except Exception:
            if not attempt.signs()[1]:  # whatever goes wrong in an attempt that was given up is no failure
                raise


def evaluate_rank(request: Request, execution: Execution, number: int) -> None:
    """This rank's part of attempt `number` at an evaluation."""
    attempt = _attempt(execution, evaluation_folder(request.name), number)
    if attempt.signs()[1]:  # as above
        return
    with _failing(attempt), _world(execution) as world:

        def say(line: str) -> None:
            if world.rank == 0:
                print(line, flush=True)

        for document in evaluate(request, execution, world, say):
            print(describe(document), flush=True)


def _attempt(execution: Execution, folder: str, number: int) -> Attempt:
    logging.getLogger("botocore").setLevel(logging.WARNING)  # Ray Train shows every library's INFO
    return Attempt(open_store(execution.storage_url), folder, number)


@contextmanager
def _failing(attempt: Attempt) -> Iterator[None]:
    """What is hopeless inside ends the attempt as failed. It isn't raised: Ray would start the group again."""
    try:
        yield
    except HOPELESS as error:
        attempt.end("failed", str(error))


def _world(execution: Execution) -> AbstractContextManager[World]:
    """The world that this rank belongs to. Raises InputError if it has no GPU, but was promised one."""
    if execution.gpus_per_worker and not torch.cuda.is_available():
        raise InputError(
            f"torch sees no GPU on {socket.gethostname()}, where Ray has promised this worker one: its container was "
            "started without the host's GPUs, or the driver is older than this torch needs. Start it as `alexvgg "
            "cluster render` writes it and look at `nvidia-smi` inside, or take gpus_per_node out of the profile."
        )
    return World.launched()


def reporter(spec: RunSpec, world: World, gauges: Gauges) -> Callable[[dict[str, Any]], None]:
    """Shows each epoch: as Ray metrics on every rank, as a line of the log on rank 0."""

    def report(event: dict[str, Any]) -> None:
        gauges.set(event)
        if world.rank == 0:
            print(epoch_line(event, spec.train.epochs), flush=True)

    return report


def look_around() -> Callable[[Wishes], None]:
    """What a run asks Ray every few seconds: is a node about to be taken away?"""
    noticed: PreemptionInfo | None = None

    def look(wishes: Wishes) -> None:
        nonlocal noticed
        info = get_preemption_info()  # a barrier, which is why every rank looks at the same step
        if info is not None and info != noticed:
            # Ray restarts the group when the node is gone; training goes on until then.
            noticed = info
            wishes.checkpoint.set()

    return look


def _listening(attempt: Attempt, wishes: Wishes) -> AbstractContextManager[None]:
    """Inside, a thread hears from the storage whether the run is to stop, or was given up."""
    return repeating("listen", lambda: attempt.hear(wishes), BEAT_SECONDS)
