"""Runs that are stopped, killed, or lose their storage: what goes on is bitwise the run that was never disturbed."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from processes import free_port, wait_for

import alexvgg.run as run
from alexvgg.config import Execution, RunSpec
from alexvgg.data.shards import Dataset
from alexvgg.data.store import FileStore, Store, open_store
from alexvgg.engine import checkpoint
from alexvgg.engine.saver import UploadError
from alexvgg.engine.wishes import Stopped, Wishes
from alexvgg.engine.world import World
from alexvgg.errors import StoreError
from alexvgg.planning import images_of, plan_runs
from alexvgg.recipes import GEOMETRIES, RECIPES
from alexvgg.runs import read_run

ALONE = World(0, 1, torch.device("cpu"))
SETTINGS = {"test_scales": "[[224]]", "train.epochs": "2"}  # 46 steps, 23 an epoch


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def spec(digits: Dataset) -> RunSpec:
    return plan_runs([RECIPES["vgg_a-s256"]], images_of(digits), GEOMETRIES["small"], overrides=SETTINGS)[-1]


@pytest.fixture(scope="module")
def undisturbed(digits: Dataset, digits_url: str, tmp_path_factory: pytest.TempPathFactory) -> Store:
    """The storage of a run that nothing happened to."""
    torch.set_num_threads(1)
    url = tmp_path_factory.mktemp("undisturbed").as_uri()
    spec = plan_runs([RECIPES["vgg_a-s256"]], images_of(digits), GEOMETRIES["small"], overrides=SETTINGS)[-1]
    run.train(spec, Execution(digits_url, url), ALONE)
    return open_store(url)


def assert_the_same(undisturbed: Store, disturbed: Store, spec: RunSpec) -> None:
    final = f"runs/{spec.name}/final/model.safetensors"
    assert undisturbed.get(final) == disturbed.get(final)
    a, b = (read_run(store, spec.name) for store in (undisturbed, disturbed))
    assert [r | {"time": 0} for r in a.evaluation] == [r | {"time": 0} for r in b.evaluation]
    for event, metric in (
        ("steps", "train/loss"),
        ("epoch", "train/loss_epoch"),
        ("epoch", "train/top1_error"),
        ("epoch", "val/top1_error"),
    ):
        points = [[(e["step"], e["metrics"][metric]) for e in r.journal if e["event"] == event] for r in (a, b)]
        assert points[0] == points[1], f"{metric} of some step stands in the journal twice, is missing or differs"


def starts(store: Store, spec: RunSpec) -> list[int]:
    return [e["step"] for e in read_run(store, spec.name).journal if e["event"] == "start"]


class At:
    """Does something once, after a given update."""

    def __init__(self, step: int, monkeypatch: pytest.MonkeyPatch, what: Any) -> None:
        self.left = step
        update = run.Trainer.__dict__["_act"]

        def act(trainer: Any) -> None:
            self.left -= 1
            if self.left == 0:
                what()
            update(trainer)

        monkeypatch.setattr(run.Trainer, "_act", act)


@pytest.mark.parametrize("step", [1, 8, 20, 21, 30])  # 20: all ranks know it after the epoch's last step, 23
def test_a_stopped_run_goes_on_in_the_middle_of_its_epoch(
    step: int, spec: RunSpec, digits_url: str, undisturbed: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    execution, wishes = Execution(digits_url, tmp_path.as_uri()), Wishes()
    At(step, monkeypatch, wishes.stop.set)
    with pytest.raises(Stopped, match="with a checkpoint"):
        run.train(spec, execution, ALONE, wishes=wishes)
    store = open_store(execution.storage_url)
    assert checkpoint.committed(store, f"runs/{spec.name}/checkpoints/")[-1] in range(step, step + 5)
    run.train(spec, execution, ALONE)
    assert starts(store, spec)[1] in range(step, step + 5)
    assert_the_same(undisturbed, store, spec)


def command(digits_url: str, storage: Path, *launcher: str) -> list[str]:
    settings = [part for key, value in SETTINGS.items() for part in ("--set", f"{key}={value}")]
    places = ["--dataset", digits_url, "--storage", storage.as_uri(), "--geometry", "small"]
    often = ["--checkpoint-minutes", "0.001"]
    return [sys.executable, *launcher, "-m", "alexvgg", "train", "vgg_a-s256", *places, *settings, *often]


def committed(spec: RunSpec, store: Store) -> list[int]:
    return checkpoint.committed(store, f"runs/{spec.name}/checkpoints/")


@pytest.mark.parametrize("signal_number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_killed_process_goes_on_bitwise(
    signal_number: signal.Signals, spec: RunSpec, digits_url: str, undisturbed: Store, tmp_path: Path
) -> None:
    store, environment = open_store(tmp_path.as_uri()), {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(command(digits_url, tmp_path), env=environment, stderr=subprocess.PIPE, text=True)
    # Wherever it then is: in the middle of a step, of a snapshot, or of an upload.
    wait_for(lambda: bool(committed(spec, store)) and committed(spec, store)[-1] >= 5, "a checkpoint", 120)
    process.send_signal(signal_number)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == {signal.SIGKILL: -9, signal.SIGTERM: 143, signal.SIGINT: 130}[signal_number], errors
    assert ("goes on from there" in errors) == (signal_number != signal.SIGKILL)
    assert ("Ctrl-C again stops at once" in errors) == (signal_number == signal.SIGINT)
    # What an upload that was cut off leaves behind.
    store.put(f"runs/{spec.name}/checkpoints/00000047/model-0123456789ab.safetensors", b"half of it")
    subprocess.run(command(digits_url, tmp_path), env=environment, check=True, capture_output=True, timeout=120)
    ends = [record.end.outcome for record in read_run(store, spec.name).attempts if record.end is not None]
    assert ends == ["lost" if signal_number == signal.SIGKILL else "stopped", "finished"]
    assert starts(store, spec)[1] >= 5
    assert 47 not in committed(spec, store)
    assert not store.list(f"runs/{spec.name}/checkpoints/00000047/")
    assert_the_same(undisturbed, store, spec)


def test_sigterm_stops_all_ranks_of_torchrun_at_the_same_step(spec: RunSpec, digits_url: str, tmp_path: Path) -> None:
    launcher = ("-m", "torch.distributed.run", "--nproc-per-node", "3", "--master-port", str(free_port()))
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    arguments = [*command(digits_url, tmp_path, *launcher), "--sample-log", str(tmp_path / "log")]
    arguments += ["--exchange", "factors"]
    process = subprocess.Popen(arguments, env=environment, stderr=subprocess.PIPE, text=True)
    store = open_store(tmp_path.as_uri())
    wait_for(lambda: bool(committed(spec, store)), "a checkpoint", 120)
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=60)
    assert process.returncode != 0
    assert "with a checkpoint" in errors
    last = {json.loads(f.read_text().splitlines()[-1])["step"] for f in (tmp_path / "log").iterdir()}
    assert last == {committed(spec, store)[-1]}
    # One process goes on with what three began: every sample of each epoch once, every loss in the journal.
    run.train(spec, Execution(digits_url, tmp_path.as_uri(), sample_log=str(tmp_path / "log")), ALONE)
    consumed: dict[int, list[int]] = {}
    for line in (json.loads(text) for f in (tmp_path / "log").iterdir() for text in f.read_text().splitlines()):
        consumed.setdefault(line["epoch"], []).extend(line["samples"])
    assert {epoch: sorted(samples) for epoch, samples in consumed.items()} == {n: [*range(1437)] for n in (0, 1)}
    journal = read_run(store, spec.name).journal
    assert [e["step"] for e in journal if e["event"] == "steps"] == [10, 20, 33, 43]
    exchanges = [(e["method"], e["layers"]) for e in journal if e["event"] == "exchange"]
    assert exchanges == [("factors", ["fc6", "fc7"]), ("none", [])], "fc8 is small: its gradient is fewer bytes"


def fill_disk(spec: RunSpec, checkpoints: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let there be room for so many checkpoints and no more."""
    put = FileStore.put

    def full(self: FileStore, key: str, data: bytes) -> None:
        if "momentum" in key and len(committed(spec, self)) >= checkpoints:
            raise StoreError(f"writing {key}: the disk is full")
        put(self, key, data)

    monkeypatch.setattr(FileStore, "put", full)


def test_a_checkpoint_that_cannot_be_stored_stops_the_run_with_the_cause(
    spec: RunSpec, digits_url: str, undisturbed: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill_disk(spec, 1, monkeypatch)
    execution = Execution(digits_url, tmp_path.as_uri(), checkpoint_minutes=0.001)
    with pytest.raises(UploadError, match=r"could not be stored.*the disk is full"):
        run.train(spec, execution, ALONE)
    assert len(committed(spec, open_store(execution.storage_url))) == 1
    monkeypatch.undo()
    run.train(spec, execution, ALONE)
    assert_the_same(undisturbed, open_store(execution.storage_url), spec)


def test_a_stop_whose_checkpoint_cannot_be_stored_does_not_say_that_there_is_one(
    spec: RunSpec, digits_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wishes = Wishes()
    At(1, monkeypatch, wishes.stop.set)
    fill_disk(spec, 0, monkeypatch)
    with pytest.raises(UploadError, match=r"could not be stored.*the disk is full"):
        run.train(spec, Execution(digits_url, tmp_path.as_uri()), ALONE, wishes=wishes)
