"""Batches on their way to the device, and numbers on their way back, without either waiting for the other."""

from collections import deque
from collections.abc import Iterator
from dataclasses import fields

import torch
from torch import Tensor

from alexvgg.batch import Batch

LAG = 2  # steps after which a number is read: a GPU that is one step behind the host never waits for it


def on_device(batches: Iterator[Batch], device: torch.device) -> Iterator[Batch]:
    """The batches on `device`. On a GPU each is copied, as bytes, on a stream of its own beside the step before."""
    if device.type == "cpu":
        yield from batches
        return
    copies: torch.cuda.Stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
    compute = torch.cuda.current_stream(device)
    for batch in batches:
        with torch.cuda.stream(copies):
            copied = batch.to(device)
        compute.wait_stream(copies)
        for field in fields(copied):
            getattr(copied, field.name).record_stream(compute)
        yield copied


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
        event = torch.cuda.Event()  # type: ignore[no-untyped-call]
        event.record()
        self._queue.append((step, host, event))

    def arrived(self, step: int) -> Iterator[tuple[int, list[float]]]:
        """(step, numbers) of LAG or more steps before `step`, oldest first: the same on every rank at the same step."""
        while self._queue and self._queue[0][0] <= step - LAG:
            pushed, numbers, event = self._queue.popleft()
            if event is not None:
                event.synchronize()
            yield pushed, numbers.tolist()

    def all(self) -> Iterator[tuple[int, list[float]]]:
        """Everything, waiting for the device."""
        while self._queue:
            yield from self.arrived(self._queue[0][0] + LAG)
