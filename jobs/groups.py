"""Ray Train's worker groups: who trains where."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from jobs.access import get

TIMEOUT_SECONDS = 10.0


@dataclass(frozen=True)
class Worker:
    """One rank: its node's address, whether its actor lives, and that actor's id."""

    rank: int
    node: str
    status: str
    actor: str


@dataclass(frozen=True)
class Group:
    """The workers of a job, and how often Ray has started the group anew."""

    restarts: int
    workers: tuple[Worker, ...]


def groups(dashboard: str) -> dict[str, Group]:
    """The newest group of every job that Ray Train knows, by the job's id; empty if nothing has trained yet.

    Ray calls this interface a developers' one: whatever it answers that isn't understood counts as nothing.
    """
    try:
        with get(dashboard, "/api/train/v2/runs/v1", timeout=TIMEOUT_SECONDS) as answer:
            runs = json.loads(answer.read())["train_runs"]
        return {run["name"]: _group(run["attempts"]) for run in runs if run["attempts"]}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def _group(attempts: list[Mapping[str, Any]]) -> Group:
    newest = max(attempts, key=lambda a: a["start_time_ns"])
    workers = (Worker(w["world_rank"], w["node_ip"], w["status"] or "-", w["actor_id"]) for w in newest["workers"])
    return Group(len(attempts) - 1, tuple(sorted(workers, key=lambda w: w.rank)))
