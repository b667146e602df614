"""Parts and sizes of an image: rescaled so that the shorter side is S or Q, whole or cropped (VGG section 3.1).

All pixels are uint8; images come as (h, w, 3), views go out as (3, h, w) for a net.
"""

import math

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

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


def random_crop(image: Pixels, shorter: int, side: int, right: float, down: float) -> Pixels:
    """A square of the image at a shorter side of `shorter` pixels, resizing only that part: uint8 (3, side, side).

    `right` and `down`, each in [0; 1), say how far from the upper left corner. The corner lies on a pixel of the image
    itself, not of the rescaled one: a shift of less than a pixel, which lets PyTorch's resampler do it, three times
    as fast as Pillow's. An image that is enlarged a lot has too few pixels for that.

    PyTorch does nothing but that: each of its operations hands over the interpreter lock, for which many threads queue.
    """
    height, width, _ = image.shape
    scale = min(width, height) / shorter  # source pixels per view pixel
    part = side * scale
    x, y = _start(width, part, scale, right), _start(height, part, scale, down)
    stop = math.ceil(part) + 1  # the antialiasing of the last view pixel may need one pixel more
    factor = (1 + 1e-9) / scale  # a hair more, so that rounding never costs the last view pixel
    kept = int(stop * factor) == stop  # which PyTorch takes for nothing to do, though pixels should be between others
    if kept or scale < ENLARGED:
        return _resized(image, side, (x, y, x + part, y + part))
    source = image[int(y) : int(y) + stop, int(x) : int(x) + stop].transpose(2, 0, 1)
    view = F.interpolate(
        torch.from_numpy(source[None]), scale_factor=factor, mode="bilinear", antialias=True,
        recompute_scale_factor=False,
    )  # fmt: skip
    return view.numpy()[0, :, :side, :side]


def crop_bottom(width: int, height: int, shorter: int, side: int, down: float) -> int:
    """Below the last row of the image, of that size, that `random_crop` looks at."""
    scale = min(width, height) / shorter
    part = side * scale
    return math.ceil(_start(height, part, scale, down) + part + max(1.0, scale)) + 1  # Pillow blurs over the edge


def _start(length: int, part: float, scale: float, share: float) -> float:
    """Where `part` of `length` source pixels begins, of all places that it can."""
    grid = 1.0 if scale >= ENLARGED else scale
    return grid * int(share * (int((length - part) / grid + 1e-6) + 1))


def _resized(image: Pixels, side: int, box: tuple[float, float, float, float]) -> Pixels:
    height, width, _ = image.shape
    left, upper, right, lower = box
    inside = (left, upper, min(right, width), min(lower, height))
    return _planes(Image.fromarray(image).resize((side, side), RESAMPLE, box=inside))


def _planes(image: Image.Image) -> Pixels:
    return np.ascontiguousarray(np.asarray(image).transpose(2, 0, 1))
