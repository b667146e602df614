"""What was evaluated beside the tables: other scales, methods and fusions."""

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from alexvgg.results.paper import TABLES, asked, tested
from alexvgg.runs import RunRecord


def beside_the_tables(runs: Sequence[RunRecord], fusions: Sequence[Mapping[str, Any]]) -> str:
    """A row for each evaluation of these runs, and each fusion of some of them, that no table asks for."""
    recipes = {r.name: r.spec.recipe for r in runs}
    documents = [d for r in runs for d in r.evaluation] + [
        d for d in fusions if {m["run"] for m in d["members"]} <= recipes.keys()
    ]
    wanted = [(row.method, asked(row)) for rows in TABLES.values() for row in rows if row.nets]
    rows = [_row(d) for d in documents if d["images"] and (d["method"], tested(recipes, d)) not in wanted]
    if not rows:
        return ""
    heads = ('class="place">nets and their test scales', 'class="place">method', ">top-1", ">top-5", ">images")
    head = "".join(f'<th scope="col" {text}</th>' for text in heads)
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{"".join(rows)}</tbody></table></div>'


def _row(document: Mapping[str, Any]) -> str:
    nets = " + ".join(f"{m['run']} at {','.join(map(str, m['test_scales']))}" for m in document["members"])
    numbers = (f"{document['top1_error']:.1f}", f"{document['top5_error']:.1f}", str(document["images"]))
    cells = "".join(f'<td class="number">{number}</td>' for number in numbers)
    return f'<tr><td class="place">{escape(nets)}</td><td class="place">{escape(document["method"])}</td>{cells}</tr>'
