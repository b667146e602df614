"""From views of an image to its posteriors: dense, multi-crop (VGG section 3.2) and 10-crop (AlexNet section 4.1).

Every method sees the image and, where mirror images keep their class, its mirror image, and averages softmax
posteriors. Mirroring comes first and views second, so that an image and its mirror image get the same answer.
"""

from collections.abc import Callable, Sequence
from typing import Literal, get_args

import torch
from torch import Tensor

Method = Literal["dense", "multicrop", "tencrop"]
METHODS: tuple[Method, ...] = get_args(Method)

GRID = 5  # crops along each side of multi-crop evaluation: 50 views of a scale with flips

Scores = Callable[[Tensor], Tensor]  # images (N, 3, h, w) -> class scores (N, classes)


def with_mirror_images(images: Tensor, *, flip: bool) -> Tensor:
    """(N, 3, h, w), or (2N, 3, h, w) with the mirror images behind the images if `flip`.

    Channels last: convolutions are up to 1.7 times faster so, on CPUs too.
    """
    both = torch.cat([images, images.flip(3)]) if flip else images
    return both.contiguous(memory_format=torch.channels_last)


def whole_posteriors(dense: Scores, images: Tensor, *, flip: bool) -> Tensor:
    """Posteriors float64 (N, classes) of normalised whole images (N, 3, h, w) through the fully convolutional net."""
    return _mean_over_mirror_images(_softmax(dense(with_mirror_images(images, flip=flip))), len(images))


def crop_posteriors(
    net: Scores, images: Tensor, places: Sequence[tuple[int, int]], side: int, *, flip: bool, views_per_batch: int
) -> Tensor:
    """Posteriors float64 (N, classes), averaged over the crops of `side` pixels at `places` (top, left)."""
    n = len(images)
    images = with_mirror_images(images, flip=flip)
    together = max(1, views_per_batch // len(images))
    total = torch.zeros((), dtype=torch.float64, device=images.device)
    for start in range(0, len(places), together):
        crops = [images[:, :, top : top + side, left : left + side] for top, left in places[start : start + together]]
        posteriors = _softmax(net(torch.cat(crops)))
        total = total + posteriors.view(len(crops), len(images), -1).sum(dim=0)
    return _mean_over_mirror_images(total / len(places), n)


def grid_places(height: int, width: int, side: int) -> list[tuple[int, int]]:
    """The 5x5 regular grid of crops over the whole image: (top, left) of each."""
    tops, lefts = ([round(i * (length - side) / (GRID - 1)) for i in range(GRID)] for length in (height, width))
    return [(top, left) for top in tops for left in lefts]


def corner_places(height: int, width: int, side: int, square: int) -> list[tuple[int, int]]:
    """The four corners and the centre of the central square of `square` pixels: (top, left) of each.

    AlexNet takes its crops from the central 256x256 of an image whose shorter side is 256 (section 2).
    """
    top, left = _central(height, square), _central(width, square)
    last, middle = square - side, _central(square, side)
    inside = [(0, 0), (0, last), (last, 0), (last, last), (middle, middle)]
    return [(top + y, left + x) for y, x in inside]


def _central(length: int, part: int) -> int:
    return round((length - part) / 2)


def _softmax(scores: Tensor) -> Tensor:
    return scores.double().softmax(dim=1)


def _mean_over_mirror_images(posteriors: Tensor, images: int) -> Tensor:
    return posteriors if len(posteriors) == images else (posteriors[:images] + posteriors[images:]) / 2
