"""Updates against NumPy in float64, in the papers' own formula."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from alexvgg.batch import Batch
from alexvgg.engine import step
from alexvgg.engine.step import Normalisation, Updater, chosen_compile, set_lr, sgd
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
    w: np.ndarray, b: np.ndarray, batches: list[Batch], lrs: list[float], decay_biases: bool
) -> tuple[np.ndarray, np.ndarray, list[list[float]]]:
    """Softmax regression by hand, with AlexNet's v <- 0.9 v - 5e-4 lr w - lr g, w <- w + v; and each step's numbers."""
    vw, vb, numbers = np.zeros_like(w), np.zeros_like(b), []
    for x, lr in zip(batches, lrs, strict=True):
        shift = x.colour.double().numpy()[:, :, None, None] - np.array(MEAN)[:, None, None]
        pixels = (x.images.numpy().astype(np.float64) + shift).reshape(len(x.labels), -1) / 100
        scores = pixels @ w.T + b
        scores -= scores.max(axis=1, keepdims=True)
        p = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
        real = x.weights.double().numpy()
        loss = -(np.log(p[range(len(p)), x.labels]) * real).sum() / real.sum()
        wrong = ((p.argmax(axis=1) != x.labels.numpy()) * real).sum()
        numbers.append([float(loss), float(wrong), float(real.sum())])
        error = (p - np.eye(4)[x.labels]) * real[:, None] / real.sum()
        vw = 0.9 * vw - 5e-4 * lr * w - lr * (error.T @ pixels)
        vb = 0.9 * vb - (5e-4 * lr * b if decay_biases else 0) - lr * error.sum(axis=0)
        w, b = w + vw, b + vb
    return w, b, numbers


LRS = [0.05] * 4 + [0.005] * 4 + [0.0005] * 3  # with two drops, after which the old velocity still counts


@pytest.mark.parametrize("decay_biases", [False, True])
@pytest.mark.parametrize("weights", [None, [1.0, 0.0, 1.0, 1.0, 0.0]])
def test_updates_are_the_papers(weights: list[float] | None, decay_biases: bool) -> None:
    torch.manual_seed(0)
    model = Linear()
    w, b = (p.detach().double().numpy().copy() for p in model.parameters())
    batches = [batch(5, seed, weights) for seed in range(len(LRS))]
    optimizer = sgd(model, lr=LRS[0], momentum=0.9, weight_decay=5e-4, decay_biases=decay_biases)
    update, numbers = Updater(model, optimizer, Normalisation(MEAN), ALONE), []
    for x, lr in zip(batches, LRS, strict=True):
        set_lr(optimizer, lr)
        numbers.append(update(x)[0].tolist())
    w, b, expected = reference(w, b, batches, LRS, decay_biases)
    np.testing.assert_allclose(numbers, expected, rtol=1e-5)
    np.testing.assert_allclose(model.fc.weight.detach(), w, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(model.fc.bias.detach(), b, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("size", [1, 3, 7, 100])
def test_micro_batches_give_the_same_update(size: int) -> None:
    x = batch(7, 3, [1, 1, 0, 1, 0, 1, 1])

    def gradient(micro_batch: int | None) -> tuple[Tensor, Tensor]:
        torch.manual_seed(0)
        model = Linear()
        optimizer = sgd(model, lr=0.0, momentum=0.0, weight_decay=0.0)
        numbers, _ = Updater(model, optimizer, Normalisation(MEAN), ALONE, micro_batch=micro_batch)(x)
        assert model.fc.weight.grad is not None
        return model.fc.weight.grad, numbers

    torch.testing.assert_close(gradient(size), gradient(None), rtol=1e-6, atol=1e-7)


def test_a_mean_image_is_subtracted_from_images_of_its_size_and_its_mean_rgb_from_others() -> None:
    image = torch.randn(3, 2, 2, generator=torch.Generator().manual_seed(0)) * 10 + 100
    normalise, x = Normalisation(image), batch(4, 0)
    expected = x.images.float() - image + x.colour[:, :, None, None]
    torch.testing.assert_close(normalise(x), expected)
    wide = Batch(x.images.repeat(1, 1, 1, 2), *(getattr(x, f) for f in list(Batch.__dataclass_fields__)[1:]))
    shift = x.colour - image.mean(dim=(1, 2))
    torch.testing.assert_close(normalise(wide), wide.images.float() + shift[:, :, None, None])
    torch.testing.assert_close(
        Normalisation(MEAN)(x), x.images.float() + (x.colour - torch.tensor(MEAN))[..., None, None]
    )


def test_a_batch_without_a_real_sample_is_no_catastrophe() -> None:
    """The last step of an epoch may have one image, and that one may be undecodable."""
    net = Linear()
    update = Updater(net, sgd(net, lr=0.1, momentum=0.9, weight_decay=0.0), Normalisation(MEAN), ALONE)
    before = net.fc.weight.detach().clone()
    numbers, _ = update(batch(2, 0, weights=[0.0, 0.0]))
    assert numbers.tolist() == [0, 0, 0]
    assert torch.equal(net.fc.weight, before)


def test_nets_are_compiled_on_gpus_that_have_all_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    gpu, capability = torch.device("cuda"), [(9, 0)]
    assert not chosen_compile(torch.device("cpu"), None)
    assert chosen_compile(torch.device("cpu"), True)
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _device: capability[0])
    monkeypatch.setattr(step, "find_spec", lambda _name: "found")
    monkeypatch.setattr(Path, "exists", lambda path: path.name == "Python.h")
    monkeypatch.setattr(shutil, "which", lambda name: "/usr/bin/clang" if name == "clang" else None)
    assert chosen_compile(gpu, None)
    assert not chosen_compile(gpu, False)
    capability[0] = (6, 1)
    assert not chosen_compile(gpu, None), "the GPU is too old"
    capability[0] = (7, 0)
    monkeypatch.setattr(shutil, "which", lambda _name: None)
    assert not chosen_compile(gpu, None), "there is no compiler"
    monkeypatch.setenv("CC", "cc")
    assert chosen_compile(gpu, None)
    monkeypatch.setattr(step, "find_spec", lambda _name: None)
    assert not chosen_compile(gpu, None), "there is no Triton"
    monkeypatch.setattr(step, "find_spec", lambda _name: "found")
    monkeypatch.setattr(Path, "exists", lambda _path: False)
    assert not chosen_compile(gpu, None), "there are no headers of Python"
