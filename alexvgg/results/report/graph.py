"""Which run starts from which, drawn from left to right."""

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from alexvgg.results.lineage import errors, first_weights, parent_of
from alexvgg.runs import RunRecord

WIDE, HIGH, GAP, BELOW = 206, 62, 70, 18  # of a box, to the next column, to the next row; pixels

LONG = 25  # characters of a name that fit into a box


def graph(runs: Sequence[RunRecord], origins: Mapping[str, Sequence[Mapping[str, Any]]]) -> str:
    """Boxes for runs, parents first, with how many layers each arrow carried over."""
    places = _places(runs)
    parts = []
    for run in runs:
        column, row = places[run.name]
        parent = parent_of(run)
        if parent in places:
            parts.append(_arrow(places[parent], (column, row), _carried(origins[run.name])))
    parts += [_box(run, places[run.name]) for run in runs]
    width = (1 + max(c for c, _ in places.values())) * (WIDE + GAP) - GAP + 2
    height = (1 + max(r for _, r in places.values())) * (HIGH + BELOW) - BELOW + 2
    return (
        f'<div class="scroll"><svg class="graph" viewBox="-1 -1 {width} {height}" width="{width}" height="{height}" '
        f'role="img" aria-label="which run starts from which">{"".join(parts)}</svg></div>'
    )


def _places(runs: Sequence[RunRecord]) -> dict[str, tuple[int, int]]:
    """(column, row) of each run: a first child stands in its parent's row, every other one begins a new row."""
    names = {r.name for r in runs}
    places: dict[str, tuple[int, int]] = {}

    def put(run: RunRecord, column: int, row: int) -> int:
        """Place a run and its descendants; returns the next free row."""
        places[run.name] = (column, row)
        for child in (r for r in runs if parent_of(r) == run.name):
            row = put(child, column + 1, row)
        return max(row, places[run.name][1] + 1)

    free = 0
    for root in (r for r in runs if parent_of(r) not in names):
        free = put(root, 0, free)
    return places


def _carried(origins: Sequence[Mapping[str, Any]]) -> str:
    copied = sum(o["source"] == "copied" for o in origins)
    return f"{copied} of {len(origins)}" if copied < len(origins) else "all"


def _arrow(start: tuple[int, int], end: tuple[int, int], label: str) -> str:
    x, y = start[0] * (WIDE + GAP) + WIDE, start[1] * (HIGH + BELOW) + HIGH / 2
    to_x, to_y = end[0] * (WIDE + GAP), end[1] * (HIGH + BELOW) + HIGH / 2
    middle = x + 14
    return (
        f'<path class="arrow" d="M{x} {y}H{middle - 8}'
        + ("" if y == to_y else f"Q{middle} {y} {middle} {y + 8}V{to_y - 8}Q{middle} {to_y} {middle + 8} {to_y}")
        + f'H{to_x - 5}"/><path class="head" d="M{to_x - 1} {to_y}l-7 -4v8z"/>'
        f'<text class="tick" x="{(middle + to_x) / 2:g}" y="{to_y - 6}" text-anchor="middle">{escape(label)}</text>'
    )


def _box(run: RunRecord, place: tuple[int, int]) -> str:
    x, y = place[0] * (WIDE + GAP), place[1] * (HIGH + BELOW)
    squeezed = f' textLength="{WIDE - 24}" lengthAdjust="spacingAndGlyphs"' if len(run.name) > LONG else ""
    return (
        f'<g class="box {run.state}" transform="translate({x} {y})"><rect width="{WIDE}" height="{HIGH}" rx="8"/>'
        f'<text class="name" x="12" y="21"{squeezed}>{escape(run.name)}</text>'
        f'<text class="tick" x="12" y="37">{escape(first_weights(run))}</text>'
        f'<text class="tick" x="12" y="52">{escape(errors(run))}</text></g>'
    )
