"""How long a run doesn't train when a node is killed under it, and how long it has no driver when that is killed.

Four small workers on five local nodes, so that there is another node to go on with. Printed beside what is promised.
"""

import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from chaos import Watch, job_process, processes_of, send, workers_of
from processes import wait_for
from report import result

from alexvgg.data.store import open_store
from alexvgg.lease import turns
from cluster import local
from cluster.services import LocalCluster

KILLS = 3
PROMISED = {"node killed -> training again": 35.0, "driver killed, submitted again -> first action": 15.0}


def alexvgg(folder: Path, *arguments: str) -> str:
    command = [sys.executable, "-m", "alexvgg", *arguments]
    return subprocess.run(command, cwd=folder, check=True, stdout=subprocess.PIPE, text=True).stdout


class Bench:
    """One long run and what is done to it."""

    def __init__(self, folder: Path, cluster: LocalCluster) -> None:
        self.folder, self.cluster = folder, cluster
        sent = self._submit()
        os.environ.update(cluster.environment())
        self.storage = open_store("s3://alexvgg")
        self.run = Watch(self.storage, sent["run"])
        wait_for(lambda: self.run.epochs() >= 2, "the second epoch", 180)

    def _submit(self) -> dict[str, Any]:
        options = ("--model", "vgg_a", "--nodes", "4", "--set", "train.epochs=300", "--json")
        return json.loads(alexvgg(self.folder, "submit", *options))  # type: ignore[no-any-return]

    def node_killed(self) -> float:
        victim = sorted(workers_of(self.cluster))[0]
        seconds = self.run.after("a node killed", lambda: send(processes_of(self.cluster, victim), signal.SIGKILL))
        self.run.until_epochs(1)
        local.up(self.cluster.nodes, state=self.cluster.state, say=lambda _: None)
        return seconds

    def driver_killed(self) -> float:
        taken = turns(self.storage, self.run.run)
        job_process(self.cluster, "jobs.campaign", f"{self.run.run}-d{taken[-1].fence}").kill()
        time.sleep(2)  # until Ray has noticed
        began = time.monotonic()
        assert self._submit()["new"]
        wait_for(lambda: len(turns(self.storage, self.run.run)) > len(taken), "the next driver")
        return time.monotonic() - began


with tempfile.TemporaryDirectory() as scratch:
    state = Path(scratch) / ".alexvgg"
    up = local.up(5, state=state)
    try:
        bench = Bench(Path(scratch), up)
        pairs = [(bench.node_killed(), bench.driver_killed()) for _ in range(KILLS)]
    finally:
        local.down(state=state)
medians = {}
for name, seconds in zip(PROMISED, zip(*pairs, strict=True), strict=True):
    medians[name] = statistics.median(seconds)
    print(f"{name:<50} median {medians[name]:5.1f} s   max {max(seconds):5.1f}   promised {PROMISED[name]:.0f}")
result("recovery", ours=medians, promised=PROMISED, n=KILLS)
