"""Which run starts from which: the order of runs, their tree, and what a child took from its parent."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from alexvgg.results.paper import own_method
from alexvgg.results.table import other_images, scale_text
from alexvgg.runs import RunRecord


def parent_of(run: RunRecord) -> str | None:
    """The name of the run whose weights it started from."""
    return run.spec.parent.run if run.spec.parent is not None else None


def parents_first(runs: Iterable[RunRecord]) -> list[RunRecord]:
    """The same runs, each behind its parent if that is among them, else by name."""
    by_name = {r.name: r for r in sorted(runs, key=lambda r: r.name)}
    ordered: dict[str, RunRecord] = {}

    def visit(run: RunRecord) -> None:
        parent = parent_of(run)
        if parent in by_name and parent not in ordered:
            visit(by_name[parent])
        ordered.setdefault(run.name, run)

    for run in by_name.values():
        visit(run)
    return list(ordered.values())


def ancestors(run: RunRecord, runs: Iterable[RunRecord]) -> list[RunRecord]:
    """The runs from the first ancestor to `run` itself."""
    by_name, line = {r.name: r for r in runs}, [run]
    while (parent := by_name.get(parent_of(line[0]) or "")) is not None:
        line.insert(0, parent)
    return line


def family(run: RunRecord, runs: Sequence[RunRecord]) -> list[RunRecord]:
    """A run with its ancestors and all that descends from it, parents first."""
    line = {r.name for r in ancestors(run, runs)}
    kept = set(line)
    for r in parents_first(runs):
        if parent_of(r) in kept - (line - {run.name}):
            kept.add(r.name)
    return [r for r in parents_first(runs) if r.name in kept]


def summary(origins: Sequence[Mapping[str, Any]]) -> str:
    """`7 of 19 layers copied: conv1_1 conv2_1 …`, or that all were, or none."""
    copied = [o["layer"] for o in origins if o["source"] == "copied"]
    if not origins:
        return "not started"
    if not copied:
        return f"all {len(origins)} layers random"
    if len(copied) == len(origins):
        return f"all {len(origins)} layers copied"
    return f"{len(copied)} of {len(origins)} layers copied: {' '.join(copied)}"


def first_weights(run: RunRecord) -> str:
    """`transplant`, `copy`, where they were imported from, or which random weights they were."""
    if run.spec.imported is not None:
        return f"imported from {run.spec.imported.source}"
    return run.spec.parent.how if run.spec.parent is not None else f"{run.spec.init.kind} weights"


def single_scale(run: RunRecord) -> dict[str, Any] | None:
    """The document of the run's own evaluation at its one test scale (VGG section 4.1, AlexNet section 4.1)."""
    method, scales = own_method(run.spec.model.name), list(run.spec.test_scales[0])
    rows = [d for d in run.evaluation if d["method"] == method and d["images"]]
    return next((d for d in rows if d["members"][0]["test_scales"] == scales), None)


def errors(run: RunRecord) -> str:
    """The errors of the run's own evaluation at its single scale, or its state."""
    row = single_scale(run)
    return run.state if row is None else f"top-1 error {row['top1_error']:.1f} %, top-5 {row['top5_error']:.1f} %"


def to_json(run: RunRecord, runs: Sequence[RunRecord], origins: Mapping[str, Sequence[Mapping[str, Any]]]) -> Any:
    """The family as a list, parents first, each with what it took from its parent."""
    return {
        "run": run.name,
        "runs": [
            {
                "name": r.name, "state": r.state, "parent": parent_of(r),
                "how": r.spec.first_weights,
                "dataset": r.spec.data.dataset,
                "fingerprint": r.spec.data.fingerprint,
                "weights": r.weights, "layers": list(origins[r.name]),
            }
            for r in family(run, runs)
        ],
    }  # fmt: skip


def to_text(run: RunRecord, runs: Sequence[RunRecord], origins: Mapping[str, Sequence[Mapping[str, Any]]]) -> str:
    """The family as a tree, with a mark at the run itself."""
    members = family(run, runs)
    specs = {r.name: r.spec for r in members}
    lines: list[str] = []

    def draw(r: RunRecord, own: str, below: str) -> None:
        mark = " (this one)" if r.name == run.name else ""
        lines.append(f"{own}{r.name}{mark}  S={scale_text(r.spec.data.train_scale)}, {errors(r)}")
        children = [c for c in members if parent_of(c) == r.name]
        parent = specs.get(parent_of(r) or "")
        images = other_images(r.spec, parent) if parent else None
        start = first_weights(r) + (f" from a net of {images}" if images else "")
        lines.append(f"{below}{'│  ' if children else '   '}{start}, {summary(origins[r.name])}")
        for child in children:
            last = child is children[-1]
            draw(child, f"{below}{'└─ ' if last else '├─ '}", f"{below}{'   ' if last else '│  '}")

    for root in members:
        if parent_of(root) not in {r.name for r in members}:
            if (missing := parent_of(root)) is not None:
                lines.append(f"{missing} (not in this storage)")
            draw(root, "", "")
    return "\n".join(line.rstrip() for line in lines)
