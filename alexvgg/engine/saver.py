"""Checkpoints beside training: a snapshot in memory is all that training waits for; a thread hashes and uploads it."""

import math
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import torch
from torch import Tensor

from alexvgg.engine import checkpoint
from alexvgg.engine.checkpoint import Objects
from alexvgg.engine.tensorfile import TensorFile


class UploadError(RuntimeError):
    """A checkpoint could not be stored; its cause is the store's error. Without checkpoints training must not go on."""


class Saver:
    """Writes one run's checkpoints under `prefix`, one at a time, in the order in which they were taken.

    Keeps the newest `keep` and the one with the lowest validation error. Children start from a run's final weights,
    which lie elsewhere and are never deleted. One buffer is used for all snapshots. `failed` is told, in the thread,
    when an upload has failed for good; nothing is written any more after that.
    """

    def __init__(
        self,
        store: Objects,
        prefix: str,
        *,
        keep: int,
        best: tuple[float, int] | None = None,
        failed: Callable[[UploadError], None] = lambda _: None,
    ) -> None:
        self._store, self._prefix, self._keep, self._failed = store, prefix, keep, failed
        self.best = best if best is not None else (math.inf, 0)  # (validation error, step)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._upload: Future[None] | None = None
        self._failure: UploadError | None = None
        self._files: dict[str, TensorFile] = {}

    def save(
        self,
        step: int,
        tensors: Mapping[str, Mapping[str, Tensor]],
        progress: dict[str, Any],
        *,
        error: float | None = None,
        before_commit: Callable[[], None] = lambda: None,
    ) -> None:
        """Take a snapshot of `tensors` (by file: model, momentum) and upload it in the background.

        `error` is the validation error, if it was just measured. `before_commit` runs in the background before the
        checkpoint exists, when its objects do. Waits for the upload before this one.
        """
        self.wait()
        if self._failure is not None:
            return
        if error is not None and error < self.best[0]:
            self.best = (error, step)
        progress = {**progress, "best": list(self.best) if self.best[1] else None}
        fill = self._snapshot(tensors)
        self._upload = self._thread.submit(self._write, step, fill, progress, before_commit)

    def _snapshot(self, tensors: Mapping[str, Mapping[str, Tensor]]) -> Callable[[], None]:
        """Copy `tensors` into the files; what remains to be done in the background for that is returned."""
        for name, group in tensors.items():
            if name not in self._files:
                self._files[name] = TensorFile(group)
        device = next(iter(next(iter(tensors.values())).values())).device
        if device.type == "cpu":
            for name, group in tensors.items():
                self._files[name].fill(group)
            return lambda: None
        # A copy on the GPU takes a millisecond per GB; the bus would take several hundred.
        copies = {name: {k: t.clone() for k, t in group.items()} for name, group in tensors.items()}
        taken = torch.cuda.current_stream(device).record_event()

        def fill() -> None:
            taken.synchronize()
            with torch.cuda.stream(torch.cuda.Stream(device)):  # type: ignore[no-untyped-call]
                for name, group in copies.items():
                    self._files[name].fill(group)
            copies.clear()  # the GPU's memory is free again before the upload

        return fill

    def _write(
        self, step: int, fill: Callable[[], None], progress: dict[str, Any], before_commit: Callable[[], None]
    ) -> None:
        try:
            fill()
            files = {name: file.data for name, file in self._files.items()}
            checkpoint.write(self._store, self._prefix, step, files, progress, before_commit)
            checkpoint.forget(self._store, self._prefix, keep=self._keep, besides={self.best[1]})
        except Exception as error:  # whatever the store raises
            self._failure = UploadError(
                f"the checkpoint of step {step} could not be stored under {self._prefix}: {error}. The run stops, as "
                "it could not be resumed; when the storage works again, it goes on from the checkpoint before."
            )
            self._failure.__cause__ = error
            self._failed(self._failure)

    @property
    def idle(self) -> bool:
        """Whether no upload is on its way."""
        return self._upload is None or self._upload.done()

    def wait(self) -> None:
        """Until the last checkpoint is stored, or has failed to be."""
        if self._upload is not None:
            self._upload.result()

    def close(self) -> None:
        """Let an upload that is on its way end."""
        self._thread.shutdown(wait=True)

    def check(self) -> None:
        """Raises UploadError if an upload has failed."""
        if self._failure is not None:
            raise self._failure
