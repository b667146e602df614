"""Image bytes to pixels: only listed types, only sane sizes, no other code runs.

JPEGs go through simplejpeg, the fastest of the decoders in `make bench NAME=decode`; all else, and what it refuses,
goes through Pillow, whose word is final.
"""

import io
import warnings
from collections.abc import Callable, Iterator
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
JPEG_MARK, JPEG_END = b"\xff\xd8\xff", b"\xff\xd9"
FRAMES = (b"\xff\xc0", b"\xff\xc1", b"\xff\xc2")  # marks of the header that has the size
SEGMENTS = {bytes((0xFF, mark)) for mark in (0xC4, 0xDB, 0xDD, *range(0xE0, 0xF0), 0xFE)}  # what comes before it
CONTEXT = 2  # rows of a JPEG's colours, of which there may be half as many, that a row above them depends on

Pixels = NDArray[np.uint8]
Bottom = Callable[[int, int], int]  # of an image's width and height


class UndecodableError(ValueError):
    """No listed decoder can read these bytes."""


def decode(data: bytes, bottom: Bottom | None = None) -> Pixels:
    """RGB pixels, uint8 (h, w, 3). CMYK, greyscale and a PNG that is named .JPEG are all valid.

    Rows from `bottom` on, if it is given, may hold anything: to a view that ends there, decoding them is lost time.
    Raises UndecodableError.
    """
    if len(data) > MAX_BYTES:
        raise UndecodableError(f"{len(data)} bytes are over the limit of {MAX_BYTES}")
    if (size := _simple_size(data)) is not None:
        with suppress(ValueError):
            return _decode_simple(data, size, bottom)
    return _decode_by_pillow(data)


def can_open(data: bytes) -> bool:
    """Whether the header is of an image that `decode` takes; its pixels aren't decoded."""
    if _simple_size(data) is not None:
        return True
    try:
        with _sentences():
            _open(data)
    except UndecodableError:
        return False
    return True


def _simple_size(data: bytes) -> tuple[int, int] | None:
    """Width and height, if simplejpeg takes these bytes as far as their header says."""
    if not data.startswith(JPEG_MARK):
        return None
    try:
        height, width, colours, _ = simplejpeg.decode_jpeg_header(data)
    except ValueError:
        return None
    return (width, height) if _is_sane(width, height) and colours in ("YCbCr", "Gray") else None


def _decode_simple(data: bytes, size: tuple[int, int], bottom: Bottom | None) -> Pixels:
    width, height = size
    rows = height if bottom is None else bottom(width, height) + CONTEXT
    if rows >= height or (shorter := _shortened(data, rows)) is None:
        pixels: Pixels = simplejpeg.decode_jpeg(data, "RGB")
        return pixels
    pixels = np.empty((height, width, 3), np.uint8)
    simplejpeg.decode_jpeg(shorter, "RGB", buffer=pixels[:rows], strict=False)  # strict, it minds what is left over
    return pixels


def _shortened(data: bytes, rows: int) -> bytearray | None:
    """A JPEG of the first `rows` rows: the same bytes, but for the height in its header. A decoder stops there.

    None if there is no such header, or if the end is missing: what was cut must be noticed.
    """
    if not data.endswith(JPEG_END):
        return None
    at = 2
    while (mark := data[at : at + 2]) in SEGMENTS:
        at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    if mark not in FRAMES:
        return None
    shorter = bytearray(data)
    shorter[at + 5 : at + 7] = rows.to_bytes(2, "big")  # after the mark, a length of two bytes and the precision
    return shorter


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
