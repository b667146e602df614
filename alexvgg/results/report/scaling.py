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
    pictures = "".join(
        f"<article><h3>{escape(model)}, a global batch of {found.global_batch}</h3>"
        f"{chart([Panel(title, drawn, height=350)], 'GPUs', about=f'{title}, {model}, against the number of GPUs')}"
        f"{legend(drawn)}</article>"
        for title, drawn in (("efficiency, %", efficiency), ("MB that each GPU sends in a step", sent))
    )
    notes = _listed("Assumed", found.assumptions) + _listed("Measured by others", PUBLISHED)
    return f'<div class="cards">{pictures}<article class="notes">{notes}</article></div>'


def _listed(title: str, notes: Iterable[str]) -> str:
    return f"<h3>{title}</h3><ul>{''.join(f'<li>{escape(text)}</li>' for text in notes)}</ul>"
