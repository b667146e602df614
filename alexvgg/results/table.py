"""Our numbers beside the paper's, each empty cell with the command that fills it."""

from collections.abc import Sequence
from dataclasses import dataclass

from alexvgg.recipes import Geometry, scale_name
from alexvgg.results.paper import TABLES, PaperRow
from alexvgg.runs import RunRecord

TITLES = {
    "table3": "VGG Table 3: one test scale, validation error in %",
    "table4": "VGG Table 4: several test scales, validation error in %",
}


@dataclass(frozen=True)
class Row:
    """One row of the paper and, where a run has filled it, ours. Errors in per cent."""

    paper: PaperRow
    run: str | None = None
    images: int | None = None
    top1: float | None = None
    top5: float | None = None

    @property
    def command(self) -> str:
        """What fills this row."""
        scale = scale_name(self.paper.train_scale).removeprefix("s")
        return f"alexvgg submit --model {self.paper.model} --scale {scale} --nodes 4"


def fill(table: str, runs: Sequence[RunRecord], fingerprint: str, geometry: Geometry) -> list[Row]:
    """The table's rows, from the finished runs on this dataset at this geometry only: others are never mixed in.

    If several runs of a recipe are finished, the one that finished last counts.
    """
    usable = [
        r
        for r in runs
        if r.state == "finished"
        and r.spec is not None
        and r.spec.data.fingerprint == fingerprint
        and r.spec.model.width == geometry.width
        and r.spec.model.crop in (geometry.crop, geometry.alexnet_crop)
    ]
    usable.sort(key=lambda r: r.journal[-1]["time"])
    rows = []
    for paper in TABLES[table]:
        row = Row(paper)
        for run in usable:
            for cell in run.evaluation:
                if run.spec.recipe == paper.recipe.name and tuple(cell["test_scales"]) == paper.test_scales:  # type: ignore[union-attr]
                    row = Row(paper, run.name, cell["images"], cell["top1_error"], cell["top5_error"])
        rows.append(row)
    return rows


def to_json(table: str, rows: Sequence[Row], note: str) -> dict[str, object]:
    """The table as JSON types."""
    return {
        "table": table,
        "note": note,
        "rows": [
            {
                "model": r.paper.model, "train_scale": r.paper.train_scale, "test_scales": r.paper.test_scales,
                "run": r.run, "images": r.images,
                "top1_error": r.top1, "top5_error": r.top5,
                "paper_top1_error": r.paper.top1, "paper_top5_error": r.paper.top5,
                "command": r.command if r.run is None else None,
            }
            for r in rows
        ],
    }  # fmt: skip


def to_text(table: str, rows: Sequence[Row], note: str) -> str:
    """The table for a terminal."""
    head = ("net", "S", "Q", "top-1", "paper", "delta", "top-5", "paper", "delta", "images", "run")
    cells = [head]
    for r in rows:
        scale = r.paper.train_scale
        place = (
            r.paper.model,
            str(scale) if isinstance(scale, int) else f"[{scale[0]};{scale[1]}]",
            ",".join(map(str, r.paper.test_scales)),
        )
        if r.top1 is None or r.top5 is None:
            cells.append((*place, "-", f"{r.paper.top1:.1f}", "-", "-", f"{r.paper.top5:.1f}", "-", "-", r.command))
        else:
            cells.append((
                *place,
                f"{r.top1:.1f}", f"{r.paper.top1:.1f}", f"{r.top1 - r.paper.top1:+.1f}",
                f"{r.top5:.1f}", f"{r.paper.top5:.1f}", f"{r.top5 - r.paper.top5:+.1f}",
                str(r.images), r.run or "",
            ))  # fmt: skip
    widths = [max(len(row[i]) for row in cells) for i in range(len(head))]
    left = (0, 1, 2, len(head) - 1)
    lines = [
        "  ".join(c.ljust(w) if i in left else c.rjust(w) for i, (c, w) in enumerate(zip(row, widths, strict=True)))
        for row in cells
    ]
    lines.insert(1, "-" * max(map(len, lines)))
    return "\n".join([TITLES[table], note, "", *(line.rstrip() for line in lines)])


def comparability(dataset: str, geometry: Geometry) -> str:
    """Why our numbers may or may not be read against the paper's."""
    if geometry.name == "paper" and dataset == "imagenet":
        return "Data: ILSVRC-2012, the paper's geometry: comparable."
    return (
        f"Data: {dataset}, {geometry.name} geometry (crop {geometry.crop}, width {geometry.width:g}). Not comparable "
        "with the paper's ImageNet numbers: it shows that the way there works, not where it ends."
    )
