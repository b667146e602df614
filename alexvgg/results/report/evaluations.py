"""What was evaluated beside the tables: other scales, methods and fusions."""

from collections.abc import Mapping, Sequence
from typing import Any

from alexvgg.results.paper import TABLES, asked, tested
from alexvgg.results.report.grid import grid, head, number, words
from alexvgg.runs import RunRecord


def beside_the_tables(runs: Sequence[RunRecord], fusions: Sequence[Mapping[str, Any]]) -> str:
    """A row for each evaluation of these runs, and each fusion of some of them, that no table asks for."""
    recipes = {r.name: r.spec.recipe for r in runs}
    documents = [d for r in runs for d in r.evaluation] + [
        d for d in fusions if {m["run"] for m in d["members"]} <= recipes.keys()
    ]
    wanted = [(row.method, asked(row)) for rows in TABLES.values() for row in rows if row.nets]
    shown = [d for d in documents if d["images"] and (d["method"], tested(recipes, d)) not in wanted]
    heads = [head("nets and their test scales", of_words=True), head("method", of_words=True)]
    return grid(heads + [head(text) for text in ("top-1", "top-5", "images")], map(_row, shown))


def _row(document: Mapping[str, Any]) -> list[str]:
    nets = " + ".join(f"{m['run']} at {','.join(map(str, m['test_scales']))}" for m in document["members"])
    errors = (number(f"{document[error]:.1f}") for error in ("top1_error", "top5_error"))
    return [words(nets), words(document["method"]), *errors, number(str(document["images"]))]
