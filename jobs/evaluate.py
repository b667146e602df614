"""One evaluation on Ray Train: the same `alexvgg.evaluate.evaluate`, on every worker of a group that Ray restarts.

    python -m jobs.evaluate STORAGE_URL EVALUATION ATTEMPT

is the Ray job of one attempt at an evaluation. What it evaluates lies in storage; what is stored of it already isn't
computed again, so it can be killed and started again.
"""

import json
import logging
import sys
from typing import Any

from alexvgg.attempts import Attempt
from alexvgg.config import Execution, from_dict, to_dict
from alexvgg.data.store import open_store
from alexvgg.engine.checkpoint import DamagedError
from alexvgg.engine.wishes import Stopped
from alexvgg.engine.world import World
from alexvgg.errors import InputError
from alexvgg.evaluate import describe, evaluate
from alexvgg.request import Request
from jobs.attempt import carry_out
from jobs.workers import run_workers


def worker(config: dict[str, Any]) -> None:
    """What runs on every rank. Ray Train has joined the process group already."""
    logging.getLogger("botocore").setLevel(logging.WARNING)  # Ray Train shows every library's INFO
    request, execution = from_dict(Request, config["request"]), from_dict(Execution, config["execution"])
    attempt = Attempt(open_store(execution.storage_url), f"evaluations/{request.name}/", config["attempt"])
    world = World.current()

    def progress(line: str) -> None:
        if world.rank == 0:
            print(line, flush=True)

    try:
        for document in evaluate(request, execution, world, progress):
            print(describe(document), flush=True)
    except (InputError, DamagedError) as error:  # not raised: Ray would start again and arrive at the same
        attempt.end("failed", str(error))


def _stop() -> None:
    raise Stopped("stopped; what was computed is stored")


def main() -> None:
    storage_url, name, number = sys.argv[1:]
    storage = open_store(storage_url)
    request = from_dict(Request, json.loads(storage.get(f"evaluations/{name}/request.json")))

    def run(execution: Execution) -> None:
        config = {"request": to_dict(request), "execution": to_dict(execution), "attempt": int(number)}
        run_workers(worker, config, f"{name}-a{number}", execution)

    sys.exit(carry_out(Attempt(storage, f"evaluations/{name}/", int(number)), run, on_stop=_stop))


if __name__ == "__main__":
    main()
