"""Checkpoints beside training: training goes on while one is stored, and a failure isn't lost."""

import threading
from pathlib import Path

import pytest
import torch
from torch import Tensor

from alexvgg.data.store import FileStore
from alexvgg.engine import checkpoint
from alexvgg.engine.saver import Saver, UploadError
from alexvgg.engine.world import World
from alexvgg.errors import StoreError

ALONE = World(0, 1, torch.device("cpu"))

Tensors = dict[str, dict[str, Tensor]]


class SlowStore(FileStore):
    """Writes only when `go` is set, and fails if `broken`."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder.as_uri(), folder)
        self.go, self.broken = threading.Event(), False

    def put(self, key: str, data: bytes) -> None:
        assert self.go.wait(10)
        if self.broken:
            raise StoreError("writing: the disk is full")
        super().put(key, data)


@pytest.fixture
def store(tmp_path: Path) -> SlowStore:
    return SlowStore(tmp_path)


def tensors(value: float) -> Tensors:
    return {name: {"w": torch.full((3, 2), value)} for name in ("model", "momentum")}


def test_the_snapshot_is_of_the_moment_it_was_taken(store: SlowStore) -> None:
    saver, live = Saver(store, "c/", keep=2), tensors(1.0)
    saver.save(1, live, {})
    live["model"]["w"].fill_(2.0)  # training goes on while nothing is written yet
    assert checkpoint.committed(store, "c/") == []
    store.go.set()
    saver.close()
    loaded = checkpoint.load_latest(store, "c/", ALONE)
    assert loaded is not None
    assert torch.equal(loaded.model["w"], torch.full((3, 2), 1.0))


def test_what_must_be_stored_before_is(store: SlowStore) -> None:
    seen: list[list[str]] = []
    saver = Saver(store, "c/", keep=2)
    store.go.set()
    saver.save(7, tensors(0), {}, before_commit=lambda: seen.append([k.split("-")[0] for k in store.list("c/")]))
    saver.close()
    assert seen == [["c/00000007/model", "c/00000007/momentum"]], "after the objects, which take long"
    assert checkpoint.committed(store, "c/") == [7]


def test_the_newest_and_the_best_are_kept(store: SlowStore) -> None:
    store.go.set()
    saver = Saver(store, "c/", keep=2)
    for step, error in ((1, 50.0), (2, 20.0), (3, None), (4, 30.0), (5, 25.0)):
        saver.save(step, tensors(step), {}, error=error)
    saver.close()
    assert checkpoint.committed(store, "c/") == [2, 4, 5]
    loaded = checkpoint.load_latest(store, "c/", ALONE)
    assert loaded is not None
    again = Saver(store, "c/", keep=1, best=tuple(loaded.progress["best"]))
    again.save(6, tensors(6), {}, error=40.0)
    again.close()
    assert checkpoint.committed(store, "c/") == [2, 6], "a resumed run has forgotten which was the best"


def test_a_failed_upload_is_told_and_nothing_is_written_after_it(store: SlowStore) -> None:
    failures: list[UploadError] = []
    saver = Saver(store, "c/", keep=2, failed=failures.append)
    store.broken = True
    store.go.set()
    saver.save(1, tensors(0), {})
    saver.wait()
    assert "checkpoint of step 1" in str(failures[0])
    assert "the disk is full" in str(failures[0])
    store.broken = False
    saver.save(2, tensors(0), {})
    saver.close()
    assert store.list("c/") == []


def test_a_failed_upload_is_raised_when_asked_for(store: SlowStore) -> None:
    saver = Saver(store, "c/", keep=2)
    store.broken = True
    store.go.set()
    saver.check()
    saver.save(1, tensors(0), {})
    saver.close()
    with pytest.raises(UploadError, match=r"checkpoint of step 1 could not be stored.*the disk is full"):
        saver.check()
