"""One update against NumPy in float64."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from alexvgg.batch import Batch
from alexvgg.engine.step import Normalisation, sgd, training_step
from alexvgg.engine.world import World

CPU = torch.device("cpu")
ALONE = World(0, 1, CPU)
MEAN = (120.0, 110.0, 100.0)


def batch(n: int, seed: int, weights: list[float] | None = None) -> Batch:
    g = torch.Generator().manual_seed(seed)
    return Batch(
        images=torch.randint(0, 256, (n, 3, 2, 2), generator=g, dtype=torch.uint8),
        colour=torch.randn(n, 3, generator=g),
        labels=torch.randint(0, 4, (n,), generator=g),
        weights=torch.tensor(weights or [1.0] * n),
        keys=torch.zeros(n, dtype=torch.int64),
        samples=torch.arange(n),
    )


class Linear(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(12, 4)

    def forward(self, images: Tensor, keys: Tensor) -> Tensor:
        return self.fc(images.flatten(1) / 100)  # type: ignore[no-any-return]


def reference(
    w: np.ndarray, b: np.ndarray, batches: list[Batch], lr: float
) -> tuple[np.ndarray, np.ndarray, list[float]]:
    """Softmax regression by hand: v <- 0.9 v + (g + 5e-4 w), w <- w - lr v, loss over real samples only."""
    vw, vb, losses = np.zeros_like(w), np.zeros_like(b), []
    for x in batches:
        shift = x.colour.double().numpy()[:, :, None, None] - np.array(MEAN)[:, None, None]
        pixels = (x.images.numpy().astype(np.float64) + shift).reshape(len(x.labels), -1) / 100
        scores = pixels @ w.T + b
        scores -= scores.max(axis=1, keepdims=True)
        p = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
        real = x.weights.double().numpy()
        losses.append(float(-(np.log(p[range(len(p)), x.labels]) * real).sum() / real.sum()))
        error = (p - np.eye(4)[x.labels]) * real[:, None] / real.sum()
        vw = 0.9 * vw + error.T @ pixels + 5e-4 * w
        vb = 0.9 * vb + error.sum(axis=0) + 5e-4 * b
        w, b = w - lr * vw, b - lr * vb
    return w, b, losses


@pytest.mark.parametrize("weights", [None, [1.0, 0.0, 1.0, 1.0, 0.0]])
def test_updates_are_the_papers(weights: list[float] | None) -> None:
    torch.manual_seed(0)
    model = Linear()
    w, b = (p.detach().double().numpy().copy() for p in model.parameters())
    batches = [batch(5, seed, weights) for seed in range(6)]
    optimizer = sgd(model, lr=0.05, momentum=0.9, weight_decay=5e-4, device=CPU)
    losses = [training_step(model, optimizer, x, Normalisation(MEAN), ALONE).item() for x in batches]
    w, b, expected = reference(w, b, batches, 0.05)
    np.testing.assert_allclose(losses, expected, rtol=1e-5)
    np.testing.assert_allclose(model.fc.weight.detach(), w, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(model.fc.bias.detach(), b, rtol=1e-4, atol=1e-6)


class Ranks(World):
    """One of several ranks, with the others' contribution to the number of real samples given."""

    others: float

    def sum(self, tensor: Tensor) -> Tensor:
        return tensor + self.others


def rank(number: int, size: int, others: float) -> Ranks:
    world = Ranks(number, size, CPU)
    object.__setattr__(world, "others", others)
    return world


def test_ranks_with_different_counts_average_to_the_global_gradient() -> None:
    whole, shares = batch(7, 3), [slice(0, 4), slice(4, 6), slice(6, 7)]

    def gradient(x: Batch, world: World) -> tuple[Tensor, float]:
        torch.manual_seed(0)
        model = Linear()
        optimizer = sgd(model, lr=0.0, momentum=0.0, weight_decay=0.0, device=CPU)
        loss = training_step(model, optimizer, x, Normalisation(MEAN), world)
        assert model.fc.weight.grad is not None
        return model.fc.weight.grad.clone(), loss.item()

    expected, loss = gradient(whole, ALONE)
    cut: Callable[[slice], Batch] = lambda s: Batch(*(getattr(whole, f)[s] for f in Batch.__dataclass_fields__))  # noqa: E731
    parts = [gradient(cut(s), rank(i, 3, 7 - (s.stop - s.start))) for i, s in enumerate(shares)]
    torch.testing.assert_close(torch.stack([g for g, _ in parts]).mean(dim=0), expected)  # as DDP averages them
    assert sum(share for _, share in parts) == pytest.approx(loss)
