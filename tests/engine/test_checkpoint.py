"""Checkpoints: whole or not at all, checked before they are parsed, never unpickled."""

import hashlib
import json
import pickle
from pathlib import Path

import pytest
import safetensors.torch
import torch

from alexvgg.data.store import Store, open_store
from alexvgg.engine import checkpoint
from alexvgg.engine.tensorfile import TensorFile
from alexvgg.engine.world import World
from alexvgg.errors import DamagedError

ALONE = World(0, 1, torch.device("cpu"))


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(tmp_path.as_uri())


MODEL = {"fc.weight": torch.arange(6.0).view(2, 3), "fc.bias": torch.tensor([1.5, -2.0])}
MOMENTUM = {name: tensor * 0.1 for name, tensor in MODEL.items()}


def write(store: Store, step: int) -> None:
    files = {
        name: safetensors.torch.save({k: t + step for k, t in tensors.items()})
        for name, tensors in (("model", MODEL), ("momentum", MOMENTUM))
    }
    checkpoint.write(store, "c/", step, files, {"consumed": step * 7, "best": None})


def newest(store: Store) -> int:
    loaded = checkpoint.load_latest(store, "c/", ALONE)
    assert loaded is not None
    return loaded.step


@pytest.mark.parametrize("record", [b"", b"{}", b"[1]", b'{"step": 2, "files": {"model": {}}}'])
def test_a_record_that_was_cut_costs_the_steps_since_the_checkpoint_before(store: Store, record: bytes) -> None:
    """As a machine leaves it that lost its power while it wrote."""
    write(store, 1)
    write(store, 2)
    store.put("c/00000002/commit.json", record)
    assert newest(store) == 1
    store.put("c/00000001/commit.json", record)
    with pytest.raises(DamagedError, match=r"c/00000002/commit\.json is no record of a checkpoint"):
        newest(store)


def test_there_and_back(store: Store) -> None:
    assert checkpoint.load_latest(store, "c/", ALONE) is None
    write(store, 12)
    loaded = checkpoint.load_latest(store, "c/", ALONE)
    assert loaded is not None
    assert (loaded.step, loaded.progress) == (12, {"consumed": 84, "best": None})
    for name in MODEL:
        assert torch.equal(loaded.model[name], MODEL[name] + 12)
        assert torch.equal(loaded.momentum[name], MOMENTUM[name] + 12)


def test_the_newest_few_are_kept_and_the_best(store: Store) -> None:
    for step in (9, 10, 100, 1000):
        write(store, step)
    checkpoint.forget(store, "c/", keep=2, besides={9})
    assert checkpoint.committed(store, "c/") == [9, 100, 1000]
    assert {key.split("/")[1] for key in store.list("c/")} == {"00000009", "00000100", "00001000"}
    assert newest(store) == 1000


def test_without_its_commit_a_checkpoint_does_not_exist(store: Store) -> None:
    write(store, 1)
    write(store, 2)
    store.delete("c/00000002/commit.json")
    assert newest(store) == 1
    assert checkpoint.collect_orphans(store, "c/") == [2]
    assert {key.split("/")[1] for key in store.list("c/")} == {"00000001"}
    assert checkpoint.collect_orphans(store, "c/") == []


def test_a_writer_given_up_for_lost_changes_nothing(store: Store) -> None:
    write(store, 5)
    late = {name: safetensors.torch.save({"fc.bias": torch.zeros(1)}) for name in ("model", "momentum")}
    checkpoint.write(store, "c/", 5, late, {"consumed": 0})
    loaded = checkpoint.load_latest(store, "c/", ALONE)
    assert loaded is not None
    assert loaded.progress["consumed"] == 35
    assert torch.equal(loaded.model["fc.bias"], MODEL["fc.bias"] + 5)


def damage(store: Store, step: int, file: str) -> str:
    (key,) = (k for k in store.list(f"c/{step:08d}/") if file in k)
    data = bytearray(store.get(key))
    data[-1] ^= 1
    store.put(key, bytes(data))
    return key


@pytest.mark.parametrize("file", ["model", "momentum"])
def test_a_flipped_bit_is_found(store: Store, file: str) -> None:
    write(store, 1)
    key = damage(store, 1, file)
    with pytest.raises(DamagedError, match=key):
        checkpoint.load_latest(store, "c/", ALONE)


def test_a_bit_flipped_on_the_way_is_read_again_once(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    digest, answers = hashlib.sha256(b"weights").hexdigest(), [b"veights", b"weights", b"veights", b"veights"]
    monkeypatch.setattr(store, "get", lambda _key: answers.pop(0))
    assert checkpoint.verified(store, "model", digest) == b"weights"
    with pytest.raises(DamagedError, match="model is damaged"):
        checkpoint.verified(store, "model", digest)


def test_a_damaged_checkpoint_costs_only_the_steps_since_the_one_before(
    store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    for step in (1, 2, 3):
        write(store, step)
    damage(store, 3, "momentum")
    (model,) = (k for k in store.list("c/00000002/") if "model" in k)
    store.delete(model)
    assert newest(store) == 1
    assert "00000003/momentum" in caplog.text
    assert f"{model} is missing" in caplog.text


class Attack:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (print, ("code ran",))


def test_a_pickle_is_not_run(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    attack = pickle.dumps(Attack())
    checkpoint.write(store, "c/", 1, {"model": attack, "momentum": attack}, {})
    with pytest.raises(safetensors.SafetensorError):
        checkpoint.load_latest(store, "c/", ALONE)
    assert "code ran" not in capsys.readouterr().out


def test_the_commit_record_says_what_belongs_to_it(store: Store) -> None:
    write(store, 3)
    record = json.loads(store.get("c/00000003/commit.json"))
    for file in record["files"].values():
        assert len(store.get(f"c/00000003/{file['object']}")) == file["bytes"]


def test_a_tensor_file_is_a_safetensors_file() -> None:
    tensors = {
        "a": torch.randn(3, 5), "b.c": torch.arange(7), "d": torch.randn(2, 3, 4, 4).to(torch.float64),
        "e": torch.randn(4, 2).to(torch.bfloat16),
    }  # fmt: skip
    file = TensorFile(tensors)
    for values in (tensors, {k: (t * 2 + 1) for k, t in tensors.items()}):
        last = values | {"d": values["d"].to(memory_format=torch.channels_last)}
        file.fill(last)
        loaded = safetensors.torch.load(bytes(file.data))
        assert loaded.keys() == tensors.keys()
        assert all(torch.equal(loaded[k], values[k]) for k in tensors)
