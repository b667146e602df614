"""MLflow made to say what the storage says: after it was down, after runs died, after its database was lost."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from alexvgg import attempts
from alexvgg.attempts import Record
from alexvgg.data.store import Store
from alexvgg.errors import InputError
from alexvgg.results.lineage import parents_first
from alexvgg.results.paper import cells
from alexvgg.runs import RunRecord
from alexvgg.tracking.describing import describe_fusion, describe_run, final_model
from alexvgg.tracking.journal import Event, Point, cells_event, points
from alexvgg.tracking.remote import Description, FinalModel, RemoteRun, connect, experiment_id, lacking

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

SILENT_SECONDS = 3600.0  # a run stores its journal with every checkpoint; after an hour without one it isn't alive

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
    deleted, which MLflow can undo. Raises InputError if no MLflow answers.
    """
    try:
        client = connect(url)
        experiment_id(client)
    except Exception as error:  # its clients raise whatever theirs do
        raise InputError(f"no MLflow server answers at {url}: {error}. Nothing was changed.") from None
    recipes = {r.name: r.spec.recipe for r in runs if r.spec is not None}
    for run in parents_first(runs):
        if run.spec is not None and run.journal:
            later = [cells_event(d, cells(recipes, [d])) for d in run.evaluation]
            model = final_model(storage, run.spec, run.weights) if run.weights is not None else None
            about, ended = describe_run(storage, run.spec), run.journal[-1]["time"]
            status = status_of(run, attempts.history(storage, f"runs/{run.name}/"), now)
            stored = _Stored(about, [*run.journal, *later], status, ended, model)
            yield _bring(client, stored)
    for document in fusions:
        if all(m["run"] in recipes for m in document["members"]) and (filled := cells(recipes, [document])):
            about = describe_fusion(document, document["name"])
            yield _bring(client, _Stored(about, [cells_event(document, filled)], "FINISHED", document["time"]))


@dataclass(frozen=True)
class _Stored:
    """What MLflow shall say of one run."""

    description: Description
    events: list[Event]
    status: str
    ended: float
    model: FinalModel | None = None

    def points(self) -> list[Point]:
        """Each metric once at each step: the journal's where an evaluation has counted the same cell again."""
        return list({(p.metric, p.step): p for p in reversed(list(points(self.events)))}.values())[::-1]


def status_of(run: RunRecord, records: Sequence[Record], now: float) -> str:
    """A run's state as MLflow calls it: KILLED after its last attempt has ended, or after an hour of silence.

    The latter is for runs without attempts, which no driver watches, and for those whose driver died with them.
    """
    if run.state in ("finished", "failed"):
        return run.state.upper()
    ended = bool(records) and records[-1].end is not None
    return "KILLED" if ended or now - run.journal[-1]["time"] > SILENT_SECONDS else "RUNNING"


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
    missing = lacking(wanted, history)
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
    """Make a file an artifact of MLflow's runs of these names. Raises InputError if that can't be done."""
    try:
        client = connect(url)
        for name in runs:
            if (run := RemoteRun.find(client, name)) is not None:
                client.log_artifact(run.id, str(file))
    except Exception as error:
        raise InputError(
            f"MLflow at {url} didn't take {file}: {error}. The file is written; leave MLflow out with --no-mlflow."
        ) from None
