"""The report: its sections in the order in which people ask."""

import re
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

from alexvgg import __version__
from alexvgg.data.shards import Dataset
from alexvgg.data.store import Store
from alexvgg.recipes import Geometry
from alexvgg.results.formats import TITLES, to_html
from alexvgg.results.lineage import parent_of, single_scale
from alexvgg.results.report.curves import cards, epochs, overview
from alexvgg.results.report.evaluations import beside_the_tables
from alexvgg.results.report.graph import graph
from alexvgg.results.report.jitter import by_model
from alexvgg.results.report.pictures import filters, predictions
from alexvgg.results.report.provenance import provenance
from alexvgg.results.report.scaling import scaling
from alexvgg.results.report.throughput import throughput
from alexvgg.results.table import NOT_COMPARABLE, fill, why_not_comparable
from alexvgg.runs import RunRecord
from alexvgg.tracking.describing import read_provenance, read_transplant


@dataclass(frozen=True)
class Material:
    """What a report is made of: started runs of one dataset, parents first, and the fusions of them.

    `options`, like ` --profile lab`, are added to commands, and `size`, like ` --geometry small`, to submissions.
    `others` are all stored runs: one of these may start from one that isn't shown.
    """

    runs: Sequence[RunRecord]
    fusions: Sequence[Mapping[str, Any]]
    storage: Store
    dataset: Dataset
    geometry: Geometry
    options: str = ""
    size: str = ""
    others: Sequence[RunRecord] = ()


def page(material: Material, now: float) -> str:
    """The report as one HTML document. `now`, in seconds since 1970, is written on it."""
    m = material
    origins = {r.name: read_transplant(m.storage, r.name) for r in m.runs}
    sections = {
        "Results": _tables(m),
        "Beside the tables": beside_the_tables(m.runs, m.fusions),
        "Scale jitter": _jitter(m),
        "Training": _troubles(m.runs) + (overview(m.runs) + cards(m.runs) if any(epochs(r) for r in m.runs) else ""),
        "Answers": _answers(m),
        "First-layer filters": filters(m.runs, m.storage) if any(r.weights for r in m.runs) else "",
        "Throughput": (measured := throughput(m.runs)),
        "Scaling": scaling(r.spec.model.name for r in m.runs) if measured else "",
        "Lineage": graph(m.runs, origins),
        "Provenance": _provenance(m, origins),
    }
    style = Path(__file__).with_name("style.css").read_text()
    shown = {title: body for title, body in sections.items() if body}
    links = "".join(f'<a href="#{_anchor(title)}">{title}</a>' for title in shown)
    body = "".join(
        f'<section id="{_anchor(title)}"><h2>{title}</h2>{_lead(NOTES.get(title))}{text}</section>'
        for title, text in shown.items()
    )
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="color-scheme" content="light dark">'
        f"<title>AlexNet and VGG: {escape(m.dataset.name)}</title><style>{style}</style></head>"
        f"<body><header><h1>AlexNet and VGG, reproduced</h1>{_about(m, now)}<nav>{links}</nav></header>"
        f"<main>{body}</main><footer>Made by alexvgg {__version__} from {escape(m.storage.url)}</footer>"
        "</body></html>\n"
    )


NOTES = {
    "Beside the tables": "What was evaluated, and no table asks for: validation errors in %.",
    "Scale jitter": "S is the shorter side of the training images, Q that of the test images, both for a crop of 224 "
    "pixels. [256;512] means that S was drawn anew for each image.",
    "Training": "A training error counts an epoch's answers as they were given, with its crops and dropout, by a net "
    "that was learning meanwhile. Losses are means over ten steps. Dashed lines: the learning rate fell (lr), or "
    "training went on in another attempt, perhaps on another number of workers.",
    "First-layer filters": "As in AlexNet's figure 3. Each kernel is stretched to its own full range of colours.",
    "Throughput": "Medians over the epochs.",
    "Scaling": "A model of the paper's net on A100s with 25 Gb/s between them, not a measurement of these runs; "
    "`alexvgg plan scaling` computes it for other nets, links and batches.",
    "Lineage": "On the arrows: how many layers came from the parent.",
}

OF_DIGITS = (
    "Large S and Q are hard here for a reason that ImageNet hasn't: a digit fills its picture, and of one rescaled to "
    "512 a crop, which is what the nets were trained on, sees a fifth."
)


def _lead(note: str | None) -> str:
    if not note:
        return ""
    text = re.sub("`(.+?)`", r"<code>\1</code>", escape(note))
    return f'<p class="lead">{text}</p>'


def _anchor(title: str) -> str:
    return title.lower().replace(" ", "-")


def _about(m: Material, now: float) -> str:
    done = sum(r.state == "finished" for r in m.runs)
    date = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(now))
    facts = (
        f"{done} of {len(m.runs)} runs finished",
        f"{m.dataset.name}: {len(m.dataset.train):,} training and {len(m.dataset.val):,} validation images",
        f"{m.geometry.name} geometry", date,
    )  # fmt: skip
    reasons = why_not_comparable(m.dataset, m.geometry)
    warning = (
        "<p class=warning><b>Not comparable with the papers’ numbers</b>, because "
        f"{escape('; '.join(reasons))}. {NOT_COMPARABLE}</p>"
        if reasons
        else ""
    )
    return f"<ul class=facts>{''.join(f'<li>{escape(f)}</li>' for f in facts)}</ul>{warning}"


def _tables(m: Material) -> str:
    """Tables with at least one row of ours, and the others folded away: they say which commands fill them."""
    filled, empty = [], []
    comparable = not why_not_comparable(m.dataset, m.geometry)
    note = f"{m.dataset.name}, {m.geometry.name} geometry{'' if comparable else ': not comparable with the paper'}"
    for table in ("table4", *(t for t in TITLES if t != "table4")):
        rows = fill(table, m.runs, m.fusions, m.dataset, m.geometry, m.options, m.size, m.others)
        shown = to_html(table, rows, note)
        if any(r.run for r in rows):
            filled.append(shown)
        else:
            empty.append(f"<details><summary>{escape(TITLES[table])}: not run yet</summary>{shown}</details>")
    return "".join([*filled, *empty])


def _jitter(m: Material) -> str:
    drawn = by_model(m.runs, m.storage)
    return _lead(OF_DIGITS) + drawn if drawn and m.dataset.name == "digits" else drawn


def _troubles(runs: Iterable[RunRecord]) -> str:
    said = [
        *((r.name, f" failed: {r.error.strip()}") for r in runs if r.error is not None),
        *((r.name, f": {r.warning}") for r in runs if r.warning is not None),
    ]
    return "".join(f"<p class=warning><b>{escape(name)}</b>{escape(what)}</p>" for name, what in said)


def _provenance(m: Material, origins: Mapping[str, Sequence[Mapping[str, Any]]]) -> str:
    folded = (provenance(r, read_provenance(m.storage, r.name), origins[r.name]) for r in m.runs)
    return f'<div class="provenance">{"".join(folded)}</div>'


def _answers(m: Material) -> str:
    """Pictures with the answers of the run that is best at its own single scale, as in AlexNet's figure 4."""
    tested = [(row["top1_error"], r) for r in m.runs if r.weights is not None and (row := single_scale(r)) is not None]
    for error, run in sorted(tested, key=lambda pair: (pair[0], pair[1].name)):
        if shown := predictions(run, m.dataset, m.storage):
            note = (
                f"{run.name}, top-1 error {error:.1f} % at one scale, as in AlexNet's figure 4: first the images it is "
                "most wrong about, then of other classes those that it got right with the least certainty."
            )
            return _lead(note) + shown
    return ""


def leaves(runs: Iterable[RunRecord]) -> list[RunRecord]:
    """The runs that none of the others starts from."""
    listed = list(runs)
    parents = {parent_of(r) for r in listed}
    return [r for r in listed if r.name not in parents]
