"""One training run on Ray Train: the same `alexvgg.run.train`, on every worker of a group that Ray restarts.

    python -m jobs.train STORAGE_URL RUN ATTEMPT

is the Ray job of one attempt at a run. What is to be trained and how lies in storage, where it goes on from the last
checkpoint; so it can be killed, and the next attempt started.
"""

import sys
from typing import Any

from alexvgg.attempts import Attempt
from alexvgg.config import Execution, RunSpec, from_dict, to_dict
from alexvgg.data.store import open_store
from alexvgg.keys import run_folder
from alexvgg.runs import read_spec
from jobs.attempt import carry_out
from jobs.workers import run_workers


def worker(config: dict[str, Any]) -> None:
    """What runs on every rank; only there is torch imported."""
    from jobs.ranks import train_rank

    train_rank(from_dict(RunSpec, config["spec"]), from_dict(Execution, config["execution"]), config["attempt"])


def main() -> None:
    storage_url, run, number = sys.argv[1:]
    storage = open_store(storage_url)

    def fit(execution: Execution) -> None:
        spec = read_spec(storage, run)
        config = {"spec": to_dict(spec), "execution": to_dict(execution), "attempt": int(number)}
        run_workers(worker, config, execution)

    sys.exit(carry_out(Attempt(storage, run_folder(run), int(number)), fit))


if __name__ == "__main__":
    main()
