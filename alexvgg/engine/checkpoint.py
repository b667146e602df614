"""Checkpoints in a store: objects first, one commit record last, hashes checked before anything is parsed."""

import hashlib
import io
import json
from dataclasses import dataclass
from typing import Any, Protocol

import safetensors.torch
import torch
from torch import Tensor


class Objects(Protocol):
    """The part of a store that checkpoints need."""

    def get(self, key: str) -> bytes: ...
    def put(self, key: str, data: bytes) -> None: ...
    def list(self, prefix: str) -> list[str]: ...
    def delete(self, key: str) -> None: ...


class DamagedError(RuntimeError):
    """Stored bytes aren't what was written."""


@dataclass(frozen=True)
class Checkpoint:
    """`progress` are JSON types: the cursor, the schedule, whatever the run needs to go on."""

    step: int
    model: dict[str, Tensor]
    optimizer: dict[str, Any]
    progress: dict[str, Any]


def save(store: Objects, prefix: str, checkpoint: Checkpoint, *, keep: int) -> None:
    """Write `checkpoint` under `prefix`, then forget all but the newest `keep`."""
    folder = f"{prefix}{checkpoint.step:08d}/"
    buffer = io.BytesIO()
    torch.save(checkpoint.optimizer, buffer)
    files = {"model.safetensors": safetensors.torch.save(checkpoint.model), "optimizer.pt": buffer.getvalue()}
    for name, data in files.items():
        store.put(folder + name, data)
    hashes = {name: hashlib.sha256(data).hexdigest() for name, data in files.items()}
    record = {"step": checkpoint.step, "sha256": hashes, "progress": checkpoint.progress}
    store.put(f"{folder}commit.json", json.dumps(record).encode())
    for old in _commits(store, prefix)[:-keep]:
        store.delete(old)  # first, so that no reader takes a checkpoint whose objects are going
        for name in files:
            store.delete(old.replace("commit.json", name))


def load_latest(store: Objects, prefix: str) -> Checkpoint | None:
    """The newest committed checkpoint, or None. Raises DamagedError if its bytes changed."""
    commits = _commits(store, prefix)
    if not commits:
        return None
    record = json.loads(store.get(commits[-1]))
    folder = commits[-1].removesuffix("commit.json")
    model, optimizer = (verified(store, folder + name, record["sha256"][name]) for name in record["sha256"])
    return Checkpoint(
        step=record["step"],
        model=safetensors.torch.load(model),
        optimizer=torch.load(io.BytesIO(optimizer), weights_only=True),
        progress=record["progress"],
    )


def _commits(store: Objects, prefix: str) -> list[str]:
    return [key for key in store.list(prefix) if key.endswith("/commit.json")]


def verified(store: Objects, key: str, sha256: str) -> bytes:
    """The object's bytes. Raises DamagedError if their hash isn't `sha256`."""
    data = store.get(key)
    if hashlib.sha256(data).hexdigest() != sha256:
        raise DamagedError(f"{key} is damaged: its sha256 isn't the recorded {sha256[:12]}…")
    return data
