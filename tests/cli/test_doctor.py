"""`alexvgg doctor` as a person meets it."""

import errno
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner

from alexvgg.cli import main
from alexvgg.data.store import open_store
from alexvgg.doctor import machine
from cluster import local

no_gpu = pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project folder without anything, and a user without a file."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "user"))
    monkeypatch.setattr(machine, "listens", lambda host, port: False)
    monkeypatch.delenv("ALEXVGG_PROFILE", raising=False)
    return tmp_path


def normalised(text: str, folder: Path) -> str:
    """Without what differs from machine to machine and from run to run."""
    text = re.sub(r"\d+ GB are free in \S+", "N GB are free in FOLDER", text.replace(str(folder), "FOLDER"))
    text = re.sub(r"(?<=python {22})\S+", "VERSION", text)
    text = re.sub(r"all \d+ are as required.*", "all are as required: …", text)
    return re.sub(r"\b\d+ ms", "N ms", text)


@no_gpu
def test_without_a_cluster_it_says_what_it_cannot_check(here: Path, golden: Callable[[str, str], None]) -> None:
    result = CliRunner().invoke(main, ["doctor"])
    assert result.exit_code == 0, result.output
    golden("doctor_no_cluster.txt", normalised(result.stdout, here))


@no_gpu
def test_each_failure_has_its_next_step(here: Path, digits_url: str, golden: Callable[[str, str], None]) -> None:
    open_store(digits_url)
    (here / "alexvgg.toml").write_text(
        f'[profile.lab]\ndashboard = "http://ray-head:8265"\nstorage = "{here.as_uri()}/runs"\n'
        f'dataset = "{here.as_uri()}/none"\nmlflow = "https://mlflow"\n'
    )
    result = CliRunner().invoke(main, ["doctor", "--profile", "lab"])
    assert result.exit_code == 1
    golden("doctor_failing.txt", normalised(result.stdout, here))
    document = json.loads(CliRunner().invoke(main, ["doctor", "--profile", "lab", "--json"]).stdout)
    assert document["healthy"] is False
    failed = [f for f in document["findings"] if f["state"] == "failed"]
    assert [f["name"] for f in failed] == ["port of dashboard", "port of mlflow", "dataset"]
    assert all(f["next_step"] for f in failed)


def test_storage_is_tried_even_if_its_port_is_closed(here: Path, localbucket: str, s3: Callable[[str], str]) -> None:
    """It may be reached through a proxy; here `listens` says that every port is closed."""
    url = s3(localbucket)
    (here / "alexvgg.toml").write_text(
        f'[profile.lab]\ndashboard = "http://ray-head:8265"\nstorage = "{url}"\ndataset = "{url}"\n'
    )
    document = json.loads(CliRunner().invoke(main, ["doctor", "--profile", "lab", "--json"]).stdout)
    states = {f["name"]: f["state"] for f in document["findings"]}
    assert (states["port of storage"], states["storage write"]) == ("warning", "ok")


def test_a_profile_that_is_not_there_is_a_finding(here: Path) -> None:
    result = CliRunner().invoke(main, ["doctor", "--profile", "lab"])
    assert result.exit_code == 1
    assert "failed   profile lab" in result.stdout


def test_ports_of_the_local_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "listens", lambda host, port: port == local.PORTS["mlflow"])
    finding = machine.check_free_ports(local.PORTS)
    assert (finding.state, finding.detail.split(" in use")[0]) == ("ok", "5000 (mlflow)")


def test_little_room_is_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "LEAST_DISK", 1e30)
    assert [f.state for f in machine.check_disk()] == ["warning", "warning"]


def test_a_folder_in_which_nothing_can_be_written_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(dir: Path) -> Any:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(machine.tempfile, "TemporaryFile", refused)
    found = list(machine.check_disk())
    assert [f.state for f in found] == ["failed", "failed"]
    assert found[0].detail.endswith(": Read-only file system")


def test_a_local_cluster_that_lost_a_service_is_found(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    services = [local.Service("head", "x", False), local.Service("s3", "y", True)]
    monkeypatch.setattr(local, "status", lambda *_: services)
    result = CliRunner().invoke(main, ["doctor"])
    assert result.exit_code == 1
    assert "head is down, and others of it are up" in result.stdout
    assert "ports" not in result.stdout, "they are its own"
    refused = CliRunner().invoke(main, ["logs"])
    assert "head of this folder's local cluster is down, which `alexvgg cluster up` starts again" in refused.stderr
    shown = CliRunner().invoke(main, ["cluster", "status"])
    assert (shown.exit_code, shown.stderr.split(". ")[0]) == (1, "The local cluster isn't whole")
