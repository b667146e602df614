"""How training would scale with GPUs, by each exchange of gradients: a model's curves, with what it assumes."""

from collections.abc import Iterable
from html import escape

from alexvgg.architectures import architecture
from alexvgg.recipes import find_recipe
from alexvgg.results.report.chart import Line, Panel, chart, legend
from alexvgg.scaling import LABELS, PUBLISHED, Hardware, predict

GPUS = [1, 2, 4, 8, 16, 32, 64]  # alexvgg cuts a batch in no more shares


def scaling(models: Iterable[str]) -> str:
    """The net with most parameters among `models`, at the paper's size whatever the runs' was."""
    model = max(models, key=lambda name: (architecture(name).params, name))
    found = predict(model, GPUS, Hardware(), global_batch=find_recipe(model, "256").global_batch)

    def lines(scaled: float, field: str) -> list[Line]:
        return [
            Line(label, [(p.ranks, scaled * getattr(p, field)) for p in found.points[n :: len(LABELS)]], n)
            for n, label in enumerate(LABELS.values())
        ]

    efficiency, sent = lines(100, "efficiency"), lines(1e-6, "sent")
    picture = chart(
        [Panel("efficiency, %", efficiency, height=150), Panel("MB that each GPU sends in a step", sent)],
        "GPUs", about=f"efficiency and traffic of training {model} against the number of GPUs",
    )  # fmt: skip
    notes = "".join(f"<li>{escape(text)}</li>" for text in (*found.assumptions, *PUBLISHED))
    return (
        f'<div class="cards"><article><h3>{escape(model)}, a global batch of {found.global_batch}</h3>'
        f"{picture}{legend(efficiency)}<details><summary>Assumptions, and what others measured</summary>"
        f"<ul>{notes}</ul></details></article></div>"
    )
