"""Top-1 and top-5 as integers."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Counts:
    """Wrong answers among `images`."""

    images: int
    top1_wrong: int
    top5_wrong: int

    @classmethod
    def of(cls, scores: Tensor, labels: Tensor, weights: Tensor) -> "Counts":
        """Count scores (N, classes) against labels (N,), leaving out samples of weight 0.

        A class is among the top k if fewer than k others score at least as much: ties count as wrong, so that a net
        with equal scores for all classes isn't right. With fewer than five classes, top 5 holds all of them.
        """
        real = weights > 0
        scores, labels = scores[real].double(), labels[real]
        own = scores.gather(1, labels[:, None])
        rank = (scores >= own).sum(dim=1) - 1  # others that score at least as much
        rank = torch.where(own.squeeze(1).isfinite(), rank, scores.shape[1])  # NaN is never right
        top5 = min(5, scores.shape[1])
        wrong5 = torch.zeros_like(rank, dtype=torch.bool) if top5 == scores.shape[1] else rank >= top5
        return cls(len(labels), int((rank >= 1).sum()), int(wrong5.sum()))

    def __add__(self, other: "Counts") -> "Counts":
        return Counts(
            self.images + other.images, self.top1_wrong + other.top1_wrong, self.top5_wrong + other.top5_wrong
        )

    def tensor(self, device: torch.device) -> Tensor:
        """int64 (3,), to be summed over ranks."""
        return torch.tensor([self.images, self.top1_wrong, self.top5_wrong], device=device)

    @property
    def top1_error(self) -> float | None:
        """Per cent; None for an empty set."""
        return 100 * self.top1_wrong / self.images if self.images else None

    @property
    def top5_error(self) -> float | None:
        """Per cent; None for an empty set."""
        return 100 * self.top5_wrong / self.images if self.images else None
