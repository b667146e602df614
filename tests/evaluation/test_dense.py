"""Rows of a table: posteriors averaged over flips and scales, every image once per scale."""

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from alexvgg.batch import Batch
from alexvgg.evaluation.dense import evaluate_rows, posteriors

CPU = torch.device("cpu")


def images_at(q: int, n: int = 30) -> Tensor:
    return torch.randn(n, 3, q, q, generator=torch.Generator().manual_seed(q))


LABELS = torch.arange(30) % 4


def net(images: Tensor) -> Tensor:
    """Scores that differ between an image and its mirror image."""
    ramp = torch.linspace(0, 1, images.shape[3])
    return torch.cat([(images * ramp).mean(dim=(2, 3)), images.mean(dim=(1, 2, 3))[:, None]], dim=1) * 40


class Source:
    def __init__(self, skipped: set[int]) -> None:
        self.asked: list[int] = []
        self.skipped = skipped

    def __call__(self, q: int) -> Iterator[Batch]:
        self.asked.append(q)
        for start in range(0, 30, 8):
            ids = torch.arange(start, min(start + 8, 30))
            weights = torch.tensor([float(i not in self.skipped) for i in ids.tolist()])
            zeros = torch.zeros(len(ids), 3)
            yield Batch(images_at(q)[ids], zeros, LABELS[ids], weights, torch.zeros_like(ids), ids)


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("skipped", [set(), {0, 13}])
def test_rows_average_posteriors(flip: bool, skipped: set[int]) -> None:
    rows = [(5,), (4, 5, 6), (6, 7)]
    source = Source(skipped)
    got = evaluate_rows(net, source, lambda b: b.images, rows, flip=flip, device=CPU)
    assert source.asked == [4, 5, 6, 7], "each scale is computed once"
    kept = [i for i in range(30) if i not in skipped]
    for row, counts in zip(rows, got, strict=True):
        views = [
            images_at(q).flip(3) if f else images_at(q) for q in row for f in ((False, True) if flip else (False,))
        ]
        mean = torch.stack([net(v).double().softmax(dim=1) for v in views]).mean(dim=0)[kept]
        wrong = int((mean.argmax(dim=1) != LABELS[kept]).sum())
        assert (counts.images, counts.top1_wrong, counts.top5_wrong) == (len(kept), wrong, 0)


def test_softmax_comes_before_the_average() -> None:
    scores = iter([torch.tensor([[8.0, 0.0]]), torch.tensor([[0.0, 2.0]])])
    got = posteriors(lambda _: next(scores), torch.zeros(1, 3, 2, 2), flip=True)
    expected = (torch.tensor([[8.0, 0.0]]).double().softmax(1) + torch.tensor([[0.0, 2.0]]).double().softmax(1)) / 2
    torch.testing.assert_close(got, expected)
