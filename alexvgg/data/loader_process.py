"""The loader in a process of its own, for training on a GPU.

Decoding takes little of the interpreter's lock, but often. The thread that tells the GPU what to do needs it some
hundred times a step, and would queue for it with every thread that decodes; so it gets an interpreter to itself.
PyTorch's DataLoader looks after the process, and moves batches through shared memory.
"""

import logging
import math
import os
import signal
import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, fields, replace
from functools import partial
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from alexvgg.batch import Batch
from alexvgg.data.loader import Loader
from alexvgg.data.plan import EpochPlan
from alexvgg.errors import InputError, StoreError

log = logging.getLogger(__name__)

AHEAD = 2  # batches that are on their way to the process that trains
STOPPING = (signal.SIGINT, signal.SIGTERM)
METRICS_SECONDS = 1.0  # between two looks at the loader's meters, which take it milliseconds

Asked = tuple[EpochPlan | None, int, int]  # the plan of an epoch that begins here, the epoch, the step


def apart(loader: Loader, rows: int) -> "Loader | LoaderProcess":
    """A `LoaderProcess` for batches of `rows` images; the loader itself, after saying so, without the memory for it."""
    try:
        return LoaderProcess(loader, rows)
    except RuntimeError as error:  # of shared memory: Docker gives 64 MB unless told, to all ranks together
        log.warning(
            "batches need %.0f MB of shared memory: %s. So images are decoded in the process that trains, which may "
            "make the GPU wait. Give the container more, as by `docker run --shm-size 8g`.",
            _slots(loader) * _bytes(loader, rows) / 1e6, error,
        )  # fmt: skip
        return loader


def _slots(loader: Loader) -> int:
    """Batches that are there at once: one in use, those on their way, the next, and those that are being filled."""
    return 1 + AHEAD + loader.prefetch.batches


def _bytes(loader: Loader, rows: int) -> int:
    return rows * 3 * loader.augmentation.side**2


class LoaderProcess:
    """What a `Loader` gives, from another process, which begins at once and ends by `close`.

    It takes seconds to be there, and more on slow cores; what trains is made meanwhile. `rows` is the most images that
    a batch has. A batch's images are its own until the next one is asked for.
    Raises RuntimeError without the shared memory for it.
    """

    def __init__(self, loader: Loader, rows: int) -> None:
        self._undecodable, size = loader.undecodable, _bytes(loader, rows)
        slots = [torch.empty(size, dtype=torch.uint8) for _ in range(_slots(loader))]
        self._slots = [slot.share_memory_() for slot in slots]  # type: ignore[no-untyped-call]
        flags = (torch.zeros(1, dtype=torch.int64) for _ in range(2))
        self._starving, self._closing = (flag.share_memory_() for flag in flags)  # type: ignore[no-untyped-call]
        self._asked: list[Asked] = []
        self._metrics: dict[str, float] = {}
        self._loader = replace(loader, on_the_way=AHEAD)
        self._arrivals: DataLoader[Arrived] | None = DataLoader(
            _Inside(self._loader, _Ring(self._slots), self._starving),
            batch_size=None, sampler=self._asked, num_workers=1, prefetch_factor=AHEAD, persistent_workers=True,
            multiprocessing_context="spawn", worker_init_fn=partial(_leave_signals, self._closing),
        )  # fmt: skip
        with _signals_wait():
            iter(self._arrivals)  # nothing is asked for yet

    def check(self, plan: EpochPlan) -> None:
        """Raises InputError as `Loader.check` does."""
        self._loader.check(plan)

    def training(self, plan: EpochPlan, epoch: int, first_step: int) -> Generator[Batch, None, None]:
        """`Loader.training`. Raises RuntimeError if the process is lost."""
        steps = range(first_step, plan.steps)
        self._asked[:] = [(plan if step == first_step else None, epoch, step) for step in steps]
        assert self._arrivals is not None, "it was closed"
        for arrived in self._arrivals:
            if arrived.error is not None:
                raise arrived.error
            self._undecodable.reasons |= arrived.reasons
            self._metrics = arrived.metrics or self._metrics
            images = self._slots[arrived.slot][: math.prod(arrived.shape)].view(arrived.shape)
            yield Batch(images, *map(torch.from_numpy, arrived.rest))

    def metrics(self) -> dict[str, float]:
        """`Loader.metrics`, a second old at most."""
        return self._metrics

    def stage(self) -> str:
        """`Loader.stage`."""
        return "waiting for bytes from the storage" if self._starving.item() else "decoding images"

    def close(self) -> None:
        """End the process."""
        self._closing.fill_(1)
        self._arrivals = None


@contextmanager
def _signals_wait() -> Iterator[None]:
    """What stops a job waits, here and in a process begun inside, until it has heard which signals are for it."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOPPING)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _leave_signals(closing: Tensor, _worker: int) -> None:
    """A signal to a whole job is for the process that trains: it decides when to stop, and needs images until then.

    Some are sent to a process group, others, as by Slurm, to each process; DataLoader itself sends one at the end.
    """
    os.setpgid(0, 0)
    # Not as a failure, or DataLoader would raise it wherever the process that trains is by then.
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0) if closing.item() else None)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPPING)


@dataclass(frozen=True)
class Arrived:
    """The next batch, or the error instead of it."""

    error: Exception | None = None
    slot: int = 0  # where its images are
    shape: tuple[int, ...] = ()
    rest: tuple[NDArray[Any], ...] = ()  # of Batch, without the images
    reasons: dict[str, str] = field(default_factory=dict)  # of all images that were found undecodable
    metrics: dict[str, float] = field(default_factory=dict)  # now and then


class _Ring:
    """Slots for batches, in turn."""

    def __init__(self, slots: list[Tensor]) -> None:
        self._slots, self._taken = slots, 0

    def take(self, shape: tuple[int, ...]) -> Tensor:
        slot = self._slots[self._taken % len(self._slots)]
        self._taken += 1
        return slot[: math.prod(shape)].view(shape)

    def slot_of(self, images: Tensor) -> int:
        return [slot.data_ptr() for slot in self._slots].index(images.data_ptr())


class _Inside(Dataset[Arrived]):
    """What the process does: it is asked for each step of an epoch in turn."""

    def __init__(self, loader: Loader, ring: _Ring, starving: Tensor) -> None:
        self._loader, self._ring, self._starving = loader, ring, starving
        self._batches: Generator[Batch, None, None] | None = None
        self._steps, self._told = 0, 0.0

    def __getitem__(self, asked: Asked) -> Arrived:
        plan, epoch, step = asked
        if plan is not None:
            if self._batches is not None:
                self._batches.close()  # no thread of it writes any more then
            self._loader.memory, self._loader.starving = self._ring, self._starving.numpy()
            self._batches, self._steps = self._loader.training(plan, epoch, step), plan.steps
        assert self._batches is not None, "an epoch begins with its plan"
        try:
            batch = next(self._batches)
        except (InputError, StoreError) as error:
            return Arrived(error)
        _, *rest = (getattr(batch, f.name).numpy() for f in fields(batch))
        return Arrived(
            slot=self._ring.slot_of(batch.images), shape=tuple(batch.images.shape), rest=tuple(rest),
            reasons=dict(self._loader.undecodable.reasons),  # a copy: threads go on adding to it
            metrics=self._metrics(step == self._steps - 1),
        )  # fmt: skip

    def _metrics(self, last: bool) -> dict[str, float]:
        if not last and time.monotonic() - self._told < METRICS_SECONDS:
            return {}
        self._told = time.monotonic()
        return self._loader.metrics()
