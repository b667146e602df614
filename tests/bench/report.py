"""The common form of a benchmark's result: a readable table, then one line of JSON."""

import json
import os
import platform
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any


def hardware() -> str:
    """This machine in a line: processor, cores, system."""
    cpu = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        cpu = next((line.split(":")[1].strip() for line in info.open() if line.startswith("model name")), cpu)
    return f"{cpu}, {os.cpu_count()} cores, {platform.system()}"


def result(bench: str, **fields: Any) -> None:
    """Print the line of JSON."""
    print(json.dumps({"bench": bench, **fields, "hardware": hardware()}))


def report(bench: str, ours: Sequence[float], baseline: Sequence[float], unit: str, names: tuple[str, str]) -> None:
    """Print medians, spread and ratio of paired measurements where less is better; ratio > 1 means ours is better."""
    for name, values in zip(names, (ours, baseline), strict=True):
        print(f"{name:<40} median {median(values):9.3f} {unit}   min {min(values):9.3f}   max {max(values):9.3f}")
    times = {"ours": median(ours), "baseline": median(baseline)}
    result(bench, **times, unit=unit, ratio=times["baseline"] / times["ours"], n=len(ours))


def report_rates(bench: str, rates: dict[str, list[float]], unit: str) -> None:
    """Print medians, spread and our share of each where more is better. The first is ours, the second the baseline."""
    (ours, *_), middle = rates, {name: median(values) for name, values in rates.items()}
    for name, values in rates.items():
        ratio = middle[ours] / middle[name]
        print(
            f"{name:<40} median {middle[name]:9.1f} {unit}   min {min(values):9.1f}   max {max(values):9.1f}"
            f"   ours is {ratio:5.2f} times that"
        )
    baseline = list(rates)[1]
    ratio = middle[ours] / middle[baseline]
    result(bench, ours=middle[ours], baseline=middle[baseline], unit=unit, ratio=ratio, n=len(rates[ours]))
