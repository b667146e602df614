"""Table 4 by one command, with a node killed in the middle: all rows filled, beside the sum of its trainings' times.

Ten rows take eleven runs, here of a few epochs each at the small geometry on digits, two nodes for each on four local
nodes: so two train side by side where one doesn't start from the other.
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from chaos import processes_of, send
from processes import wait_for
from report import result

from alexvgg.attempts import history
from alexvgg.data.store import Store, create_bucket, open_store
from alexvgg.runs import list_runs
from cluster import local
from cluster.services import LocalCluster

NODES, EACH, EPOCHS = 4, 2, 4
PROMISED = 1.3
SUBMIT = [
    sys.executable, "-m", "alexvgg", "reproduce", "table4", "--nodes", str(EACH), "--set", f"train.epochs={EPOCHS}",
]  # fmt: skip


def finished(storage: Store) -> int:
    return sum(r.state == "finished" for r in list_runs(storage))


def own_seconds(storage: Store) -> float:
    """The time that all attempts took together, from their jobs' start to their end."""
    records = [record for run in list_runs(storage) for record in history(storage, f"runs/{run.name}/")]
    return sum(r.end.time - r.claim.time for r in records if r.end is not None)


def measure(folder: Path, cluster: LocalCluster) -> tuple[float, float, int]:
    os.environ.update(cluster.environment())
    create_bucket("s3://alexvgg")
    storage, began = open_store("s3://alexvgg"), time.monotonic()
    process = subprocess.Popen([*SUBMIT, "--wait"], cwd=folder)
    wait_for(lambda: finished(storage) >= 4, "four runs", 600)
    send(processes_of(cluster, "node-2"), signal.SIGKILL)
    local.up(NODES, state=cluster.state, say=lambda _: None)
    assert process.wait() == 0
    seconds = time.monotonic() - began
    shown = subprocess.run(
        [sys.executable, "-m", "alexvgg", "table", "table4", "--json"], cwd=folder, check=True, stdout=subprocess.PIPE
    )
    filled = sum(row["run"] is not None for row in json.loads(shown.stdout)["rows"])
    return seconds, own_seconds(storage), filled


with tempfile.TemporaryDirectory() as scratch:
    state = Path(scratch) / ".alexvgg"
    up = local.up(NODES, state=state)
    try:
        wall, own, rows = measure(Path(scratch), up)
    finally:
        local.down(state=state)
own /= NODES // EACH  # of them side by side
print(f"rows filled: {rows} of 10; wall time {wall:.0f} s; its trainings' own times, side by side, {own:.0f} s")
result("reproduce", wall_s=wall, own_s=own, rows=rows, ratio=wall / own, promised=PROMISED)
