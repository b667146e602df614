"""What training and test scales do to the error: VGG's sections 4.1 and 4.2 as a picture."""

from collections.abc import Sequence
from contextlib import suppress
from html import escape

from alexvgg.data.store import Store
from alexvgg.errors import StoreError
from alexvgg.evaluation.posteriors import Scoring, count, is_whole
from alexvgg.results.report.chart import Line, Panel, chart, legend
from alexvgg.results.table import scale_text
from alexvgg.runs import RunRecord


def by_model(runs: Sequence[RunRecord], storage: Store) -> str:
    """For each net the top-1 error against Q, one line for each S."""
    models: dict[str, list[Line]] = {}
    for run in runs:
        if run.weights is None:
            continue
        points = errors_by_scale(run, storage)
        if len(points) > 1:
            lines = models.setdefault(run.spec.model.name, [])
            name = f"S = {scale_text(run.spec.data.train_scale)}"
            if sum(r.spec.recipe == run.spec.recipe for r in runs) > 1:
                name += f" ({run.name.rpartition('-')[2]})"
            lines.append(Line(name, sorted(points.items()), len(lines), dots=True))
    drawn = [
        f"<article><h3>{escape(model)}</h3>"
        + chart([Panel("top-1 error, %, dense evaluation at one Q", lines, height=150)], "test scale Q",
                about=f"top-1 error of {model} against the test scale")
        + legend(lines) + "</article>"
        for model, lines in models.items()
    ]  # fmt: skip
    return f'<div class="cards">{"".join(drawn)}</div>' if drawn else ""


def errors_by_scale(run: RunRecord, storage: Store) -> dict[int, float]:
    """Top-1 error in per cent at each Q alone, as far as it was evaluated: nothing is computed but sums."""
    assert run.weights is not None
    known = {
        d["members"][0]["test_scales"][0]: d["top1_error"]
        for d in run.evaluation
        if d["method"] == "dense" and len(d["members"][0]["test_scales"]) == 1 and d["images"]
    }
    for q in sorted({q for row in run.spec.test_scales for q in row} - known.keys()):
        scoring = Scoring(run.name, run.weights, run.spec.data.fingerprint, "dense", q)
        with suppress(StoreError):  # what can't be read isn't shown
            if is_whole(storage, scoring) and (error := count(storage, [[scoring]]).top1_error) is not None:
                known[q] = error
    return known
