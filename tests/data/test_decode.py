"""Which bytes are images, and whose pixels."""

import io
from typing import Any

import numpy as np
import pytest
import simplejpeg
from pictures import photograph
from PIL import Image

from alexvgg.data import decode as decoding
from alexvgg.data.decode import UndecodableError, decode


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


@pytest.mark.parametrize(("mode", "kind"), [
    ("RGB", "JPEG"), ("CMYK", "JPEG"), ("L", "JPEG"), ("RGB", "PNG"), ("RGBA", "PNG"), ("P", "PNG"), ("RGB", "WEBP"),
])  # fmt: skip
def test_valid_images(mode: str, kind: str) -> None:
    image = photograph(64, 48)
    got = decode(encoded(image.convert(mode), kind))
    assert (got.dtype, got.shape) == (np.uint8, (48, 64, 3))
    if mode in ("RGB", "CMYK"):
        assert np.abs(got.astype(float) - np.asarray(image, float)).mean() < 16


@pytest.mark.parametrize("subsampling", [0, 1, 2])
@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_a_jpeg_has_the_pixels_that_pillow_gives_it(mode: str, subsampling: int, progressive: bool) -> None:
    file = io.BytesIO()
    photograph(101, 67).convert(mode).save(file, "JPEG", subsampling=subsampling, progressive=progressive)
    expected = np.asarray(Image.open(file).convert("RGB"), float)
    assert np.abs(decode(file.getvalue()) - expected).mean() < 0.1


@pytest.fixture
def poison(monkeypatch: pytest.MonkeyPatch) -> int:
    """What new memory holds meanwhile: an image that is decoded anew could get its old pixels back."""
    monkeypatch.setattr(np, "empty", lambda shape, dtype: np.full(shape, 170, dtype))
    return 170


JPEGS = {
    **{kind: simplejpeg.encode_jpeg(np.asarray(photograph(101, 67)), colorsubsampling=kind)
       for kind in ("444", "422", "420", "440", "411")},
    "progressive": encoded(photograph(101, 67), "JPEG", progressive=True),
    "grey": encoded(photograph(101, 67).convert("L"), "JPEG"),
    "restarts": encoded(photograph(101, 67), "JPEG", restart_marker_rows=1, comment=b"of some length"),
}  # fmt: skip


@pytest.mark.parametrize("data", JPEGS.values(), ids=JPEGS)
def test_of_a_jpeg_only_the_rows_down_to_the_bottom_are_decoded(data: bytes, poison: int) -> None:
    whole = decode(data)
    for bottom in range(1, 67):
        got = decode(data, lambda _width, _height, bottom=bottom: bottom)
        np.testing.assert_array_equal(got[:bottom], whole[:bottom])
        assert (got[bottom + decoding.CONTEXT :] == poison).all()
    np.testing.assert_array_equal(decode(data, lambda width, height: width + height), whole)


def test_what_cannot_be_shortened_is_decoded_whole() -> None:
    def one(_width: int, _height: int) -> int:
        return 1

    jpeg, png = encoded(photograph(64, 48), "JPEG"), encoded(photograph(64, 48), "PNG")
    np.testing.assert_array_equal(decode(png, one), decode(png))
    np.testing.assert_array_equal(decode(jpeg + b"\0", one), decode(jpeg))
    filled = jpeg[:2] + b"\xff" + jpeg[2:]  # the format allows such before a mark
    np.testing.assert_array_equal(decode(filled, one), decode(jpeg))
    with pytest.raises(UndecodableError, match="truncated"):
        decode(jpeg[:700], one)


def test_what_simplejpeg_refuses_pillow_may_read() -> None:
    data = encoded(photograph(64, 48), "JPEG")
    odd = data[:-2] + b"\0\0\0" + data[-2:]  # bytes before the end mark, as some cameras leave them
    with pytest.raises(ValueError, match="extraneous"):
        simplejpeg.decode_jpeg(odd)
    np.testing.assert_array_equal(decode(odd), decode(data))


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
    monkeypatch.undo()
    for kind in ("PNG", "JPEG"):
        with pytest.raises(UndecodableError, match=r"909x9 pixels are over the limits: .* 100 times"):
            decode(encoded(photograph(909, 9), kind))
        assert decode(encoded(photograph(900, 9), kind)).shape == (9, 900, 3)
    monkeypatch.setattr(decoding, "MAX_BYTES", len(data) - 1)
    with pytest.raises(UndecodableError, match="bytes are over the limit"):
        decode(data)
