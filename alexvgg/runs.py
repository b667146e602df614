"""What the storage says about runs: it alone is enough to rebuild every status and every table."""

import logging
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from alexvgg import attempts
from alexvgg.attempts import Attempt, Record
from alexvgg.config import RunSpec, from_dict
from alexvgg.data.documents import read_document
from alexvgg.data.store import MissingKeyError, Store
from alexvgg.engine.chance import STUCK_STEPS, is_chance
from alexvgg.errors import InputError, resolve
from alexvgg.keys import (
    EVAL,
    FINAL_RECORD,
    FUSIONS,
    JOURNAL,
    RUNS,
    SPEC,
    final_record_key,
    plan_key,
    run_folder,
    spec_key,
)
from alexvgg.tracking.journal import read_journal

log = logging.getLogger(__name__)

READERS = 16  # runs that are read at a time

State = Literal["finished", "failed", "started", "planned"]
T = TypeVar("T")


@dataclass(frozen=True)
class RunRecord:
    """One run as stored. `weights` is the sha256 of its final weights, `evaluation` the documents of the rows that were
    evaluated with these weights, `error` why it failed, `attempts` those of campaigns, the first one first."""

    name: str
    state: State
    spec: RunSpec
    journal: list[dict[str, Any]]
    evaluation: list[dict[str, Any]]
    error: str | None
    weights: str | None = None
    attempts: tuple[Record, ...] = ()

    @property
    def consumed(self) -> int:
        """Images trained on up to the newest epoch's end, about."""
        return self.last_epoch["step"] * self.spec.train.global_batch if self.last_epoch else 0

    @property
    def last_epoch(self) -> dict[str, Any] | None:
        """The newest `epoch` event of the journal."""
        return next((e for e in reversed(self.journal) if e["event"] == "epoch"), None)

    @property
    def stuck_at(self) -> float | None:
        """The mean loss of its last epoch if that is chance, though there were steps enough to leave it."""
        last = self.last_epoch
        if last is None or last["step"] < STUCK_STEPS:
            return None
        loss: float | None = last["metrics"].get("train/loss_epoch")
        return loss if loss is not None and is_chance(loss, self.spec.model.num_classes) else None

    @property
    def warning(self) -> str | None:
        """The newest warning of its journal, unless an epoch that ended after it has shown that it came too early."""
        for event in reversed(self.journal):
            if event["event"] == "warning":
                message: str = event["message"]
                return message
            if event["event"] == "epoch" and self.stuck_at is None:
                return None
        return None

    @property
    def last_seen(self) -> float:
        """When the journal's newest event was written, in seconds since 1970; 0 without any."""
        return max((e["time"] for e in self.journal), default=0.0)


def read_run(storage: Store, name: str, present: Iterable[str] | None = None, spec: RunSpec | None = None) -> RunRecord:
    """The record of one run; `present` spares a listing if the storage's keys are known already.

    `spec` is what it will be, if nobody has begun it: without that, MissingKeyError is raised.
    Raises InputError, naming the document, if one can't be read: it is damaged, or a newer version wrote it.
    """
    folder = run_folder(name)
    files = {key.removeprefix(folder) for key in (present or storage.list(folder)) if key.startswith(folder)}

    def document(file: str, part: Callable[[Any], T]) -> T | None:
        return read_document(storage, folder + file, part) if file in files else None

    spec = document(SPEC, lambda spec: from_dict(RunSpec, spec)) or spec
    if spec is None:
        raise MissingKeyError(f"{storage.url} has no {folder}{SPEC}")
    weights: str | None = document(FINAL_RECORD, lambda record: record["sha256"])
    rows = [
        document(f, lambda row: row if is_row(row) and row["members"][0]["weights"] == weights else None)
        for f in sorted(files)
        if f.startswith(EVAL) and f.endswith(".json")
    ]
    tried = attempts.history(storage, folder, [folder + file for file in files])
    failure = attempts.failure(tried)
    state: State = "planned"
    if weights is not None:
        state = "finished"
    elif failure is not None:
        state = "failed"
    elif JOURNAL in files:
        state = "started"
    return RunRecord(
        name=name,
        state=state,
        spec=spec,
        journal=read_journal(storage, folder + JOURNAL) if JOURNAL in files else [],
        evaluation=[row for row in rows if row is not None],
        error=failure,
        weights=weights,
        attempts=tuple(tried),
    )


def check_parent(parent: RunRecord, child: str) -> None:
    """Raise InputError if the parent, which is finished, has learned nothing that the child could start from."""
    if parent.stuck_at is not None:
        raise InputError(
            f"{child} starts from {parent.name}, which has learned nothing: the loss of its last epoch is "
            f"{parent.stuck_at:.3f}, that of guessing. Train that net from another start, as by --init glorot or with "
            "another train.seed, and name the run by --parent."
        )


def is_row(document: Any) -> bool:
    """Whether it is an evaluation's document, and not someone else's."""
    return isinstance(document, dict) and bool(document.get("members"))


def read_spec(storage: Store, name: str) -> RunSpec:
    """What a run is. Raises MissingKeyError if nobody has begun it, and InputError if it can't be read."""
    return read_document(storage, spec_key(name), lambda spec: from_dict(RunSpec, spec))


def is_finished(storage: Store, run: str) -> bool:
    """Whether the run has its final weights and evaluation."""
    return storage.exists(final_record_key(run))


def run_names(storage: Store) -> list[str]:
    """Of every run under the storage URL, sorted."""
    return names_in(storage.list(RUNS))


def names_in(keys: Iterable[str]) -> list[str]:
    """Of every run that some of the keys belong to, by its spec or a claim: not of what someone else put there."""
    parts = (key.split("/") for key in keys)
    return sorted({p[1] for p in parts if p[2:] == [SPEC] or (p[2:3] == ["attempts"] and len(p) == 4)})


def keys_by_run(storage: Store) -> dict[str, list[str]]:
    """Every run under the storage URL, by name, with all of its keys: one listing."""
    keys = storage.list(RUNS)
    found: dict[str, list[str]] = {name: [] for name in names_in(keys)}
    for key in keys:
        if (files := found.get(key.split("/")[1])) is not None:
            files.append(key)
    return found


@dataclass(frozen=True)
class PlainRun:
    """A run that a plain process trains, or was the last to train: its newest attempt.

    `planned`: a campaign of the same name goes on with it once that process has ended.
    """

    name: str
    attempt: Attempt
    record: Record
    planned: bool


def plain_run(storage: Store, name: str) -> PlainRun | None:
    """The run of that name, cut short or not, if its newest attempt is a plain process's.

    Raises NotFoundError if several such runs may be meant, and nothing else.
    """
    names = [n for n in run_names(storage) if n.startswith(name)]
    found = []
    for run in [name] if name in names else names:
        records = attempts.history(storage, folder := run_folder(run))
        if not records or records[-1].claim.process is None:
            return None
        planned = storage.exists(plan_key(run))
        found.append(PlainRun(run, Attempt(storage, folder, records[-1].number), records[-1], planned))
    if len(found) > 1:
        resolve(name, [run.name for run in found])  # which says that several may be meant
    return found[0] if found else None


def list_runs(storage: Store) -> list[RunRecord]:
    """Every run that was begun, by name. One that can't be read is left out, with a warning that says why."""
    present = {name: keys for name, keys in keys_by_run(storage).items() if spec_key(name) in keys}

    def read(name: str) -> RunRecord | None:
        try:
            return read_run(storage, name, present[name])
        except InputError as error:
            log.warning("%s is left out: %s", name, error)
            return None

    with ThreadPoolExecutor(READERS) as pool:  # a run is some ten documents, each a request
        return [record for record in pool.map(read, present) if record is not None]


def list_fusions(storage: Store) -> list[dict[str, Any]]:
    """The documents of all rows that fuse several runs, the oldest first. What can't be read is left out, and said."""

    def read(key: str) -> dict[str, Any] | None:
        def row(document: dict[str, Any]) -> dict[str, Any] | None:
            name = key.removeprefix(FUSIONS).removesuffix(".json")
            return document | {"time": float(document["time"]), "name": name} if is_row(document) else None

        try:
            return read_document(storage, key, row)
        except InputError as error:
            log.warning("%s is left out", error)
            return None

    documents = [read(key) for key in storage.list(FUSIONS) if key.endswith(".json")]
    return sorted((d for d in documents if d is not None), key=lambda d: d["time"])


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
    if not storage.exists(spec_key(name)):
        name = resolve(name, run_names(storage), f"in {storage.url}")
    try:
        found = read_run(storage, name)
    except MissingKeyError:
        state = "is planned"
    else:
        if found.weights is not None:
            return Finished(found.spec, found.weights)
        if attempts.standing(found.attempts) == "live":
            raise InputError(
                f"{name} is being trained, as `alexvgg status` shows, and only final weights can be used. Wait for its "
                "end."
            )
        state = f"has {found.state}" if found.state != "planned" else "is planned"
    raise InputError(
        f"{name} {state} but isn't finished, and only final weights can be used. "
        "Give the `submit` or `train` that began it once more."
    )
