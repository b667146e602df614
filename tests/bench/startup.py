"""How long `alexvgg --help` takes, beside a Python that does nothing. They run in turn, so that drift hits both."""

import subprocess
import sys
import time
from pathlib import Path

from report import report

RUNS = 15


def seconds(command: list[str]) -> float:
    began = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - began


ours_command = [str(Path(sys.executable).with_name("alexvgg")), "--help"]
baseline_command = [sys.executable, "-c", "pass"]
for warm_up in (ours_command, baseline_command):
    seconds(warm_up)
pairs = [(seconds(ours_command), seconds(baseline_command)) for _ in range(RUNS)]
ours, baseline = ([1000 * pair[i] for pair in pairs] for i in (0, 1))
report("startup", ours, baseline, "ms", ("alexvgg --help", "python -c pass"))
