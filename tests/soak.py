"""Random harm to a local cluster while two campaigns train on it: `make soak SEED=7 MINUTES=20`.

The campaigns share a parent. Whoever loses something brings the cluster up and submits again, as a person would; that
is all the help they get. In the end every run must have had each sample of each epoch once, and the final weights must
be those of the same runs under torchrun, where nothing happens to them, to the bit.
"""

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path

import psutil
from chaos import consumed_once, processes_of, send, undisturbed, workers_of
from processes import command_line, processes_with

from alexvgg.data.store import Store, open_store
from alexvgg.runs import list_runs
from cluster import local, processes
from cluster.services import LocalCluster

NODES, RANKS, EPOCHS = 4, 2, 150
RECIPES = ["vgg_a-s256", "vgg_b-s256", "vgg_d-s256", "vgg_d-s384"]  # parents first
GOALS = (["--model", "vgg_d", "--scale", "384"], ["--model", "vgg_b"])  # all of RECIPES
SETTINGS = ["--set", f"train.epochs={EPOCHS}", "--set", "test_scales=[[256]]"]
STORAGE = "s3://alexvgg/soak"
LATE_SECONDS = 1800  # for what is left when nothing happens any more


class Soak:
    """A cluster in `folder`, two campaigns on it, and what is done to them at random."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.folder, self.random = folder, random.Random(seed)
        self.began = time.monotonic()
        self.cluster = self._up()
        self.harm: dict[Callable[[], object], int] = {  # and how often, beside the others
            self.worker_killed: 4, self.node_killed: 3, partial(self.job_hit, "jobs.train", signal.SIGKILL): 3,
            partial(self.job_hit, "jobs.campaign", signal.SIGKILL): 2, self.stopped: 2, self.worker_frozen: 2,
            self.node_frozen: 2, partial(self.frozen, "s3", 45.0): 2, partial(self.frozen, "head", 45.0): 1,
            partial(self.job_hit, "jobs.train", signal.SIGTERM): 1, partial(self.killed, "mlflow"): 1,
            partial(self.job_hit, "jobs.campaign", signal.SIGTERM): 1, partial(self.killed, "head"): 1,
        }  # fmt: skip

    def _up(self) -> LocalCluster:
        cluster = local.up(NODES, state=self.folder / local.STATE, say=lambda _: None)
        os.environ.update(cluster.environment())
        return cluster

    def say(self, *what: object) -> None:
        print(f"{time.monotonic() - self.began:7.1f} s", *what, flush=True)

    def alexvgg(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "alexvgg", *arguments]
        return subprocess.run(command, cwd=self.folder, capture_output=True, text=True)

    def submit(self) -> None:
        """Both campaigns, whether they are at work or not; what is refused is said, and tried again later."""
        self.cluster = self._up()
        more = ["--nodes", str(RANKS), *SETTINGS, "--storage", STORAGE, "--sample-log", str(self.folder / "log")]
        for goal in GOALS:
            done = self.alexvgg("submit", *goal, *more, "--retry")
            if done.returncode:
                self.say("submit:", done.stderr.strip())

    def step(self) -> None:
        harm = self.random.choices([*self.harm], [*self.harm.values()])[0]
        what = [harm.func.__name__, *map(str, harm.args)] if isinstance(harm, partial) else [harm.__name__]
        self.say(*what, harm() or "nobody")
        time.sleep(self.random.choice([0, 2, 10]))
        self.submit()
        time.sleep(self.random.uniform(5, 40))

    def worker_killed(self) -> str | None:
        node, victims = self._workers()
        if victims:
            self.random.choice(victims).kill()
        return node

    def worker_frozen(self) -> str | None:
        node, victims = self._workers()
        self._freeze(victims, 40.0)
        return node

    def node_killed(self) -> str:
        node = self._node()
        self.killed(node)
        return node

    def node_frozen(self) -> str:
        node = self._node()
        self.frozen(node, 50.0)
        return node

    def frozen(self, service: str, most: float) -> str:
        self._freeze(processes_of(self.cluster, service), most)
        return service

    def killed(self, service: str) -> str:
        send(processes_of(self.cluster, service), signal.SIGKILL)
        return service

    def job_hit(self, module: str, sign: signal.Signals) -> str | None:
        """A signal to the entry point of a Ray job, if one runs."""
        at_work = [p for p in self._of_the_head() if command_line(p).split()[1:3] == ["-m", module]]
        if not at_work:
            return None
        victim = self.random.choice(at_work)
        name = command_line(victim).split()[4]
        send([victim], sign)
        return name

    def stopped(self) -> str:
        return self.alexvgg("stop", "--storage", STORAGE, *self.random.choice([[], [], ["--now"]])).stdout.strip()

    def _of_the_head(self) -> list[psutil.Process]:
        return sorted(processes_with(f"{processes.MARK}={self.cluster.state}:head\0"), key=lambda p: p.pid)

    def _workers(self) -> tuple[str | None, list[psutil.Process]]:
        found = workers_of(self.cluster)
        node = self.random.choice(sorted(found)) if found else None
        return node, found[node] if node is not None else []

    def _node(self) -> str:
        return f"node-{self.random.randint(1, NODES)}"

    def _freeze(self, victims: list[psutil.Process], most: float) -> None:
        send(victims, signal.SIGSTOP)
        time.sleep(self.random.uniform(3, most))
        send(victims, signal.SIGCONT)

    def finished(self) -> bool:
        """Whether all is; says how far it is."""
        runs = list_runs(open_store(STORAGE))
        self.say(*(f"{r.spec.recipe} {(r.last_epoch or {}).get('epoch', 0)}/{EPOCHS}" for r in runs if r.spec))
        return len(runs) == len(RECIPES) and all(r.state == "finished" for r in runs)


def check(storage: Store, soak: Soak) -> None:
    """Raises AssertionError if anything shows in what was trained."""
    runs = {r.name: r for r in list_runs(storage)}
    for name, run in runs.items():
        consumed_once(storage, name, soak.folder / "log", EPOCHS)
        soak.say(name, "was ended and begun again:", *(a.end.outcome for a in run.attempts if a.end is not None))
    dataset = json.loads(soak.alexvgg("config", "show", "--json").stdout)["settings"]["dataset"]["value"]
    expected = undisturbed(RECIPES, SETTINGS, dataset, soak.folder / "undisturbed", RANKS)
    assert {name: run.weights for name, run in runs.items()} == expected
    soak.say("every sample once, and the weights of the undisturbed runs, to the bit")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--minutes", type=float, required=True)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="soak-") as name, suppress(KeyboardInterrupt):
        soak = Soak(Path(name), asked.seed)
        try:
            soak.submit()
            while time.monotonic() - soak.began < 60 * asked.minutes and not soak.finished():
                soak.step()
            while not soak.finished():
                assert time.monotonic() - soak.began < 60 * asked.minutes + LATE_SECONDS, "it doesn't come to its end"
                time.sleep(20)
            check(open_store(STORAGE), soak)
        finally:
            local.down(state=soak.cluster.state, say=lambda _: None)


if __name__ == "__main__":
    main()
