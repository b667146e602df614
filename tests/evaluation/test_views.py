"""Views against torchvision's and a plain loop over crops; posteriors averaged after the softmax."""

import numpy as np
import pytest
import torch
from torch import Tensor
from torchvision.transforms.v2.functional import center_crop, five_crop, ten_crop

from alexvgg.evaluation.views import (
    corner_places,
    crop_posteriors,
    grid_places,
    whole_posteriors,
)


def net(images: Tensor) -> Tensor:
    """Scores that depend on where in the view which pixel is."""
    ramp = torch.linspace(-1, 1, images.shape[2])[:, None] + torch.linspace(0, 3, images.shape[3])[None, :] ** 2
    return torch.cat([(images * ramp).mean(dim=(2, 3)), images.mean(dim=(1, 2, 3))[:, None]], dim=1) * 40


def softmax(scores: Tensor) -> np.ndarray:
    exp = np.exp(scores.numpy().astype(np.float64))
    return np.asarray(exp / exp.sum(axis=1, keepdims=True))


@pytest.mark.parametrize("size", [(256, 341), (341, 256), (256, 256), (257, 256), (73, 100)])
def test_corner_places_are_torchvisions_five_crops_of_the_central_square(size: tuple[int, int]) -> None:
    square = min(size)
    side = square * 7 // 8
    image = torch.arange(size[0] * size[1]).reshape(1, *size)
    got = [image[:, t : t + side, x : x + side] for t, x in corner_places(*size, side, square)]
    expected = five_crop(center_crop(image, [square, square]), [side, side])
    for g, e in zip(got, expected, strict=True):
        assert torch.equal(g, e)


@pytest.mark.parametrize("views_per_batch", [1, 7, 100])
def test_ten_crop_is_torchvisions(views_per_batch: int) -> None:
    images = torch.randn(3, 3, 37, 37, generator=torch.Generator().manual_seed(0))
    got = crop_posteriors(net, images, corner_places(37, 37, 32, 37), 32, flip=True, views_per_batch=views_per_batch)
    crops = ten_crop(images, [32, 32])
    assert len(crops) == 10
    np.testing.assert_allclose(got.numpy(), np.mean([softmax(net(c)) for c in crops], axis=0), rtol=1e-4)


def test_the_grid_spans_the_image_evenly() -> None:
    places = grid_places(256, 341, 224)
    assert len(places) == 25
    assert sorted({top for top, _ in places}) == [0, 8, 16, 24, 32]
    assert sorted({left for _, left in places}) == [0, 29, 58, 88, 117]
    assert set(grid_places(224, 224, 224)) == {(0, 0)}


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("size", [(37, 49), (32, 32), (55, 33)])
def test_multi_crop_is_a_loop_over_crops(flip: bool, size: tuple[int, int]) -> None:
    images = torch.randn(3, 3, *size, generator=torch.Generator().manual_seed(1))
    got = crop_posteriors(net, images, grid_places(*size, 32), 32, flip=flip, views_per_batch=16)
    for image, mean in zip(images, got, strict=True):
        crops = []
        for seen in (image, image.flip(2)) if flip else (image,):
            for i in range(5):
                for j in range(5):
                    top, left = round(i * (size[0] - 32) / 4), round(j * (size[1] - 32) / 4)
                    crops.append(softmax(net(seen[None, :, top : top + 32, left : left + 32]))[0])
        assert len(crops) == (50 if flip else 25)
        np.testing.assert_allclose(mean.numpy(), np.mean(crops, axis=0), rtol=1e-4)


def test_softmax_comes_before_the_average() -> None:
    scores = torch.tensor([[8.0, 0.0], [0.0, 2.0]])
    got = whole_posteriors(lambda _: scores, torch.zeros(1, 3, 2, 2), flip=True)
    np.testing.assert_allclose(got.numpy(), softmax(scores).mean(axis=0, keepdims=True), rtol=1e-12)


def test_without_flips_no_mirror_image_is_seen() -> None:
    images = torch.randn(2, 3, 9, 7)
    np.testing.assert_allclose(whole_posteriors(net, images, flip=False).numpy(), softmax(net(images)), rtol=1e-4)


@pytest.mark.parametrize("method", ["dense", "multicrop", "tencrop"])
def test_an_image_and_its_mirror_image_get_the_same_answer(method: str) -> None:
    images = torch.randn(2, 3, 38, 51)
    places = {"multicrop": grid_places(38, 51, 32), "tencrop": corner_places(38, 51, 32, 38)}

    def answer(seen: Tensor) -> Tensor:
        if method == "dense":
            return whole_posteriors(net, seen, flip=True)
        return crop_posteriors(net, seen, places[method], 32, flip=True, views_per_batch=1000)

    torch.testing.assert_close(answer(images), answer(images.flip(3)), rtol=1e-6, atol=0)
