"""Who else is training: works the same with one plain process and with no process group at all."""

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor

from alexvgg.errors import InputError

COLLECTIVE_SECONDS = 180  # a rank that is silent for longer is lost; torch's default is half an hour
COLLECTIVE_VARIABLE = "ALEXVGG_COLLECTIVE_SECONDS"  # of the environment, overrides it


@dataclass(frozen=True)
class World:
    """This process's `rank` of `size`, and the device it computes on."""

    rank: int
    size: int
    device: torch.device

    @classmethod
    def current(cls) -> "World":
        """The process group that this process has joined, or this process alone."""
        joined = dist.is_available() and dist.is_initialized()
        rank, size = (dist.get_rank(), dist.get_world_size()) if joined else (0, 1)
        if torch.cuda.is_available():
            return cls(rank, size, torch.device("cuda", torch.cuda.current_device()))
        return cls(rank, size, torch.device("cpu"))

    @classmethod
    @contextmanager
    def launched(cls) -> "Iterator[World]":
        """The world that torchrun's environment describes, joined for the length of the block; else this process.

        `jobs.network` describes the workers of Ray Train like this, too.
        """
        if torch.cuda.is_available():
            torch.set_num_threads(1)  # else each thread that decodes would have a team of its own
        if int(os.environ.get("WORLD_SIZE", "1")) == 1:
            yield cls.current()
            return
        if torch.cuda.is_available():
            device = torch.device("cuda", _own_gpu(int(os.environ["LOCAL_RANK"])))
            torch.cuda.set_device(device)
            # With its device named, NCCL connects the ranks now, and groups of them later share these connections.
            dist.init_process_group("nccl", timeout=collective_timeout(), device_id=device)
        else:
            dist.init_process_group("gloo", timeout=collective_timeout())
        yield cls.current()
        dist.destroy_process_group()  # not after an error, when it could wait for ranks that are lost

    def sum(self, tensor: Tensor) -> Tensor:
        """The sum of `tensor` over all ranks, on every rank; `tensor` itself stays as it is."""
        return self.start_sum(tensor)()

    def start_sum(self, tensor: Tensor) -> Callable[[], Tensor]:
        """Begin `sum`; the function returned gives it. What is computed in between hides the ranks' talk."""
        total = tensor.clone()
        work = dist.all_reduce(total, async_op=True) if self.size > 1 else None

        def finish() -> Tensor:
            if work is not None:
                work.wait()
            return total

        return finish

    def gather(self, tensor: Tensor) -> Tensor:
        """Every rank's `tensor`, which has the same shape on each, stacked by rank."""
        if self.size == 1:
            return tensor[None]
        found = tensor.new_empty(self.size * tensor.numel())
        dist.all_gather_single(found, tensor.flatten())
        return found.view(self.size, *tensor.shape)

    def texts(self, text: str) -> list[str]:
        """Every rank's `text`, in the order of ranks, on every rank."""
        data = text.encode()
        longest = int(self.gather(torch.tensor(len(data), device=self.device)).max().item())
        row = torch.tensor(list(data.ljust(longest, b"\0")), dtype=torch.uint8)
        rows = self.gather(row.to(self.device)).tolist()
        return [bytes(r).rstrip(b"\0").decode() for r in rows]

    def wait_until(self, ready: Callable[[], bool]) -> None:
        """Wait until `ready()` on every rank. They ask each other again and again: no collective waits for long."""
        pause = 0.01
        while self.sum(torch.tensor(int(not ready()), device=self.device)).item():
            time.sleep(pause)
            pause = min(2 * pause, 1.0)

    def barrier(self) -> None:
        """Wait until every rank is here."""
        if self.size > 1:
            dist.barrier()


def _own_gpu(local_rank: int) -> int:
    """The GPU of a rank. Raises InputError if a machine has fewer than it has ranks: NCCL takes one rank on each."""
    if local_rank < (gpus := torch.cuda.device_count()):
        return local_rank
    raise InputError(
        f"rank {local_rank} of this machine needs a GPU of its own, and the machine has {gpus}. Start at most {gpus} "
        'here, or set CUDA_VISIBLE_DEVICES="" to train on the CPU.'
    )


def collective_timeout() -> timedelta:
    """How long a rank waits for the others before it counts them as lost."""
    return timedelta(seconds=int(os.environ.get(COLLECTIVE_VARIABLE, COLLECTIVE_SECONDS)))
