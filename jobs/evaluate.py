"""One evaluation on Ray Train: the same `alexvgg.evaluate.evaluate`, on every worker of a group that Ray restarts.

    python -m jobs.evaluate STORAGE_URL EVALUATION ATTEMPT

is the Ray job of one attempt at an evaluation. What it evaluates lies in storage; what is stored of it already isn't
computed again, so it can be killed and started again.
"""

import sys
from typing import Any

from alexvgg.attempts import Attempt
from alexvgg.config import Execution, from_dict, to_dict
from alexvgg.data.documents import read_document
from alexvgg.data.store import open_store
from alexvgg.engine.wishes import Stopped
from alexvgg.keys import evaluation_folder, request_key
from alexvgg.request import Request
from jobs.attempt import carry_out
from jobs.workers import run_workers


def worker(config: dict[str, Any]) -> None:
    """What runs on every rank; only there is torch imported."""
    from jobs.ranks import evaluate_rank

    evaluate_rank(from_dict(Request, config["request"]), from_dict(Execution, config["execution"]), config["attempt"])


def _stop() -> None:
    raise Stopped("stopped; what was computed is stored")


def main() -> None:
    storage_url, name, number = sys.argv[1:]
    storage = open_store(storage_url)

    def run(execution: Execution) -> None:
        request = read_document(storage, request_key(name), lambda r: from_dict(Request, r))
        config = {"request": to_dict(request), "execution": to_dict(execution), "attempt": int(number)}
        run_workers(worker, config, execution)

    sys.exit(carry_out(Attempt(storage, evaluation_folder(name), int(number)), run, on_stop=_stop))


if __name__ == "__main__":
    main()
