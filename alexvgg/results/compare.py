"""Runs beside one another: only what differs in their settings, how their numbers differ, which code they ran."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import mean, stdev
from typing import Any

from alexvgg.config import flat
from alexvgg.results.lineage import ancestors
from alexvgg.results.paper import cells
from alexvgg.runs import RunRecord

LAST = (  # of the last epoch
    "train/loss_epoch", "train/top1_error", "val/top1_error", "val/top5_error", "train/lr", "perf/images_per_s",
)  # fmt: skip
ARITHMETIC = ("precision", "exchange", "compiled")  # of an attempt, not of its spec


@dataclass(frozen=True)
class Comparison:
    """By setting or metric, the value of each run, in the order of `runs`; the first of which is the baseline."""

    runs: tuple[str, ...]
    states: tuple[str, ...]  # of what hasn't finished, the epoch that its numbers are of, too
    settings: dict[str, tuple[Any, ...]]
    metrics: dict[str, tuple[float | None, ...]]
    code: dict[str, tuple[str | None, ...]]
    lineage: tuple[tuple[str, ...], ...]

    def delta(self, metric: str) -> list[float | None]:
        """What each run has more than the baseline."""
        first, *_ = values = self.metrics[metric]
        return [None if v is None or first is None else v - first for v in values]

    def spread(self, metric: str) -> tuple[float, float] | None:
        """Mean and sample standard deviation of runs that differ in nothing but their seeds; None of others."""
        values = [v for v in self.metrics[metric] if v is not None]
        same = self.settings.keys() <= {"train.seed", "parent.run"} and len(set(self.runs)) == len(values)
        return (mean(values), stdev(values)) if same and len(values) > 1 else None


def compare(
    runs: Sequence[RunRecord], provenance: Sequence[Mapping[str, Any]], all_runs: Sequence[RunRecord]
) -> Comparison:
    """Compare `runs`, the first being the baseline. `provenance` is of their last attempts, in the same order."""
    specs = [flat(r.spec) for r in runs]
    settings = {key: tuple(s.get(key) for s in specs) for key in dict.fromkeys(k for s in specs for k in s)}
    numbers = [_numbers(r) for r in runs]
    metrics = {key: tuple(n.get(key) for n in numbers) for key in dict.fromkeys(k for n in numbers for k in n)}
    return Comparison(
        runs=tuple(r.name for r in runs),
        states=tuple(map(_state, runs)),
        settings={key: values for key, values in settings.items() if len(set(map(repr, values))) > 1},
        metrics=metrics,
        code=_code(provenance),
        lineage=tuple(tuple(r.name for r in ancestors(run, all_runs)) for run in runs),
    )


def _state(run: RunRecord) -> str:
    if run.state == "finished" or run.last_epoch is None:
        return run.state
    return f"{run.state}, epoch {run.last_epoch['epoch']} of {run.spec.train.epochs}"


def _numbers(run: RunRecord) -> dict[str, float]:
    """What a run was evaluated to, and what its last epoch measured."""
    filled = cells({run.name: run.spec.recipe}, run.evaluation)
    last = run.last_epoch["metrics"] if run.last_epoch else {}
    ours = {key: value for key, value in filled.items() if key.startswith("eval/")}
    return ours | {key: last[key] for key in LAST if key in last}


def _code(provenance: Sequence[Mapping[str, Any]]) -> dict[str, tuple[str | None, ...]]:
    """Commit, uncommitted changes, lock file, packages and arithmetic, where they aren't the same for all."""
    git = [p.get("git") or {} for p in provenance]
    packages = [p.get("packages") or {} for p in provenance]
    rows: dict[str, tuple[str | None, ...]] = {
        "commit": tuple((g.get("commit") or "")[:12] or None for g in git),
        "uncommitted changes": tuple(g.get("diff_sha256") for g in git),
        "requirements.lock": tuple((p.get("lock_sha256") or "")[:12] or None for p in provenance),
        "python": tuple(p.get("python") for p in provenance),
        **{key: tuple(str(p[key]) if key in p else None for p in provenance) for key in ARITHMETIC},
        **{name: tuple(p.get(name) for p in packages) for name in sorted({n for p in packages for n in p})},
    }
    return {key: values for key, values in rows.items() if len(set(values)) > 1}


def to_json(comparison: Comparison) -> dict[str, Any]:
    """The comparison as JSON types: values in the order of `runs`."""
    c = comparison
    return {
        "runs": list(c.runs), "baseline": c.runs[0], "states": list(c.states),
        "settings": {key: list(values) for key, values in c.settings.items()},
        "metrics": {
            key: {"values": list(values), "delta": c.delta(key), "spread": c.spread(key)}
            for key, values in c.metrics.items()
        },
        "code": {key: list(values) for key, values in c.code.items()},
        "lineage": [list(line) for line in c.lineage],
    }  # fmt: skip


def to_text(comparison: Comparison) -> str:
    """The comparison for a terminal."""
    c = comparison
    head = ["", *(f"{name}{' (baseline)' if n == 0 else ''}" for n, name in enumerate(c.runs))]
    seeds = any(c.spread(key) for key in c.metrics)
    sections: list[tuple[str, list[list[str]]]] = [
        ("Settings that differ", [[key, *(_short(v) for v in values)] for key, values in c.settings.items()]),
        (
            "Results",
            [
                [key, *_with_deltas(c.metrics[key], c.delta(key)), *([_spread(c.spread(key))] if seeds else [])]
                for key in c.metrics
            ],
        ),
        ("Code and arithmetic that differ", [[key, *(v or "-" for v in values)] for key, values in c.code.items()]),
    ]
    head += ["mean ± standard deviation"] if seeds else []
    state = ["state", *c.states]
    rows = [head, state, *(row for _, section in sections for row in section)]
    widths = [max(len(row[i]) for row in rows if i < len(row)) for i in range(len(head))]

    def line(row: Sequence[str]) -> str:
        return "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=False)).rstrip()

    lines = [line(head), line(state)]
    for title, section in sections:
        lines += ["", title, *(line(row) for row in section)] if section else ["", f"{title}: none"]
    lines += ["", "Lineage", *(" -> ".join(names) for names in c.lineage)]
    return "\n".join(lines)


def _short(value: Any) -> str:
    return "-" if value is None else str(value)[:40].replace(" ", "")


def _spread(found: tuple[float, float] | None) -> str:
    return "-" if found is None else f"{found[0]:.4g} ± {found[1]:.2g}"


def _with_deltas(values: Sequence[float | None], deltas: Sequence[float | None]) -> list[str]:
    cells = []
    for n, (value, delta) in enumerate(zip(values, deltas, strict=True)):
        text = "-" if value is None else f"{value:.4g}"
        cells.append(text if n == 0 or delta is None else f"{text} ({delta:+.4g})")
    return cells
