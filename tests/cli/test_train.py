"""`alexvgg train` as a person meets it: what can't be is said before anything is stored, and how a run ended shows."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from processes import wait_for
from records import SPECS

from alexvgg.attempts import Attempt, Claim
from alexvgg.campaign.plan import Campaign, Training
from alexvgg.cli import main
from alexvgg.config import Execution
from alexvgg.data.store import Store, open_store
from alexvgg.runs import list_runs

SHORT = ("--geometry", "small", "--set", "test_scales=[[224]]", "--set", "train.epochs=2")


def train(digits_url: str, storage: Path, *more: str) -> Result:
    return CliRunner().invoke(main, arguments(digits_url, storage, *more))


def arguments(digits_url: str, storage: Path, *more: str) -> list[str]:
    return ["train", "vgg_a-s256", "--dataset", digits_url, "--storage", storage.as_uri(), *SHORT, *more]


def status(storage: Path) -> str:
    return CliRunner().invoke(main, ["status", "--storage", storage.as_uri()]).stdout


@pytest.mark.parametrize(
    ("more", "told"),
    [
        (("--prefetch-bytes", "1"), "1 prefetch bytes can't hold 6 batches of 64 decoded images (1,179,648) and"),
        (("--exchange", "factors", "--mlflow", "nonsense"), "--mlflow is 'nonsense'; write it as http://HOST:PORT"),
        (("--init", "he", "--parent", "vgg_e"), "there is no 'vgg_e'"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_stored(
    digits_url: str, tmp_path: Path, more: tuple[str, ...], told: str
) -> None:
    result = train(digits_url, tmp_path / "s", *more)
    assert result.exit_code in (2, 102), result.output
    assert told in result.stderr
    assert open_store((tmp_path / "s").as_uri()).list("") == []


def test_a_shard_that_is_gone_is_named_with_what_to_do(digits_url: str, tmp_path: Path) -> None:
    there, url = open_store(digits_url), (tmp_path / "d").as_uri()
    for key in there.list(""):
        open_store(url).put(key, there.get(key))
    open_store(url).delete("train-000002.tar")
    result = train(url, tmp_path / "s")
    assert result.exit_code == 1
    missing = f"{url}/train-000002.tar does not exist, though the dataset's index names it"
    assert f"{missing}. Restore it; `alexvgg data verify {url}` names all that is missing" in result.stderr
    assert missing in status(tmp_path / "s")


def test_a_run_that_diverged_has_failed(digits_url: str, tmp_path: Path) -> None:
    result = train(digits_url, tmp_path, "--set", "train.lr=1000")
    assert result.exit_code == 1
    assert "training has diverged" in result.stderr
    shown = status(tmp_path)
    assert "  failed  " in shown
    assert "training has diverged. Try a tenth of the learning rate (--set train.lr=100)" in shown
    assert "when its cause is mended, the same `alexvgg train` command goes on from its last checkpoint" in shown
    assert train(digits_url, tmp_path, "--set", "train.lr=1000").exit_code == 1
    (run,) = list_runs(open_store(tmp_path.as_uri()))
    assert [a.end.outcome for a in run.attempts if a.end is not None] == ["failed", "failed"]


def test_a_run_is_trained_once_at_a_time(digits_url: str, tmp_path: Path) -> None:
    long = ("--set", "train.epochs=500")
    command = [sys.executable, "-m", "alexvgg", *arguments(digits_url, tmp_path, "--json", *long)]
    store = open_store(tmp_path.as_uri())
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as first:
        assert first.stdout is not None
        json.loads(first.stdout.readline())
        (run,) = list_runs(store)
        second = train(digits_url, tmp_path, *long)
        assert second.exit_code == 2
        assert f"{run.name} is being trained already, by process {first.pid} on " in second.stderr
        wait_for(lambda: f"{run.name}  running " in status(tmp_path), "its epoch in the storage")
        storage = ("--storage", tmp_path.as_uri())
        told = CliRunner().invoke(main, ["logs", "vgg_a", *storage])
        assert f"{run.name} is process {first.pid} on " in told.stderr
        stopped = CliRunner().invoke(main, ["stop", "vgg_a", *storage])
        assert stopped.stdout.startswith(f"process {first.pid} on ")
        assert "is asked to end after a checkpoint" in stopped.stdout
        assert "  stopping  " in status(tmp_path) or first.poll() is not None
        _, errors = first.communicate(timeout=60)
    assert (first.returncode, "with a checkpoint; the same command goes on" in errors) == (143, True)
    assert "  stopped  " in status(tmp_path)
    assert "the same `alexvgg train` command goes on from its last checkpoint" in status(tmp_path)


@pytest.fixture
def trained_then_submitted(tmp_path: Path) -> Store:
    """A plain process has trained the run; a campaign of its name came after that, of which no cluster is here."""
    store, spec = open_store(tmp_path.as_uri()), SPECS["vgg_a-s256"]
    Training(spec).describe(store)
    assert Attempt(store, f"runs/{spec.name}/", 1).claim(Claim("process 1 on a", {}, process="elsewhere 1 1"))
    execution = Execution("file:///data", store.url)
    Campaign(spec.name, (Training(spec),), execution).save(store)
    return store


@pytest.mark.parametrize("command", ["stop", "logs", "resume"])
def test_a_campaign_is_meant_once_the_process_before_it_has_ended(
    trained_then_submitted: Store, command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = trained_then_submitted
    monkeypatch.chdir(store.url.removeprefix("file://"))
    asked = ["stop", "vgg_a", "--storage", store.url]
    live = CliRunner().invoke(main, asked)
    assert "process 1 on a is asked to end after a checkpoint" in live.stdout, live.stderr
    assert "its campaign may go on with it then: `alexvgg stop vgg_a-s256-" in live.stderr
    (run,) = list_runs(store)
    Attempt(store, f"runs/{run.name}/", 1).end("stopped")
    told = CliRunner().invoke(main, [command, *asked[1:]])
    assert "start one with `alexvgg cluster up" in told.stderr, "it asks the cluster"


def test_a_plan_says_of_which_runs_it_knows_no_duration(
    digits_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At the small geometry AlexNet is of another width, so a VGG's speed says nothing of it."""
    monkeypatch.chdir(tmp_path)
    places = {"dashboard": "http://127.0.0.1:1", "storage": tmp_path.as_uri(), "dataset": digits_url}
    toml = "".join(f'{key} = "{value}"\n' for key, value in places.items())
    (tmp_path / "alexvgg.toml").write_text(f'[profile.x]\ngeometry = "small"\n{toml}')
    plan = ("reproduce", "all", "--dry-run", "--profile", "x")
    assert "How long it takes is unknown: " in CliRunner().invoke(main, plan).stdout.splitlines()[-1]
    assert train(digits_url, tmp_path, "--set", "train.epochs=1").exit_code == 0
    line = CliRunner().invoke(main, plan).stdout.splitlines()[-1]
    assert line.startswith("Training takes about ")
    assert line.endswith(" How long alexnet-s256 takes is unknown until it was measured.")
    estimate = json.loads(CliRunner().invoke(main, [*plan, "--json"]).stdout)["estimate"]
    assert estimate == {"hours": None, "worker_hours": None}


def test_what_a_run_has_come_to_is_said(digits_url: str, tmp_path: Path) -> None:
    done = train(digits_url, tmp_path, "--set", "train.max_steps=4", "--checkpoint-minutes", "0.00001")
    assert "going on from" not in done.stderr
    assert ", dense: top-1 error " in done.stderr
    assert " % of 360 images" in done.stderr
    (run,) = list_runs(store := open_store(tmp_path.as_uri()))
    for key in [k for k in store.list(f"runs/{run.name}/") if "/final/" in k]:
        store.delete(key)
    again = train(digits_url, tmp_path, "--set", "train.max_steps=4")
    assert "going on from the checkpoint of step 4" in again.stderr
