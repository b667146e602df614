"""Ray, as `alexvgg doctor` looks at it: reachable, authenticated, of this version, with the nodes that are needed."""

import json
import shlex
import time
from collections.abc import Iterator
from http.client import HTTPException
from importlib.metadata import version

import ray

from alexvgg.doctor.finding import Finding, attempt, failed
from alexvgg.profiles import Profile
from jobs.access import TokenError, asks_for_token, get
from jobs.capacity import forgotten_gpus, living_nodes
from jobs.client import ENDED, client

SECONDS = 10
JOB_SECONDS = 300.0


def check_ray(profile: Profile, dashboard: str) -> Iterator[Finding]:
    """The Jobs API with this shell's token, and without any; versions; nodes."""
    try:
        known = client(dashboard).list_jobs()
    except TokenError as error:
        yield Finding("ray", "failed", error.what, error.next_step)
        return
    except Exception as error:  # of many types: Ray's, requests'
        yield failed("ray", error, "`alexvgg config show` says where the dashboard is looked for.")
        return
    yield Finding("ray", "ok", f"the Jobs API answers with {len(known)} jobs")
    yield check_token(dashboard)
    step = "Install the same version of Ray here and on every node: its interfaces change with every minor release."
    yield attempt("ray version", lambda: _version(dashboard), step)
    correct = "correct gpus_per_node (`alexvgg config show`)."
    nodes = attempt("ray nodes", lambda: _nodes(profile), f"Add nodes, or {correct}")
    yield nodes
    if nodes.state == "ok" and (warning := forgotten_gpus(profile)) is not None:
        yield Finding("ray gpus", "warning", warning, correct.capitalize())


def check_nodes(dashboard: str, storage: str, dataset: str) -> Iterator[Finding]:
    """What every node says of itself, asked by a Ray job (`jobs.nodes`)."""
    jobs = client(dashboard)
    job = jobs.submit_job(entrypoint=shlex.join(["python", "-m", "jobs.nodes", storage, dataset, version("alexvgg")]))
    deadline = time.monotonic() + JOB_SECONDS
    while jobs.get_job_status(job) not in ENDED and time.monotonic() < deadline:
        time.sleep(1.0)
    lines = jobs.get_job_logs(job).strip().splitlines() or [f"the job {job} has said nothing in {JOB_SECONDS:.0f} s"]
    try:
        yield from (Finding(**finding) for finding in json.loads(lines[-1]))
    except ValueError:  # what stopped it, instead of findings
        yield Finding("nodes", "failed", lines[-1], "Install this package in the Python environment of every node.")


def check_token(dashboard: str) -> Finding:
    """Whether jobs can be sent without a token."""
    try:
        if asks_for_token(dashboard):
            return Finding("ray token", "ok", "the dashboard refuses who has none")
    except (OSError, HTTPException) as error:
        return Finding("ray token", "failed", str(error), "Look into the dashboard's log.")
    step = "Start it with RAY_AUTH_MODE=token, or let nobody else reach it."
    return Finding("ray token", "warning", "anyone who reaches the dashboard can run code there", step)


def _version(dashboard: str) -> str:
    with get(dashboard, "/api/version", timeout=SECONDS) as answer:
        theirs = json.load(answer)["ray_version"]
    if theirs != ray.__version__:
        raise RuntimeError(f"{ray.__version__} here, {theirs} on the cluster")
    return f"{theirs}, here and on the cluster"


def _nodes(profile: Profile) -> str:
    alive = living_nodes(profile.dashboard)
    fitting = [
        n for n in alive
        if n.resources_total.get("CPU", 0) >= profile.workers_per_node
        and n.resources_total.get("GPU", 0) >= profile.gpus_per_node
    ]  # fmt: skip
    each = f"{profile.gpus_per_node} GPUs" if profile.gpus_per_node else "a CPU for a worker"
    if not fitting and profile.max_nodes is not None:
        return f"none with {each} now; the cluster grows to {profile.max_nodes}"
    if not fitting:
        raise RuntimeError(f"none of {len(alive)} nodes has {each}")
    others = [n for n in alive if n not in fitting and n.is_head_node]  # a head that doesn't train is no fault
    return f"{len(fitting)} of {len(alive) - len(others)} have {each}" + (", beside the head" if others else "")
