"""One run in MLflow: made from a description, filled with points. Everything here may be done twice with one effect."""

import json
import os
from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from alexvgg.tracking.journal import Point

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

EXPERIMENT = "alexvgg"
RUN_TAG = "alexvgg.run"
POINTS_PER_REQUEST = 1000  # MLflow's limit
DIGEST_LENGTH = 36  # of a dataset, MLflow's limit


@dataclass(frozen=True)
class UsedDataset:
    """The images that a run is of."""

    name: str
    fingerprint: str
    url: str


@dataclass(frozen=True)
class FinalModel:
    """The weights that a run ended with. They stay in the storage: MLflow says which they are and where they lie."""

    sha256: str
    url: str


@dataclass(frozen=True)
class Description:
    """What MLflow shows of a run beside its points. Params never change; tags and texts are the last attempt's."""

    name: str
    params: Mapping[str, object] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)
    texts: Mapping[str, str] = field(default_factory=dict)  # small artifacts, by file name
    dataset: UsedDataset | None = None
    parent: str | None = None  # the run whose final model this one starts from


def connect(url: str) -> "MlflowClient":
    """A client that gives up after 20 s instead of MLflow's four minutes, and at once if nothing listens there."""
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
    from mlflow.tracking import MlflowClient

    return MlflowClient(url)


def reason(error: BaseException) -> str:
    """Why MLflow couldn't be used. Of an error that several libraries have handed on, the innermost knows it."""
    inner = error.__cause__ or error.__context__
    return reason(inner) if isinstance(inner, Exception) else str(error)


def experiment_id(client: "MlflowClient") -> str:
    """The experiment that holds all runs; made if it isn't there, restored if it was deleted."""
    found = client.get_experiment_by_name(EXPERIMENT)
    if found is None:
        return client.create_experiment(EXPERIMENT)
    if found.lifecycle_stage == "deleted":
        client.restore_experiment(found.experiment_id)
    return str(found.experiment_id)


class RemoteRun:
    """A run in MLflow, found by the derived name that its tag holds: every attempt, on any host, goes on with it."""

    def __init__(self, client: "MlflowClient", run_id: str) -> None:
        self.client, self.id = client, run_id

    @classmethod
    def find(cls, client: "MlflowClient", name: str) -> "RemoteRun | None":
        """The run of that name, if MLflow has it."""
        found = client.search_runs([experiment_id(client)], f"tags.`{RUN_TAG}` = '{name}'", max_results=1)
        return cls(client, found[0].info.run_id) if found else None

    @classmethod
    def create(cls, client: "MlflowClient", description: Description, began: int | None = None) -> "RemoteRun":
        """A new run that began at `began`, in milliseconds since 1970, or now."""
        tags = {RUN_TAG: description.name, "mlflow.runName": description.name}
        return cls(client, client.create_run(experiment_id(client), start_time=began, tags=tags).info.run_id)

    def describe(self, description: Description) -> None:
        """Set params, tags and texts, and name as the run's inputs the dataset and its parent's final model."""
        from mlflow.entities import LoggedModelInput, Param, RunTag

        known = self.client.get_run(self.id).data.params
        params = [Param(key, str(value)) for key, value in description.params.items() if key not in known]
        tags = [RunTag(key, value) for key, value in description.tags.items()]
        self.client.log_batch(self.id, params=params, tags=tags)
        for name, text in description.texts.items():
            self.client.log_text(self.id, text, name)
        if description.dataset is not None:
            self.client.log_inputs(self.id, datasets=[_dataset_input(description.dataset)])
        if description.parent is not None and (model := self._model_of(description.parent)) is not None:
            self.client.log_inputs(self.id, models=[LoggedModelInput(model)])

    @property
    def status(self) -> str:
        """`RUNNING`, `FINISHED`, `FAILED` or `KILLED`."""
        return str(self.client.get_run(self.id).info.status)

    def history(self) -> list[Point]:
        """Every point that MLflow has of this run."""
        metrics = self.client.get_run(self.id).data.metrics
        return [
            Point(m.key, m.step, m.timestamp, m.value)
            for metric in metrics
            for m in self.client.get_metric_history(self.id, metric)
        ]

    def log(self, points: Iterable[Point]) -> None:
        """Add points. One that is there already, to its millisecond, stays alone."""
        from mlflow.entities import Metric

        metrics = [Metric(p.metric, p.value, p.milliseconds, p.step) for p in points]
        for start in range(0, len(metrics), POINTS_PER_REQUEST):
            self.client.log_batch(self.id, metrics=metrics[start : start + POINTS_PER_REQUEST])

    def log_model(self, model: FinalModel, name: str) -> None:
        """Make the final weights this run's output, as a model whose files lie elsewhere, once."""
        from mlflow.entities import LoggedModelOutput

        run = self.client.get_run(self.id)
        if run.outputs is not None and run.outputs.model_outputs:
            return
        tags = {"alexvgg.weights": model.url, "alexvgg.sha256": model.sha256, "mlflow.model.isExternal": "True"}
        made = self.client.create_logged_model(run.info.experiment_id, name, self.id, tags=tags, model_type="alexvgg")
        self.client.finalize_logged_model(made.model_id, "READY")
        self.client.log_outputs(self.id, [LoggedModelOutput(made.model_id, step=0)])

    def _model_of(self, name: str) -> str | None:
        parent = RemoteRun.find(self.client, name)
        outputs = self.client.get_run(parent.id).outputs if parent is not None else None
        return outputs.model_outputs[0].model_id if outputs is not None and outputs.model_outputs else None

    def resume(self) -> None:
        """Show the run as running."""
        self.client.update_run(self.id, status="RUNNING")

    def end(self, status: str, milliseconds: int | None = None) -> None:
        """End the run as `FINISHED`, `FAILED` or `KILLED`, now or at a time since 1970."""
        self.client.set_terminated(self.id, status, milliseconds)


def identities(points: Iterable[Point]) -> set[tuple[str, int]]:
    """What makes a point the same to MLflow's pages: its metric and step."""
    return {(p.metric, p.step) for p in points}


def lacking(points: Iterable[Point], known: Container[tuple[str, int]]) -> list[Point]:
    """The points that aren't known yet.

    An attempt repeats steps that were lost with the one before it; MLflow has drawn those already.
    """
    return [p for p in points if (p.metric, p.step) not in known]


def _dataset_input(used: UsedDataset) -> Any:
    from mlflow.entities import Dataset, DatasetInput, InputTag

    source = json.dumps({"uri": used.url})
    dataset = Dataset(used.name, used.fingerprint[:DIGEST_LENGTH], source_type="http", source=source)
    return DatasetInput(dataset, [InputTag("mlflow.data.context", "training")])
