"""Our numbers beside the paper's, each empty row with the command that fills it."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from alexvgg.config import RunSpec, Scale
from alexvgg.recipes import Geometry, scale_name
from alexvgg.results.paper import TABLES, PaperNet, PaperRow
from alexvgg.runs import RunRecord

TITLES = {
    "table3": "VGG Table 3: one test scale, validation error in %",
    "table4": "VGG Table 4: several test scales, validation error in %",
    "table5": "VGG Table 5: dense and multi-crop evaluation, validation error in %",
    "table6": "VGG Table 6: fused nets, validation error in %",
    "table7": "VGG Table 7: beside other nets, validation error in %",
    "alexnet": "AlexNet Table 2: 10-crop evaluation, validation error in %",
}
BY_NET = ("table3", "table4", "table5")  # their rows are told apart by net and scales, the others' by a title


@dataclass(frozen=True)
class Row:
    """One row of the paper and, where something has filled it, ours. Errors in per cent."""

    paper: PaperRow
    run: str | None = None  # or the name of a fusion
    images: int | None = None
    top1: float | None = None
    top5: float | None = None
    command: str | None = None  # the next one on the way to fill it; None if it is filled, or can't be


@dataclass(frozen=True)
class _Run:
    """A finished run that may fill a table."""

    name: str
    spec: RunSpec
    weights: str
    evaluation: Sequence[Mapping[str, Any]]


def fill(
    table: str,
    runs: Sequence[RunRecord],
    fusions: Sequence[Mapping[str, Any]],
    fingerprint: str,
    geometry: Geometry,
    options: str = "",
) -> list[Row]:
    """The table's rows, from the finished runs on this dataset at this geometry only: others are never mixed in.

    If several runs of a recipe are finished, the one that finished last counts; of several fusions the last one.
    `options`, like ` --profile lab`, are added to the commands.
    """
    finished = [r for r in runs if r.state == "finished" and r.spec is not None and r.weights is not None]
    finished.sort(key=lambda r: r.journal[-1]["time"])
    usable = [
        _Run(r.name, r.spec, r.weights, r.evaluation)
        for r in finished
        if r.spec is not None
        and r.weights is not None
        and r.spec.data.fingerprint == fingerprint
        and r.spec.model.width == geometry.width
        and r.spec.model.crop in (geometry.crop, geometry.alexnet_crop)
    ]
    return [_fill_row(paper, usable, fusions, options) for paper in TABLES[table]]


def _fill_row(paper: PaperRow, usable: Sequence[_Run], fusions: Sequence[Mapping[str, Any]], options: str) -> Row:
    if not paper.nets:
        return Row(paper)
    if len(paper.nets) == 1:
        documents = [(r.name, d) for r in usable for d in r.evaluation if _members(d, [r]) == Counter(_asked(paper))]
    else:
        documents = [(d["name"], d) for d in fusions if _members(d, usable) == Counter(_asked(paper))]
    for name, d in reversed(documents):
        if d["method"] == paper.method and d["images"]:
            return Row(paper, name, d["images"], d["top1_error"], d["top5_error"])
    return Row(paper, command=_command(paper, usable) + options)


def _asked(paper: PaperRow) -> list[tuple[str, tuple[int, ...]]]:
    return [(net.recipe.name, net.test_scales) for net in paper.nets]


def _members(document: Mapping[str, Any], usable: Sequence[_Run]) -> Counter[tuple[str, tuple[int, ...]]] | None:
    """Recipe and test scales of each net in a document; None if one isn't among the usable runs' final weights."""
    recipes = {(r.name, r.weights): r.spec.recipe for r in usable}
    try:
        return Counter((recipes[m["run"], m["weights"]], tuple(m["test_scales"])) for m in document["members"])
    except KeyError:
        return None


def _command(paper: PaperRow, usable: Sequence[_Run]) -> str:
    """Train what is missing, one run after the other; then evaluate."""
    same_scales = len({net.test_scales for net in paper.nets}) == 1
    chosen: list[str] = []
    for net in paper.nets:
        # Nets that are tested at different scales are evaluated at each run's own, which a setting may have changed.
        runs = [
            r
            for r in usable
            if r.spec.recipe == net.recipe.name and (same_scales or r.spec.test_scales[-1] == net.test_scales)
        ]
        free = [r.name for r in reversed(runs) if r.name not in chosen]
        if not free:
            return _submit(net, taken={r.spec.train.seed for r in runs})
        chosen.append(free[0])
    scales = f" --test-scales {','.join(map(str, paper.nets[0].test_scales))}" if same_scales else ""
    fuse = " --fuse" if len(chosen) > 1 else ""
    return f"alexvgg evaluate {' '.join(chosen)} --method {paper.method}{scales}{fuse}"


def _submit(net: PaperNet, taken: set[int]) -> str:
    seed = next(n for n in range(len(taken) + 1) if n not in taken)
    setting = f" --set train.seed={seed}" if seed else ""
    scale = scale_name(net.train_scale).removeprefix("s")
    return f"alexvgg submit --model {net.model} --scale {scale} --nodes 4{setting}"


def to_json(table: str, rows: Sequence[Row], note: str) -> dict[str, object]:
    """The table as JSON types. Rows of one net say its model and scales as such, too."""
    return {
        "table": table,
        "note": note,
        "rows": [
            {
                **({"title": r.paper.title} if r.paper.title else {}),
                **(_net(r.paper.nets[0]) if len(r.paper.nets) == 1 else {}),
                "nets": [_net(net) for net in r.paper.nets],
                "method": r.paper.method if r.paper.nets else None,
                "run": r.run, "images": r.images,
                "top1_error": r.top1, "top5_error": r.top5,
                "paper_top1_error": r.paper.top1, "paper_top5_error": r.paper.top5,
                "paper_top5_test_error": r.paper.top5_test,
                "command": r.command,
            }
            for r in rows
        ],
    }  # fmt: skip


def _net(net: PaperNet) -> dict[str, object]:
    return {"model": net.model, "train_scale": net.train_scale, "test_scales": net.test_scales}


def to_text(table: str, rows: Sequence[Row], note: str) -> str:
    """The table for a terminal."""
    place = ["net", "S", "Q"] if table in BY_NET else ["nets"]
    methods = {r.paper.method for r in rows if r.paper.nets}
    place += ["method"] if len(methods) > 1 else []
    test = ["paper's test top-5"] if any(r.paper.top5_test for r in rows) else []
    head = [*place, "top-1", "paper", "delta", "top-5", "paper", "delta", "images", *test, "run"]
    cells = [head]
    for r in rows:
        net = [] if table not in BY_NET else _place(r.paper.nets[0])
        cells.append([
            *(net or [r.paper.title]),
            *([r.paper.method if r.paper.nets else "published"] if len(methods) > 1 else []),
            *_beside(r.top1, r.paper.top1), *_beside(r.top5, r.paper.top5),
            "-" if r.images is None else str(r.images),
            *([_number(r.paper.top5_test)] if test else []),
            r.run or r.command or "-",
        ])  # fmt: skip
    widths = [max(len(row[i]) for row in cells) for i in range(len(head))]
    left = {*range(len(place)), len(head) - 1}
    lines = [
        "  ".join(c.ljust(w) if i in left else c.rjust(w) for i, (c, w) in enumerate(zip(row, widths, strict=True)))
        for row in cells
    ]
    lines.insert(1, "-" * max(map(len, lines)))
    return "\n".join([TITLES[table], note, "", *(line.rstrip() for line in lines)])


def _place(net: PaperNet) -> list[str]:
    return [net.model, _scale(net.train_scale), ",".join(map(str, net.test_scales))]


def _scale(scale: Scale) -> str:
    return str(scale) if isinstance(scale, int) else f"[{scale[0]};{scale[1]}]"


def _beside(ours: float | None, papers: float | None) -> tuple[str, str, str]:
    delta = "-" if ours is None or papers is None else f"{ours - papers:+.1f}"
    return _number(ours), _number(papers), delta


def _number(error: float | None) -> str:
    return "-" if error is None else f"{error:.1f}"


def comparability(dataset: str, geometry: Geometry) -> str:
    """Why our numbers may or may not be read against the paper's."""
    if geometry.name == "paper" and dataset == "imagenet":
        return "Data: ILSVRC-2012, the paper's geometry: comparable."
    return (
        f"Data: {dataset}, {geometry.name} geometry (crop {geometry.crop}, width {geometry.width:g}). Not comparable "
        "with the paper's ImageNet numbers: it shows that the way there works, not where it ends."
    )
