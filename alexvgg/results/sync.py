"""MLflow made to say what the storage says: after it was down, after runs died, after its database was lost."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from alexvgg.attempts import DEAD_SECONDS, Attempt, beaten
from alexvgg.data.store import Store
from alexvgg.errors import InputError, ServiceError
from alexvgg.keys import run_folder
from alexvgg.results.lineage import parents_first
from alexvgg.results.paper import cells
from alexvgg.runs import RunRecord
from alexvgg.tracking.describing import describe_fusion, describe_run, final_model
from alexvgg.tracking.journal import Event, Point, cells_event, points
from alexvgg.tracking.live import read_live
from alexvgg.tracking.remote import (
    Description,
    FinalModel,
    RemoteRun,
    connect,
    experiment_id,
    identities,
    lacking,
    reason,
)

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

SILENT_SECONDS = 3600.0  # after an hour without any sign of life a run isn't alive

Action = Literal["created", "completed", "ended", "replaced", "unchanged"]


@dataclass(frozen=True)
class Synced:
    """What became of one run in MLflow: its state there, and how many points it lacked."""

    run: str
    action: Action
    status: str
    points: int


def sync(
    url: str, storage: Store, runs: Sequence[RunRecord], fusions: Sequence[Mapping[str, Any]], now: float
) -> Iterator[Synced]:
    """Make the MLflow runs of `runs` and `fusions` equal to what is stored, parents first. `now` is the time.

    Points that MLflow lacks are added, under the time at which they were measured. MLflow can't take points back: a run
    that has some which the journal doesn't (of steps that were lost and trained again) is made anew, and the old one
    deleted, which MLflow can undo. Raises InputError if no MLflow answers, and
    ServiceError if one doesn't any more.
    """
    with _asking(f"no MLflow can be used at {url}", "Nothing was changed.", InputError):
        client = connect(url)
        experiment_id(client)

    def brought(stored: _Stored) -> Synced:
        with _asking(f"MLflow at {url} failed on {stored.description.name}", "The same command goes on from there."):
            return _bring(client, stored)

    recipes = {r.name: r.spec.recipe for r in runs}
    for run in parents_first(runs):
        if run.journal:
            later = [cells_event(d, cells(recipes, [d])) for d in run.evaluation]
            model = final_model(storage, run.spec, run.weights) if run.weights is not None else None
            about, ended = describe_run(storage, run.spec), run.journal[-1]["time"]
            stored = _Stored(about, [*run.journal, *later], status_of(storage, run, now), ended, model)
            yield brought(stored)
    for document in fusions:
        if filled := cells(recipes, [document]):
            about = describe_fusion(document, document["name"])
            yield brought(_Stored(about, [cells_event(document, filled)], "FINISHED", document["time"]))


@contextmanager
def _asking(what: str, then: str, kind: type[Exception] = ServiceError) -> Iterator[None]:
    """Inside, what MLflow's client raises, which is whatever its own libraries do, becomes a sentence."""
    try:
        yield
    except Exception as error:
        raise kind(f"{what}: {reason(error)}. {then}") from None


@dataclass(frozen=True)
class _Stored:
    """What MLflow shall say of one run."""

    description: Description
    events: list[Event]
    status: str
    ended: float
    model: FinalModel | None = None

    def points(self) -> list[Point]:
        """Each metric once at each step, with its first time: the newest, where an evaluation counted a cell again."""
        found: dict[tuple[str, int], Point] = {}
        for p in points(self.events):
            if (p.metric, p.step) not in found or found[p.metric, p.step].value != p.value:
                found[p.metric, p.step] = p
        return list(found.values())


def status_of(storage: Store, run: RunRecord, now: float) -> str:
    """A run's state as MLflow calls it: KILLED after its last attempt has ended, or after an hour of silence.

    The latter is for runs without attempts, which no driver watches, and for those whose driver died with them.
    """
    if run.state in ("finished", "failed"):
        return run.state.upper()
    end, sign = run.attempts[-1].end if run.attempts else None, last_sign(storage, run)
    ended = end is not None and sign < end.time + DEAD_SECONDS  # else it goes on without a campaign
    return "KILLED" if ended or now - sign > SILENT_SECONDS else "RUNNING"


def last_sign(storage: Store, run: RunRecord) -> float:
    """When a run last showed that it lives: its journal comes only with checkpoints, points and beats come between."""
    times = [run.journal[-1]["time"]]
    if (live := read_live(storage, run.name)) is not None:
        times.append(live.time)
    if run.attempts:
        newest = run.attempts[-1]
        times.append(newest.claim.time)
        times.append(beaten(Attempt(storage, run_folder(run.name), newest.number).last_beat()))
    return float(max(times))


def _bring(client: "MlflowClient", stored: _Stored) -> Synced:
    run = RemoteRun.find(client, stored.description.name)
    action: Action = "unchanged" if run is not None else "created"
    wanted = stored.points()
    history = run.history() if run is not None else []
    if run is not None and stored.status != "RUNNING" and not _same(history) <= _same(wanted):
        client.delete_run(run.id)
        run, history, action = None, [], "replaced"
    if run is None:
        run = RemoteRun.create(client, stored.description, round(stored.events[0]["time"] * 1000))
    run.describe(stored.description)
    missing = lacking(wanted, identities(history))
    run.log(missing)
    if stored.model is not None:
        run.log_model(stored.model, stored.description.name)
    ended = stored.status != "RUNNING" and run.status != stored.status
    if ended:
        run.end(stored.status, round(stored.ended * 1000))
    if action == "unchanged" and (missing or ended):
        action = "completed" if missing else "ended"
    return Synced(stored.description.name, action, stored.status, len(missing))


def _same(history: Iterable[Point]) -> set[tuple[str, int, float]]:
    """What makes two points the same, whenever they were measured."""
    return {(p.metric, p.step, p.value) for p in history}


def attach(url: str, runs: Iterable[str], file: Path) -> None:
    """Make a file an artifact of MLflow's runs of these names. Raises ServiceError if that can't be done."""
    with _asking(f"MLflow at {url} didn't take {file}", "The file is written; leave MLflow out with --no-mlflow."):
        client = connect(url)
        for name in runs:
            if (run := RemoteRun.find(client, name)) is not None:
                client.log_artifact(run.id, str(file))
