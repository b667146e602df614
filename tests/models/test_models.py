"""Layer tables against the papers' numbers, torchvision's nets and a NumPy float64 LRN."""

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from alexvgg.architectures import MODEL_NAMES, architecture
from alexvgg.models import build
from alexvgg.models.layers import LocalResponseNorm

# Parameters and forward multiply-accumulates at 224, computed by hand from the layer tables.
EXPECTED = {
    "vgg_a": (11, 132_863_336, 7_609_090_048),
    "vgg_a_lrn": (11, 132_863_336, 7_609_090_048),
    "vgg_b": (13, 133_047_848, 11_308_466_176),
    "vgg_b_shallow": (8, 134_503_528, 9_356_017_664),
    "vgg_c": (16, 133_638_952, 11_770_888_192),
    "vgg_d": (16, 138_357_544, 15_470_264_320),
    "vgg_e": (19, 143_667_240, 19_632_062_464),
    "alexnet": (8, 60_965_224, 724_406_816),
    "alexnet_no_lrn": (8, 60_965_224, 724_406_816),
    "alexnet_no_overlap": (8, 60_965_224, 724_406_816),
    "alexnet_half": (8, 59_798_312, 391_514_384),
    "alexnet_no_conv3": (7, 59_858_920, 537_506_336),
    "alexnet_no_conv4": (7, 60_301_288, 612_266_528),
}


def test_four_layers_for_cifar() -> None:
    for name in ("fourlayer_relu", "fourlayer_tanh"):
        got = architecture(name, num_classes=10, crop=32)
        # 32*75+32, 32*800+32, 64*800+64, 576*10+10; at sides of 32, 15, 7, and pooled to 3
        assert (got.weight_layers, got.params) == (4, 2_432 + 25_632 + 51_264 + 5_770)
        assert got.macs == 2_400 * 32**2 + 25_600 * 15**2 + 51_200 * 7**2 + 5_760


@pytest.mark.parametrize("name", EXPECTED)
def test_counts_are_the_papers(name: str) -> None:
    got = architecture(name)
    assert (got.weight_layers, got.params, got.macs) == EXPECTED[name]


@pytest.mark.parametrize("name", MODEL_NAMES)
def test_modules_are_what_the_tables_count(name: str) -> None:
    found = architecture(name, num_classes=7, width=1 / 8, crop=96)
    net = build(name, num_classes=7, width=1 / 8, crop=96).eval()
    assert sum(p.numel() for p in net.parameters()) == found.params
    assert sum(isinstance(m, torch.nn.Conv2d | torch.nn.Linear) for m in net.modules()) == found.weight_layers
    with FlopCounterMode(display=False) as flops, torch.no_grad():
        for norm in [m for m in net.features if isinstance(m, LocalResponseNorm)]:
            norm.forward = lambda a: a  # type: ignore[method-assign]  # its 1x1 convolution isn't counted
        assert net(torch.zeros(1, 3, 96, 96)).shape == (1, 7)
    assert flops.get_total_flops() == 2 * found.macs


def test_lrn_is_the_papers_formula() -> None:
    a = np.random.default_rng(0).normal(0, 30, (2, 12, 3, 4))
    expected = np.empty_like(a)
    for i in range(12):
        window = a[:, max(0, i - 2) : min(11, i + 2) + 1]
        expected[:, i] = a[:, i] / (2 + 1e-4 * (window**2).sum(axis=1)) ** 0.75
    got = LocalResponseNorm()(torch.from_numpy(a)).numpy()
    np.testing.assert_allclose(got, expected, rtol=1e-12)
    torchs = torch.nn.LocalResponseNorm(5, alpha=5e-4, beta=0.75, k=2.0)(torch.from_numpy(a)).numpy()
    np.testing.assert_allclose(got, torchs, rtol=1e-12)


@pytest.mark.parametrize("crop", [31, 48])
def test_impossible_crop_is_refused(crop: int) -> None:
    with pytest.raises(ValueError, match="multiple of 32"):
        build("vgg_a", crop=crop)


def test_unknown_model_names_the_known_ones() -> None:
    with pytest.raises(ValueError, match="no model 'vgg_f'; did you mean 'vgg_"):
        build("vgg_f")
