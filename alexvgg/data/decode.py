"""Image bytes to pixels, and from pixels to views: only listed types, only sane sizes, no other code runs."""

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from numpy.typing import NDArray
from PIL import Image

TYPES = ("JPEG", "PNG", "WEBP")
EXTENSIONS = ("jpg", "jpeg", "png", "webp")
MAX_BYTES = 64 << 20
MAX_PIXELS = 100_000_000
RESAMPLE = Image.Resampling.BILINEAR  # with antialiasing, as Pillow does it: the project's one resampler

Pixels = NDArray[np.uint8]


class UndecodableError(ValueError):
    """No listed decoder can read these bytes."""


def decode(data: bytes, at_least: int | None = None) -> Image.Image:
    """An RGB image. CMYK, greyscale and a PNG that is named .JPEG are all valid. Raises UndecodableError.

    With `at_least`, a JPEG of more than twice that many pixels on both sides is decoded at 1/2, 1/4 or 1/8 of its size.
    """
    with _sentences():
        image = _open(data)
        if at_least is not None:
            image.draft("RGB", (at_least, at_least))
        return image.convert("RGB")


def can_open(data: bytes) -> bool:
    """Whether the header is of an image that `decode` takes; its pixels aren't decoded."""
    try:
        with _sentences():
            _open(data)
    except UndecodableError:
        return False
    return True


def _open(data: bytes) -> Image.Image:
    if len(data) > MAX_BYTES:
        raise UndecodableError(f"{len(data)} bytes are over the limit of {MAX_BYTES}")
    image = Image.open(io.BytesIO(data), formats=TYPES)
    if image.width * image.height > MAX_PIXELS:
        raise UndecodableError(f"{image.width}x{image.height} pixels are over the limit of {MAX_PIXELS}")
    return image


@contextmanager
def _sentences() -> Iterator[None]:
    """Whatever Pillow raises as UndecodableError: its decoders raise many types on damaged data."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about EXIF and the like; what matters raises
            yield
    except UndecodableError:
        raise
    except Exception as error:
        raise UndecodableError(f"{type(error).__name__}: {error}") from error


def resized_size(width: int, height: int, shorter: int) -> tuple[int, int]:
    """(width, height) when the shorter side becomes `shorter` pixels, isotropically (VGG section 3.1)."""
    if width <= height:
        return shorter, max(shorter, round(height * shorter / width))
    return max(shorter, round(width * shorter / height)), shorter


def whole(image: Image.Image, shorter: int) -> Pixels:
    """The image at a shorter side of `shorter` pixels: uint8 (3, h, w)."""
    return _planes(image.resize(resized_size(image.width, image.height, shorter), RESAMPLE))


def crop(image: Image.Image, shorter: int, side: int, x: int, y: int) -> Pixels:
    """The square at (x, y) of `whole(image, shorter)`, resizing only that part: uint8 (3, side, side)."""
    width, height = resized_size(image.width, image.height, shorter)
    sx, sy = image.width / width, image.height / height
    box = (x * sx, y * sy, min((x + side) * sx, image.width), min((y + side) * sy, image.height))
    return _planes(image.resize((side, side), RESAMPLE, box=box))


def _planes(image: Image.Image) -> Pixels:
    return np.ascontiguousarray(np.asarray(image).transpose(2, 0, 1))
