"""Keyed dropout: a proper dropout, and the same masks whatever else is in the batch."""

import numpy as np
import pytest
import torch

from alexvgg.models import build
from alexvgg.models.layers import keyed_mask

KEYS = torch.from_numpy(np.random.default_rng(0).integers(-(2**63), 2**63 - 1, 512))


def splitmix(key: int, counter: int) -> int:
    """SplitMix64's output number `counter` of the generator that starts at `key`, in Python's own integers."""
    bits = (1 << 64) - 1
    z = (key + counter * 0x9E3779B97F4A7C15) & bits
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & bits
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & bits
    return z ^ (z >> 31)


def test_masks_are_splitmix64() -> None:
    keys, width, stream = KEYS[:3], 50, 1
    expected = [
        [2.0 if splitmix(k, (stream << 32) + i) >> 11 >= 2**52 else 0.0 for i in range(1, width + 1)]
        for k in keys.tolist()
    ]
    assert keyed_mask(keys, width, 0.5, stream=stream).tolist() == expected


@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
def test_rate_and_scale(p: float) -> None:
    mask = keyed_mask(KEYS, 1000, p, stream=0)
    assert (mask == 0).double().mean().item() == pytest.approx(p, abs=0.003)
    assert sorted(mask.unique().tolist()) == [0.0, pytest.approx(1 / (1 - p))]
    assert mask.mean().item() == pytest.approx(1, abs=0.02)
    columns = (mask == 0).double().mean(dim=0)
    assert (columns - p).abs().max().item() < 0.12, "some unit is kept too often"


def test_layers_have_unrelated_masks() -> None:
    a, b = (keyed_mask(KEYS, 1000, 0.5, stream=s) for s in (0, 1))
    assert (a == b).double().mean().item() == pytest.approx(0.5, abs=0.01)


def test_a_sample_meets_the_same_mask_in_any_batch() -> None:
    torch.manual_seed(0)
    net = build("vgg_a", num_classes=4, width=0.125, crop=32).train()
    images = torch.randn(6, 3, 32, 32)
    together = net(images, KEYS[:6])
    apart = torch.cat([net(images[4:], KEYS[4:6]), net(images[:4], KEYS[:4])])
    torch.testing.assert_close(together, torch.cat([apart[2:], apart[:2]]), rtol=1e-5, atol=1e-7)
    assert not torch.allclose(together, net(images, KEYS[6:12]))
    torch.testing.assert_close(net.eval()(images), net(images, KEYS[:6]))
