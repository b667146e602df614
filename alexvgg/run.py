"""One training run from its spec to its table cells: the same function in a plain process, under torchrun, under Ray.

Everything a run leaves behind lies under `runs/<name>/` of its storage:

    spec.json  transplant.json  journal.jsonl  checkpoints/…
    eval/dense-q256.json …  eval/posteriors/dense-q256.safetensors …  final/model.safetensors  final/record.json

`final/record.json` is written last and means that the run is finished.
"""

import hashlib
import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, TextIO

import numpy as np
import safetensors.torch
import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim.lr_scheduler import ReduceLROnPlateau

from alexvgg.batch import Batch
from alexvgg.config import Execution, RunSpec, to_dict
from alexvgg.data.augment import Augmentation
from alexvgg.data.loader import Loader
from alexvgg.data.plan import Cursor, plan_epoch
from alexvgg.data.shards import Dataset, open_dataset
from alexvgg.data.store import MissingKeyError, Store, open_store
from alexvgg.data.undecodable import Undecodable
from alexvgg.data.validation import Validation
from alexvgg.engine import checkpoint
from alexvgg.engine.step import Normalisation, autocast, sgd, training_step
from alexvgg.engine.world import World
from alexvgg.errors import InputError
from alexvgg.evaluation.counts import Counts
from alexvgg.init import ALEXNET_ONES, TRANSPLANTED, LayerOrigin, format_report, initialise, transplant
from alexvgg.models import Net, build
from alexvgg.results.paper import cells, own_method
from alexvgg.runs import is_finished
from alexvgg.scoring import Member, Row, record, score
from alexvgg.tracking import Journal, MlflowSink

KEEP_CHECKPOINTS = 2
STEPS_PER_POINT = 10  # training losses are summed over ranks and logged together, so that no step waits for a number
LR_DROPS = 3

Progress = Callable[[dict[str, Any]], None]


def train(spec: RunSpec, execution: Execution, world: World, progress: Progress = lambda _: None) -> None:
    """Train, evaluate and record one run, from its last checkpoint if it has one; a finished run returns at once.

    Every rank calls this. `progress` is called on every rank after each epoch with the epoch's journal event.
    Raises InputError if the dataset isn't the spec's or the parent isn't there or doesn't fit.
    """
    storage = open_store(execution.storage_url)
    if is_finished(storage, spec.name):
        return
    dataset = open_dataset(open_store(execution.dataset_url))
    if dataset.fingerprint != spec.data.fingerprint:
        raise InputError(
            f"the dataset at {execution.dataset_url} has fingerprint {dataset.fingerprint[:12]}…, but {spec.name} is "
            f"defined on {spec.data.fingerprint[:12]}…. Point it at the same images, or submit a new run."
        )
    run = _Run(spec, execution, world, storage, dataset)
    try:
        run.fit(progress)
        run.finish()
    except BaseException:
        run.close("FAILED")
        raise
    run.close("FINISHED")


class _Run:
    """The state of one run on one rank: what a checkpoint holds, and what is needed to go on."""

    def __init__(self, spec: RunSpec, execution: Execution, world: World, storage: Store, dataset: Dataset) -> None:
        self.spec, self.execution, self.world, self.storage, self.dataset = spec, execution, world, storage, dataset
        self.folder = f"runs/{spec.name}/"
        self.net, origins = first_weights(spec, storage)
        if world.device.type == "cuda":
            self.net = self.net.to(world.device).to(memory_format=torch.channels_last)
        t = spec.train
        self.optimizer = sgd(self.net, lr=t.lr, momentum=t.momentum, weight_decay=t.weight_decay, device=world.device)
        self.schedule = ReduceLROnPlateau(
            self.optimizer, factor=0.1, patience=t.plateau_patience, threshold=t.plateau_threshold,
            threshold_mode="abs", min_lr=t.lr * 0.1**LR_DROPS,
        )  # fmt: skip
        self.step, self.cursor = 0, Cursor()
        self.journal = Journal(storage, self.folder + "journal.jsonl")
        self.attempt = 1 + sum(e["event"] == "start" for e in self.journal.events)
        self._resume()
        self.model: nn.Module = self.net
        if world.size > 1:
            devices = [world.device] if world.device.type == "cuda" else None
            self.model = DistributedDataParallel(self.net, device_ids=devices, gradient_as_bucket_view=True)
        self.normalise = Normalisation(dataset.mean_rgb)
        self.undecodable = Undecodable(dataset.store.url)
        self.loader = self._loader()
        self.validation = Validation(dataset, world.rank, world.size, execution.decode_threads, self.undecodable)
        self.sink = self._start_recording(origins) if world.rank == 0 else None

    def _resume(self) -> None:
        saved = checkpoint.load_latest(self.storage, self.folder + "checkpoints/")
        if saved is not None:
            self.net.load_state_dict(saved.model)
            self.optimizer.load_state_dict(saved.optimizer)
            self.schedule.load_state_dict(saved.progress["schedule"])
            self.step, self.cursor = saved.step, Cursor(saved.progress["consumed"])
        self.journal.rewind(self.step)

    def _loader(self) -> Loader:
        d, axes = self.dataset, np.array(self.dataset.colour_axes) * np.array(self.dataset.colour_std)
        augmentation = Augmentation(
            scale=self.spec.data.train_scale, side=self.spec.model.crop, flip=d.flip,
            colour_std=self.spec.data.colour_std, colour_axes=axes,
        )  # fmt: skip
        return Loader(
            d, augmentation, self.spec.train.seed, self.world.rank, self.world.size,
            self.execution.decode_threads, self.execution.prefetch_batches, self.undecodable,
        )  # fmt: skip

    def _start_recording(self, origins: list[LayerOrigin]) -> MlflowSink | None:
        spec, storage = self.spec, self.storage
        storage.put_new(self.folder + "spec.json", json.dumps(to_dict(spec), indent=2).encode())
        storage.put_new(self.folder + "transplant.json", json.dumps([asdict(o) for o in origins], indent=2).encode())
        self.journal.write(
            "start", self.step, attempt=self.attempt, workers=self.world.size, device=self.world.device.type
        )
        self.journal.flush()
        if self.execution.mlflow_url is None:
            return None
        tags = {"alexvgg.parent": spec.parent.run if spec.parent else "", "alexvgg.dataset": spec.data.fingerprint}
        sink = MlflowSink(self.execution.mlflow_url, spec.name, mlflow_params(spec), tags)
        sink.text("spec.json", json.dumps(to_dict(spec), indent=2))
        sink.text("transplant.txt", format_report(origins))
        return sink

    def fit(self, progress: Progress) -> None:
        """Train to the last epoch or step, with a checkpoint after each epoch."""
        t, split = self.spec.train, self.dataset.train
        last_step = t.max_steps or 2**63
        while self.step < last_step:
            epoch, first_step = self.cursor.position(len(split), t.global_batch)
            if epoch == t.epochs:
                break
            plan = plan_epoch(split.shard_sizes, t.global_batch, self.spec.data.window, t.seed, epoch)
            steps = min(plan.steps, first_step + last_step - self.step)
            with self._sample_log() as samples:
                metrics = self._epoch(self.loader.training(plan, epoch, first_step), epoch, steps - first_step, samples)
            metrics |= self._validate()
            self.schedule.step(metrics["val/top1_error"] / 100)
            self._record_epoch(epoch, metrics)
            progress({"run": self.spec.name, "epoch": epoch + 1, "step": self.step, **metrics})

    def _epoch(self, batches: Iterator[Batch], epoch: int, steps: int, samples: TextIO | None) -> dict[str, float]:
        self.model.train()
        started, waited, images, losses = time.perf_counter(), 0.0, 0, []
        t = self.spec.train
        for _ in range(steps):
            before = time.perf_counter()
            batch = next(batches)
            waited += time.perf_counter() - before
            share = training_step(self.model, self.optimizer, batch.to(self.world.device), self.normalise, self.world)
            consumed = min(t.global_batch, len(self.dataset.train) - self.cursor.consumed % len(self.dataset.train))
            self.step, self.cursor = self.step + 1, Cursor(self.cursor.consumed + consumed)
            images += consumed
            losses.append(share)
            if samples is not None:
                ids = [i for i in batch.samples.tolist() if i >= 0]
                line = {
                    "epoch": epoch,
                    "step": self.step,
                    "rank": self.world.rank,
                    "samples": ids,
                    "loss": share.item(),
                }
                samples.write(json.dumps(line) + "\n")
            if len(losses) % STEPS_PER_POINT == 0:
                self._point(losses[-STEPS_PER_POINT:])
        batches.close()  # type: ignore[attr-defined]
        mean_loss = float(self.world.sum(torch.stack(losses)).mean())
        seconds = time.perf_counter() - started
        return {
            "train/loss_epoch": mean_loss,
            "train/lr": self.optimizer.param_groups[0]["lr"],
            "perf/images_per_s": images / seconds,
            "perf/data_wait_share": waited / seconds,
        }

    def _point(self, losses: list[torch.Tensor]) -> None:
        loss = self.world.sum(torch.stack(losses)).mean()
        if self.world.rank == 0:
            self.journal.write("steps", self.step, metrics={"train/loss": float(loss)})
            if self.sink is not None:
                self.sink.metrics({"train/loss": float(loss)}, self.step)

    def _validate(self) -> dict[str, float]:
        """The centre crop at the single test scale: what the schedule watches. The tables' numbers come at the end."""
        self.net.eval()
        counts = Counts(0, 0, 0)
        with torch.inference_mode(), autocast(self.world.device):
            for batch in self.validation.central(self.spec.test_scales[0][0], self.spec.model.crop):
                batch = batch.to(self.world.device)
                counts += Counts.of(self.net(self.normalise(batch)), batch.labels, batch.weights)
        total = self._total(counts)
        return {"val/top1_error": total.top1_error, "val/top5_error": total.top5_error}

    def _total(self, counts: Counts) -> Counts:
        return Counts(*self.world.sum(counts.tensor(self.world.device)).tolist())

    def _record_epoch(self, epoch: int, metrics: dict[str, float]) -> None:
        if self.world.rank == 0:
            self.journal.write("epoch", self.step, epoch=epoch + 1, metrics=metrics)
            self.journal.flush()  # before the checkpoint: what a resumed run finds too much it can forget
            progress = {
                "consumed": self.cursor.consumed, "schedule": self.schedule.state_dict(),
                "spec": self.spec.digest, "fingerprint": self.dataset.fingerprint,
            }  # fmt: skip
            state = {k: v.detach().cpu().contiguous() for k, v in self.net.state_dict().items()}
            saved = checkpoint.Checkpoint(self.step, state, self.optimizer.state_dict(), progress)
            checkpoint.save(self.storage, self.folder + "checkpoints/", saved, keep=KEEP_CHECKPOINTS)
            if self.sink is not None:
                self.sink.metrics(metrics, self.step)

    def finish(self) -> None:
        """Evaluate the table rows that this net fills, as its own paper tests it, and write the final record."""
        state = {k: v.detach().cpu().contiguous() for k, v in self.net.state_dict().items()}
        weights = safetensors.torch.save(state)
        sha256 = hashlib.sha256(weights).hexdigest()
        d, method = self.dataset, own_method(self.spec.model.name)
        rows = [
            Row(method, (Member(self.spec.name, sha256, scales),), d.fingerprint, d.flip)
            for scales in self.spec.test_scales
        ]
        score(
            {self.spec.name: self.net}, rows, d, self.storage, self.world,
            decode_threads=self.execution.decode_threads, undecodable=self.undecodable,
        )  # fmt: skip
        if self.world.rank == 0:
            self._write_final([record(self.storage, row) for row in rows], weights, sha256)
        self.world.barrier()

    def _write_final(self, evaluation: list[dict[str, Any]], weights: bytes, sha256: str) -> None:
        filled = cells({self.spec.name: self.spec.recipe}, evaluation)
        self.journal.write("final", self.step, metrics=filled)
        self.journal.flush()
        if self.sink is not None:
            self.sink.metrics(filled, 0)
        self.storage.put(self.folder + "final/model.safetensors", weights)
        final = {"run": self.spec.name, "step": self.step, "sha256": sha256, "undecodable": self.undecodable.reasons}
        self.storage.put(self.folder + "final/record.json", json.dumps(final, indent=2).encode())

    @contextmanager
    def _sample_log(self) -> Iterator[TextIO | None]:
        if self.execution.sample_log is None:
            yield None
            return
        folder = Path(self.execution.sample_log)
        folder.mkdir(parents=True, exist_ok=True)
        name = f"{self.spec.name}-a{self.attempt}-r{self.world.rank}.jsonl"
        with (folder / name).open("a", buffering=1) as file:
            yield file

    def close(self, status: str) -> None:
        if self.sink is not None:
            self.sink.close(status)


def first_weights(spec: RunSpec, storage: Store) -> tuple[Net, list[LayerOrigin]]:
    """The net at step 0 and each layer's origin. Raises InputError if the parent isn't finished or doesn't fit."""
    m = spec.model
    net = build(m.name, num_classes=m.num_classes, width=m.width, crop=m.crop, dropout=spec.train.dropout)
    ones = ALEXNET_ONES if m.name == "alexnet" else ()
    initialise(net, spec.init.kind, std=spec.init.std, seed=spec.train.seed, ones=ones)
    if spec.parent is None:
        _, origins = transplant({}, net.state_dict(), layers=())
        return net, origins
    try:
        record = json.loads(storage.get(f"runs/{spec.parent.run}/final/record.json"))
    except MissingKeyError:
        raise InputError(f"{spec.name} starts from {spec.parent.run}, which isn't finished in {storage.url}") from None
    weights = checkpoint.verified(storage, f"runs/{spec.parent.run}/final/model.safetensors", record["sha256"])
    layers = None if spec.parent.how == "copy" else TRANSPLANTED
    state, origins = transplant(safetensors.torch.load(weights), net.state_dict(), layers=layers)
    net.load_state_dict(state)
    return net, origins


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
