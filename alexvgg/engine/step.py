"""One update of SGD on one global batch, whatever the number of ranks that share it."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from alexvgg.batch import Batch
from alexvgg.engine.world import World


@dataclass(frozen=True)
class Normalisation:
    """Pixels 0 to 255 minus the training set's mean RGB, nothing else (VGG section 3.1), plus the colour shift."""

    mean_rgb: tuple[float, float, float]

    def __call__(self, batch: Batch) -> Tensor:
        """float32 (N, 3, h, w), on the batch's device; channels last on a GPU, where convolutions are faster so."""
        images = batch.images
        layout = torch.channels_last if images.is_cuda else torch.contiguous_format
        mean = torch.tensor(self.mean_rgb, device=images.device)
        shift = batch.colour - mean
        return images.to(torch.float32, memory_format=layout) + shift[:, :, None, None]


def autocast(device: torch.device) -> torch.autocast:
    """bf16 matrix products on a GPU, with float32 weights; plain float32 on a CPU."""
    return torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda")


def training_step(
    model: Callable[[Tensor, Tensor], Tensor],
    optimizer: torch.optim.Optimizer,
    batch: Batch,
    normalise: Normalisation,
    world: World,
) -> Tensor:
    """One update. Returns this rank's share of the global mean loss: the shares of all ranks add up to it.

    The loss is the sum over real samples divided by their *global* number, so that ranks may hold different counts.
    DDP averages gradients over ranks, hence the factor `world.size`.
    """
    real = world.sum(batch.weights.sum())
    optimizer.zero_grad(set_to_none=True)
    with autocast(world.device):
        scores = model(normalise(batch), batch.keys)
    share = (F.cross_entropy(scores.float(), batch.labels, reduction="none") * batch.weights).sum() / real
    torch.autograd.backward(share * world.size)
    optimizer.step()
    return share.detach()


def sgd(model: nn.Module, *, lr: float, momentum: float, weight_decay: float, device: torch.device) -> torch.optim.SGD:
    """Both papers' update with L2 on all parameters. For a constant lr it is AlexNet's v <- 0.9v - 5e-4 lr w - lr g."""
    return torch.optim.SGD(
        model.parameters(), lr=lr, momentum=momentum, weight_decay=weight_decay, fused=device.type == "cuda"
    )
