"""Parts and sizes of an image: rescaled so that the shorter side is S or Q, whole or cropped (VGG section 3.1).

All pixels are uint8; images come as (h, w, 3), views go out as (3, h, w) for a net.
"""

import math

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from alexvgg.data.decode import Pixels

# Bilinear with antialiasing, as Pillow defines it: the project's one resampler. PyTorch's is the same, with SIMD.
RESAMPLE = Image.Resampling.BILINEAR
ENLARGED = 0.5  # source pixels per view pixel; below, the grid of source pixels is too coarse to place a crop on


def resized_size(width: int, height: int, shorter: int) -> tuple[int, int]:
    """(width, height) when the shorter side becomes `shorter` pixels, isotropically (VGG section 3.1)."""
    if width <= height:
        return shorter, max(shorter, round(height * shorter / width))
    return max(shorter, round(width * shorter / height)), shorter


def central_square(image: Pixels) -> Pixels:
    """Of which, rescaled to 256x256, AlexNet's training crops come (section 2)."""
    height, width, _ = image.shape
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    return image[top : top + side, left : left + side]


def whole(image: Pixels, shorter: int) -> Pixels:
    """The image at a shorter side of `shorter` pixels: uint8 (3, h, w)."""
    height, width, _ = image.shape
    return _planes(Image.fromarray(image).resize(resized_size(width, height, shorter), RESAMPLE))


def crop(image: Pixels, shorter: int, side: int, x: int, y: int) -> Pixels:
    """The square at (x, y) of `whole(image, shorter)`, resizing only that part: uint8 (3, side, side)."""
    height, width, _ = image.shape
    new_width, new_height = resized_size(width, height, shorter)
    sx, sy = width / new_width, height / new_height
    return _resized(image, side, (x * sx, y * sy, (x + side) * sx, (y + side) * sy))


def central(image: Pixels, shorter: int, side: int) -> Pixels:
    """The centre of `whole(image, shorter)`: uint8 (3, side, side)."""
    height, width, _ = image.shape
    new_width, new_height = resized_size(width, height, shorter)
    return crop(image, shorter, side, (new_width - side) // 2, (new_height - side) // 2)


def random_crop(image: Pixels, shorter: int, side: int, right: float, down: float) -> Tensor:
    """A square of the image at a shorter side of `shorter` pixels, resizing only that part: uint8 (3, side, side).

    `right` and `down`, each in [0; 1), say how far from the upper left corner. The corner lies on a pixel of the image
    itself, not of the rescaled one: a shift of less than a pixel, which lets PyTorch's resampler do it, three times
    as fast as Pillow's. An image that is enlarged a lot has too few pixels for that.
    """
    height, width, _ = image.shape
    scale = min(width, height) / shorter  # source pixels per view pixel
    part = side * scale
    grid = 1.0 if scale >= ENLARGED else scale
    x, y = (
        grid * int(share * (int((length - part) / grid + 1e-6) + 1))
        for share, length in ((right, width), (down, height))
    )
    stop = math.ceil(part) + 1  # the antialiasing of the last view pixel may need one pixel more
    factor = (1 + 1e-9) / scale  # a hair more, so that rounding never costs the last view pixel
    if grid != 1 or int(stop * factor) == stop:  # PyTorch copies what keeps its size, even if it should be rescaled
        return torch.from_numpy(_resized(image, side, (x, y, x + part, y + part)))
    source = torch.from_numpy(image)[int(y) : int(y) + stop, int(x) : int(x) + stop].permute(2, 0, 1)
    view = F.interpolate(
        source[None], scale_factor=factor, mode="bilinear", antialias=True, recompute_scale_factor=False
    )
    return view[0, :, :side, :side]


def _resized(image: Pixels, side: int, box: tuple[float, float, float, float]) -> Pixels:
    height, width, _ = image.shape
    left, upper, right, lower = box
    inside = (left, upper, min(right, width), min(lower, height))
    return _planes(Image.fromarray(image).resize((side, side), RESAMPLE, box=inside))


def _planes(image: Image.Image) -> Pixels:
    return np.ascontiguousarray(np.asarray(image).transpose(2, 0, 1))
