"""What one rank writes down while a run trains: the journal and MLflow (rank 0), and the samples it consumed."""

import json
import logging
from dataclasses import asdict
from pathlib import Path
from typing import Any, TextIO

from torch import Tensor

from alexvgg.batch import Batch
from alexvgg.config import Execution, RunSpec, to_dict
from alexvgg.data.store import Store
from alexvgg.engine.world import World
from alexvgg.init import LayerOrigin, format_report
from alexvgg.live import Live
from alexvgg.tracking import Journal, MlflowSink

log = logging.getLogger(__name__)


class Recording:
    """The journal and where else its points go. Only rank 0's journal reaches the storage."""

    def __init__(self, spec: RunSpec, execution: Execution, world: World, storage: Store) -> None:
        self.spec, self.execution, self.world, self.storage = spec, execution, world, storage
        self.folder = f"runs/{spec.name}/"
        self.journal = Journal(storage, self.folder + "journal.jsonl")
        self.attempt = 1 + sum(e["event"] == "start" for e in self.journal.events)
        self.epoch, self.steps = 0, 0
        self.sink: MlflowSink | None = None
        self.live: Live | None = None
        self._samples = self._sample_log()

    def start(self, step: int, epoch: int, origins: list[LayerOrigin]) -> None:
        """Write down that an attempt begins after `step`, and forget what lost steps wrote."""
        self.epoch, self.steps = epoch, step
        self.journal.rewind(step)
        if self.world.rank != 0:
            return
        spec, about = json.dumps(to_dict(self.spec), indent=2), [asdict(o) for o in origins]
        self.storage.put_new(self.folder + "spec.json", spec.encode())
        self.storage.put_new(self.folder + "transplant.json", json.dumps(about, indent=2).encode())
        self.journal.write("start", step, attempt=self.attempt, workers=self.world.size, device=self.world.device.type)
        self.journal.flush()
        self.live = Live(self.storage, self.folder, self.spec.train.global_batch)
        if self.execution.mlflow_url is not None:
            parent = self.spec.parent.run if self.spec.parent else ""
            tags = {"alexvgg.parent": parent, "alexvgg.dataset": self.spec.data.fingerprint}
            self.sink = MlflowSink(self.execution.mlflow_url, self.spec.name, mlflow_params(self.spec), tags)
            self.sink.text("spec.json", spec)
            self.sink.text("transplant.txt", format_report(origins))

    def step(self, batch: Batch, share: Tensor) -> None:
        """One step was made. Free unless the samples are logged, which waits for the loss."""
        self.steps += 1
        if self._samples is not None:
            ids = [i for i in batch.samples.tolist() if i >= 0]
            line = {
                "epoch": self.epoch, "step": self.steps, "rank": self.world.rank, "samples": ids, "loss": share.item(),
            }  # fmt: skip
            self._samples.write(json.dumps(line) + "\n")

    def point(self, step: int, loss: float) -> None:
        """The mean training loss of the last few steps, over all ranks."""
        self._write("steps", step, {"train/loss": loss})
        if self.live is not None:
            self.live.point(step, loss)

    def metrics(self, step: int, metrics: dict[str, float]) -> None:
        """An epoch's end."""
        self.epoch += 1
        self._write("epoch", step, metrics, epoch=self.epoch)

    def warning(self, step: int, message: str) -> None:
        """Something to look at, which doesn't stop the run."""
        if self.world.rank == 0:
            self.journal.write("warning", step, message=message)
            log.warning("%s, step %d: %s", self.spec.name, step, message)

    def _write(self, event: str, step: int, metrics: dict[str, float], **fields: Any) -> None:
        if self.world.rank == 0:
            self.journal.write(event, step, **fields, metrics=metrics)
            if self.sink is not None:
                self.sink.metrics(metrics, step)

    def _sample_log(self) -> TextIO | None:
        if self.execution.sample_log is None:
            return None
        folder = Path(self.execution.sample_log)
        folder.mkdir(parents=True, exist_ok=True)
        return (folder / f"{self.spec.name}-a{self.attempt}-r{self.world.rank}.jsonl").open("a", buffering=1)

    def close(self, status: str) -> None:
        """End the MLflow run as `FINISHED`, `FAILED` or `KILLED`."""
        if self._samples is not None:
            self._samples.close()
        if self.live is not None:
            self.live.close()
        if self.sink is not None:
            self.sink.close(status)


def mlflow_params(spec: RunSpec) -> dict[str, Any]:
    """A spec as MLflow params; S is named as the paper names it."""
    scale = spec.data.train_scale
    return {
        "recipe": spec.recipe, "model": spec.model.name, "dataset": spec.data.dataset,
        "train.S": scale if isinstance(scale, int) else f"[{scale[0]};{scale[1]}]",
        "test.Q": " ".join(",".join(map(str, row)) for row in spec.test_scales),
        "parent": spec.parent.run if spec.parent else "none",
        "init": spec.parent.how if spec.parent else spec.init.kind,
        "init.std": spec.init.std, "model.width": spec.model.width, "model.crop": spec.model.crop,
        **{f"train.{k}": v for k, v in to_dict(spec.train).items()},
    }  # fmt: skip
