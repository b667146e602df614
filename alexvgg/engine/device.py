"""Batches on their way to the device, and numbers on their way back, without either waiting for the other."""

import time
from collections import deque
from collections.abc import Iterator
from dataclasses import fields

import torch
from torch import Tensor

from alexvgg.batch import Batch

LAG = 2  # steps after which a number is read: a GPU that is one step behind the host never waits for it


def copy_stream(device: torch.device) -> "torch.cuda.Stream | None":
    """What batches are copied on; a CPU has none. Memory is kept by stream, so a process needs one for all epochs."""
    return torch.cuda.Stream(device) if device.type == "cuda" else None  # type: ignore[no-untyped-call]


class OnDevice:
    """The batches on `device`. On a GPU each is copied, as bytes, on the stream `copies` beside the step before.

    `waited` are the seconds that the device has had nothing to do for lack of batches: on a GPU from the end of its
    work to the end of the copy, known some steps later, and none as long as the host is ahead of it.
    """

    def __init__(self, batches: Iterator[Batch], device: torch.device, copies: "torch.cuda.Stream | None") -> None:
        self._batches, self._device, self._copies, self.waited = batches, device, copies, 0.0
        self._moves: deque[tuple[torch.cuda.Event, torch.cuda.Event]] = deque()  # work's end, copy's end

    def __next__(self) -> Batch:
        if self._copies is not None:
            return self._moved(self._copies)
        began = time.perf_counter()
        batch = next(self._batches)
        self.waited += time.perf_counter() - began
        return batch

    def _moved(self, copies: torch.cuda.Stream) -> Batch:
        compute = torch.cuda.current_stream(self._device)
        idle = compute.record_event(torch.cuda.Event(enable_timing=True))  # type: ignore[no-untyped-call]
        batch = next(self._batches)
        with torch.cuda.stream(copies):
            copied = batch.to(self._device)
            here = copies.record_event(torch.cuda.Event(enable_timing=True))  # type: ignore[no-untyped-call]
        compute.wait_event(here)
        for field in fields(copied):
            getattr(copied, field.name).record_stream(compute)
        self._moves.append((idle, here))
        while self._moves and all(event.query() for event in self._moves[0]):  # type: ignore[no-untyped-call]
            ended, arrived = self._moves.popleft()
            self.waited += max(0.0, ended.elapsed_time(arrived) / 1000)
        return copied


class Readback:
    """Small tensors that are read some steps after they were computed, so that no step waits for a number."""

    def __init__(self) -> None:
        self._queue: deque[tuple[int, Tensor, torch.cuda.Event | None]] = deque()

    def push(self, step: int, numbers: Tensor) -> None:
        """Start the numbers of `step` on their way to the host."""
        if not numbers.is_cuda:
            self._queue.append((step, numbers, None))
            return
        host = torch.empty_like(numbers, device="cpu", pin_memory=True)
        host.copy_(numbers, non_blocking=True)
        # Blocking: to wait by spinning would take a core from decoding.
        event = torch.cuda.Event(blocking=True)  # type: ignore[no-untyped-call]
        event.record()
        self._queue.append((step, host, event))

    def arrived(self, step: int) -> Iterator[tuple[int, Tensor]]:
        """(step, numbers), on the host, of LAG or more steps before `step`, oldest first: of the same on every rank."""
        while self._queue and self._queue[0][0] <= step - LAG:
            pushed, numbers, event = self._queue.popleft()
            if event is not None:
                event.synchronize()
            yield pushed, numbers

    def all(self) -> Iterator[tuple[int, Tensor]]:
        """Everything, waiting for the device."""
        while self._queue:
            yield from self.arrived(self._queue[0][0] + LAG)
