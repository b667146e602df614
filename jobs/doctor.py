"""Ray, as `alexvgg doctor` looks at it: reachable, authenticated, of this version, with the nodes that are needed."""

import json
from collections.abc import Iterator

import ray
from ray.util.state import list_nodes

from alexvgg.doctor.finding import Finding, attempt
from alexvgg.profiles import Profile
from jobs.access import asks_for_token, get
from jobs.client import client

SECONDS = 10


def check_ray(profile: Profile, dashboard: str) -> Iterator[Finding]:
    """The Jobs API with this shell's token, and without any; versions; nodes."""

    def jobs_api() -> str:
        return f"the Jobs API answers with {len(client(dashboard).list_jobs())} jobs"

    reached = attempt("ray", jobs_api, "`alexvgg config show` says where the dashboard is looked for.")
    yield reached
    if reached.state != "ok":
        return
    yield check_token(dashboard)
    step = "Install the same version of Ray here and on every node: its interfaces change with every minor release."
    yield attempt("ray version", lambda: _version(dashboard), step)
    yield attempt("ray nodes", lambda: _nodes(profile), "Add nodes, or correct gpus_per_node (`alexvgg config show`).")


def check_token(dashboard: str) -> Finding:
    """Whether jobs can be sent without a token."""
    try:
        if asks_for_token(dashboard):
            return Finding("ray token", "ok", "the dashboard refuses who has none")
    except OSError as error:
        return Finding("ray token", "failed", str(error), "Look into the dashboard's log.")
    step = "Start it with RAY_AUTH_MODE=token, or let nobody else reach it."
    return Finding("ray token", "warning", "anyone who reaches the dashboard can run code there", step)


def _version(dashboard: str) -> str:
    with get(f"{dashboard}/api/version", timeout=SECONDS) as answer:
        theirs = json.load(answer)["ray_version"]
    if theirs != ray.__version__:
        raise RuntimeError(f"{ray.__version__} here, {theirs} on the cluster")
    return f"{theirs}, here and on the cluster"


def _nodes(profile: Profile) -> str:
    nodes = list_nodes(address=profile.dashboard, limit=10_000, raise_on_missing_output=False)
    alive = [n for n in nodes if n.state == "ALIVE"]
    fitting = [
        n for n in alive
        if n.resources_total.get("CPU", 0) >= profile.workers_per_node
        and n.resources_total.get("GPU", 0) >= profile.gpus_per_node
    ]  # fmt: skip
    each = f"{profile.gpus_per_node} GPUs" if profile.gpus_per_node else "a CPU for a worker"
    if not fitting:
        raise RuntimeError(f"none of {len(alive)} nodes has {each}")
    others = [n for n in alive if n not in fitting and n.is_head_node]  # a head that doesn't train is no fault
    return f"{len(fitting)} of {len(alive) - len(others)} have {each}" + (", beside the head" if others else "")
