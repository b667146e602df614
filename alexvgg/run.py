"""One training run from its spec to its table cells: the same function in a plain process, under torchrun, under Ray.

Everything a run leaves behind lies under `runs/<name>/` of its storage:

    spec.json  transplant.json  provenance/1.json  journal.jsonl  checkpoints/…
    eval/dense-q256.json …  eval/posteriors/dense-q256.safetensors …  final/model.safetensors  final/record.json

`final/record.json` is written last and means that the run is finished.
"""

import hashlib
import json
import math
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import Any

import safetensors.torch
import torch

from alexvgg.attempts import Attempt, SupersededError
from alexvgg.config import Execution, RunSpec
from alexvgg.data.augment import Augmentation
from alexvgg.data.cache import Cache
from alexvgg.data.documents import encode
from alexvgg.data.loader import Loader, Prefetch, decoding_threads
from alexvgg.data.loader_processes import LoaderProcesses, apart
from alexvgg.data.mean import mean_of
from alexvgg.data.plan import EpochPlan, check_workers, most_rows, plan_epoch, position
from alexvgg.data.shards import Dataset, open_dataset
from alexvgg.data.store import Store, open_store
from alexvgg.data.undecodable import Undecodable
from alexvgg.data.validation import Validation
from alexvgg.engine import checkpoint
from alexvgg.engine.checkpoint import Checkpoint
from alexvgg.engine.guards import DivergedError, Learning, TooLargeError, holding
from alexvgg.engine.loop import Trainer
from alexvgg.engine.saver import Saver, UploadError
from alexvgg.engine.step import Normalisation, chosen_compile, chosen_precision
from alexvgg.engine.wishes import Stopped, Wishes
from alexvgg.engine.world import World
from alexvgg.errors import DamagedError, InputError
from alexvgg.evaluation.counts import Counts
from alexvgg.evaluation.scoring import Member, Row, record, score
from alexvgg.first_weights import better_start, first_weights
from alexvgg.keys import checkpoint_folder, final_record_key, final_weights_key
from alexvgg.results.paper import cells, own_method
from alexvgg.runs import is_finished
from alexvgg.tracking.recording import Recording

Progress = Callable[[dict[str, Any]], None]

# Trying again would end the same: a spec or a parent that doesn't fit, a loss that is NaN, damaged images or weights, a
# step or an evaluation that the GPU's memory doesn't hold.
HOPELESS = (InputError, DivergedError, DamagedError, TooLargeError, torch.OutOfMemoryError)


def epoch_line(event: Mapping[str, Any], epochs: int) -> str:
    """What `progress` is called with, in a line."""
    errors = (
        f"{event[metric]:.1f} % {images}" if metric in event else f"no {images} image"
        for metric, images in (("train/top1_error", "training"), ("val/top1_error", "validation"))
    )
    return (
        f"{event['run']}: epoch {event['epoch']}/{epochs}, step {event['step']}, "
        f"loss {event['train/loss_epoch']:.3f}, top-1 error {', '.join(errors)}, "
        f"{event['perf/images_per_s']:.0f} images/s"
    )


def train(
    spec: RunSpec,
    execution: Execution,
    world: World,
    progress: Progress = lambda _: None,
    wishes: Wishes | None = None,
    claim: Callable[[], Attempt | None] = lambda: None,
    live: Progress = lambda _: None,
) -> None:
    """Train, evaluate and record one run, from its last checkpoint if it has one; a finished run returns at once.

    Every rank calls this. `progress` is called on every rank after each epoch with the epoch's journal event, `live`
    every few steps with the newest loss, images per second and share of time spent waiting for data. Through `wishes`
    others ask for a checkpoint or the run's end. `claim` is called on every rank when all was looked at that may be
    wrong, and before anything of the run is read or stored; nothing is stored any more once the attempt that it gives
    has a successor.
    Raises InputError if the dataset isn't the spec's, the parent isn't there or doesn't fit, or `execution` can't be;
    Stopped if the run was asked to end, DivergedError, TooLargeError, UploadError and SupersededError.
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
    run = _Run(spec, execution, world, storage, dataset, wishes if wishes is not None else Wishes(), live)
    attempt = claim()
    try:
        run.begin(attempt)
        run.fit(progress)
        run.finish()
    except Stopped:
        run.close("KILLED")
        if run.saver is not None:
            run.saver.check()  # it says that there is a checkpoint
        raise
    except SupersededError:
        run.close(None)
        raise
    except BaseException:
        run.close("FAILED")
        raise
    run.close("FINISHED")


class _Run:
    """One run on one rank: the trainer, and what feeds it, scores it and stores its checkpoints."""

    def __init__(
        self, spec: RunSpec, execution: Execution, world: World, storage: Store, dataset: Dataset, wishes: Wishes,
        live: Progress,
    ) -> None:  # fmt: skip
        self.spec, self.execution, self.world, self.storage, self.dataset = spec, execution, world, storage, dataset
        self.checkpoints = checkpoint_folder(spec.name)
        check_workers(world.size, global_batch=spec.train.global_batch)
        self.rows = most_rows(spec.train.global_batch, world.size)
        self.net, self.origins = first_weights(spec, storage)
        self.mean = mean_of(dataset, spec.data.mean, spec.model.crop)
        self.normalise = Normalisation(self.mean)
        self.undecodable = Undecodable(dataset.store.url)
        self.prefetch = Prefetch(
            bytes=execution.prefetch_bytes, batches=execution.prefetch_batches, read_threads=execution.read_threads,
            decode_threads=decoding_threads(execution.decode_threads),
        )  # fmt: skip
        self.loader = self._loader()
        self.loader.check(self._plan(0))
        self.validation = Validation(dataset, world.rank, world.size, self.prefetch.decode_threads, self.undecodable)
        epoch_steps = -(-len(dataset.train) // spec.train.global_batch)
        self.recording = Recording(spec, execution, world, storage, epoch_steps, live)
        wishes.checkpoint_seconds = 60 * execution.checkpoint_minutes
        self.compiled = chosen_compile(world.device, execution.compiled)
        self.trainer = Trainer(
            self.net, spec.train, world, self.normalise, self.recording,
            Learning(spec.model.num_classes, epoch_steps, better_start(spec)), save=self._save,
            stage=self.loader.stage, wishes=wishes,
            precision=execution.precision, micro_batch=execution.micro_batch, compiled=self.compiled,
            exchange=execution.exchange, most_rows=self.rows,
        )  # fmt: skip
        self.saver: Saver | None = None
        self.attempt: Attempt | None = None

    def begin(self, attempt: Attempt | None) -> None:
        """Go on from the last checkpoint, if there is one, as long as the attempt has no successor."""
        self.attempt, trainer, world = attempt, self.trainer, self.world
        saved = checkpoint.load_latest(self.storage, self.checkpoints, world)
        if saved is not None:
            trainer.resume(saved)
            self.undecodable.reasons |= saved.progress["undecodable"]
        world.barrier()  # nobody still reads what the next lines delete
        self.saver = self._saver(saved) if world.rank == 0 else None
        arithmetic = {
            "precision": chosen_precision(world.device, self.execution.precision),
            "exchange": trainer.exchange.method, "compiled": self.compiled,
        }  # fmt: skip
        self.recording.start(trainer.step, trainer.consumed // len(self.dataset.train), self.origins, arithmetic)
        self.recording.journal.write("exchange", trainer.step, **asdict(trainer.exchange))

    def _saver(self, saved: Checkpoint | None) -> Saver:
        checkpoint.collect_orphans(self.storage, self.checkpoints)
        best = saved.progress["best"] if saved is not None else None
        keep = self.execution.keep_checkpoints

        def failed(error: UploadError) -> None:
            cause = error.__cause__
            self.trainer.wishes.failure = cause if isinstance(cause, SupersededError) else error

        return Saver(self.storage, self.checkpoints, keep=keep, best=tuple(best) if best else None, failed=failed)

    def _loader(self) -> Loader | LoaderProcesses:
        d = self.dataset
        augmentation = Augmentation(
            scale=self.spec.data.train_scale, side=self.spec.model.crop, flip=d.flip,
            colour_std=self.spec.data.colour_std, colour_axes=d.colour_steps, square=self.spec.data.crops == "square",
        )  # fmt: skip
        e, t = self.execution, self.spec.train
        cache = None if e.cache_dir is None else Cache(Path(e.cache_dir), e.cache_bytes)
        loader = Loader(
            d, augmentation, t.seed, self.world.rank, self.world.size, self.prefetch, self.undecodable, cache
        )
        if self.world.device.type != "cuda":
            return loader
        return apart(loader, t.global_batch)

    def check(self) -> None:
        """Raises SupersededError when nothing may be stored any more."""
        if self.attempt is not None:
            self.attempt.check()

    def stop_if_asked(self) -> None:
        """As the trainer between two steps, but without the other ranks: each sees it in the storage, if not itself."""
        wishes = self.trainer.wishes
        if self.attempt is not None:
            self.attempt.hear(wishes)
        if wishes.failure is not None:
            raise wishes.failure
        if wishes.stop.is_set():
            raise Stopped("stopped while its last weights were tested; what was scored is kept")

    def _plan(self, epoch: int) -> EpochPlan:
        t = self.spec.train
        return plan_epoch(self.dataset.train.shard_sizes, t.global_batch, self.spec.data.window, t.seed, epoch)

    def fit(self, progress: Progress) -> None:
        """Train to the last epoch or step, with a checkpoint after each epoch and every few minutes."""
        t, split, trainer = self.spec.train, self.dataset.train, self.trainer
        last_step, at_once = t.max_steps or 2**63, min(self.rows, self.execution.micro_batch or self.rows)
        while trainer.step < last_step:
            epoch, first_step = position(trainer.consumed, len(split), t.global_batch)
            if epoch == t.epochs:
                break
            plan = self._plan(epoch)
            steps = min(plan.steps - first_step, last_step - trainer.step)
            with closing(self.loader.training(plan, epoch, first_step)) as batches, holding(at_once):
                metrics = trainer.epoch(batches, len(split), steps)
            metrics |= self.loader.work().metrics() | self._validate()
            error = metrics.get("val/top1_error")
            trainer.observe(math.nan if error is None else error / 100)
            self.recording.metrics(trainer.step, metrics)
            self._save(error)
            progress({"run": self.spec.name, "epoch": epoch + 1, "step": trainer.step, **metrics})
            trainer.stop_if_wished()
        self.world.wait_until(lambda: self.saver is None or self.saver.idle)
        trainer.stop_if_wished()  # before the evaluation, which is long

    def _validate(self) -> dict[str, float]:
        """The centre crop at the single test scale: what the schedule watches. Empty if no image could be decoded.

        In float32: in bf16 the best two scores of many an image are the same number, which counts as wrong.
        """
        self.net.eval()
        counts = Counts(0, 0, 0)
        with torch.inference_mode():
            for batch in self.validation.central(self.spec.test_scales[0][0], self.spec.model.crop):
                batch = batch.to(self.world.device)
                counts += Counts.of(self.net(self.normalise(batch)), batch.labels, batch.weights)
        total = self._total(counts)
        errors = {"val/top1_error": total.top1_error, "val/top5_error": total.top5_error}
        return {metric: error for metric, error in errors.items() if error is not None}

    def _total(self, counts: Counts) -> Counts:
        return Counts(*self.world.sum(counts.tensor(self.world.device)).tolist())

    def _save(self, error: float | None = None) -> None:
        """A checkpoint of this step: rank 0 writes it, beside training. The journal is stored before it exists."""
        self.world.wait_until(lambda: self.saver is None or self.saver.idle)
        progress = self.trainer.progress() | {"undecodable": self._all_undecodable()}
        if self.saver is not None:
            flush = self.recording.journal.pending()

            def before_commit() -> None:
                self.check()
                flush()

            self.saver.save(
                self.trainer.step, self.trainer.tensors(), progress, error=error, before_commit=before_commit
            )

    def _all_undecodable(self) -> dict[str, str]:
        """Of all ranks, and of the attempts before."""
        found: dict[str, str] = {}
        for text in self.world.texts(json.dumps(self.undecodable.reasons)):
            found |= json.loads(text)
        return found

    def finish(self) -> None:
        """Evaluate the table rows that this net fills, as its own paper tests it, and write the final record.

        Each of their Q's alone is counted as well, from the same posteriors: how the error depends on the scale.
        """
        state = {k: v.detach().cpu().contiguous() for k, v in self.net.state_dict().items()}
        weights = safetensors.torch.save(state)
        sha256 = hashlib.sha256(weights).hexdigest()
        d, method = self.dataset, own_method(self.spec.model.name)
        alone = [(q,) for q in sorted({q for scales in self.spec.test_scales for q in scales})]
        rows = [
            Row(method, (Member(self.spec.name, sha256, scales),), d.fingerprint)
            for scales in dict.fromkeys([*self.spec.test_scales, *alone])
        ]
        score(
            {self.spec.name: self.net}, rows, d, self.storage, self.world,
            decode_threads=self.prefetch.decode_threads, undecodable=self.undecodable,
            means={self.spec.name: self.mean}, between=self.stop_if_asked,
        )  # fmt: skip
        undecodable = self._all_undecodable()
        with ThreadPoolExecutor(1, "final") as thread:
            writing = None
            if self.world.rank == 0:
                writing = thread.submit(self._write_final, rows, weights, sha256, undecodable)
            self.world.wait_until(lambda: writing is None or writing.done())
        if writing is not None:
            writing.result()
        self.world.barrier()

    def _write_final(self, rows: list[Row], weights: bytes, sha256: str, undecodable: dict[str, str]) -> None:
        evaluation = [record(self.storage, row) for row in rows]
        self.check()
        step = self.trainer.step
        self.recording.final(step, cells({self.spec.name: self.spec.recipe}, evaluation), sha256)
        model = final_weights_key(self.spec.name)
        if not self.storage.put_new(model, weights):  # an attempt before left it, or the next one was faster
            self.check()
            self.storage.put(model, weights)
        final = {"run": self.spec.name, "step": step, "sha256": sha256, "undecodable": undecodable}
        self.storage.put(final_record_key(self.spec.name), encode(final))

    def close(self, status: str | None) -> None:
        """Let what is on its way arrive, and end the MLflow run, or leave it to another attempt."""
        self.loader.close()
        if self.saver is not None:
            self.saver.close()
        self.recording.close(status)
