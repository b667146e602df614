"""What the data plane hands to the engine."""

from dataclasses import dataclass, fields

import torch
from torch import Tensor


@dataclass(frozen=True)
class Batch:
    """N images of one size with what belongs to each. Still bytes: the device normalises them.

    A sample that could not be decoded, or that only pads an empty share, has weight 0.
    """

    images: Tensor  # uint8 (N, 3, h, w)
    colour: Tensor  # float32 (N, 3), AlexNet's PCA shift in units of 1/255
    labels: Tensor  # int64 (N,)
    weights: Tensor  # float32 (N,), 1 for a real sample
    keys: Tensor  # int64 (N,), seeds of the samples' dropout
    samples: Tensor  # int64 (N,), sample ids; -1 for padding

    def split(self, size: int) -> "list[Batch]":
        """The same samples in batches of at most `size`, in order; views, not copies."""
        parts = (getattr(self, field.name).split(size) for field in fields(self))
        return [Batch(*tensors) for tensors in zip(*parts, strict=True)]

    def to(self, device: torch.device) -> "Batch":
        """On `device`; from page-locked memory, and without waiting, if that is a GPU."""
        if device.type == "cpu":
            return self
        tensors = (getattr(self, field.name).pin_memory() for field in fields(self))
        return Batch(*(t.to(device, non_blocking=True) for t in tensors))
