"""Drivers and jobs whose every access to storage and cluster is a step, and a scheduler that mixes their steps."""

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random
from types import SimpleNamespace
from typing import Any

from memory import MemoryStore

from alexvgg.attempts import Attempt, Claim
from alexvgg.campaign.dag import Node, Workers
from alexvgg.campaign.driver import Driver, JobState
from alexvgg.config import Execution
from alexvgg.errors import InputError
from alexvgg.lease import LeaseLostError, Newcomer
from alexvgg.plain import Newcomer as PlainNewcomer

STEPS = 30_000  # of all together, after which something hangs


class Killed(BaseException):
    """As SIGKILL: no code of the actor's runs any more."""


class Actor(threading.Thread):
    """A process of which one step is made whenever `go` is released."""

    def __init__(self, world: "World", name: str, body: Callable[["Actor"], None]) -> None:
        super().__init__(name=name, daemon=True)
        self.world, self.body = world, body
        self.go, self.done, self.killed = threading.Semaphore(0), False, False
        self.failure: BaseException | None = None
        self.asleep = 0  # until that step, if others can make one
        self.start()

    def run(self) -> None:
        self.go.acquire()
        try:
            if not self.killed:
                self.body(self)
        except Killed:
            pass
        except BaseException as error:
            self.failure = error
        self.done = True
        self.world.parked.release()

    def step(self) -> None:
        """Wait for the next turn."""
        self.world.parked.release()
        self.go.acquire()
        if self.killed:
            raise Killed

    def store(self) -> Any:
        return MemoryStore(self.world.objects, self.step)


@dataclass
class Work:
    """A training as far as a driver looks at it."""

    node: Node

    @property
    def folder(self) -> str:
        return f"runs/{self.node.name}/"

    about = "from nothing"

    def describe(self, storage: Any) -> None:
        storage.put_new(f"{self.folder}spec.json", b"{}")

    def is_done(self, storage: Any) -> bool:
        return bool(storage.exists(f"{self.folder}final/record.json"))


@dataclass
class World:
    """One storage and one cluster. `endings` says how each work's attempts end, `finished` when none is left."""

    nodes: list[Node]
    endings: dict[str, list[str]]
    random: Random
    capacity: int
    objects: dict[str, bytes] = field(default_factory=dict)
    jobs: dict[str, JobState] = field(default_factory=dict)
    live: set[str] = field(default_factory=set)
    begun: list[str] = field(default_factory=list)
    actors: list[Actor] = field(default_factory=list)
    parked: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))
    now: float = 0.0
    pace: float = 1.0  # the longest that a step takes, in seconds

    def run(self, kills: int) -> None:
        """Mix the actors' steps until all are done; `kills` drivers are killed at random, and started again."""
        for number in range(STEPS):
            alive = [a for a in self.actors if not a.done]
            if not alive:
                return
            actor = self.random.choice([a for a in alive if a.asleep < number] or alive)
            if self.random.random() < 0.05:  # as a process that is swapped out, between any two accesses
                actor.asleep = number + self.random.randrange(200)
            if kills and actor.name.startswith("driver") and self.random.random() < 0.02:
                kills -= 1
                actor.killed = True
            self.now += self.pace * self.random.random()
            actor.go.release()
            self.parked.acquire()
            if actor.failure is not None:
                raise actor.failure
            if actor.done and actor.killed:
                campaign, number = actor.name.split()[1:]
                self.jobs[f"{campaign}-d{number}"] = JobState(active=False)
                self.drive(campaign, int(number) + 10)
        raise AssertionError(f"not over after {STEPS} steps: {self.states()}")

    def states(self) -> dict[str, str]:
        return {n.name: "finished" if f"runs/{n.name}/final/record.json" in self.objects else "not" for n in self.nodes}

    def drive(self, name: str, number: int) -> None:
        """A driver of a campaign of all works."""

        def body(actor: Actor) -> None:
            store, cluster = actor.store(), Cluster(self, actor)
            newcomer = Newcomer(store, name, f"{name}-d{number}", cluster.has_ended, lambda: self.now)
            while (lease := newcomer.take()) is None:
                actor.step()
            works = tuple(Work(n) for n in self.nodes)
            plan: Any = SimpleNamespace(
                name=name, works=works, nodes=self.nodes, workers=Workers(2, 2), execution=Execution("d", "s")
            )
            try:
                driver = Driver(store, plan, cluster, lease, clock=lambda: self.now)
                while not driver.tick():
                    actor.step()
                lease.turn.end("finished")
            except LeaseLostError:
                pass

        self.jobs[f"{name}-d{number}"] = JobState(active=True)
        self.actors.append(Actor(self, f"driver {name} {number}", body))

    def job(self, work: str, number: int, job: str) -> None:
        """The job of one attempt."""

        def body(actor: Actor) -> None:
            attempt = Attempt(actor.store(), f"runs/{work}/", number)
            if attempt.begin() and not attempt.signs()[1]:
                self._carry_out(attempt, work)
            self.jobs[job] = JobState(active=False, message="exited")

        self.actors.append(Actor(self, f"job {job}", body))

    def plain(self, work: str, name: str) -> None:
        """A plain process on another machine that trains a work whose parents are finished, if it may."""

        def body(actor: Actor) -> None:
            store = actor.store()
            newcomer = PlainNewcomer(store, f"runs/{work}/", Claim(name, {}, process="elsewhere 1 1"), lambda: self.now)
            try:
                while (attempt := newcomer.take()) is None:
                    actor.step()
            except InputError:
                return
            if store.exists(f"runs/{work}/final/record.json"):
                attempt.end("finished")
            else:
                self._carry_out(attempt, work)

        self.actors.append(Actor(self, f"plain {name}", body))

    def _carry_out(self, attempt: Attempt, work: str) -> None:
        self._live(work)
        for beat in range(self.random.randrange(60)):
            attempt.beat(beat)
        ending = self.endings[work].pop(0) if self.endings[work] else "finished"
        self.live.remove(work)
        if ending == "finished":
            attempt.storage.put(f"runs/{work}/final/record.json", b"{}")
        if ending != "lost":
            attempt.end(ending)  # type: ignore[arg-type]

    def _live(self, work: str) -> None:
        states = self.states()
        assert work not in self.live, f"two attempts at {work} are live"
        assert states[work] != "finished", f"{work} is finished and was started again"
        assert all(states[p] == "finished" for n in self.nodes if n.name == work for p in n.needs)
        self.live.add(work)
        self.begun.append(work)


class Cluster:
    """The jobs, as one driver sees them."""

    def __init__(self, world: World, actor: Actor) -> None:
        self._world, self._actor = world, actor

    def states(self) -> dict[str, JobState]:
        self._actor.step()
        return dict(self._world.jobs)

    def has_ended(self, job: str) -> bool:
        return not self.states()[job].active

    def free_workers(self) -> int:
        self._actor.step()
        return self._world.capacity - 2 * sum(j.active for name, j in self._world.jobs.items() if "-a" in name)

    def name(self, work: str, attempt: int) -> str:
        return f"{work}-a{attempt}"

    def start(self, work: Work, attempt: int, claim: Claim) -> None:
        self._actor.step()
        assert claim.job not in self._world.jobs
        self._world.jobs[claim.job] = JobState(active=True)
        self._world.job(work.node.name, attempt, claim.job)

    def stop(self, job: str) -> None:
        raise NotImplementedError
