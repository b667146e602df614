"""One training run on Ray Train: the same `alexvgg.run.train`, on every worker of a group that Ray restarts.

    python -m jobs.train STORAGE_URL RUN ATTEMPT

is the Ray job of one attempt at a run. What is to be trained and how lies in storage, where it goes on from the last
checkpoint; so it can be killed, and the next attempt started.
"""

import json
import logging
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from ray.train import PreemptionInfo, get_preemption_info

from alexvgg.attempts import BEAT_SECONDS, Attempt, SupersededError
from alexvgg.config import Execution, RunSpec, from_dict, to_dict
from alexvgg.data.store import StoreError, open_store
from alexvgg.engine.checkpoint import DamagedError
from alexvgg.engine.guards import DivergedError
from alexvgg.engine.wishes import Stopped, Wishes
from alexvgg.engine.world import World
from alexvgg.errors import InputError
from alexvgg.run import train
from jobs.attempt import carry_out
from jobs.metrics import Gauges
from jobs.workers import run_workers

# Trying again would end the same: a spec or a parent that doesn't fit, a loss that is NaN, damaged weights.
HOPELESS = (InputError, DivergedError, DamagedError)


def worker(config: dict[str, Any]) -> None:
    """What runs on every rank. Ray Train has joined the process group already."""
    logging.getLogger("botocore").setLevel(logging.WARNING)  # Ray Train shows every library's INFO
    spec, execution = from_dict(RunSpec, config["spec"]), from_dict(Execution, config["execution"])
    attempt = Attempt(open_store(execution.storage_url), f"runs/{spec.name}/", config["attempt"])
    if attempt.signs()[1]:  # another rank ended it before Ray restarted the group
        return
    world = World.current()
    wishes, gauges = Wishes(look=look_around()), Gauges(spec.name, world.rank)
    try:
        with listening(attempt, wishes if world.rank == 0 else None):
            train(spec, execution, world, reporter(spec, world, gauges), wishes, attempt, gauges.set)
    except Stopped as stopped:
        if world.rank == 0:
            print(f"{spec.name}: {stopped}", flush=True)
            attempt.end("stopped", str(stopped))
    except HOPELESS as error:  # not raised: Ray would start again from the checkpoint and arrive at the same
        attempt.end("failed", str(error))
    except Exception:
        if not attempt.signs()[1]:  # whatever goes wrong in an attempt that was given up is no failure
            raise


def reporter(spec: RunSpec, world: World, gauges: Gauges) -> Callable[[dict[str, Any]], None]:
    """Shows each epoch: as Ray metrics on every rank, as a line of the log on rank 0."""

    def report(event: dict[str, Any]) -> None:
        gauges.set(event)
        if world.rank == 0:
            print(
                f"{event['run']}: epoch {event['epoch']}/{spec.train.epochs}, step {event['step']}, "
                f"loss {event['train/loss_epoch']:.3f}, top-1 error {event['val/top1_error']:.1f} %, "
                f"{event['perf/images_per_s']:.0f} images/s",
                flush=True,
            )

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
            with suppress(StoreError):  # what needs the storage notices itself that it is down
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


def main() -> None:
    storage_url, run, number = sys.argv[1:]
    storage = open_store(storage_url)
    spec = from_dict(RunSpec, json.loads(storage.get(f"runs/{run}/spec.json")))

    def fit(execution: Execution) -> None:
        config = {"spec": to_dict(spec), "execution": to_dict(execution), "attempt": int(number)}
        run_workers(worker, config, f"{run}-a{number}", execution)

    sys.exit(carry_out(Attempt(storage, f"runs/{run}/", int(number)), fit))


if __name__ == "__main__":
    main()
