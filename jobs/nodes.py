"""What `alexvgg doctor --nodes` asks of every node, as a Ray job with a task on each.

    python -m jobs.nodes STORAGE_URL DATASET_URL VERSION

prints what it finds as its last line, as JSON.
"""

import json
import logging
import sys
from collections.abc import Iterator, Mapping
from dataclasses import asdict, replace
from importlib.metadata import version
from itertools import chain
from typing import Any

import ray

from alexvgg.doctor.finding import Finding, failed
from alexvgg.doctor.places import check_dataset, check_storage

SECONDS = 120.0  # for a node's answer


def look(name: str, gpus: int, storage: str, dataset: str, ours: str) -> Finding:
    """On a node: has it this package as it is here, does torch see Ray's GPUs, can storage and dataset be used?"""
    import torch

    if (theirs := version("alexvgg")) != ours:
        step = "Install the same version of this package here and on every node."
        return Finding(name, "failed", f"has alexvgg {theirs}; here it is {ours}", step)
    if (seen := torch.cuda.device_count()) < gpus:
        step = "Start its container with the host's GPUs, and compare its driver with torch.version.cuda."
        return Finding(name, "failed", f"torch sees {seen} of the {gpus} GPUs that Ray hands out there", step)
    for finding in chain(check_storage(storage), check_dataset(dataset)):
        if finding.state == "failed":
            return replace(finding, name=name, detail=f"{finding.name}: {finding.detail}")
    return Finding(name, "ok", f"alexvgg {theirs}, {gpus} GPUs, storage and dataset can be used")


def look_everywhere(nodes: list[Mapping[str, Any]], storage: str, dataset: str, ours: str) -> Iterator[Finding]:
    """`look` on each of Ray's `nodes` that lives, whatever else runs there."""
    asked = {}
    for node in nodes:
        if node["Alive"]:
            name, gpus = f"node {node['NodeManagerAddress']}", int(node["Resources"].get("GPU", 0))
            task = ray.remote(num_cpus=0, max_retries=0, label_selector={"ray.io/node-id": node["NodeID"]})(look)
            asked[name] = task.remote(name, gpus, storage, dataset, ours)
    for name, answer in asked.items():
        try:
            yield ray.get(answer, timeout=SECONDS)
        except Exception as error:  # Ray raises many types
            yield failed(name, error, "Look into the node's log: `ray logs`, or the dashboard's page of it.")


def main() -> None:
    ray.init(logging_level=logging.WARNING, log_to_driver=False)  # whose lines could come last
    nodes = ray.nodes()  # type: ignore[no-untyped-call]
    print(json.dumps([asdict(f) for f in look_everywhere(nodes, *sys.argv[1:])]), flush=True)


if __name__ == "__main__":
    main()
