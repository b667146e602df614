"""What is random, how much, and on what it depends."""

import numpy as np
import pytest
from PIL import Image

from alexvgg.data.augment import Augmentation, central_view, training_view

RAMP = Image.fromarray(np.stack([np.tile(np.arange(64, dtype=np.uint8), (64, 1))] * 3, axis=2))  # brighter to the right


def augmentation(scale: int | tuple[int, int] = 256, *, flip: bool = True) -> Augmentation:
    return Augmentation(scale, 32, flip, 0.1, np.diag([50.0, 20.0, 5.0]))


def test_a_view_depends_on_its_key_alone() -> None:
    one, again, other = (training_view(RAMP, augmentation(), key) for key in (1, 1, 2))
    np.testing.assert_array_equal(one[0], again[0])
    np.testing.assert_array_equal(one[1], again[1])
    assert not np.array_equal(one[1], other[1])
    assert one[0].dtype == np.uint8
    assert one[0].shape == (3, 32, 32)


def falls(view: np.ndarray) -> bool:
    return bool(view[0, 16, 0] > view[0, 16, -1])


def test_half_of_the_views_are_mirrored_and_none_where_that_changes_the_class() -> None:
    mirrored = np.mean([falls(training_view(RAMP, augmentation(), key)[0]) for key in range(400)])
    assert 0.42 < mirrored < 0.58
    assert not any(falls(training_view(RAMP, augmentation(flip=False), key)[0]) for key in range(100))


@pytest.mark.parametrize(("scale", "low", "high"), [(256, 37, 37), (384, 55, 55), ((256, 512), 37, 73)])
def test_scale_is_fixed_or_drawn_from_all_of_the_range(scale: int | tuple[int, int], low: int, high: int) -> None:
    # The ramp's slope in a view tells the size that the image was resized to: 64 levels over `shorter` pixels.
    views = [training_view(RAMP, augmentation(scale, flip=False), key)[0][0, 16].astype(float) for key in range(400)]
    shorter = np.array([64 / np.polyfit(np.arange(20), view[6:26], 1)[0] for view in views])
    assert shorter.min() == pytest.approx(low, rel=0.08)
    assert shorter.max() == pytest.approx(high, rel=0.08)


def test_crops_reach_every_corner() -> None:
    views = [training_view(RAMP, augmentation(512, flip=False), key)[0][0] for key in range(300)]
    assert min(view.min() for view in views) <= 1
    assert max(view.max() for view in views) >= 62


def test_colour_shift_has_the_components_spread() -> None:
    shifts = np.stack([training_view(RAMP, augmentation(), key)[1] for key in range(3000)])
    np.testing.assert_allclose(shifts.std(axis=0), [5.0, 2.0, 0.5], rtol=0.06)
    np.testing.assert_allclose(shifts.mean(axis=0) / shifts.std(axis=0), 0, atol=0.06)


def test_central_view_is_central() -> None:
    view = central_view(RAMP, 384, 32)[0].astype(float)
    assert view.mean() == pytest.approx(31.5, abs=1.5)
