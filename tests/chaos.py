"""What is done to a cluster under a training, and how it is checked that nothing came of it."""

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
from processes import command_line, free_port, processes_with, wait_for

from alexvgg.data.store import Store
from alexvgg.keys import journal_key
from alexvgg.runs import is_finished
from alexvgg.tracking.journal import read_journal
from cluster import processes
from cluster.services import LocalCluster

SAMPLES = 1437  # of the digits' train split


def events(storage: Store, run: str, kind: str) -> list[dict[str, Any]]:
    return [e for e in read_journal(storage, journal_key(run)) if e["event"] == kind]


def workers_of(cluster: LocalCluster) -> dict[str, list[psutil.Process]]:
    """Node -> the processes on it that train."""
    found: dict[str, list[psutil.Process]] = {}
    for process in processes_with(f"{processes.MARK}={cluster.state}:"):
        if "RayTrainWorker" in command_line(process):
            with suppress(psutil.NoSuchProcess):
                found.setdefault(process.environ()[processes.MARK].rpartition(":")[2], []).append(process)
    return found


def processes_of(cluster: LocalCluster, service: str) -> list[psutil.Process]:
    """Everything that runs on a node, or belongs to a service; the first process of it first."""
    family = processes_with(f"{processes.MARK}={cluster.state}:{service}\0")
    return sorted(family, key=lambda p: p.create_time())


def job_process(cluster: LocalCluster, *arguments: str) -> psutil.Process:
    """The entry point of a Ray job that was started with these arguments."""
    started = {p: command_line(p).split()[1:] for p in processes_with(f"{processes.MARK}={cluster.state}:head\0")}
    (found,) = [p for p, command in started.items() if command[:1] == ["-m"] and {*arguments} <= {*command}]
    return found


def send(processes: list[psutil.Process], sign: signal.Signals) -> None:
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.send_signal(sign)


class Watch:
    """Follows a run through what happens to it, and prints how long it took to train again."""

    def __init__(self, storage: Store, run: str) -> None:
        self._storage, self.run = storage, run

    def epochs(self) -> int:
        return len(events(self._storage, self.run, "epoch"))

    def starts(self) -> int:
        return len(events(self._storage, self.run, "start"))

    def until_epochs(self, more: int, seconds: float = 300) -> None:
        """Wait until it has trained so many more epochs."""
        goal = self.epochs() + more
        wait_for(lambda: self.epochs() >= goal, f"epoch {goal} of {self.run}", seconds)

    def after(self, what: str, happens: Callable[[], None], seconds: float = 300) -> float:
        """Let something happen that costs the run its workers; the seconds until it trains again."""
        before, began = self.starts(), time.monotonic()
        happens()
        wait_for(lambda: self.starts() > before, f"training again after {what}", seconds)
        took = time.monotonic() - began
        print(f"{what}: training again after {took:.1f} s")
        return took

    def until_finished(self, seconds: float = 600) -> None:
        wait_for(lambda: is_finished(self._storage, self.run), f"the end of {self.run}", seconds)


def consumed_once(storage: Store, run: str, log: Path, epochs: int) -> None:
    """Of every attempt the steps up to the next one's start survive: they have every sample of every epoch once."""
    starts = [e["step"] for e in events(storage, run, "start")] + [sys.maxsize]
    samples: dict[int, list[int]] = {}
    for file in log.glob(f"{run}-a*-r*.jsonl"):
        attempt = int(file.stem.rpartition("-r")[0].rpartition("-a")[2])
        for text in file.read_text().splitlines():
            line = json.loads(text)
            if starts[attempt - 1] < line["step"] <= starts[attempt]:
                samples.setdefault(line["epoch"], []).extend(line["samples"])
    assert sorted(samples) == list(range(epochs))
    for epoch, ids in samples.items():
        assert sorted(ids) == list(range(SAMPLES)), f"epoch {epoch} of {run}"


def undisturbed(recipes: list[str], settings: list[str], dataset: str, folder: Path, ranks: int) -> dict[str, str]:
    """The same runs under torchrun, where nothing happens to them: run -> the sha256 of its final weights."""
    storage = folder.as_uri()
    for recipe in recipes:
        launcher = ["-m", "torch.distributed.run", "--nproc-per-node", str(ranks), "--master-port", str(free_port())]
        places = ["--dataset", dataset, "--storage", storage, "--geometry", "small"]
        command = [sys.executable, *launcher, "-m", "alexvgg", "train", recipe, *places, *settings]
        environment = {k: v for k, v in os.environ.items() if not k.startswith("RAY")} | {"OMP_NUM_THREADS": "1"}
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    return {
        p.parents[1].name: hashlib.sha256(p.read_bytes()).hexdigest() for p in folder.rglob("final/model.safetensors")
    }
