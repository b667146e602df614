"""The loader in processes of its own, for training on a GPU.

Decoding takes little of an interpreter's lock, but often: for each image as long as it takes to tell the GPU one of the
hundreds of things that make a step. The thread that does that would queue for it with every thread that decodes, and
more than a few of those with each other. So it gets an interpreter to itself, and so do each few of them.
PyTorch's DataLoader looks after the processes; images come through shared memory, into which each writes its rows.
"""

import logging
import math
import os
import signal
import time
from collections.abc import Generator, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass, field, fields, replace
from functools import partial
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from alexvgg.batch import Batch
from alexvgg.data.loader import Loader, Prefetch
from alexvgg.data.meter import Work, together
from alexvgg.data.plan import EpochPlan
from alexvgg.errors import InputError, StoreError

log = logging.getLogger(__name__)

THREADS = 4  # that decode in one process, at most
AHEAD = 2  # batches that are on their way to the process that trains
STOPPING = (signal.SIGINT, signal.SIGTERM)
WORK_SECONDS = 1.0  # between two looks at a loader's meters, which take it milliseconds

# The plan of an epoch that begins here, the epoch, the step; None to leave an epoch that isn't over.
Asked = tuple[EpochPlan | None, int, int] | None


def apart(loader: Loader, rows: int) -> "Loader | LoaderProcesses":
    """`LoaderProcesses` for batches of `rows` images; the loader itself, after saying so, without the memory for it."""
    try:
        return LoaderProcesses(loader, rows)
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


def _parts(loader: Loader, rows: int) -> list[Loader]:
    """Loaders that share its work, threads and memory."""
    p = loader.prefetch
    n = min(rows, -(-p.decode_threads // THREADS))
    each = Prefetch(p.bytes // n, p.batches, -(-p.read_threads // n), -(-p.decode_threads // n))
    return [replace(loader, prefetch=each, on_the_way=AHEAD, part=part, parts=n) for part in range(n)]


class LoaderProcesses:
    """What a `Loader` gives, from other processes, which begin at once and end by `close`.

    They take seconds to be there, and more on slow cores; what trains is made meanwhile. `rows` is the most images that
    a batch has. A batch's images are its own until the next one is asked for.
    Raises RuntimeError without the shared memory for it.
    """

    def __init__(self, loader: Loader, rows: int) -> None:
        self._undecodable, self._split, size = loader.undecodable, loader.dataset.train, _bytes(loader, rows)
        self._loaders = _parts(loader, rows)
        slots = [torch.empty(size, dtype=torch.uint8) for _ in range(_slots(loader))]
        self._slots = [slot.share_memory_() for slot in slots]  # type: ignore[no-untyped-call]
        flags = (torch.zeros(n, dtype=torch.int64) for n in (len(self._loaders), 1))
        self._starving, self._closing = (flag.share_memory_() for flag in flags)  # type: ignore[no-untyped-call]
        self._works: list[Work | None] = [None] * len(self._loaders)
        # By threads: to give a process its loader takes until that has imported PyTorch.
        begin = ThreadPoolExecutor(len(self._loaders), "begin")
        insides = [_Inside(part, self._slots, self._starving[n : n + 1]) for n, part in enumerate(self._loaders)]
        self._processes = [begin.submit(_Process, inside, self._closing) for inside in insides]
        begin.shutdown(wait=False)

    def check(self, plan: EpochPlan) -> None:
        """Raises InputError as `Loader.check` does."""
        for loader in self._loaders:
            loader.check(plan)

    def training(self, plan: EpochPlan, epoch: int, first_step: int) -> Generator[Batch, None, None]:
        """`Loader.training`. Raises RuntimeError if a process is lost."""
        self.ready()
        steps = range(first_step, plan.steps)
        for parts in self._parts([(plan if step == first_step else None, epoch, step) for step in steps]):
            yield self._joined(parts)

    def ready(self) -> None:
        """Wait until all processes are there, and none writes any more for an epoch that was left."""
        for _ in self._parts([None]):
            pass

    def _parts(self, asked: list[Asked]) -> "Iterator[tuple[Arrived, ...]]":
        """What all processes answer to each of `asked`."""
        return zip(*[process.result().answers(asked) for process in self._processes], strict=True)

    def _joined(self, parts: "tuple[Arrived, ...]") -> Batch:
        for number, part in enumerate(parts):
            if part.error is not None:
                raise part.error
            for key, why in part.reasons.items():
                self._undecodable.name(self._split, key, why)
            self._works[number] = part.work or self._works[number]
        (place,) = {(part.slot, part.shape) for part in parts}
        slot, shape = place
        images = self._slots[slot][: math.prod(shape)].view(shape)
        weights = sum(part.rest["weights"] for part in parts)
        rest = parts[0].rest | {"weights": weights}
        return Batch(images, **{name: torch.from_numpy(values) for name, values in rest.items()})

    @property
    def threads(self) -> int:
        """`Loader.threads`, in all processes; more than were asked for, if those can't be shared evenly."""
        return sum(loader.threads for loader in self._loaders)

    def work(self) -> Work:
        """`Loader.work`, a second old at most. Needs a batch to have arrived."""
        return together([work for work in self._works if work is not None])

    def stage(self) -> str:
        """`Loader.stage`."""
        return "waiting for bytes from the storage" if self._starving.any() else "decoding images"

    def close(self) -> None:
        """End the processes."""
        self._closing.fill_(1)
        wait(self._processes)
        self._processes.clear()


class _Process:
    """One of them, begun here."""

    def __init__(self, inside: "_Inside", closing: Tensor) -> None:
        self._asked: list[Asked] = []
        self._arrivals: DataLoader[Arrived] = DataLoader(
            inside, batch_size=None, sampler=self._asked, num_workers=1, prefetch_factor=AHEAD,
            persistent_workers=True, multiprocessing_context="spawn", generator=torch.Generator(),
            worker_init_fn=partial(_leave_signals, closing),
        )  # fmt: skip
        # Of this thread, which ends here. The process begins so, and what stops a job waits until it has heard
        # which signals are for it.
        signal.pthread_sigmask(signal.SIG_BLOCK, STOPPING)
        iter(self._arrivals)  # nothing is asked for yet

    def answers(self, asked: list[Asked]) -> "Iterator[Arrived]":
        self._asked[:] = asked
        return iter(self._arrivals)


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
    """One part of the next batch, or the error instead of it."""

    error: Exception | None = None
    slot: int = 0  # where its images are
    shape: tuple[int, ...] = ()
    rest: dict[str, NDArray[Any]] = field(default_factory=dict)  # of Batch, without the images
    reasons: dict[str, str] = field(default_factory=dict)  # of all images that were found undecodable
    work: Work | None = None  # now and then


class _Ring:
    """Slots for batches, in turn: the same ones in every process."""

    def __init__(self, slots: list[Tensor]) -> None:
        self._slots, self._taken = slots, 0

    def take(self, shape: tuple[int, ...]) -> Tensor:
        slot = self._slots[self._taken % len(self._slots)]
        self._taken += 1
        return slot[: math.prod(shape)].view(shape)

    def slot_of(self, images: Tensor) -> int:
        return [slot.data_ptr() for slot in self._slots].index(images.data_ptr())


class _Inside(Dataset[Arrived]):
    """What a process does: it is asked for its part of each step of an epoch in turn."""

    def __init__(self, loader: Loader, slots: list[Tensor], starving: Tensor) -> None:
        self._loader, self._slots, self._starving = loader, slots, starving
        self._batches: Generator[Batch, None, None] | None = None
        self._steps, self._told = 0, 0.0

    def __getitem__(self, asked: Asked) -> Arrived:
        if asked is None:
            if self._batches is not None:
                self._batches.close()  # no thread of it writes any more then
            return Arrived()
        plan, epoch, step = asked
        if plan is not None:
            self._loader.memory = self._ring = _Ring(self._slots)
            self._loader.starving = self._starving.numpy()
            self._batches, self._steps = self._loader.training(plan, epoch, step), plan.steps
        assert self._batches is not None, "an epoch begins with its plan"
        try:
            batch = next(self._batches)
        except (InputError, StoreError) as error:
            return Arrived(error)
        _, *rest = fields(batch)
        return Arrived(
            slot=self._ring.slot_of(batch.images), shape=tuple(batch.images.shape),
            rest={f.name: getattr(batch, f.name).numpy() for f in rest},
            reasons=dict(self._loader.undecodable.reasons),  # a copy: threads go on adding to it
            work=self._work(last=step == self._steps - 1),
        )  # fmt: skip

    def _work(self, *, last: bool) -> Work | None:
        if not last and time.monotonic() - self._told < WORK_SECONDS:
            return None
        self._told = time.monotonic()
        return self._loader.work()
