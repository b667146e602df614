"""What training does to an image: scale, crop, flip, colour (VGG section 3.1, AlexNet section 4.1)."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from alexvgg.config import Scale, pixels
from alexvgg.data.decode import Pixels, crop, resized_size


@dataclass(frozen=True)
class Augmentation:
    """`scale` is the paper's S; `side` the crop in pixels; `flip` False where mirror images differ in class."""

    scale: Scale
    side: int
    flip: bool
    colour_std: float
    colour_axes: NDArray[np.float64]  # (3, 3): column i is principal component i times its standard deviation


def training_view(image: Image.Image, augmentation: Augmentation, key: int) -> tuple[Pixels, NDArray[np.float32]]:
    """A random view: uint8 (3, side, side), and the colour shift float32 (3,) to add, in units of 1/255.

    A pure function of its arguments: `key` alone decides what is random.
    """
    a = augmentation
    random = np.random.Generator(np.random.Philox(key=key & (2**64 - 1)))
    scale = a.scale if isinstance(a.scale, int) else int(random.integers(a.scale[0], a.scale[1] + 1))
    shorter = pixels(scale, a.side)
    width, height = resized_size(image.width, image.height, shorter)
    x, y = (int(random.integers(0, length - a.side + 1)) for length in (width, height))
    view = crop(image, shorter, a.side, x, y)
    if random.random() < 0.5 and a.flip:
        view = view[:, :, ::-1]
    shift = a.colour_axes @ random.normal(0.0, a.colour_std, 3)
    return view, shift.astype(np.float32)


def central_view(image: Image.Image, scale: int, side: int) -> Pixels:
    """The centre crop at Q=`scale`: uint8 (3, side, side)."""
    shorter = pixels(scale, side)
    width, height = resized_size(image.width, image.height, shorter)
    return crop(image, shorter, side, (width - side) // 2, (height - side) // 2)
