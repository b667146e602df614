"""What reads a storage needs no cluster: it is named by flags, by the environment, or by a profile."""

import json
import os
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from alexvgg.campaign.plan import Campaign, Training
from alexvgg.cli import main
from alexvgg.cli.place import dataset_url, open_place
from alexvgg.config import Execution, RunSpec, to_dict
from alexvgg.data.shards import Dataset
from alexvgg.data.store import Store, open_store
from alexvgg.planning import images_of, plan_runs
from alexvgg.recipes import GEOMETRIES, RECIPES
from alexvgg.tracking.journal import Journal

READERS = (["table", "table3"], ["status"], ["list"], ["lineage", "vgg_a"], ["compare", "vgg_a", "vgg_b"],
           ["report", "--no-mlflow"])  # fmt: skip


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, arguments)


@pytest.fixture
def specs(digits: Dataset) -> list[RunSpec]:
    """A, and B from it, at the small geometry."""
    return plan_runs([RECIPES["vgg_b-s256"]], images_of(digits), GEOMETRIES["small"])


@pytest.fixture
def storage(specs: list[RunSpec], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    """Both have begun, as `alexvgg train` leaves them. The folder has no profile and no cluster."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "user"))
    store = open_store((tmp_path / "runs").as_uri())
    for spec in specs:
        store.put(f"runs/{spec.name}/spec.json", json.dumps(to_dict(spec)).encode())
        journal = Journal(store, f"runs/{spec.name}/journal.jsonl")
        journal.write("start", 0, attempt=1, job=None, workers=1, device="cpu")
        metrics = {"train/loss_epoch": 2.0, "train/lr": 0.01, "val/top1_error": 50.0, "val/top5_error": 9.0}
        journal.write("epoch", 23, epoch=1, metrics=metrics)
        journal.flush()
    return store


@pytest.mark.parametrize("command", READERS, ids=lambda words: words[0])
def test_what_reads_needs_no_cluster(
    storage: Store, digits_url: str, command: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "no local cluster of this folder is up" in run(*command).stderr
    flags = ["--storage", storage.url, *(["--dataset", digits_url] if command[0] in ("table", "report") else [])]
    by_flags = run(*command, *flags)
    assert by_flags.exit_code == 0, by_flags.output
    for setting, value in {"STORAGE": storage.url, "DATASET": digits_url, "GEOMETRY": "small"}.items():
        monkeypatch.setenv(f"ALEXVGG_{setting}", value)
    by_environment = run(*command)
    assert by_environment.exit_code == 0, by_environment.output


def test_commands_that_fill_a_table_name_the_same_place(storage: Store, digits_url: str) -> None:
    flags = ["--storage", storage.url, "--dataset", digits_url]
    rows = json.loads(run("table", "table3", *flags, "--geometry", "small", "--json").stdout)["rows"]
    end = f" --geometry small --storage {storage.url} --dataset {digits_url}"
    assert all(row["command"].endswith(end) for row in rows)


def test_only_what_needs_a_setting_asks_for_it(storage: Store, tmp_path: Path) -> None:
    (tmp_path / "alexvgg.toml").write_text(f'[profile.x]\nstorage = "{storage.url}"\n')
    status = run("status", "--profile", "x")
    assert status.exit_code == 0, status.output
    assert "Only what the storage says: profile x has no dashboard" in status.stderr
    for command, told in (
        (["logs"], "profile x has no dashboard; name it with ALEXVGG_DASHBOARD, or as dashboard = … in alexvgg.toml"),
        (["table", "table3"], "profile x has no dataset; name it on the command line (--dataset"),
        (["mlflow", "sync"], "profile x has no mlflow; name it on the command line (--url), with ALEXVGG_MLFLOW"),
        (["submit", "--model", "vgg_a", "--dry-run"], "profile x has no dataset"),
    ):
        refused = run(*command, "--profile", "x")
        assert refused.exit_code == 2
        assert told in refused.stderr


def test_a_storage_of_ones_own_keeps_its_credentials(storage: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """The local cluster's are for what lies there."""
    from cluster import local
    from cluster.services import LocalCluster

    ports = {"s3": 1, "mlflow": 2, "head": 3, "dashboard": 4}
    monkeypatch.setattr(local, "find", lambda: LocalCluster(Path(".alexvgg").absolute(), 1, ports))
    monkeypatch.setattr(os, "environ", os.environ.copy() | {"AWS_ACCESS_KEY_ID": "mine"})
    open_place(None, storage="s3://mine", dataset="s3://mine")
    assert os.environ["AWS_ACCESS_KEY_ID"] == "mine"
    for elsewhere, profile in (("s3://mine", None), ("s3://alexvgg-2/d", None), ("file:///d", None)):
        assert dataset_url(elsewhere, profile) == elsewhere
    assert os.environ["AWS_ACCESS_KEY_ID"] == "mine"
    assert dataset_url("s3://alexvgg/datasets/mine", None) == "s3://alexvgg/datasets/mine"
    assert os.environ["AWS_ACCESS_KEY_ID"] == "local-key"
    os.environ["AWS_ACCESS_KEY_ID"] = "mine"
    open_place(None)
    assert os.environ["AWS_ACCESS_KEY_ID"] == "local-key"


def test_a_report_is_of_a_campaign_or_a_run(
    storage: Store, specs: list[RunSpec], digits: Dataset, digits_url: str
) -> None:
    begun = Campaign("table3-aaaaaaaa", tuple(Training(spec) for spec in specs), Execution(digits_url, storage.url))
    later = plan_runs([RECIPES["vgg_e-s384"]], images_of(digits), GEOMETRIES["small"])[1:]
    planned = Campaign("table4-bbbbbbbb", tuple(Training(spec) for spec in later), begun.execution)
    for campaign in (begun, planned):
        campaign.save(storage)
    flags = ("--storage", storage.url, "--dataset", digits_url)
    shown = run("report", "table3", *flags)
    assert shown.exit_code == 0, shown.output
    assert "2 runs" in shown.stderr
    refused = run("report", "table4", *flags)
    assert refused.exit_code == 2
    assert "nothing of table4-bbbbbbbb on digits has started" in refused.stderr
    assert run("report", "table", *flags).exit_code == run("report", "nobody", *flags).exit_code == 102


def test_a_report_without_mlflow_is_a_report(
    storage: Store, digits_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ALEXVGG_MLFLOW", "http://127.0.0.1:1")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    flags = ("--storage", storage.url, "--dataset", digits_url)
    shown = run("report", *flags)
    assert shown.exit_code == 0, shown.output
    assert "MLflow at http://127.0.0.1:1 didn't take report.html" in shown.stderr
    for url, told in (
        ("nonsense", "--url is 'nonsense'; write it as http://HOST:PORT"),
        ("http://127.0.0.1:1", "no MLflow can be used at http://127.0.0.1:1"),
    ):
        refused = run("mlflow", "sync", "--url", url, "--storage", storage.url)
        assert refused.exit_code == 2
        assert told in refused.stderr
