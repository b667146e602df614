"""Colour sums and the mean image against NumPy's mean and covariance."""

import io
from collections.abc import Iterable

import numpy as np
import pytest
from made import image
from numpy.typing import NDArray
from PIL import Image

from alexvgg.data.packing.colour import NONE, SHORTER, ColourSums, chosen, measure, measured
from alexvgg.errors import InputError


def correlated(n: int) -> NDArray[np.uint8]:
    mixing = np.array([[40.0, 10, 3], [5, 20, 9], [1, 2, 8]])
    return np.clip(np.random.default_rng(0).normal(size=(n, 3)) @ mixing + 100, 0, 255).astype(np.uint8)


def test_statistics_rebuild_mean_and_covariance() -> None:
    rgb = correlated(5000)
    stats = ColourSums.of(rgb).statistics()
    axes, std = np.array(stats["colour_axes"]), np.array(stats["colour_std"])
    np.testing.assert_allclose(axes @ np.diag(std**2) @ axes.T, np.cov(rgb.T.astype(float)), rtol=1e-4)
    np.testing.assert_allclose(axes.T @ axes, np.eye(3), atol=5e-6)
    assert list(std) == sorted(std, reverse=True)
    np.testing.assert_allclose(stats["mean_rgb"], rgb.mean(axis=0))


def test_statistics_do_not_depend_on_the_last_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Grey images have one axis. Of the others another processor may find another pair, and a tiny deviation."""
    grey = ColourSums.of(np.repeat(correlated(500)[:, :1], 3, axis=1))
    ours, eigh = grey.statistics(), np.linalg.eigh
    assert ours["colour_std"][1:] == [0, 0]
    assert np.array(ours["colour_axes"])[:, 0] == pytest.approx([3**-0.5] * 3, abs=1e-6)

    def other(matrix: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        values, vectors = eigh(matrix)
        return values + 1e-12, vectors[:, [1, 0, 2]] + 1e-15

    monkeypatch.setattr(np.linalg, "eigh", other)
    assert grey.statistics() == ours


def test_sums_are_exact_in_any_order() -> None:
    rgb = correlated(4001)
    parts = [ColourSums.of(rgb[i : i + 100]) for i in range(0, len(rgb), 100)]
    for order in (parts, parts[::-1]):
        assert sum(order, NONE).statistics() == ColourSums.of(rgb).statistics()


def test_a_large_image_counts_as_much_as_a_small_one() -> None:
    pixels = [measured([image(1, size=size)])[0].pixels for size in ((200, 160), (3000, 2400), (50, 40))]
    assert pixels == [SHORTER * 320] * 3


def test_the_mean_image_is_of_central_squares() -> None:
    images = [image(i, size=size) for i, size in enumerate([(400, 300), (300, 400), (256, 256), (30, 50)])]
    squares = []
    for data in images:
        width, height = Image.open(io.BytesIO(data)).size
        size = [round(length * 256 / min(width, height)) for length in (width, height)]
        resized = Image.open(io.BytesIO(data)).convert("RGB").resize(size, Image.Resampling.BILINEAR)
        left, top = ((length - 256) // 2 for length in size)
        squares.append(np.asarray(resized.crop((left, top, left + 256, top + 256)), float).transpose(2, 0, 1))
    _, mean = measured(images)
    np.testing.assert_allclose(mean.mean, np.mean(squares, axis=0), atol=0.51)


def test_the_sample_is_uniform_and_follows_from_the_seed() -> None:
    assert chosen(10, None, 0).tolist() == chosen(10, 10, 3).tolist() == list(range(10))
    one, two = chosen(100_000, 1000, 0), chosen(100_000, 1000, 1)
    assert one.tolist() == chosen(100_000, 1000, 0).tolist()
    assert len(set(one.tolist())) == 1000
    assert one.tolist() == sorted(one.tolist())
    assert len(set(one.tolist()) & set(two.tolist())) < 50
    counts = np.histogram(one, 10, (0, 100_000))[0]
    assert np.abs(counts - 100).max() < 40, "four standard deviations"


def test_measuring_skips_what_cannot_be_decoded() -> None:
    images = [image(i) for i in range(150)]

    def read(of: list[bytes]) -> tuple[dict[str, object], NDArray[np.float32]]:
        def some(numbers: NDArray[np.int64]) -> Iterable[bytes]:
            return (of[i] for i in numbers.tolist())

        return measure(some, np.arange(len(of)), threads=3)

    (colours, mean), (with_damaged, same_mean) = read(images), read([*images, b"no image"])
    assert with_damaged == {**colours, "colour_images": 151}
    assert np.array_equal(mean, same_mean)
    assert colours["mean_rgb"] == measured(images)[0].statistics()["mean_rgb"]
    with pytest.raises(InputError, match="none of 2 training images can be decoded"):
        read([b"", b"no image"])
