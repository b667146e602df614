"""Which bytes are images, and views against Pillow resizing the whole image first."""

import io

import numpy as np
import pytest
from PIL import Image

from alexvgg.data import decode as decoding
from alexvgg.data.decode import UndecodableError, crop, decode, resized_size, whole


def photograph(width: int, height: int) -> Image.Image:
    """Smooth structure and noise, as a photograph has."""
    random = np.random.default_rng(0)
    coarse = Image.fromarray(random.integers(0, 256, (height // 16 + 1, width // 16 + 1, 3), dtype=np.uint8))
    smooth = np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC), float)
    return Image.fromarray(np.clip(smooth + random.normal(0, 8, smooth.shape), 0, 255).astype(np.uint8))


def encoded(image: Image.Image, kind: str) -> bytes:
    file = io.BytesIO()
    image.save(file, kind)
    return file.getvalue()


@pytest.mark.parametrize(("mode", "kind"), [
    ("RGB", "JPEG"), ("CMYK", "JPEG"), ("L", "JPEG"), ("RGB", "PNG"), ("RGBA", "PNG"), ("P", "PNG"), ("RGB", "WEBP"),
])  # fmt: skip
def test_valid_images(mode: str, kind: str) -> None:
    image = photograph(64, 48)
    got = decode(encoded(image.convert(mode), kind))
    assert (got.mode, got.size) == ("RGB", (64, 48))
    if mode in ("RGB", "CMYK"):
        assert np.abs(np.asarray(got, float) - np.asarray(image, float)).mean() < 16


@pytest.mark.parametrize("data", [b"", b"not an image", encoded(photograph(64, 64), "JPEG")[:700],
                                  encoded(photograph(8, 8), "GIF"), encoded(photograph(8, 8), "BMP")])  # fmt: skip
def test_everything_else_is_undecodable(data: bytes) -> None:
    with pytest.raises(UndecodableError):
        decode(data)


def test_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    data = encoded(photograph(64, 48), "PNG")
    monkeypatch.setattr(decoding, "MAX_PIXELS", 64 * 48 - 1)
    with pytest.raises(UndecodableError, match="64x48 pixels"):
        decode(data)
    monkeypatch.setattr(decoding, "MAX_BYTES", len(data) - 1)
    with pytest.raises(UndecodableError, match="bytes are over the limit"):
        decode(data)


@pytest.mark.parametrize(("size", "expected"), [
    ((500, 375), (341, 256)), ((375, 500), (256, 341)), ((8, 8), (256, 256)),
    ((257, 256), (257, 256)), ((1000, 1), (256_000, 256)),
])  # fmt: skip
def test_shorter_side_becomes_s(size: tuple[int, int], expected: tuple[int, int]) -> None:
    assert resized_size(*size, 256) == expected


@pytest.mark.parametrize("shorter", [256, 384, 512])
@pytest.mark.parametrize("size", [(500, 375), (375, 500), (333, 500)])
def test_crop_is_the_same_part_of_the_whole(size: tuple[int, int], shorter: int) -> None:
    image = photograph(*size)
    reference = image.resize(resized_size(*size, shorter), Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(whole(image, shorter), np.asarray(reference).transpose(2, 0, 1))
    width, height = reference.size
    for x, y in [(0, 0), (width - 224, height - 224), (17, 31)]:
        expected = np.asarray(reference.crop((x, y, x + 224, y + 224)), float).transpose(2, 0, 1)
        got = crop(image, shorter, 224, x, y)
        assert got.shape == (3, 224, 224)
        assert np.abs(got - expected).mean() <= 1.0
