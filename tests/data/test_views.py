"""Views against Pillow resizing the whole image first."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pictures import photograph
from PIL import Image

from alexvgg.data.views import RESAMPLE, central, crop, random_crop, resized_size, whole


@pytest.mark.parametrize(("size", "expected"), [
    ((500, 375), (341, 256)), ((375, 500), (256, 341)), ((8, 8), (256, 256)),
    ((257, 256), (257, 256)), ((1000, 1), (256_000, 256)),
])  # fmt: skip
def test_shorter_side_becomes_s(size: tuple[int, int], expected: tuple[int, int]) -> None:
    assert resized_size(*size, 256) == expected


@pytest.mark.parametrize("shorter", [256, 384, 512])
@pytest.mark.parametrize("size", [(500, 375), (375, 500), (333, 500)])
def test_crop_is_the_same_part_of_the_whole(size: tuple[int, int], shorter: int) -> None:
    picture = photograph(*size)
    image = np.asarray(picture)
    reference = picture.resize(resized_size(*size, shorter), Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(whole(image, shorter), np.asarray(reference).transpose(2, 0, 1))
    width, height = reference.size
    for x, y in [(0, 0), (width - 224, height - 224), (17, 31)]:
        expected = np.asarray(reference.crop((x, y, x + 224, y + 224)), float).transpose(2, 0, 1)
        got = crop(image, shorter, 224, x, y)
        assert got.shape == (3, 224, 224)
        assert np.abs(got - expected).mean() <= 1.0


@pytest.mark.parametrize("size", [(64, 48), (48, 64), (50, 50)])
def test_central_view_is_central_across_and_down(size: tuple[int, int]) -> None:
    width, height = size
    ramp = np.zeros((height, width, 3), np.uint8)
    ramp[:, :, 0], ramp[:, :, 1] = np.arange(width), np.arange(height)[:, None]
    view = central(ramp, 55, 32).astype(float)
    assert view.shape == (3, 32, 32)
    assert view[0].mean() == pytest.approx((width - 1) / 2, abs=1.0)
    assert view[1].mean() == pytest.approx((height - 1) / 2, abs=1.0)


@given(st.integers(40, 700), st.integers(40, 700), st.integers(256, 512), st.floats(0, 1, exclude_max=True),
       st.floats(0, 1, exclude_max=True))  # fmt: skip
def test_random_crop_is_pillows_at_the_same_place(
    width: int, height: int, shorter: int, right: float, down: float
) -> None:
    # White noise: a place that is off by a tenth of a pixel would show.
    image = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    view = random_crop(image, shorter, 224, right, down)
    scale = min(width, height) / shorter
    part, grid = 224 * scale, 1 if scale >= 0.5 else scale
    x, y = (grid * int(u * (int((n - part) / grid + 1e-6) + 1)) for u, n in ((right, width), (down, height)))
    assert x + part <= width + 1e-3
    assert y + part <= height + 1e-3
    box = (x, y, min(x + part, width), min(y + part, height))
    expected = np.asarray(Image.fromarray(image).resize((224, 224), RESAMPLE, box=box), float).transpose(2, 0, 1)
    assert view.shape == (3, 224, 224)
    assert np.abs(view - expected).mean() <= 0.5


@pytest.mark.parametrize(("shortest", "shorter"), [(255, 256), (375, 376), (376, 376), (377, 376), (510, 512)])
def test_a_crop_at_almost_the_images_own_size_is_resized_too(shortest: int, shorter: int) -> None:
    image = np.random.default_rng(0).integers(0, 256, (shortest, shortest + 40, 3), dtype=np.uint8)
    view, part = random_crop(image, shorter, 224, 0.0, 0.0), 224 * shortest / shorter
    box = (0, 0, part, part)
    expected = np.asarray(Image.fromarray(image).resize((224, 224), RESAMPLE, box=box), float).transpose(2, 0, 1)
    assert np.abs(view - expected).mean() <= 0.5


@pytest.mark.parametrize("size", [(500, 375), (8, 8), (100, 300)])
def test_random_crops_reach_all_of_the_image(size: tuple[int, int]) -> None:
    width, height = size
    image = np.zeros((height, width, 3), np.uint8)
    image[:, :, 0] = np.arange(width) * 255 // (width - 1)
    image[:, :, 1] = np.arange(height)[:, None] * 255 // (height - 1)
    corners = [random_crop(image, 256, 224, u, v) for u in (0.0, 0.999) for v in (0.0, 0.999)]
    for channel in (0, 1):
        assert min(int(view[channel].min()) for view in corners) <= 2
        assert max(int(view[channel].max()) for view in corners) >= 250
