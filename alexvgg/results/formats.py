"""A table as text for a terminal, Markdown, CSV, HTML or JSON."""

import csv
import io
import re
import textwrap
from collections.abc import Callable, Sequence
from html import escape

from alexvgg.columns import Column, aligned
from alexvgg.results.paper import PaperNet
from alexvgg.results.table import Row, scale_text

TITLES = {
    "table3": "VGG Table 3: one test scale, validation error in %",
    "table4": "VGG Table 4: several test scales, validation error in %",
    "table5": "VGG Table 5: dense and multi-crop evaluation, validation error in %",
    "table6": "VGG Table 6: fused nets, validation error in %",
    "table7": "VGG Table 7: beside other nets, validation error in %",
    "alexnet": "AlexNet Table 2: 10-crop evaluation, validation error in % (*: trained on the 2011 release, too)",
    "ablations": "Ablations of both papers, validation error in % (in brackets: the difference that the paper states)",
}
SPARE = {"images": 3, "paper's test top-5": 2, "delta": 1}  # columns, where there is no room
BY_NET = ("table3", "table4", "table5")  # their rows are told apart by net and scales, the others' by a title


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
                "run": r.run, "changed": list(r.changed), "runs": r.runs, "images": r.images,
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


def cells(table: str, rows: Sequence[Row]) -> tuple[list[str], list[list[str]], int]:
    """(head, rows, how many columns from the left name a row); the last column is the run, or the command for one."""
    place = ["net", "S", "Q"] if table in BY_NET else ["nets"]
    methods = {r.paper.method for r in rows if r.paper.nets}
    place += ["method"] if len(methods) > 1 else []
    test = ["paper's test top-5"] if any(r.paper.top5_test for r in rows) else []
    beside = ["paper", "delta"] if any(r.paper.top1 or r.paper.top5 for r in rows) else []
    head = [*place, "top-1", *beside, "top-5", *beside, "images", *test, "run"]
    body = []
    for r in rows:
        net = [] if table not in BY_NET else _place(r.paper.nets[0])
        body.append([
            *(net or [r.paper.title]),
            *([r.paper.method if r.paper.nets else "published"] if len(methods) > 1 else []),
            _number(r.top1), *(_beside(r.top1, r.paper.top1) if beside else []),
            _number(r.top5), *(_beside(r.top5, r.paper.top5) if beside else []),
            "-" if r.images is None else str(r.images),
            *([_number(r.paper.top5_test)] if test else []),
            _run(r),
        ])  # fmt: skip
    return head, body, len(place)


def _run(row: Row) -> str:
    if row.run is None:
        return row.command or "-"
    about = [*row.changed, *([f"the newest of {row.runs}"] if row.runs > 1 else [])]
    return f"{row.run} ({', '.join(about)})" if about else row.run


def _place(net: PaperNet) -> list[str]:
    return [net.model, scale_text(net.train_scale), ",".join(map(str, net.test_scales))]


def _beside(ours: float | None, papers: float | None) -> tuple[str, str]:
    return _number(papers), "-" if ours is None or papers is None else f"{ours - papers:+.1f}"


def _number(error: float | None) -> str:
    return "-" if error is None else f"{error:.1f}"


def to_text(table: str, rows: Sequence[Row], note: str, width: int | None = None) -> str:
    """The table for a terminal; with runs and commands below it, by the rows' numbers, if it is wider than `width`."""
    head, body, places = cells(table, rows)
    *columns, last = (
        Column(text, values, left=i < places or i == len(head) - 1, spare=SPARE.get(text, 0))
        for i, (text, *values) in enumerate(zip(head, *body, strict=True))
    )
    lines, below = aligned([*columns, last]), []
    if width is not None and max(map(len, lines)) > width:
        rows_of = {run: [n for n, r in enumerate(last.cells, 1) if r == run] for run in last.cells if run != "-"}
        below = ["", *(f"{', '.join(map(str, numbers))}: {run}" for run, numbers in rows_of.items())]
        lines = aligned([Column("", [str(n) for n in range(1, len(body) + 1)]), *columns], width)
        note = textwrap.fill(note, width)
    lines.insert(1, "-" * max(map(len, lines)))
    return "\n".join([TITLES[table], note, "", *lines, *below])


def to_markdown(table: str, rows: Sequence[Row], note: str) -> str:
    """The table for a README; runs and commands as code."""
    head, body, places = cells(table, rows)
    marks = [":--" if i < places or i == len(head) - 1 else "--:" for i in range(len(head))]
    lines = [head, marks, *([*row[:-1], row[-1] if row[-1] == "-" else f"`{row[-1]}`"] for row in body)]
    written = ["| " + " | ".join(cell.replace("|", r"\|") for cell in line) + " |" for line in lines]
    return "\n".join([f"**{TITLES[table]}**", "", note, "", *written])


def to_csv(table: str, rows: Sequence[Row], note: str) -> str:
    """The table for other programs: full precision, one line a row, the note in each, so that none travels without."""
    fields = (
        "table", "row", "model", "train_scale", "test_scales", "method",
        "top1_error", "paper_top1_error", "delta_top1_error", "top5_error", "paper_top5_error", "delta_top5_error",
        "paper_top5_test_error", "images", "run", "changed", "command", "note",
    )  # fmt: skip
    file = io.StringIO()
    writer = csv.DictWriter(file, fields, lineterminator="\n")
    writer.writeheader()
    for r in rows:
        writer.writerow({
            "table": table, "row": r.paper.title or "{} S={} Q={}".format(*_place(r.paper.nets[0])),
            **_alone(r.paper.nets), "method": r.paper.method if r.paper.nets else None,
            "top1_error": r.top1, "paper_top1_error": r.paper.top1, "delta_top1_error": _minus(r.top1, r.paper.top1),
            "top5_error": r.top5, "paper_top5_error": r.paper.top5, "delta_top5_error": _minus(r.top5, r.paper.top5),
            "paper_top5_test_error": r.paper.top5_test, "images": r.images, "run": r.run,
            "changed": " ".join(r.changed), "command": r.command, "note": note,
        })  # fmt: skip
    return file.getvalue().rstrip("\n")


def _alone(nets: Sequence[PaperNet]) -> dict[str, str]:
    """The columns of a row of one net; a fusion's are empty, as its title names its nets."""
    return dict(zip(("model", "train_scale", "test_scales"), _place(nets[0]), strict=True)) if len(nets) == 1 else {}


def _minus(ours: float | None, papers: float | None) -> float | None:
    return None if ours is None or papers is None else round(ours - papers, 6)


def to_latex(table: str, rows: Sequence[Row], note: str) -> str:
    """The table for a paper, with booktabs; whose rows name no runs."""
    head, body, places = cells(table, rows)
    columns = "l" * places + "r" * (len(head) - places - 1)
    lines = [r"\begin{table}", r"\centering", rf"\caption{{{_tex(f'{TITLES[table]}. {note}')}}}"]
    lines += [rf"\begin{{tabular}}{{{columns}}}", r"\toprule"]
    lines += [" & ".join(map(_tex, head[:-1])) + r" \\", r"\midrule"]
    lines += [" & ".join(map(_tex, row[:-1])) + r" \\" for row in body]
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", r"\end{table}"])


def _tex(text: str) -> str:
    """Text as LaTeX sets it; a lone dash, for nothing, as a long one."""
    return "--" if text == "-" else re.sub(r"[#$%&_{}]", r"\\\g<0>", text)


def to_html(table: str, rows: Sequence[Row], note: str) -> str:
    """The table as an HTML figure to be put into a page."""
    head, body, places = cells(table, rows)
    columns = range(len(head))
    kinds = ["place" if i < places else "run" if i == columns[-1] else "number" for i in columns]
    heads = "".join(
        f'<th scope="col" class="{kind}">{escape(cell)}</th>' for cell, kind in zip(head, kinds, strict=True)
    )
    lines = []
    for row, r in zip(body, rows, strict=True):
        written = [f'<td class="{kind}">{escape(cell)}</td>' for cell, kind in zip(row[:-1], kinds, strict=False)]
        last = _command(row[-1]) if r.command else escape(row[-1])
        state = "ours" if r.run else "empty"
        lines.append(f'<tr class="{state}">{"".join(written)}<td class="run">{last}</td></tr>')
    return "\n".join([
        f'<figure class="table" id="{table}">',
        f"<figcaption>{escape(TITLES[table])}{f'<small>{escape(note)}</small>' if note else ''}</figcaption>",
        f'<div class="scroll"><table>\n<thead><tr>{heads}</tr></thead>\n<tbody>', *lines, "</tbody></table></div>",
        "</figure>",
    ])  # fmt: skip


def _command(text: str) -> str:
    """A command that breaks between its words only, not at their hyphens, nor between an option and its value."""
    words = re.findall(r"(?:--\S+ )?\S+", text)
    return f"<code>{' '.join(f'<span>{escape(word)}</span>' for word in words)}</code>"


FORMATS: dict[str, Callable[[str, Sequence[Row], str], str]] = {
    "text": to_text,
    "markdown": to_markdown,
    "csv": to_csv,
    "html": to_html,
    "latex": to_latex,
}
