"""Drivers on one storage, their steps mixed in any order: one attempt at a time, parents first, all gets done."""

from random import Random
from types import SimpleNamespace
from typing import Any

import pytest
from campaign.simulation import Work, World
from hypothesis import given, settings
from hypothesis import strategies as st
from memory import MemoryStore

from alexvgg.attempts import BEAT_SECONDS, DEAD_SECONDS, FIRST_PAUSE, Attempt, Claim
from alexvgg.campaign.dag import Node, Workers
from alexvgg.campaign.driver import Driver, JobState
from alexvgg.campaign.overview import overview
from alexvgg.campaign.plan import Campaign, Training
from alexvgg.config import Execution, ModelConfig
from alexvgg.lease import DEAD_SECONDS as SILENT_SECONDS
from alexvgg.lease import LeaseLostError, Newcomer, is_ending
from alexvgg.planning import Images, Start, plan_runs
from alexvgg.recipes import GEOMETRIES, RECIPES

LINEAGE = [Node("a"), Node("b", ("a",)), Node("c", ("a",)), Node("d", ("c",)), Node("fuse", ("b", "d"))]


@given(st.integers(0, 2**32), st.integers(1, 3), st.integers(0, 2), st.integers(2, 6))
@settings(max_examples=25, deadline=None)
def test_drivers_that_get_into_each_others_way(seed: int, drivers: int, kills: int, capacity: int) -> None:
    random = Random(seed)
    endings = {n.name: ["lost"] * random.randrange(3) for n in LINEAGE}
    world = World(LINEAGE, {k: list(v) for k, v in endings.items()}, random, capacity)
    for number in range(1, drivers + 1):
        world.drive("one", number)
    world.drive("two", 1)  # another campaign of the same runs
    world.run(kills)
    assert set(world.states().values()) == {"finished"}
    assert sorted(world.begun) == sorted(n for n, ends in endings.items() for _ in range(1 + len(ends)))


@given(st.integers(0, 2**32), st.integers(0, 2), st.integers(1, 3))
@settings(max_examples=25, deadline=None)
def test_plain_processes_among_drivers(seed: int, drivers: int, processes: int) -> None:
    """A process that is swapped out is silent for 10 s at most here; one that is lost, for good."""
    random = Random(seed)
    lost = random.randrange(3) if drivers else 0
    world = World([Node("a")], {"a": ["lost"] * lost}, random, 4, pace=0.1)
    for number in range(1, drivers + 1):
        world.drive(str(number), 1)
    for number in range(processes):
        world.plain("a", f"process {number}")
    world.run(kills=0)
    assert world.states() == {"a": "finished"}
    assert world.begun == ["a"] * (1 + lost)


@pytest.mark.parametrize("ending", ["failed", "stopped"])
def test_what_ends_badly_keeps_back_its_descendants_only(ending: str) -> None:
    world = World(LINEAGE, {n.name: [ending] if n.name == "c" else [] for n in LINEAGE}, Random(1), 4)
    world.drive("one", 1)
    world.run(kills=0)
    assert world.begun == ["a", "c", "b"]
    assert world.states() == {"a": "finished", "b": "finished", "c": "not", "d": "not", "fuse": "not"}


def test_the_next_driver_goes_on_with_what_was_stopped_but_not_with_what_failed() -> None:
    for ending, begun in (("failed", 0), ("stopped", 3)):
        world = World(LINEAGE, {n.name: [ending] if n.name == "c" else [] for n in LINEAGE}, Random(1), 4)
        world.drive("one", 1)
        world.run(kills=0)
        before = len(world.begun)
        world.drive("one", 2)
        world.run(kills=0)
        assert len(world.begun) - before == begun


def test_six_losses_in_a_row_are_a_failure() -> None:
    world = World([Node("a")], {"a": ["lost"] * 9}, Random(1), 4)
    world.drive("one", 1)
    world.run(kills=0)
    assert world.begun == ["a"] * 6


class Quiet:
    """A cluster that knows no job, a clock, and what a driver says."""

    def __init__(self) -> None:
        self.now, self.jobs, self.said = 0.0, dict[str, JobState](), list[str]()

    def clock(self) -> float:
        return self.now

    def states(self) -> dict[str, JobState]:
        return self.jobs

    def free_workers(self) -> int:
        return 0

    def stop(self, job: str) -> None:
        raise RuntimeError(f"there is no job {job}")


def newcomer(store: Any, job: str, cluster: Quiet) -> Newcomer:
    return Newcomer(store, "one", job, lambda _: False, cluster.clock)


def claimed(by: str = "other") -> tuple[MemoryStore, Quiet, Driver, Attempt]:
    """A driver that finds an attempt which someone has claimed, whose job the cluster doesn't know."""
    store, cluster = MemoryStore(), Quiet()
    attempt = Attempt(store, "runs/a/", 1)  # type: ignore[arg-type]
    attempt.claim(Claim("a-a1", {}, by, 1))
    lease = newcomer(store, "one-d1", cluster).take()
    plan: Any = SimpleNamespace(
        name="one", works=(Work(Node("a")),), nodes=[Node("a")], workers=Workers(2, 2), execution=Execution("d", "s")
    )
    driver = Driver(store, plan, cluster, lease, clock=cluster.clock, say=cluster.said.append)  # type: ignore[arg-type]
    return store, cluster, driver, attempt


def look_for(driver: Driver, cluster: Quiet, seconds: float) -> None:
    until = cluster.now + seconds
    while cluster.now < until:
        cluster.now += 1
        driver.tick()


def test_a_claim_whose_job_never_came_is_lost_and_the_job_can_not_begin_any_more() -> None:
    _, cluster, driver, attempt = claimed()
    look_for(driver, cluster, DEAD_SECONDS - 1)
    assert attempt.outcome() is None
    look_for(driver, cluster, 2 * BEAT_SECONDS)
    assert attempt.outcome() == "lost"
    assert not attempt.begin()


def test_a_job_that_begins_late_is_not_lost() -> None:
    _, cluster, driver, attempt = claimed()
    look_for(driver, cluster, DEAD_SECONDS - 1)
    assert attempt.begin()  # after this look at the cluster, which doesn't know its job yet
    look_for(driver, cluster, 2 * BEAT_SECONDS)
    cluster.jobs["a-a1"] = JobState(active=True)
    look_for(driver, cluster, 3 * DEAD_SECONDS)
    assert attempt.outcome() is None


def test_an_attempt_on_another_cluster_lives_while_it_beats() -> None:
    _, cluster, driver, attempt = claimed()
    attempt.begin()
    for beat in range(20):
        attempt.beat(beat)
        look_for(driver, cluster, 10)
    assert attempt.outcome() is None
    look_for(driver, cluster, 2 * DEAD_SECONDS + 3 * BEAT_SECONDS)
    assert attempt.outcome() == "lost"


def test_a_stop_reaches_what_this_cluster_does_not_know() -> None:
    """The wish lies in the storage, where the attempt hears it if it lives; if it doesn't, it is given up as ever."""
    store, cluster, driver, attempt = claimed(by="one")
    driver.stop()
    assert attempt.signs() == (True, False)
    assert is_ending(store, "one", "one-d1")  # type: ignore[arg-type]
    assert not is_ending(store, "one", "one-d2"), "the next one, which has no lease yet"  # type: ignore[arg-type]
    assert not driver.tick()
    look_for(driver, cluster, DEAD_SECONDS + 2 * BEAT_SECONDS)
    assert attempt.outcome() == "lost"
    assert driver.tick(), "nothing of it is left"


def test_a_driver_at_work_hears_that_a_failure_was_forgiven() -> None:
    _, cluster, driver, attempt = claimed()
    cluster.jobs["a-a1"] = JobState(active=False)
    attempt.end("failed", "the GPU fell off the bus")
    driver.tick()
    assert driver.states == {"a": "failed"}
    attempt.forgive()
    look_for(driver, cluster, BEAT_SECONDS + 1)
    assert driver.states == {"a": "open"}


def test_a_driver_at_work_hears_that_what_was_stopped_shall_go_on() -> None:
    """One run of its campaign was stopped, and resumed while another one keeps the driver alive."""
    _, cluster, driver, attempt = claimed(by="one")
    cluster.jobs["a-a1"] = JobState(active=False)
    attempt.end("stopped")
    driver.tick()
    assert driver.states == {"a": "stopped"}
    look_for(driver, cluster, BEAT_SECONDS + 1)
    assert driver.states == {"a": "stopped"}
    attempt.forgive()
    look_for(driver, cluster, BEAT_SECONDS + 1)
    assert driver.states == {"a": "open"}


def test_a_driver_at_work_is_heard_and_hears_of_its_successor() -> None:
    store, cluster, driver, _ = claimed()
    cluster.jobs["a-a1"] = JobState(active=True)
    other = newcomer(store, "one-d2", cluster)
    while cluster.now < 3 * SILENT_SECONDS:
        look_for(driver, cluster, 1)
        assert other.take() is None
    cluster.now += SILENT_SECONDS + 1
    assert other.take() is not None, "it was silent for long"
    with pytest.raises(LeaseLostError):
        driver.tick()


def test_what_was_lost_is_not_tried_again_at_once() -> None:
    _, cluster, driver, attempt = claimed(by="one")
    cluster.jobs["a-a1"] = JobState(active=False, message="Traceback\nnode died")
    driver.tick()
    assert (attempt.outcome(), driver.states) == ("lost", {"a": "waiting"})
    assert cluster.said[-1] == "[1/1] a: attempt 1 was lost, the next in 2 s: node died"
    cluster.now += FIRST_PAUSE - 0.1
    driver.tick()
    assert driver.states == {"a": "waiting"}
    cluster.now += 0.2
    driver.tick()
    assert driver.states == {"a": "open"}
    driver.tick()
    assert cluster.said.count("waiting for 2 free workers; the cluster has 0") == 1


@pytest.mark.parametrize(("by", "state"), [("one", "stopped"), ("other", "open")])
def test_a_stop_of_another_campaign_is_no_stop_of_this_one(by: str, state: str) -> None:
    _, cluster, driver, attempt = claimed(by)
    cluster.jobs["a-a1"] = JobState(active=False, stopped=True)
    driver.tick()
    assert (attempt.outcome(), driver.states) == ("stopped", {"a": state})


def test_who_finds_no_room_is_tried_again_and_said() -> None:
    _, cluster, driver, attempt = claimed(by="one")
    cluster.jobs["a-a1"] = JobState(active=False)
    attempt.end("unplaced", "the cluster had no room for 4 workers")
    driver.tick()
    assert driver.states == {"a": "open"}
    assert "[1/1] a: attempt 1 has ended: the cluster had no room for 4 workers" in cluster.said


@pytest.mark.parametrize(("grows_to", "asked"), [(None, [8, 8]), (12, [8, 4])])
def test_what_elastic_runs_ask_for_is_no_more_than_a_cluster_can_grow_to(
    grows_to: int | None, asked: list[int]
) -> None:
    class Cluster(Quiet):
        free = 12

        def free_workers(self) -> int:
            return self.free

        def name(self, work: str, _: int) -> str:
            return f"{work}-a1"

        def start(self, work: Any, attempt: int, claim: Claim) -> None:
            started.append(claim.execution["workers"])
            self.jobs[claim.job] = JobState(active=True)

    started: list[int] = []
    store, cluster, names = MemoryStore(), Cluster(), "ab"
    works = tuple(Work(Node(name)) for name in names)
    how = Execution("d", "s", workers=8, min_workers=2, most_workers=grows_to)
    plan: Any = SimpleNamespace(
        name="one", works=works, nodes=[w.node for w in works], workers=Workers(2, 8), execution=how
    )
    lease = newcomer(store, "one-d1", cluster).take()
    Driver(store, plan, cluster, lease, clock=cluster.clock).tick()  # type: ignore[arg-type]
    assert started == asked


def test_a_failure_is_said_with_its_reason() -> None:
    _, cluster, driver, attempt = claimed()
    cluster.jobs["a-a1"] = JobState(active=False)
    attempt.end("failed", "the loss is nan")
    driver.tick()
    assert cluster.said[-1] == "[1/1] a failed: the loss is nan"
    assert driver.summary() == "0 of 1 runs and evaluations are finished"


def test_a_given_parent_is_not_waited_for() -> None:
    """It was finished when the campaign was planned, and isn't one of its works."""
    start = Start("vgg_a-s256-00000000", ModelConfig("vgg_a", 10, 0.125, 32))
    recipe, images = RECIPES["vgg_e-s384"], Images("digits", 10, "f" * 64)
    specs = plan_runs([recipe], images, GEOMETRIES["small"], start=start)
    campaign = Campaign(specs[-1].name, tuple(Training(s) for s in specs), Execution("d", "s"))
    store: Any = MemoryStore()
    lease = Newcomer(store, campaign.name, "d1", lambda _: False).take()
    assert lease is not None
    driver = Driver(store, campaign, Quiet(), lease)
    assert not driver.tick()
    assert [n.needs for n in campaign.nodes] == [(), (specs[0].name,)]
    campaign.save(store)
    (shown,) = overview(store).campaigns
    assert [w.phase for w in shown.works] == ["planned", "planned"]
