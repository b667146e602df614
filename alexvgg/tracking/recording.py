"""What one rank writes down while a run trains: the journal and MLflow (rank 0), and the samples it consumed."""

import json
import logging
import shlex
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, TextIO

from torch import Tensor

from alexvgg.batch import Batch
from alexvgg.config import STEPS_PER_POINT, Execution, RunSpec, to_dict
from alexvgg.data.documents import encode
from alexvgg.data.store import Store
from alexvgg.engine.world import World
from alexvgg.init import LayerOrigin
from alexvgg.keys import journal_key, provenance_folder, spec_key, transplant_key
from alexvgg.tracking import machine
from alexvgg.tracking.describing import describe_run, final_model
from alexvgg.tracking.journal import Journal
from alexvgg.tracking.live import Live
from alexvgg.tracking.provenance import look_at_code
from alexvgg.tracking.sink import MlflowSink

log = logging.getLogger(__name__)

MOST_POINTS = 50  # of an epoch: ImageNet's 74 have 3,700, which every `status` reads


class Recording:
    """The journal and where else its points go. Only rank 0's journal reaches the storage.

    `tell` gets the newest numbers every few steps, on every rank.
    """

    def __init__(
        self, spec: RunSpec, execution: Execution, world: World, storage: Store, epoch_steps: int,
        tell: Callable[[dict[str, Any]], None] = lambda _: None,
    ) -> None:  # fmt: skip
        self._tell = tell
        self._every = max(STEPS_PER_POINT, epoch_steps // MOST_POINTS)
        self.spec, self.execution, self.world, self.storage = spec, execution, world, storage
        self.journal: Journal
        self.attempt = 0
        self.epoch, self.steps = 0, 0
        self.sink: MlflowSink | None = None
        self.live: Live | None = None
        self._machine, self._load = machine.describe(world.device), machine.Load(world.device)
        self._samples: TextIO | None = None

    def start(self, step: int, epoch: int, origins: list[LayerOrigin], arithmetic: Mapping[str, Any]) -> None:
        """Write down that an attempt begins after `step`, and forget what lost steps wrote. Every rank calls this.

        `arithmetic` is what `auto` became: precision, exchange of gradients, and whether the net is compiled.
        """
        self.epoch, self.steps = epoch, step
        self.journal = Journal(self.storage, journal_key(self.spec.name))
        self.attempt = 1 + sum(e["event"] == "start" for e in self.journal.events)
        self.journal.rewind(step)
        self._samples = self._sample_log()
        hosts = machine.by_host([json.loads(text) for text in self.world.texts(json.dumps(self._machine))])
        if self.world.rank != 0:
            return
        self.storage.put_new(spec_key(self.spec.name), encode(to_dict(self.spec)))
        self.storage.put_new(transplant_key(self.spec.name), encode([asdict(o) for o in origins]))
        self.storage.put(
            f"{provenance_folder(self.spec.name)}{self.attempt}.json",
            encode({**self._provenance(hosts), **arithmetic}),
        )
        self.journal.write(
            "start", step, attempt=self.attempt, job=self.execution.job, workers=self.world.size, hosts=len(hosts),
            device=self.world.device.type,
        )  # fmt: skip
        self.journal.flush()
        self.live = Live(self.storage, self.spec.name, self.attempt)
        if self.execution.mlflow_url is not None:
            description = describe_run(self.storage, self.spec)
            sync = f"alexvgg mlflow sync {self.spec.name}"
            if self.execution.job is None:  # whoever submitted it has a profile, which says where
                sync = shlex.join([*sync.split(), "--storage", self.storage.url, "--url", self.execution.mlflow_url])
            self.sink = MlflowSink(self.execution.mlflow_url, description, self.journal.events, sync)

    def _provenance(self, hosts: list[dict[str, Any]]) -> dict[str, Any]:
        """What this attempt runs: the code as it was submitted, or as it is here without a submission."""
        key = self.execution.submitted
        code = json.loads(self.storage.get(key)) if key is not None else look_at_code()
        return {
            **code,
            "attempt": self.attempt, "ray_job": self.execution.job, "workers": self.world.size, "hosts": hosts,
            "dataset_url": self.execution.dataset_url,
        }  # fmt: skip

    def step(self, batch: Batch, share: Tensor) -> None:
        """One step was made. Free unless the samples are logged, which waits for the loss."""
        self.steps += 1
        if self._samples is not None:
            ids = [i for i in batch.samples.tolist() if i >= 0]
            line = {
                "epoch": self.epoch, "step": self.steps, "rank": self.world.rank, "samples": ids, "loss": share.item(),
            }  # fmt: skip
            self._samples.write(json.dumps(line) + "\n")

    def point(self, step: int, loss: float, pace: dict[str, float]) -> None:
        """The mean training loss of the last few steps, over all ranks, and how fast they went.

        Of a long epoch some points are kept.
        """
        self._tell({"step": step, "train/loss": loss, **pace})
        if step % self._every < STEPS_PER_POINT:
            self._write("steps", step, metrics={"train/loss": loss})
        if self.live is not None:
            self.live.point(step, loss, pace["perf/images_per_s"])

    def metrics(self, step: int, metrics: dict[str, float]) -> None:
        """An epoch's end. Every rank calls this; each host's load since the epoch before becomes metrics, too."""
        self.epoch += 1
        mine = json.dumps([self._machine["host"], self._load.read()])
        loads = machine.by_node([tuple(json.loads(text)) for text in self.world.texts(mine)])
        self._write("epoch", step, epoch=self.epoch, metrics=metrics | loads)

    def warning(self, step: int, message: str) -> None:
        """Something to look at, which doesn't stop the run."""
        if self.world.rank == 0:
            log.warning("%s, step %d: %s", self.spec.name, step, message)
        self._write("warning", step, message=message)

    def final(self, step: int, filled: dict[str, float], sha256: str) -> None:
        """The run is trained and evaluated: the table cells it fills, and the hash of its weights."""
        self._write("final", step, metrics=filled, sha256=sha256)
        self.journal.flush()

    def _write(self, event: str, step: int, **fields: Any) -> None:
        if self.world.rank == 0:
            self.journal.write(event, step, **fields)
            if self.sink is not None:
                self.sink.notify()

    def _sample_log(self) -> TextIO | None:
        if self.execution.sample_log is None:
            return None
        folder = Path(self.execution.sample_log)
        folder.mkdir(parents=True, exist_ok=True)
        return (folder / f"{self.spec.name}-a{self.attempt}-r{self.world.rank}.jsonl").open("a", buffering=1)

    def close(self, status: str | None) -> None:
        """End the MLflow run as `FINISHED`, `FAILED` or `KILLED`; None leaves it to another attempt."""
        self._load.close()
        if self._samples is not None:
            self._samples.close()
        if self.live is not None:
            self.live.close()
        if self.sink is not None:
            done = status == "FINISHED"
            model = final_model(self.storage, self.spec, self.journal.events[-1]["sha256"]) if done else None
            self.sink.close(status, model)
