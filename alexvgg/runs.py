"""What the storage says about runs: it alone is enough to rebuild every status and every table."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

from alexvgg import attempts
from alexvgg.attempts import Record
from alexvgg.config import RunSpec, from_dict
from alexvgg.data.store import Store
from alexvgg.errors import InputError, resolve
from alexvgg.tracking.journal import read_journal

State = Literal["finished", "failed", "started", "planned"]


@dataclass(frozen=True)
class RunRecord:
    """One run as stored. `weights` is the sha256 of its final weights, `evaluation` the documents of the rows that were
    evaluated with these weights, `error` why it failed, `attempts` those of campaigns, the first one first."""

    name: str
    state: State
    spec: RunSpec | None
    journal: list[dict[str, Any]]
    evaluation: list[dict[str, Any]]
    error: str | None
    weights: str | None = None
    attempts: tuple[Record, ...] = ()

    @property
    def consumed(self) -> int:
        """Images trained on up to the newest epoch's end, about."""
        return self.last_epoch["step"] * self.spec.train.global_batch if self.last_epoch and self.spec else 0

    @property
    def last_epoch(self) -> dict[str, Any] | None:
        """The newest `epoch` event of the journal."""
        return next((e for e in reversed(self.journal) if e["event"] == "epoch"), None)


def read_run(storage: Store, name: str, present: Iterable[str] | None = None) -> RunRecord:
    """The record of one run; `present` spares a listing if the storage's keys are known already."""
    folder = f"runs/{name}/"
    files = {key.removeprefix(folder) for key in (present or storage.list(folder)) if key.startswith(folder)}

    def document(file: str) -> Any:
        return json.loads(storage.get(folder + file)) if file in files else None

    spec, final = document("spec.json"), document("final/record.json")
    tried = attempts.history(storage, folder, [folder + file for file in files])
    failure = attempts.failure(tried)
    weights = final["sha256"] if final else None
    rows = [document(f) for f in sorted(files) if f.startswith("eval/") and f.endswith(".json")]
    state: State = "planned"
    if final is not None:
        state = "finished"
    elif failure is not None:
        state = "failed"
    elif "journal.jsonl" in files:
        state = "started"
    return RunRecord(
        name=name,
        state=state,
        spec=None if spec is None else from_dict(RunSpec, spec),
        journal=read_journal(storage, folder + "journal.jsonl") if "journal.jsonl" in files else [],
        evaluation=[row for row in rows if row["members"][0]["weights"] == weights],
        error=failure,
        weights=weights,
        attempts=tuple(tried),
    )


def read_spec(storage: Store, name: str) -> RunSpec:
    """What a run is. Raises MissingKeyError if nobody has begun it."""
    return from_dict(RunSpec, json.loads(storage.get(f"runs/{name}/spec.json")))


def is_finished(storage: Store, run: str) -> bool:
    """Whether the run has its final weights and evaluation."""
    return storage.exists(f"runs/{run}/final/record.json")


def run_names(storage: Store) -> list[str]:
    """Of every run under the storage URL, sorted."""
    return names_in(storage.list("runs/"))


def names_in(keys: Iterable[str]) -> list[str]:
    """Of every run that some of the keys belong to: not of files that someone else put there."""
    return sorted({key.split("/")[1] for key in keys if key.count("/") > 1})


def list_runs(storage: Store) -> list[RunRecord]:
    """Every run under the storage URL, by name."""
    keys = storage.list("runs/")
    return [read_run(storage, name, keys) for name in names_in(keys)]


def list_fusions(storage: Store) -> list[dict[str, Any]]:
    """The documents of all rows that fuse several runs, the oldest first."""
    keys = (k for k in storage.list("fusions/") if k.endswith(".json"))
    documents = [json.loads(storage.get(key)) | {"name": key[8:-5]} for key in keys]
    return sorted(documents, key=lambda d: d["time"])


@dataclass(frozen=True)
class Finished:
    """A finished run: its spec and the sha256 of its final weights."""

    spec: RunSpec
    weights: str

    @property
    def name(self) -> str:
        return self.spec.name


def find_finished(storage: Store, name: str) -> Finished:
    """A finished run; its name may be cut short.

    Raises NotFoundError if there is none, or several are meant, and InputError if it isn't finished.
    """
    found = read_run(storage, name)
    if found.spec is None:
        found = read_run(storage, resolve(name, run_names(storage), f"in {storage.url}"))
    if found.spec is None or found.weights is None:
        state = {"planned": "is planned"}.get(found.state, f"has {found.state}")
        raise InputError(
            f"{found.name} {state} but isn't finished, and only final weights can be used. "
            "`alexvgg status` shows how far it is; submitting it again goes on with it."
        )
    return Finished(found.spec, found.weights)
