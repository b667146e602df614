"""Packing on many nodes: a Ray job that plans once and packs groups of shards as Ray tasks.

    python -m jobs.pack '{"source": "/data/ILSVRC2012", "url": "s3://bucket/imagenet", …}'

Every node must see the source under the same path. A task that is lost with its node is packed again by Ray; a job
that is killed and submitted again packs only the shards that aren't in the store.
"""

import json
import logging
import secrets
import shlex
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import ray
from ray.job_submission import JobSubmissionClient

from alexvgg.config import from_dict
from alexvgg.data.packing.adopt import is_shards
from alexvgg.data.packing.commit import Summary
from alexvgg.data.packing.pack import PackOptions, Shard, pack, pack_shards
from alexvgg.data.packing.source import Source, open_source
from alexvgg.data.store import open_store
from alexvgg.errors import InputError

TARGET = "pack"  # what `alexvgg status` calls these jobs


@dataclass(frozen=True)
class PackJob:
    """What to pack and where to; on each of `nodes` nodes with `threads` threads."""

    source: str
    url: str
    options: PackOptions
    threads: int
    nodes: int


def submit(jobs: JobSubmissionClient, source: Path, url: str, options: PackOptions, threads: int, nodes: int) -> str:
    """Send a packing as a Ray job and return its id. Raises InputError for what doesn't need a cluster."""
    if is_shards(source):
        raise InputError(f"{source} holds shards, which are copied as they are: leave --nodes away")
    job = PackJob(str(source.resolve()), url, options, threads, nodes)
    return jobs.submit_job(
        entrypoint=shlex.join(["python", "-m", "jobs.pack", json.dumps(asdict(job))]),
        submission_id=f"{TARGET}-{secrets.token_hex(4)}",  # two may be sent at once
        metadata={"alexvgg": TARGET, "nodes": str(nodes)},
    )


def run(job: PackJob) -> Summary:
    """Pack on a Ray cluster that this process is connected to."""
    source = open_source(Path(job.source), job.threads)

    def on_nodes(shards: Sequence[Shard], packed: Callable[[int], None]) -> None:
        groups = [shards[i : i + job.threads] for i in range(0, len(shards), job.threads)]
        shared = ray.put(source)
        running: list[ray.ObjectRef[list[int]]] = []
        while groups or running:
            while groups and len(running) < job.nodes:
                running.append(_pack_group.remote(shared, groups.pop(0), job))
            done, running = ray.wait(running)
            for size in ray.get(done[0]):
                packed(size)

    return pack(source, open_store(job.url), job.options, job.threads, say, on_nodes)


@ray.remote(num_cpus=1, scheduling_strategy="SPREAD")
def _pack_group(source: Source, shards: Sequence[Shard], job: PackJob) -> list[int]:
    """Pack some shards on this node; their sizes in bytes."""
    sizes: list[int] = []
    pack_shards(source, shards, open_store(job.url), job.options, job.threads, sizes.append)
    return sizes


def say(message: str) -> None:
    print(message, flush=True)


def main() -> None:
    ray.init(logging_level=logging.WARNING)
    try:
        summary = run(from_dict(PackJob, json.loads(sys.argv[1])))
    except InputError as error:
        sys.exit(f"alexvgg: {error}")
    say("\n".join(summary.lines()))


if __name__ == "__main__":
    main()
