"""The loader in processes of its own, for training on a GPU.

Decoding takes little of an interpreter's lock, but often, and so does telling a GPU what to do, some hundred times a
step. In one process that thread would queue for the lock with all that decode, and more than a few of those with each
other. So it gets an interpreter to itself, and so do each few of them.
PyTorch's DataLoader looks after the processes; images come through shared memory, into which each writes its rows.
"""

import logging
import math
import os
import signal
import time
import weakref
from collections.abc import Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, fields, replace
from functools import partial
from multiprocessing import resource_tracker
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from alexvgg.batch import Batch
from alexvgg.data.loader import Loader
from alexvgg.data.meter import Work, together
from alexvgg.data.plan import EpochPlan, lane_count, lanes_of, most_rows
from alexvgg.data.undecodable import Undecodable
from alexvgg.errors import InputError, StoreError

log = logging.getLogger(__name__)

THREADS = 4  # that decode in one process, at most
AHEAD = 2  # batches that are on their way to the process that trains
STOPPING = (signal.SIGINT, signal.SIGTERM)
WORK_SECONDS = 1.0  # between two looks at a loader's meters, which take it milliseconds

# The loader, first of all; the plan of an epoch that begins here, the epoch, the step; None to leave an epoch.
Asked = Loader | tuple[EpochPlan | None, int, int] | None


def apart(loader: Loader, global_batch: int) -> "Loader | LoaderProcesses":
    """`LoaderProcesses` for such batches; the loader itself, after saying so, without the memory for it."""
    try:
        return LoaderProcesses(loader, global_batch)
    except RuntimeError as error:  # of shared memory: Docker gives 64 MB unless told, to all ranks together
        log.warning(
            "batches need %.0f MB of shared memory: %s. So images are decoded in the process that trains, which may "
            "make the GPU wait. Give the container more, as by `docker run --shm-size 8g`.",
            _slots(loader) * _bytes(loader, global_batch) / 1e6, error,
        )  # fmt: skip
        return loader


def _slots(loader: Loader) -> int:
    """Batches that are there at once: one in use, those on their way, the next, and those that are being filled."""
    return 1 + AHEAD + loader.prefetch.batches


def _bytes(loader: Loader, global_batch: int) -> int:
    return most_rows(global_batch, loader.world) * 3 * loader.augmentation.side**2


def _parts(loader: Loader, global_batch: int) -> list[Loader]:
    """Loaders that share its lanes as evenly as can be, and its threads and memory accordingly."""
    lanes, p = lanes_of(lane_count(global_batch), loader.rank, loader.world), loader.prefetch
    most = -(-len(lanes) // -(-p.decode_threads // THREADS)) or 1  # of a part
    n = max(1, -(-len(lanes) // most))
    each = replace(p, read_threads=-(-p.read_threads // n), decode_threads=-(-p.decode_threads // n))
    return [
        replace(
            loader, part=part, parts=n, undecodable=Undecodable(loader.undecodable.url),
            prefetch=replace(each, bytes=p.bytes * len(lanes[part::n]) // max(1, len(lanes))),
        )
        for part in range(n)
    ]  # fmt: skip


class LoaderProcesses:
    """What a `Loader` gives, from other processes, which begin at once and end by `close`.

    They take seconds to be there, and more on slow cores; what trains is made meanwhile. A batch's images are its own
    until the next one is asked for.
    Raises RuntimeError without the shared memory for it.
    """

    def __init__(self, loader: Loader, global_batch: int) -> None:
        self._whole, size = replace(loader, on_the_way=AHEAD), _bytes(loader, global_batch)
        parts = _parts(self._whole, global_batch)
        slots = [torch.empty(size, dtype=torch.uint8) for _ in range(_slots(loader))]
        self._slots = [slot.share_memory_() for slot in slots]  # type: ignore[no-untyped-call]
        flags = (torch.zeros(n, dtype=torch.int64) for n in (len(parts), 1))
        self._starving, closing = (flag.share_memory_() for flag in flags)  # type: ignore[no-untyped-call]
        # Whatever ends this process: until it is said that they may, the others don't heed SIGTERM.
        self._closing = weakref.finalize(self, closing.fill_, 1)
        self._works: list[Work | None] = [None] * len(parts)
        resource_tracker.ensure_running()  # else the first process would begin it, which lets signals through again
        with _signals_wait():
            self._processes = [
                _Process(part, _Inside(self._slots, self._starving[part.part :][:1]), closing) for part in parts
            ]

    def check(self, plan: EpochPlan) -> None:
        """Raises InputError as `Loader.check` does."""
        self._whole.check(plan)

    def training(self, plan: EpochPlan, epoch: int, first_step: int) -> Generator[Batch, None, None]:
        """`Loader.training`. Raises RuntimeError, within seconds, if a process is lost."""
        self.ready()
        self._works = [None] * len(self._processes)
        steps = range(first_step, plan.steps)
        for parts in self._answers([(plan if step == first_step else None, epoch, step) for step in steps]):
            yield self._joined(parts)

    def ready(self) -> None:
        """Wait until all processes are there, and none writes any more for an epoch that was left."""
        for _ in self._answers([None]):
            pass

    def _answers(self, asked: list[Asked]) -> "Iterator[tuple[Arrived, ...]]":
        """What all processes answer to each of `asked`."""
        assert self._processes, "they were closed"
        return zip(*[process.answers(asked) for process in self._processes], strict=True)

    def _joined(self, parts: "tuple[Arrived, ...]") -> Batch:
        for number, part in enumerate(parts):
            if part.error is not None:
                raise part.error
            for key, why in part.reasons.items():
                self._whole.undecodable.name(self._whole.dataset.train, key, why)
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
        return sum(process.threads for process in self._processes)

    def work(self) -> Work:
        """`Loader.work`, a second old at most. Needs a batch to have arrived."""
        return together([work for work in self._works if work is not None])

    def stage(self) -> str:
        """`Loader.stage`."""
        return "waiting for bytes from the storage" if self._starving.any() else "decoding images"

    def close(self) -> None:
        """End the processes."""
        self._closing()
        with ThreadPoolExecutor(len(self._processes) or 1) as side_by_side:  # one that is at work takes up to 5 s
            for process in self._processes:
                side_by_side.submit(process.end)
        self._processes.clear()


class _Process:
    """One of them. It gets its loader by the queue: to a process that begins, it would have to be given at once, which
    takes until it has imported PyTorch, or for ever if it can't."""

    def __init__(self, loader: Loader, inside: "_Inside", closing: Tensor) -> None:
        self.threads = loader.threads
        self._asked: list[Asked] = [loader]
        self._arrivals: DataLoader[Arrived] | None = DataLoader(
            inside, batch_size=None, sampler=self._asked, num_workers=1, prefetch_factor=AHEAD,
            persistent_workers=True, multiprocessing_context="spawn", generator=torch.Generator(),
            worker_init_fn=partial(_leave_signals, closing),
        )  # fmt: skip
        iter(self._arrivals)

    def answers(self, asked: list[Asked]) -> "Iterator[Arrived]":
        assert self._arrivals is not None, "it was ended"
        self._asked[:] = asked
        return iter(self._arrivals)

    def end(self) -> None:
        self._arrivals = None


@contextmanager
def _signals_wait() -> Iterator[None]:
    """What stops a job waits, here and in processes begun inside, until they have heard which signals are for them."""
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

    def __init__(self, slots: list[Tensor], starving: Tensor) -> None:
        self._slots, self._starving = slots, starving
        self._batches: Generator[Batch, None, None] | None = None
        self._steps, self._told = 0, 0.0

    def __getitem__(self, asked: Asked) -> Arrived:
        if isinstance(asked, Loader):
            self._loader = asked
            self._loader.starving = self._starving.numpy()
            return Arrived()
        if asked is None:
            if self._batches is not None:
                self._batches.close()  # no thread of it writes any more then
            return Arrived()
        plan, epoch, step = asked
        if plan is not None:
            self._loader.memory = self._ring = _Ring(self._slots)
            self._batches, self._steps = self._loader.training(plan, epoch, step), plan.steps
            self._told = 0.0
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
