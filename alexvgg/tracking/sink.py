"""MLflow fed from a run's journal, beside training."""

import logging
import threading
import time
from collections.abc import Sequence

from alexvgg.tracking.journal import Event, points
from alexvgg.tracking.remote import Description, FinalModel, RemoteRun, connect, identities, lacking, reason

log = logging.getLogger(__name__)

CLOSE_SECONDS = 30.0
LAST_TRIES = 3  # of an MLflow that doesn't answer at a run's end
FIRST_PAUSE, LONGEST_PAUSE = 1.0, 60.0  # between attempts to reach an MLflow that doesn't answer


def send_once(url: str, description: Description, events: Sequence[Event]) -> None:
    """Add the points of `events` to a run that isn't training; an MLflow that can't take them costs a warning."""
    try:
        client = connect(url)
        run = RemoteRun.find(client, description.name)
        if run is None:
            run = RemoteRun.create(client, description)
            run.describe(description)
            run.end("FINISHED")
        run.log(lacking(points(events), identities(run.history())))
    except Exception as error:  # the results are stored, which is what counts
        log.warning(
            "MLflow at %s: %s. The storage has the results; `alexvgg mlflow sync %s` brings them over.", url,
            reason(error), description.name,
        )  # fmt: skip


class MlflowSink:
    """Sends a run's events from a thread of its own. MLflow being slow, stopped or absent costs training nothing.

    There is no queue: `events` is the journal's own list, which grows anyway, and the thread remembers how far it came.
    So nothing is ever dropped; when MLflow comes back, even with an empty database, it gets what it lacks.
    """

    def __init__(self, url: str, description: Description, events: Sequence[Event], sync: str) -> None:
        """`sync` is the command that brings over what MLflow lacks in the end."""
        self._url, self._description, self._events, self._sync = url, description, events, sync
        self._sent = 0
        self._why = "it is slow"
        self._status = ""
        self._model: FinalModel | None = None
        self._news, self._ended, self._given_up = threading.Event(), threading.Event(), False
        self._thread = threading.Thread(target=self._work, name="mlflow", daemon=True)
        self._thread.start()

    def notify(self) -> None:
        """There are new events."""
        self._news.set()

    def close(self, status: str | None, model: FinalModel | None = None) -> None:
        """End the MLflow run as `FINISHED`, `FAILED` or `KILLED`, waiting at most CLOSE_SECONDS for what isn't sent, or
        for LAST_TRIES that fail.

        None leaves it as it is: another attempt goes on with it.
        """
        if status is None:
            self._given_up = True
            self._news.set()
            return
        self._model, self._status = model, status
        self._ended.set()
        self._news.set()
        self._thread.join(CLOSE_SECONDS)
        if self._given_up or self._thread.is_alive():
            self._given_up = True
            missing = sum(1 for _ in points(self._events[self._sent :]))
            log.warning(
                "MLflow at %s: %s. It lacks the end of %s and %d of its points; the run's journal has them all, and "
                "`%s` brings them over.", self._url, self._why, self._description.name, missing, self._sync,
            )  # fmt: skip

    def _work(self) -> None:
        self._news.wait()  # before the first steps, importing MLflow's client would hold them up
        pause, tries = FIRST_PAUSE, LAST_TRIES
        while not self._given_up:
            began = time.monotonic()
            try:
                self._follow()
                return
            except Exception as error:  # whatever MLflow raises must not reach training
                if (why := reason(error)) != self._why and not self._ended.is_set():
                    log.warning("MLflow at %s: %s. Training goes on and MLflow is tried again.", self._url, why)
                self._why = why
            if time.monotonic() - began > LONGEST_PAUSE:
                pause = FIRST_PAUSE  # it had worked for a while
            if self._ended.wait(pause):
                time.sleep(FIRST_PAUSE)  # the last tries, while `close` waits
                self._given_up = tries == 0
                tries -= 1
            pause = min(2 * pause, LONGEST_PAUSE)

    def _follow(self) -> None:
        """Bring MLflow up to date and keep it so until the run ends. Starts over whenever anything fails."""
        client = connect(self._url)
        found = RemoteRun.find(client, self._description.name)
        if self._given_up:
            return
        run = found or RemoteRun.create(client, self._description)
        run.resume()
        run.describe(self._description)
        known, self._sent = identities(run.history()), 0
        while not self._given_up:
            ended = self._ended.is_set()  # before the events: none is written after it
            if events := self._events[self._sent :]:
                run.log(lacking(points(events), known))
                self._sent += len(events)
            elif ended:
                if self._model is not None:
                    run.log_model(self._model, self._description.name)
                run.end(self._status)
                return
            else:
                self._news.wait()
                self._news.clear()
