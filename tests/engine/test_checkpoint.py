"""Checkpoints: whole or not at all, checked before they are parsed, never unpickled."""

import hashlib
import io
import json
import pickle
from pathlib import Path

import pytest
import torch

from alexvgg.data.store import Store, open_store
from alexvgg.engine import checkpoint
from alexvgg.engine.checkpoint import Checkpoint, DamagedError


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(tmp_path.as_uri())


def at(step: int) -> Checkpoint:
    model = torch.nn.Linear(3, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    model(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    return Checkpoint(step, dict(model.state_dict()), optimizer.state_dict(), {"consumed": step * 7, "best": 0.25})


def test_there_and_back(store: Store) -> None:
    saved = at(12)
    checkpoint.save(store, "c/", saved, keep=2)
    loaded = checkpoint.load_latest(store, "c/")
    assert loaded is not None
    assert (loaded.step, loaded.progress) == (12, saved.progress)
    assert all(torch.equal(loaded.model[k], saved.model[k]) for k in saved.model)
    assert loaded.optimizer["param_groups"] == saved.optimizer["param_groups"]
    for i, state in saved.optimizer["state"].items():
        assert torch.equal(loaded.optimizer["state"][i]["momentum_buffer"], state["momentum_buffer"])


def test_the_newest_few_are_kept(store: Store) -> None:
    assert checkpoint.load_latest(store, "c/") is None
    for step in (9, 10, 100, 1000):
        checkpoint.save(store, "c/", at(step), keep=2)
    assert {key.split("/")[1] for key in store.list("c/")} == {"00000100", "00001000"}
    assert checkpoint.load_latest(store, "c/").step == 1000  # type: ignore[union-attr]


def test_without_its_commit_a_checkpoint_does_not_exist(store: Store) -> None:
    checkpoint.save(store, "c/", at(1), keep=2)
    checkpoint.save(store, "c/", at(2), keep=2)
    store.delete("c/00000002/commit.json")
    assert checkpoint.load_latest(store, "c/").step == 1  # type: ignore[union-attr]


@pytest.mark.parametrize("file", ["model.safetensors", "optimizer.pt"])
def test_a_flipped_bit_is_found(store: Store, file: str) -> None:
    checkpoint.save(store, "c/", at(1), keep=2)
    data = bytearray(store.get(f"c/00000001/{file}"))
    data[-1] ^= 1
    store.put(f"c/00000001/{file}", bytes(data))
    with pytest.raises(DamagedError, match=file):
        checkpoint.load_latest(store, "c/")


class Attack:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (print, ("code ran",))


def test_a_pickle_with_code_is_not_run(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    checkpoint.save(store, "c/", at(1), keep=2)
    buffer = io.BytesIO()
    torch.save({"state": Attack()}, buffer)
    store.put("c/00000001/optimizer.pt", buffer.getvalue())
    record = json.loads(store.get("c/00000001/commit.json"))
    record["sha256"]["optimizer.pt"] = hashlib.sha256(buffer.getvalue()).hexdigest()
    store.put("c/00000001/commit.json", json.dumps(record).encode())
    with pytest.raises(pickle.UnpicklingError):
        checkpoint.load_latest(store, "c/")
    assert "code ran" not in capsys.readouterr().out
