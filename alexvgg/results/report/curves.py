"""How the runs trained: loss, training and validation error, with what happened on the way."""

from collections.abc import Callable, Sequence
from html import escape
from itertools import groupby
from typing import Any

from alexvgg.results.lineage import errors
from alexvgg.results.report.chart import COLOURS, Line, Mark, Panel, chart, legend
from alexvgg.runs import RunRecord

LOSS, TRAINING, TOP1, TOP5 = 0, 2, 6, 1  # colours


def overview(runs: Sequence[RunRecord]) -> str:
    """All runs' errors: on the crops that they trained on, as in AlexNet's figure 1, and after it.

    In one chart, or one for each family of nets, or for each net, so that every line has a colour of its own.
    """
    trained = [r for r in runs if epochs(r)]
    groups = [trained]
    for kind in (_family, _model):
        groups = [part for group in groups for part in (_by(kind, group) if len(group) > COLOURS else [group])]
    return "".join(_overview(group) for group in groups)


def _overview(runs: Sequence[RunRecord]) -> str:
    drawn = {
        "train/top1_error": "training top-1 error, %", "val/top1_error": "validation top-1 error of the centre crop, %",
    }  # fmt: skip
    panels = [
        Panel(title, [Line(r.name, _by_epoch(r, metric), n) for n, r in enumerate(runs)], height=180)
        for metric, title in drawn.items()
    ]
    about = f"training and validation error by epoch of {', '.join(r.name for r in runs)}"
    sizes = {"large": 1060, "small": 330}  # letters keep their size: the page shows the one that fits
    charts = "".join(
        f'<div class="{c}">{chart(panels, "epochs", width=w, about=about)}</div>' for c, w in sizes.items()
    )
    return f'<div class="wide">{charts}{legend(panels[0].lines)}</div>'


def _by(kind: Callable[[RunRecord], str], runs: Sequence[RunRecord]) -> list[list[RunRecord]]:
    return [list(group) for _, group in groupby(sorted(runs, key=kind), key=kind)]


def _model(run: RunRecord) -> str:
    return run.spec.model.name


def _family(run: RunRecord) -> str:
    """`vgg`, `alexnet` or `fourlayer`"""
    return _model(run).partition("_")[0]


def cards(runs: Sequence[RunRecord]) -> str:
    """A card for each run: its loss above its errors, over epochs."""
    names = {"training loss": LOSS, "training top-1": TRAINING, "validation top-1": TOP1, "validation top-5": TOP5}
    colours = legend([Line(name, [], colour) for name, colour in names.items()])
    return f'{colours}<div class="cards">{"".join(_card(r) for r in runs if epochs(r))}</div>'


def _card(run: RunRecord) -> str:
    done = epochs(run)
    per_epoch = done[0]["step"] / done[0]["epoch"]
    losses = [(e["step"] / per_epoch, e["metrics"]["train/loss"]) for e in run.journal if e["event"] == "steps"]
    drawn = chart(
        [
            Panel("training loss", [Line("training loss", losses, LOSS)], height=84),
            Panel("errors, %", [
                Line("training top-1", _by_epoch(run, "train/top1_error"), TRAINING),
                Line("validation top-1", _by_epoch(run, "val/top1_error"), TOP1),
                Line("validation top-5", _by_epoch(run, "val/top5_error"), TOP5),
            ], height=84),
        ],
        "epochs", marks=happenings(run, per_epoch), about=f"loss and errors of {run.name}",
    )  # fmt: skip
    return f"<article><h3>{escape(run.name)}</h3><p>{escape(errors(run))}</p>{drawn}</article>"


def happenings(run: RunRecord, per_epoch: float) -> list[Mark]:
    """Falls of the learning rate, restarts, changes of the number of workers, and warnings, by epoch."""
    found: list[Mark] = []
    lr: float | None = None
    workers: int | None = None
    for event in run.journal:
        x = event["step"] / per_epoch
        if event["event"] == "epoch":
            now = event["metrics"]["train/lr"]
            if lr is not None and now < lr:
                found.append(Mark(x - 1, f"lr {now:g}", "lr"))
            lr = now
        elif event["event"] == "start":
            if workers is not None:
                change = f", {workers} → {event['workers']} workers" if workers != event["workers"] else ""
                found.append(Mark(x, f"attempt {event['attempt']}{change}", "restart"))
            workers = event["workers"]
        elif event["event"] == "warning":
            found.append(Mark(x, "warning", "stop"))
    return found


def epochs(run: RunRecord) -> list[dict[str, Any]]:
    """The journal's `epoch` events."""
    return [e for e in run.journal if e["event"] == "epoch"]


def _by_epoch(run: RunRecord, metric: str) -> list[tuple[float, float]]:
    """Where it was measured: there is no error if no validation image could be decoded."""
    values = ((e["epoch"], e["metrics"].get(metric)) for e in epochs(run))
    return [(epoch, value) for epoch, value in values if value is not None]
