"""What a run writes down: a journal in its storage, which is the truth, and MLflow, which never holds training up."""

import json
import logging
import os
import queue
import threading
import time
from collections.abc import Callable
from typing import Any, Protocol

log = logging.getLogger(__name__)

EXPERIMENT = "alexvgg"
QUEUE_LENGTH = 10_000
CLOSE_SECONDS = 30.0
RUN_TAG = "alexvgg.run"
STEP_TAG = "alexvgg.logged_step"  # high-water mark: a resumed run repeats steps, MLflow would show them twice


class Objects(Protocol):
    """The part of a store that the journal needs."""

    def get(self, key: str) -> bytes: ...
    def put(self, key: str, data: bytes) -> None: ...
    def exists(self, key: str) -> bool: ...


class Journal:
    """A run's events, one JSON object a line: start, steps, epoch, final. Object stores can't append, so each flush
    writes the whole; a run has a few hundred events."""

    def __init__(self, store: Objects, key: str) -> None:
        self._store, self._key = store, key
        self.events = read_journal(store, key)

    def rewind(self, step: int) -> None:
        """Forget what the lost steps after a checkpoint wrote; attempts are kept."""
        self.events = [e for e in self.events if e["step"] <= step or e["event"] == "start"]

    def write(self, event: str, step: int, **fields: Any) -> None:
        self.events.append({"event": event, "step": step, "time": round(time.time(), 3), **fields})

    def flush(self) -> None:
        self.pending()()

    def pending(self) -> Callable[[], None]:
        """A flush of what is written by now, to be called later, from any thread."""
        text = "".join(json.dumps(e) + "\n" for e in self.events).encode()
        return lambda: self._store.put(self._key, text)


def read_journal(store: Objects, key: str) -> list[dict[str, Any]]:
    """The events so far; empty for a run that hasn't started."""
    return [json.loads(line) for line in store.get(key).splitlines()] if store.exists(key) else []


class MlflowSink:
    """Logs to one MLflow run from a thread of its own. MLflow being slow, stopped or absent costs training nothing.

    The run is found by its derived name, or created: so every attempt, on any host, continues the same MLflow run.
    """

    def __init__(self, url: str, run: str, params: dict[str, Any], tags: dict[str, str]) -> None:
        self._url, self._run, self._params, self._tags = url, run, params, tags
        self._queue: queue.Queue[tuple[str, Any, int] | None] = queue.Queue(QUEUE_LENGTH)
        self._dropped = 0
        self._thread = threading.Thread(target=self._work, name="mlflow", daemon=True)
        self._thread.start()

    def metrics(self, values: dict[str, float], step: int) -> None:
        """Points of curves, or a run's final cells at step 0."""
        self._enqueue(("metrics", values, step))

    def text(self, name: str, text: str) -> None:
        """A small artifact."""
        self._enqueue(("text", (name, text), 0))

    def _enqueue(self, item: tuple[str, Any, int]) -> None:
        try:
            self._queue.put_nowait(item)
        except queue.Full:
            self._dropped += 1  # the journal has it

    def close(self, status: str) -> None:
        """End the MLflow run as `FINISHED`, `FAILED` or `KILLED`, waiting at most CLOSE_SECONDS for what is queued."""
        self._enqueue(("end", status, 0))
        self._enqueue(None)  # type: ignore[arg-type]
        self._thread.join(CLOSE_SECONDS)
        if self._thread.is_alive() or self._dropped:
            log.warning("MLflow at %s lacks some points of %s; the run's journal has them all", self._url, self._run)

    def _work(self) -> None:
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
        os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
        try:
            from mlflow.tracking import MlflowClient

            client = MlflowClient(self._url)
            run_id, logged_step = self._find_or_create(client)
            while (item := self._queue.get()) is not None:
                kind, value, step = item
                if kind == "text":
                    client.log_text(run_id, value[1], value[0])
                elif kind == "end":
                    client.set_terminated(run_id, value)
                elif step == 0 or step > logged_step:
                    self._log(client, run_id, value, step)
        except Exception as error:  # whatever MLflow raises must not reach training
            self._dropped += 1
            log.warning("MLflow at %s: %s. Training goes on; the run's journal has every point.", self._url, error)

    def _find_or_create(self, client: Any) -> tuple[str, int]:
        from mlflow.entities import Param

        experiment = client.get_experiment_by_name(EXPERIMENT)
        experiment_id = experiment.experiment_id if experiment else client.create_experiment(EXPERIMENT)
        found = client.search_runs([experiment_id], f"tags.`{RUN_TAG}` = '{self._run}'", max_results=1)
        if found:
            run = found[0]
            client.update_run(run.info.run_id, status="RUNNING")
            return run.info.run_id, int(run.data.tags.get(STEP_TAG, 0))
        tags = {RUN_TAG: self._run, "mlflow.runName": self._run, **self._tags}
        run_id = client.create_run(experiment_id, tags=tags).info.run_id
        client.log_batch(run_id, params=[Param(k, str(v)) for k, v in self._params.items()])
        return run_id, 0

    def _log(self, client: Any, run_id: str, values: dict[str, float], step: int) -> None:
        from mlflow.entities import Metric, RunTag

        now = int(time.time() * 1000)
        metrics = [Metric(k, v, now, step) for k, v in values.items()]
        client.log_batch(run_id, metrics=metrics, tags=[RunTag(STEP_TAG, str(step))] if step else [])
