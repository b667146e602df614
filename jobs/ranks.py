"""What runs on every rank of a group: training and evaluation, the same as under torchrun, with Ray Train around it.

The only module of these that needs torch; the jobs themselves and Ray Train's controller start without it.
"""

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from ray.train import PreemptionInfo, get_preemption_info

from alexvgg.attempts import BEAT_SECONDS, Attempt, SupersededError
from alexvgg.config import Execution, RunSpec
from alexvgg.data.store import open_store
from alexvgg.engine.checkpoint import DamagedError
from alexvgg.engine.guards import DivergedError
from alexvgg.engine.wishes import Stopped, Wishes
from alexvgg.engine.world import World
from alexvgg.errors import InputError
from alexvgg.evaluate import describe, evaluate
from alexvgg.request import Request
from alexvgg.run import epoch_line, train
from jobs.metrics import Gauges

# Trying again would end the same: a spec or a parent that doesn't fit, a loss that is NaN, damaged weights. It is
# written down, not raised: Ray would start the group again.
HOPELESS = (InputError, DivergedError, DamagedError)


def train_rank(spec: RunSpec, execution: Execution, number: int) -> None:
    """This rank's part of attempt `number` at a run."""
    _quiet()
    attempt = Attempt(open_store(execution.storage_url), f"runs/{spec.name}/", number)
    if attempt.signs()[1]:  # another rank ended it before Ray restarted the group
        return
    with World.launched() as world:
        wishes, gauges = Wishes(look=look_around()), Gauges(spec.name, world.rank)
        try:
            with listening(attempt, wishes if world.rank == 0 else None):
                train(spec, execution, world, reporter(spec, world, gauges), wishes, attempt, gauges.set)
        except Stopped as stopped:
            if world.rank == 0:
                print(f"{spec.name}: {stopped}", flush=True)
                attempt.end("stopped", str(stopped))
        except HOPELESS as error:
            attempt.end("failed", str(error))
        except Exception:
            if not attempt.signs()[1]:  # whatever goes wrong in an attempt that was given up is no failure
                raise


def evaluate_rank(request: Request, execution: Execution, number: int) -> None:
    """This rank's part of attempt `number` at an evaluation."""
    _quiet()
    attempt = Attempt(open_store(execution.storage_url), f"evaluations/{request.name}/", number)
    with World.launched() as world:

        def say(line: str) -> None:
            if world.rank == 0:
                print(line, flush=True)

        try:
            for document in evaluate(request, execution, world, say):
                print(describe(document), flush=True)
        except HOPELESS as error:
            attempt.end("failed", str(error))


def _quiet() -> None:
    logging.getLogger("botocore").setLevel(logging.WARNING)  # Ray Train shows every library's INFO


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


@contextmanager
def listening(attempt: Attempt, wishes: Wishes | None) -> Iterator[None]:
    """Inside, a thread hears from the storage whether the run is to stop, or was given up. On one rank only."""
    closing = threading.Event()

    def listen(wishes: Wishes) -> None:
        while True:
            with suppress(Exception):  # what needs the storage notices itself that it is down; this must live on
                stop, over = attempt.signs()
                if over:
                    wishes.failure = SupersededError(f"attempt {attempt.number} at {attempt.folder} was given up")
                if stop:
                    wishes.stop.set()
            if closing.wait(BEAT_SECONDS):
                return

    if wishes is not None:
        threading.Thread(target=listen, args=(wishes,), name="listen", daemon=True).start()
    try:
        yield
    finally:
        closing.set()
