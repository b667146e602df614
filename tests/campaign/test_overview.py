"""What `status` shows, from a storage that real claims, ends and journals were written to."""

import json
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from alexvgg.attempts import Attempt, Claim
from alexvgg.campaign.overview import Overview, overview
from alexvgg.campaign.plan import Campaign, Training
from alexvgg.cli.status import duration, format_overview
from alexvgg.config import Execution, RunSpec, to_dict
from alexvgg.data.store import Store, open_store
from alexvgg.errors import NotFoundError, resolve
from alexvgg.lease import Newcomer
from alexvgg.planning import Images, plan_runs
from alexvgg.recipes import GEOMETRIES, RECIPES
from alexvgg.tracking.journal import Journal
from alexvgg.tracking.live import Live, read_live

SPECS = plan_runs([RECIPES["vgg_e-s384"]], Images("digits", 10, "f" * 64), GEOMETRIES["small"])
A, E, E384 = SPECS
EXECUTION = Execution(dataset_url="file:///d", storage_url="file:///s", workers=4)


@pytest.fixture
def storage(tmp_path: Path) -> Store:
    """A campaign of three runs whose driver took the lease."""
    store = open_store(tmp_path.as_uri())
    Campaign(E384.name, tuple(Training(spec) for spec in SPECS), EXECUTION).save(store)
    assert Newcomer(store, E384.name, f"{E384.name}-d1", lambda _: False).take() is not None
    return store


def claim(storage: Store, spec: RunSpec, number: int) -> Attempt:
    Training(spec).describe(storage)
    attempt = Attempt(storage, f"runs/{spec.name}/", number)
    assert attempt.claim(Claim(f"{spec.name}-a{number}", to_dict(EXECUTION), E384.name, 1))
    return attempt


def train(storage: Store, spec: RunSpec, epochs: int, attempt: int = 1) -> None:
    journal = Journal(storage, f"runs/{spec.name}/journal.jsonl")
    journal.write("start", 0, attempt=1, job=f"{spec.name}-a{attempt}", workers=4, device="cpu")
    for epoch in range(1, epochs + 1):
        metrics = {"train/loss_epoch": 2.0, "val/top1_error": 50.0, "perf/images_per_s": 640.0}
        journal.write("epoch", 23 * epoch, epoch=epoch, metrics=metrics)
    journal.flush()


def phases(view: Overview) -> dict[str, str]:
    return {w.name: w.phase for c in view.campaigns for w in c.works}


def test_a_campaign_from_its_plan_to_its_end(storage: Store) -> None:
    assert phases(overview(storage)) == {A.name: "planned", E.name: "planned", E384.name: "planned"}
    attempt = claim(storage, A, 1)
    assert phases(overview(storage))[A.name] == "starting"
    train(storage, A, epochs=2)
    (view,) = overview(storage).campaigns
    a = view.works[0]
    assert (a.phase, a.job, a.workers, a.attempt) == ("running", f"{A.name}-a1", 4, 1)
    assert a.progress is not None
    assert (a.progress.epoch, a.progress.epochs, a.progress.step) == (2, 24, 46)
    assert a.progress.seconds_left == pytest.approx(22 * 23 * 64 / 640)
    attempt.end("lost", "Traceback\nthe node is gone")
    assert phases(overview(storage))[A.name] == "lost"
    claim(storage, A, 2).end("failed", "the loss is NaN at step 50")
    failed = overview(storage)
    assert phases(failed) == {A.name: "failed", E.name: "kept back", E384.name: "kept back"}
    assert failed.campaigns[0].works[2].error == f"{A.name} failed"


def test_what_the_cluster_has_lost_is_gone(storage: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    attempt = claim(storage, A, 1)
    driver, job = f"{E384.name}-d1", f"{A.name}-a1"
    now = time.time()
    for jobs, later, expected in (
        ({driver: True, job: True}, 0, ("running", "starting")),
        ({driver: False, job: True}, 0, ("gone", "starting")),
        ({}, 10, ("running", "starting")),  # another cluster's, which were claimed just now
        ({}, 30, ("gone", "gone")),
        ({}, 40, ("running", "starting")),
    ):
        monkeypatch.setattr("alexvgg.attempts.time", SimpleNamespace(time=lambda later=later: now + later))
        if later == 40:
            for key in (f"campaigns/{E384.name}/drivers/1.beat", f"runs/{A.name}/attempts/1.beat"):
                storage.put(key, json.dumps({"count": 9, "time": now + 39}).encode())
        assert attempt.outcome() is None
        (view,) = overview(storage, jobs).campaigns
        assert view.driver is not None
        assert (view.driver.phase, view.works[0].phase) == expected
        lines = list(format_overview(overview(storage, jobs), {}))
        assert (f"  `alexvgg resume {E384.name}` goes on with it" in lines) == (expected[0] == "gone")


def test_without_a_cluster_beats_tell_what_lives(storage: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is down: what it carried out doesn't go on, whatever nobody has written down."""
    claim(storage, A, 1)
    now = time.time()
    for later, expected in ((10, ("running", "starting")), (30, ("gone", "gone"))):
        monkeypatch.setattr("alexvgg.attempts.time", SimpleNamespace(time=lambda later=later: now + later))
        (view,) = overview(storage).campaigns
        assert view.driver is not None
        assert (view.driver.phase, view.works[0].phase) == expected


def test_a_driver_that_was_asked_to_stop_says_so(storage: Store) -> None:
    storage.put(f"campaigns/{E384.name}/drivers/1.stop.json", b"{}")
    for jobs, phase in (({f"{E384.name}-d1": True}, "stopping"), ({f"{E384.name}-d1": False}, "gone")):
        (view,) = overview(storage, jobs).campaigns
        assert view.driver is not None
        assert view.driver.phase == phase


def test_a_driver_that_was_sent_just_now_is_at_work(storage: Store) -> None:
    """Before it has the lease: nobody should resume it once more."""
    first, second = f"{E384.name}-d1", f"{E384.name}-d2"
    for jobs, expected in (({first: False}, (first, "gone")), ({first: False, second: True}, (second, "running"))):
        (view,) = overview(storage, jobs).campaigns
        assert view.driver is not None
        assert (view.driver.job, view.driver.phase) == expected


def test_status_as_people_read_it(storage: Store, golden: Callable[[str, str], None]) -> None:
    attempt = claim(storage, A, 1)
    train(storage, A, epochs=24)
    attempt.end("finished")
    storage.put(f"runs/{A.name}/final/record.json", b'{"sha256": "0"}')
    claim(storage, E, 1).end("lost", "ray.exceptions.ActorDiedError: node 127.0.0.4 is gone")
    claim(storage, E, 2)
    train(storage, E, epochs=3, attempt=2)
    golden("status.txt", "\n".join(format_overview(overview(storage), {})))


def test_names_may_be_cut_short(storage: Store) -> None:
    claim(storage, A, 1)
    view = overview(storage)
    assert view.about("vgg_e-s384").campaigns == view.campaigns
    assert view.about("vgg_a").campaigns == view.campaigns
    with pytest.raises(NotFoundError, match=r"may be vgg_e-s256-.*, vgg_e-s384-"):
        view.about("vgg_e")
    with pytest.raises(NotFoundError, match="there is no 'vgg_d' in the storage"):
        view.about("vgg_d")
    assert resolve("a", ["a", "ab"]) == "a"


def test_a_run_shows_its_newest_point(storage: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("alexvgg.tracking.live.SECONDS", 0.01)
    claim(storage, A, 1)
    train(storage, A, epochs=1)
    live = Live(storage, A.name, attempt=1)
    live.point(30, 1.5, 320.0)
    live.point(40, 1.25, 640.0)
    for _ in range(500):
        point = read_live(storage, A.name)
        if point is not None and point.step == 40:
            break
        time.sleep(0.01)
    live.close()
    progress = overview(storage).campaigns[0].works[0].progress
    assert progress is not None
    assert (progress.epoch, progress.step, progress.loss, progress.images_per_s) == (1, 40, 1.25, 640.0)


def test_what_was_said_of_a_net_is_shown_until_it_learns(storage: Store) -> None:
    claim(storage, A, 1)
    train(storage, A, epochs=1)
    journal = Journal(storage, f"runs/{A.name}/journal.jsonl")

    def shown() -> bool:
        journal.flush()
        (line,) = [w.warning for w in overview(storage).campaigns[0].works if w.name == A.name]
        assert (f"    {line}" in format_overview(overview(storage), {})) == (line is not None)
        return line == "the training loss is 2.303"

    assert not shown()
    journal.write("warning", 230, message="the training loss is 2.303")
    assert shown()
    metrics = {"val/top1_error": 90.0, "perf/images_per_s": 640.0}
    journal.write("epoch", 253, epoch=11, metrics=metrics | {"train/loss_epoch": 2.303})
    assert shown()
    journal.write("epoch", 276, epoch=12, metrics=metrics | {"train/loss_epoch": 1.9})
    assert not shown()


@pytest.mark.parametrize("data", [b"", b"[]", b'{"attempt": 1, "future": 2}'])
def test_documents_that_cannot_be_read_hide_nothing_else(storage: Store, data: bytes) -> None:
    claim(storage, A, 1)
    train(storage, A, epochs=1)
    storage.put(f"runs/{A.name}/live.json", data)
    progress = overview(storage).campaigns[0].works[0].progress
    assert progress is not None
    assert (progress.step, progress.loss) == (23, 2.0)
    for file in ("1.end.json", "1.json"):
        storage.put(f"campaigns/{E384.name}/drivers/{file}", data)
        (campaign,) = overview(storage).campaigns
        assert campaign.driver is not None
        assert (campaign.driver.job, campaign.driver.phase) == ("d1", "unreadable")
        assert campaign.works[0].phase == "running"
        assert "; driver d1 can't be read" in "\n".join(format_overview(overview(storage), {}))
        storage.delete(f"campaigns/{E384.name}/drivers/1.end.json")


def test_a_speed_is_the_newest_attempts(storage: Store) -> None:
    """What goes on after a stop starts first: neither the journal's speed nor a newer point of before is its own."""
    claim(storage, A, 1).end("stopped")
    train(storage, A, epochs=2)
    stale = {"attempt": 1, "step": 60, "loss": 1.0, "images_per_s": 640.0}
    storage.put(f"runs/{A.name}/live.json", json.dumps(stale).encode())
    claim(storage, A, 2)

    def speed_of(job: str | None) -> tuple[str, int, float | None]:
        if job is not None:
            journal = Journal(storage, f"runs/{A.name}/journal.jsonl")
            journal.write("start", 46, attempt=2, job=job, workers=4, device="cpu")
            journal.flush()
        a = overview(storage).campaigns[0].works[0]
        assert a.progress is not None
        return a.phase, a.progress.step, a.progress.images_per_s

    assert speed_of(None) == ("starting", 46, None)
    assert speed_of(f"{A.name}-a2") == ("starting", 46, None)
    own = {"attempt": 2, "step": 50, "loss": 1.0, "images_per_s": 320.0}
    storage.put(f"runs/{A.name}/live.json", json.dumps(own).encode())
    assert speed_of(None) == ("running", 50, 320.0)


def test_a_run_that_stands_still_shows_it(storage: Store) -> None:
    claim(storage, A, 1)
    train(storage, A, epochs=2)
    for ago, shown in ((100, False), (185, False), (240, True)):  # a point takes 2 s at this speed
        point = {"attempt": 1, "step": 60, "loss": 1.0, "images_per_s": 320.0, "time": time.time() - ago}
        storage.put(f"runs/{A.name}/live.json", json.dumps(point).encode())
        journal = storage.get(f"runs/{A.name}/journal.jsonl").decode().splitlines()
        old = "".join(json.dumps(json.loads(line) | {"time": point["time"]}) + "\n" for line in journal)
        storage.put(f"runs/{A.name}/journal.jsonl", old.encode())
        lines = list(format_overview(overview(storage), {}))
        assert ("    no step for 4 min: it validates, or waits for data or for nodes" in lines) == shown


def test_a_run_without_a_campaign_has_started(storage: Store) -> None:
    """As `alexvgg train` leaves it, at work or stopped: nobody can know which."""
    other = replace(A, train=replace(A.train, seed=1))
    Training(other).describe(storage)
    assert [w.phase for w in overview(storage).runs] == ["planned"]
    train(storage, other, epochs=1)
    assert [w.phase for w in overview(storage).runs] == ["started"]


def test_status_fits_into_80_columns(storage: Store) -> None:
    long = replace(A, recipe="alexnet_no_overlap-s256")
    Training(long).describe(storage)
    train(storage, long, epochs=2)
    wide = list(format_overview(overview(storage), {}))
    assert any(f"{long.name}  started" in line for line in wide)
    lines = list(format_overview(overview(storage), {}, width=80))
    assert max(map(len, lines)) <= 80
    assert any(f"{long.name}  started   2/24" in line and "50.0 %" in line for line in lines)


def test_advice_names_the_profile(tmp_path: Path) -> None:
    (line, _) = format_overview(overview(open_store(tmp_path.as_uri())), {}, " --profile lab")
    assert "`alexvgg submit --model vgg_a --profile lab`" in line


@pytest.mark.parametrize(
    ("seconds", "text"), [(5, "5 s"), (89, "89 s"), (90, "2 min"), (5400, "1.5 h"), (200_000, "2.3 d")]
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text
