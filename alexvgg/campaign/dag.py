"""What may start next in a graph of works of which some need others: pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

# open: may start; waiting: for the pause after a lost attempt; live: being carried out; the others are ends.
State = Literal["open", "waiting", "live", "finished", "failed", "stopped"]


@dataclass(frozen=True)
class Node:
    """One work: the works that must be finished before it, and how much there is to do (in any unit).

    `makes` names what it stores for others to use: works that make the same would compute it twice side by side.
    """

    name: str
    needs: tuple[str, ...] = ()
    cost: float = 1.0
    makes: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Workers:
    """How many workers one work takes: as many as there are between `least` and `most`."""

    least: int
    most: int


def among(nodes: Sequence[Node]) -> list[Node]:
    """The nodes without their needs for what isn't one of them: that was finished before."""
    names = {n.name for n in nodes}
    return [replace(n, needs=tuple(p for p in n.needs if p in names)) for n in nodes]


def critical_paths(nodes: Sequence[Node]) -> dict[str, float]:
    """Each node's cost with that of the most expensive chain of works that need it. Parents come first in `nodes`."""
    longest = dict.fromkeys((n.name for n in nodes), 0.0)
    for node in reversed(nodes):
        longest[node.name] += node.cost
        for parent in node.needs:
            longest[parent] = max(longest[parent], longest[node.name])
    return longest


def kept_back(nodes: Sequence[Node], states: Mapping[str, State]) -> dict[str, str]:
    """Node -> the work that failed or was stopped and without which it can't start."""
    culprits: dict[str, str] = {}
    for node in nodes:
        if states[node.name] != "finished":
            for parent in node.needs:
                if parent in culprits or states[parent] in ("failed", "stopped"):
                    culprits[node.name] = culprits.get(parent, parent)
    return culprits


def ready(nodes: Sequence[Node], states: Mapping[str, State]) -> list[Node]:
    """The works that may start if there are workers for them."""
    return [n for n in nodes if states[n.name] == "open" and all(states[p] == "finished" for p in n.needs)]


def next_starts(nodes: Sequence[Node], states: Mapping[str, State], free: int, workers: Workers) -> list[str]:
    """The works to start now on `free` workers, those first that the most depends on."""
    paths = critical_paths(nodes)
    made = {thing for n in nodes if states[n.name] == "live" for thing in n.makes}
    starts = []
    for node in sorted(ready(nodes, states), key=lambda n: -paths[n.name]):
        if free < workers.least:
            break
        if node.makes & made:
            continue
        starts.append(node.name)
        made |= node.makes
        free -= min(free, workers.most)
    return starts


def is_over(nodes: Sequence[Node], states: Mapping[str, State]) -> bool:
    """Whether nothing is left that could ever start, and nothing is being carried out."""
    culprits = kept_back(nodes, states)
    return all(states[n.name] in ("finished", "failed", "stopped") or n.name in culprits for n in nodes)
