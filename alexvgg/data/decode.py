"""Image bytes to pixels: only listed types, only sane sizes, no other code runs.

JPEGs go through simplejpeg, the fastest of the decoders in `make bench NAME=decode`; all else, and what it refuses,
goes through Pillow, whose word is final.
"""

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

EXTENSIONS = ("jpg", "jpeg", "png", "webp")
TYPES = ("JPEG", "PNG", "WEBP")
MAX_BYTES = 64 << 20
MAX_PIXELS = 100_000_000
MAX_ASPECT = 100  # times as long as wide: rescaled to a usable shorter side, it would fill the memory
JPEG_MARK = b"\xff\xd8\xff"

Pixels = NDArray[np.uint8]


class UndecodableError(ValueError):
    """No listed decoder can read these bytes."""


def decode(data: bytes) -> Pixels:
    """RGB pixels, uint8 (h, w, 3). CMYK, greyscale and a PNG that is named .JPEG are all valid.

    Raises UndecodableError.
    """
    if len(data) > MAX_BYTES:
        raise UndecodableError(f"{len(data)} bytes are over the limit of {MAX_BYTES}")
    if _is_simple(data):
        with suppress(ValueError):
            pixels: Pixels = simplejpeg.decode_jpeg(data, "RGB")
            return pixels
    return _decode_by_pillow(data)


def can_open(data: bytes) -> bool:
    """Whether the header is of an image that `decode` takes; its pixels aren't decoded."""
    if _is_simple(data):
        return True
    try:
        with _sentences():
            _open(data)
    except UndecodableError:
        return False
    return True


def _is_simple(data: bytes) -> bool:
    """Whether simplejpeg takes these bytes, as far as their header says."""
    if not data.startswith(JPEG_MARK):
        return False
    try:
        height, width, colours, _ = simplejpeg.decode_jpeg_header(data)
    except ValueError:
        return False
    return bool(_is_sane(width, height) and colours in ("YCbCr", "Gray"))


def _decode_by_pillow(data: bytes) -> Pixels:
    with _sentences():
        return np.array(_open(data).convert("RGB"))


def _open(data: bytes) -> Image.Image:
    image = Image.open(io.BytesIO(data), formats=TYPES)
    if not _is_sane(image.width, image.height):
        limits = f"{MAX_PIXELS:,} pixels, {MAX_ASPECT} times as long as wide"
        raise UndecodableError(f"{image.width}x{image.height} pixels are over the limits: {limits}")
    return image


def _is_sane(width: int, height: int) -> bool:
    return width * height <= MAX_PIXELS and max(width, height) <= MAX_ASPECT * min(width, height)


@contextmanager
def _sentences() -> Iterator[None]:
    """Whatever Pillow raises as UndecodableError: its decoders raise many types on damaged data."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about EXIF and the like; what matters raises
            yield
    except UndecodableError:
        raise
    except UnidentifiedImageError:  # its words are about the buffer that the bytes are in
        raise UndecodableError("the bytes aren't of such an image") from None
    except Exception as error:
        raise UndecodableError(f"{type(error).__name__}: {error}") from error
