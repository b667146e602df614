"""How fast the runs went, and how long they waited for images: medians over their epochs."""

from collections.abc import Sequence
from itertools import groupby
from statistics import median

from alexvgg.results.report.curves import epochs
from alexvgg.results.report.grid import grid, head, number, words
from alexvgg.runs import RunRecord


def throughput(runs: Sequence[RunRecord]) -> str:
    """A row for each run; empty before the first epoch."""
    trained = [r for r in runs if epochs(r)]
    fastest = max((_median(r, "perf/images_per_s") or 0.0 for r in trained), default=0.0) or 1.0
    heads = [
        head("run", of_words=True), head("workers"), head("images/s", columns=2),
        head("waiting for images", columns=2), head("MB/s per worker"),
    ]  # fmt: skip
    return grid(heads, [_row(r, fastest) for r in trained])


def _row(run: RunRecord, fastest: float) -> list[str]:
    speed, wait = _median(run, "perf/images_per_s") or 0.0, _median(run, "perf/data_wait_share") or 0.0
    rate = _median(run, "perf/read_mb_per_s")
    workers = " → ".join(n for n, _ in groupby(str(e["workers"]) for e in run.journal if e["event"] == "start"))
    return [
        words(run.name), number(workers),
        number(f"{speed:,.0f}"), _bar("bar", speed / fastest),
        number(f"{100 * wait:.0f} %"), _bar("bar wait", wait),
        number("-" if rate is None else f"{rate:.1f}"),
    ]  # fmt: skip


def _bar(kind: str, share: float) -> str:
    return f'<td class="{kind}"><i style="width:{100 * share:.1f}%"></i></td>'


def _median(run: RunRecord, metric: str) -> float | None:
    values = [e["metrics"][metric] for e in epochs(run) if metric in e["metrics"]]
    return median(values) if values else None
