"""What a cluster's nodes have, and how many workers they hold."""

from typing import Any

from ray.util.state import list_nodes

from alexvgg.config import Execution
from alexvgg.profiles import Profile
from jobs.client import asking


def worker_slots(execution: Execution, address: str | None = None) -> dict[str, int]:
    """How many workers each living node could hold if it were empty: without GPUs one, which takes all its CPUs.

    `address` is the dashboard's, if not our own.
    """
    gpus = execution.gpus_per_worker
    slots = {}
    for node in living_nodes(address):
        cpu, gpu = node.resources_total.get("CPU", 0), node.resources_total.get("GPU", 0)
        slots[node.node_id] = int(min(cpu, gpu // gpus if gpus else 1))
    return slots


def living_nodes(address: str | None = None) -> list[Any]:
    """Of the cluster with this dashboard, or of our own."""
    with asking(address):
        nodes = list_nodes(address=address, limit=10_000, raise_on_missing_output=False)
    return [n for n in nodes if n.state == "ALIVE"]


def forgotten_gpus(profile: Profile) -> str | None:
    """What to say if the nodes have GPUs and the profile has none."""
    if profile.gpus_per_node:
        return None
    most = max((int(n.resources_total.get("GPU", 0)) for n in living_nodes(profile.dashboard)), default=0)
    if not most:
        return None
    return f"nodes have up to {most} GPUs, but the profile's gpus_per_node is 0: runs train on CPUs"
