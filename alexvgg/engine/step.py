"""One update of SGD on one global batch, whatever the number of ranks that share it and however they cut their shares.

Shapes: N samples of this rank, C classes.
"""

import os
import shutil
import sysconfig
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from alexvgg.batch import Batch
from alexvgg.engine.exchange import ByFactors
from alexvgg.engine.world import World

Precision = Literal["auto", "fp32", "bf16"]


class Normalisation:
    """Pixels 0 to 255 minus the training set's mean, nothing else, plus the colour shift.

    `mean` is the mean RGB (3,) for VGG (section 3.1), or a mean image (3, crop, crop) for AlexNet's "mean activity from
    each pixel" (section 2): the centre of the 256x256 mean image for every crop, as its own code, cuda-convnet, does.
    Images of another size than the mean image get its mean RGB.
    """

    def __init__(self, mean: Tensor | tuple[float, float, float]) -> None:
        mean = torch.as_tensor(mean, dtype=torch.float32)
        self.image = mean if mean.ndim == 3 else None
        self.rgb = mean.mean(dim=(1, 2)) if mean.ndim == 3 else mean

    def __call__(self, batch: Batch) -> Tensor:
        """float32 (N, 3, h, w) on the batch's device, channels last: convolutions are faster so, on CPUs too."""
        images, device = batch.images, batch.images.device
        if self.rgb.device != device:
            self.rgb = self.rgb.to(device)
            self.image = None if self.image is None else self.image.to(device)
        pixels = images.to(torch.float32, memory_format=torch.channels_last)
        if self.image is not None and self.image.shape == images.shape[1:]:
            return pixels - self.image + batch.colour[:, :, None, None]
        return pixels + (batch.colour - self.rgb)[:, :, None, None]


def chosen_precision(device: torch.device, asked: Precision) -> Literal["fp32", "bf16"]:
    """auto: bf16 only on a GPU that has it, so that CPUs give exact resumes. (Older ones, like T4, emulate it, slower
    than float32.)"""
    if asked != "auto":
        return asked
    has = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
    return "bf16" if has else "fp32"


def chosen_compile(device: torch.device, asked: bool | None) -> bool:
    """None: on a GPU, where it pays (`make bench NAME=train_step`), if Triton is there and has what it needs."""
    if asked is not None or device.type != "cuda":
        return bool(asked)
    compiler = os.environ.get("CC") or shutil.which("gcc") or shutil.which("clang")
    headers = Path(sysconfig.get_path("include"), "Python.h")
    triton = find_spec("triton") is not None and torch.cuda.get_device_capability(device) >= (7, 0)
    return triton and compiler is not None and headers.exists()


def autocast(device: torch.device, precision: Precision = "auto") -> torch.autocast:
    """Matrix products in bf16 or not, with float32 weights."""
    return torch.autocast(device.type, torch.bfloat16, enabled=chosen_precision(device, precision) == "bf16")


@dataclass(frozen=True)
class Updater:
    """What turns batches into updates. `micro_batch` bounds the samples that are in memory together.

    How a share is cut and who holds which share change an update only by the order of float additions.
    """

    model: nn.Module
    optimizer: torch.optim.Optimizer
    normalise: Normalisation
    world: World
    precision: Precision = "auto"
    micro_batch: int | None = None

    def __call__(self, batch: Batch, flags: tuple[float, ...] = ()) -> tuple[Tensor, Tensor]:
        """One update. Returns this rank's numbers of the step, float32 (3,), and the sum of `flags` over ranks.

        The numbers are its share of the global mean loss, its wrong answers and its real samples. An answer is the
        most probable class of the net before this update, with its dropout. The loss is the sum over real samples
        divided by their *global* number, so that ranks may hold different counts. DDP averages gradients over ranks,
        hence the factor `world.size`. The flags ride on the collective that counts samples, which runs beside the
        forward pass: they cost nothing.
        """
        mine = torch.cat([batch.weights.sum()[None], _to_device(torch.tensor(flags), batch.weights.device)])
        finish_sum = self.world.start_sum(mine)
        self.optimizer.zero_grad(set_to_none=True)
        parts = [batch] if self.micro_batch is None else batch.split(self.micro_batch)
        totals, numbers = None, batch.weights.new_zeros(3)
        for last, part in ((i == len(parts) - 1, part) for i, part in enumerate(parts)):
            with nullcontext() if last else self._without_exchange():
                with autocast(batch.images.device, self.precision):
                    scores = self.model(self.normalise(part), part.keys)
                losses = F.cross_entropy(_at_least_float(scores), part.labels, reduction="none")
                totals = finish_sum() if totals is None else totals
                loss = (losses * part.weights).sum() / totals[0].clamp(min=1)  # none may be real, in a short last step
                torch.autograd.backward(loss * self.world.size)
                wrong = ((scores.detach().argmax(1) != part.labels) * part.weights).sum()
                numbers = numbers + torch.stack([loss.detach(), wrong, part.weights.sum()])
        if isinstance(self.model, ByFactors):
            self.model.complete()
        self.optimizer.step()
        assert totals is not None
        return numbers, totals[1:]

    def settle(self, side: int, rows: int) -> None:
        """Run one backward pass before the first step, on `rows` blank images of `side` pixels; it changes nothing.

        DDP orders its buckets anew after its first backward pass, and on more than two ranks the order of a sum's
        additions follows from where in a bucket a gradient lies. So without this the first step of a resumed run would
        have other last bits than the same step of a run that wasn't disturbed.
        """
        rows, device = min(rows, self.micro_batch or rows), self.world.device
        images = torch.zeros(rows, 3, side, side, device=device).to(memory_format=torch.channels_last)
        with autocast(device, self.precision):
            scores = self.model.train()(images, torch.zeros(rows, dtype=torch.int64, device=device))
        torch.autograd.backward(0 * _at_least_float(scores).sum())
        if isinstance(self.model, ByFactors):
            self.model.complete()
        self.optimizer.zero_grad(set_to_none=True)

    def _without_exchange(self) -> AbstractContextManager[None]:
        """Gradients stay on this rank until its last part, so ranks may have different numbers of parts."""
        if isinstance(self.model, DistributedDataParallel | ByFactors):
            return self.model.no_sync()
        return nullcontext()


def _at_least_float(scores: Tensor) -> Tensor:
    return scores.to(torch.promote_types(scores.dtype, torch.float32))


def _to_device(numbers: Tensor, device: torch.device) -> Tensor:
    return numbers.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else numbers


def sgd(
    model: nn.Module, *, lr: float, momentum: float, weight_decay: float, decay_biases: bool = False
) -> torch.optim.SGD:
    """Both papers' update, v <- 0.9v - 5e-4 lr w - lr g, w <- w + v (AlexNet section 5); `set_lr` keeps it so.

    L2 is on weights only by default: the papers' texts don't say, but AlexNet's own configurations (cuda-convnet's
    `wc`) and Caffe's (`decay_mult: 0`) leave biases out; VGG's was never published. (They also double the biases'
    learning rate, which neither text has, nor this.) Fused: one pass over the parameters, three times as fast as
    PyTorch's default on a CPU.
    """
    biases = [p for name, p in model.named_parameters() if name.endswith("bias")]
    weights = [p for name, p in model.named_parameters() if not name.endswith("bias")]
    groups: list[dict[str, Any]] = [
        {"params": weights},
        {"params": biases, "weight_decay": weight_decay if decay_biases else 0.0},
    ]
    return torch.optim.SGD(groups, lr=lr, momentum=momentum, weight_decay=weight_decay, fused=True)


def set_lr(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Change the learning rate as the papers' formula does.

    AlexNet's v has the learning rate in it: after a drop the net coasts on at the old speed for some ten steps.
    PyTorch's buffer b has not (v = -lr b), and would brake at once. Scaling b by old / new leaves v as it was (the
    "momentum correction" of Goyal et al. 2017, section 3, taken the other way round).
    """
    for group in optimizer.param_groups:
        if group["lr"] != lr:
            for parameter in group["params"]:
                if (buffer := optimizer.state[parameter].get("momentum_buffer")) is not None:
                    buffer.mul_(group["lr"] / lr)
            group["lr"] = lr
