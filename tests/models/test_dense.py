"""The dense form against the net itself and against scores computed one shift at a time."""

import numpy as np
import pytest
import torch

from alexvgg.models import build
from alexvgg.models.dense import Dense


@pytest.mark.parametrize(
    ("name", "crop"),
    [("vgg_c", 32), ("vgg_e", 64), ("vgg_a_lrn", 32), ("alexnet", 64), ("alexnet_half", 64), ("fourlayer_tanh", 32)],
)
def test_on_one_crop_it_is_the_net(name: str, crop: int) -> None:
    torch.manual_seed(0)
    net = build(name, num_classes=7, width=0.125, crop=crop).eval()
    images = torch.randn(2, 3, crop, crop)
    with torch.inference_mode():
        torch.testing.assert_close(Dense(net)(images), net(images), rtol=1e-4, atol=1e-6)


def test_at_the_papers_crop_it_is_the_net() -> None:
    torch.manual_seed(0)
    net = build("vgg_a", num_classes=7, width=0.0625, crop=224).eval()
    images = torch.randn(2, 3, 224, 224)
    with torch.inference_mode():
        torch.testing.assert_close(Dense(net)(images), net(images), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("name", "size"), [("vgg_a", (256, 341)), ("vgg_a", (333, 287)), ("alexnet", (300, 259))])
def test_at_odd_sizes_it_is_the_mean_of_sliding_windows(name: str, size: tuple[int, int]) -> None:
    """Against the net's own head on every window of the feature maps, one window after the other."""
    torch.manual_seed(0)
    net = build(name, num_classes=7, width=0.0625, crop=224).eval()
    images = torch.randn(2, 3, *size)
    with torch.inference_mode():
        maps, side = net.maps(images), net.classifier.side
        rows, columns = maps.shape[2] - side + 1, maps.shape[3] - side + 1
        assert rows * columns > 1
        scores = [
            net.classifier(maps[:, :, r : r + side, c : c + side].flatten(1), None)
            for r in range(rows)
            for c in range(columns)
        ]
        torch.testing.assert_close(Dense(net)(images), torch.stack(scores).mean(dim=0), rtol=1e-5, atol=1e-6)


def test_small_crops_are_scored_as_densely_as_the_papers() -> None:
    torch.manual_seed(0)
    net = build("vgg_b", num_classes=5, width=0.125, crop=32).eval()
    images = torch.randn(2, 3, 69, 45)
    offsets = [0, 4, 9, 13, 18, 22, 27]  # 32 / 7 pixels apart
    scores = []
    with torch.inference_mode():
        for top in offsets:
            for left in offsets:
                if left + 32 <= 45:
                    maps = net.features(images[:, :, top:, left:])  # (2, 64, rows, 1)
                    for row in range(maps.shape[2]):
                        for column in range(maps.shape[3]):
                            scores.append(net.classifier(maps[:, :, row, column], None))
        expected = torch.stack(scores).mean(dim=0)
        assert len(scores) == 4 * (2 + 2 + 5)
        torch.testing.assert_close(Dense(net)(images), expected)


def test_the_papers_crop_needs_no_shifts() -> None:
    assert Dense(build("vgg_a", num_classes=2, width=0.01)).shifts == [0]


@pytest.mark.parametrize("size", [(64, 64), (224, 90)])
def test_every_part_of_the_image_counts(size: tuple[int, int]) -> None:
    torch.manual_seed(0)
    net = build("vgg_a", num_classes=3, width=0.125, crop=64).eval()
    images = torch.randn(1, 3, *size, requires_grad=True)
    Dense(net)(images).sum().backward()
    assert images.grad is not None
    seen = np.asarray(images.grad[0].abs().sum(dim=0) > 0)
    assert seen[:, :64].mean() > 0.95
