"""Checkpoints in a store: objects first, one commit record last, hashes checked before anything is parsed.

    <prefix><step>/model-<hash>.safetensors  momentum-<hash>.safetensors  commit.json

Objects are named by their content. So a writer that was given up for lost and comes back can't overwrite what its
successor wrote at the same step, and a folder without commit.json is no checkpoint.
"""

import hashlib
import json
import logging
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import safetensors.torch
import torch
from torch import Tensor

from alexvgg.engine.world import World
from alexvgg.errors import DamagedError

log = logging.getLogger(__name__)

COMMIT = "commit.json"


class Objects(Protocol):
    """The part of a store that checkpoints need."""

    def get(self, key: str) -> bytes: ...
    def put(self, key: str, data: bytes) -> None: ...
    def put_new(self, key: str, data: bytes) -> bool: ...
    def list(self, prefix: str) -> list[str]: ...
    def delete(self, key: str) -> None: ...


@dataclass(frozen=True)
class Checkpoint:
    """`momentum` has SGD's buffers by parameter name; `progress` are JSON types: whatever the run needs to go on."""

    step: int
    model: dict[str, Tensor]
    momentum: dict[str, Tensor]
    progress: dict[str, Any]


def write(
    store: Objects,
    prefix: str,
    step: int,
    files: Mapping[str, bytes],
    progress: dict[str, Any],
    before_commit: Callable[[], None] = lambda: None,
) -> None:
    """Write `files` (safetensors by name: model, momentum), then the record that makes them a checkpoint.

    `before_commit` is called between the two, and may raise. A step that is committed already stays as it is: whoever
    wrote it had trained on the same samples.
    """
    folder, objects = _folder(prefix, step), {}
    for name, data in files.items():
        digest = hashlib.sha256(data).hexdigest()
        objects[name] = {"object": f"{name}-{digest[:12]}.safetensors", "sha256": digest, "bytes": len(data)}
        store.put(folder + str(objects[name]["object"]), data)
    before_commit()
    record = {"step": step, "files": objects, "progress": progress}
    store.put_new(folder + COMMIT, json.dumps(record).encode())


def load_latest(store: Objects, prefix: str, world: World) -> Checkpoint | None:
    """The newest checkpoint that is whole, or None if none was committed: the same one on every rank of `world`.

    A damaged one is named in the log and costs only the steps since the one before. Raises DamagedError if all are.
    """
    steps = committed(store, prefix) if world.rank == 0 else []  # its list counts: one may be committed meanwhile
    damage: DamagedError | None = None
    while step := int(world.sum(torch.tensor(steps.pop() + 1 if steps else 0, device=world.device)).item()):
        found = None
        try:
            found = _load(store, _folder(prefix, step - 1))
        except DamagedError as error:
            log.warning("%s Going back to the checkpoint before it.", error)
            damage = damage or error
        if not world.sum(torch.tensor(int(found is None), device=world.device)).item():
            return found
        damage = damage or DamagedError(f"the checkpoint of step {step - 1} is damaged on another rank, see its log.")
    if damage is not None:
        raise damage
    return None


def _load(store: Objects, folder: str) -> Checkpoint:
    try:
        record = json.loads(store.get(folder + COMMIT))
        state = {
            name: safetensors.torch.load(verified(store, folder + file["object"], file["sha256"]))
            for name, file in record["files"].items()
        }
        return Checkpoint(record["step"], state["model"], state["momentum"], record["progress"])
    except (ValueError, LookupError, TypeError) as error:  # a machine lost its power while it wrote, say
        raise DamagedError(f"{folder}{COMMIT} is no record of a checkpoint: {error!r}.") from None


def committed(store: Objects, prefix: str) -> list[int]:
    """The steps of all checkpoints, ascending."""
    return sorted(step for step, keys in _folders(store, prefix).items() if _folder(prefix, step) + COMMIT in keys)


def forget(store: Objects, prefix: str, *, keep: int, besides: set[int]) -> None:
    """Delete all checkpoints but the newest `keep` and the steps `besides`."""
    folders = _folders(store, prefix)
    steps = sorted(step for step, keys in folders.items() if _folder(prefix, step) + COMMIT in keys)
    for step in set(steps[:-keep]) - besides:
        commit = _folder(prefix, step) + COMMIT
        store.delete(commit)  # first, so that no reader takes a checkpoint whose objects are going
        for key in folders[step]:
            store.delete(key)


def collect_orphans(store: Objects, prefix: str) -> list[int]:
    """Delete what uploads that were cut off left behind: folders without a commit record. Returns their steps."""
    orphans = {
        step: keys for step, keys in _folders(store, prefix).items() if _folder(prefix, step) + COMMIT not in keys
    }
    for keys in orphans.values():
        for key in keys:
            store.delete(key)
    return sorted(orphans)


def verified(store: Objects, key: str, sha256: str) -> bytes:
    """The object's bytes, read again if a bit was flipped on the way.

    Raises DamagedError if it is gone or its hash isn't `sha256`.
    """
    for _ in range(2):
        try:
            data = store.get(key)
        except KeyError:
            raise DamagedError(f"{key} is missing, though its checkpoint was committed.") from None
        if hashlib.sha256(data).hexdigest() == sha256:
            return data
    raise DamagedError(f"{key} is damaged: its sha256 isn't the recorded {sha256[:12]}…")


def _folder(prefix: str, step: int) -> str:
    return f"{prefix}{step:08d}/"


def _folders(store: Objects, prefix: str) -> dict[int, list[str]]:
    folders: dict[int, list[str]] = defaultdict(list)
    for key in store.list(prefix):
        folders[int(key.removeprefix(prefix).split("/")[0])].append(key)
    return dict(folders)
