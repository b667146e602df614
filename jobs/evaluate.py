"""One evaluation on Ray Train: the same `alexvgg.evaluate.evaluate`, on every worker of a group that Ray restarts.

    python -m jobs.evaluate STORAGE_URL EVALUATION

is the Ray job that `send` starts. What it evaluates lies in storage; what is stored of it already isn't computed again,
so it can be killed and started again.
"""

import hashlib
import json
import logging
import shlex
import sys
from typing import Any

import ray
from ray.job_submission import JobSubmissionClient

from alexvgg.config import Execution, from_dict, to_dict
from alexvgg.data.shards import open_dataset
from alexvgg.data.store import open_store
from alexvgg.engine.world import World
from alexvgg.evaluate import Request, describe, evaluate, find_finished, plan_rows
from alexvgg.profiles import Profile
from jobs.client import ENDED, jobs_of
from jobs.submit import ENVIRONMENT
from jobs.workers import run_workers


def send(request: Request, place: Profile, nodes: int, jobs: JobSubmissionClient) -> tuple[str, bool]:
    """Start the evaluation as a Ray job, unless it is running: (job id, whether it is new).

    Raises InputError, before anything starts, if a run isn't there, isn't finished, or is of another dataset.
    """
    storage, dataset = open_store(place.storage), open_dataset(open_store(place.dataset))
    runs = [find_finished(storage, name) for name in request.runs]
    plan_rows(request, runs, dataset.fingerprint, flip=dataset.flip)
    execution = Execution(
        dataset_url=place.dataset, storage_url=place.storage, mlflow_url=place.mlflow,
        workers=nodes * place.workers_per_node, gpus_per_worker=1 if place.gpus_per_node else 0,
    )  # fmt: skip
    document = {"request": to_dict(request), "execution": to_dict(execution)}
    identity = json.dumps([document["request"], [r.weights for r in runs]], sort_keys=True)
    name = f"evaluate-{hashlib.sha256(identity.encode()).hexdigest()[:8]}"
    earlier = jobs_of(jobs, name)
    for job in earlier:
        if job.status not in ENDED:
            return job.submission_id, False
    storage.put(f"evaluations/{name}.json", json.dumps(document, indent=2).encode())
    job_id = f"{name}-a{len(earlier) + 1}"
    jobs.submit_job(
        entrypoint=shlex.join(["python", "-m", "jobs.evaluate", storage.url, name]),
        submission_id=job_id,
        metadata={"alexvgg": name, "nodes": str(nodes)},
        runtime_env={"env_vars": ENVIRONMENT},
    )
    return job_id, True


def run(name: str, request: Request, execution: Execution) -> None:
    """Evaluate on `execution.workers` workers. A lost one restarts the group, which goes on with what isn't stored.

    Raises ray.train.TrainingFailedError with the worker's error after `execution.max_failures` of those.
    """
    config = {"request": to_dict(request), "execution": to_dict(execution)}
    run_workers(worker, config, name, execution)


def worker(config: dict[str, Any]) -> None:
    """What runs on every rank. Ray Train has joined the process group already."""
    logging.getLogger("botocore").setLevel(logging.WARNING)  # Ray Train shows every library's INFO
    request, execution = from_dict(Request, config["request"]), from_dict(Execution, config["execution"])
    world = World.current()

    def progress(line: str) -> None:
        if world.rank == 0:
            print(line, flush=True)

    for document in evaluate(request, execution, world, progress):
        print(describe(document), flush=True)


def main() -> None:
    storage_url, name = sys.argv[1:]
    ray.init(logging_level=logging.WARNING)
    document = json.loads(open_store(storage_url).get(f"evaluations/{name}.json"))
    run(name, from_dict(Request, document["request"]), from_dict(Execution, document["execution"]))


if __name__ == "__main__":
    main()
