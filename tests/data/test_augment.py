"""What is random, how much, and on what it depends."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from alexvgg.data.augment import Augmentation, Draws
from alexvgg.data.keyed import sample_keys

RAMP = np.stack([np.tile(np.arange(64, dtype=np.uint8), (64, 1))] * 3, axis=2)  # brighter to the right
KEYS = sample_keys(0, 0, np.arange(3000))


def augmentation(scale: int | tuple[int, int] = 256, *, flip: bool = True) -> Augmentation:
    return Augmentation(scale, 32, flip, 0.1, np.diag([50.0, 20.0, 5.0]))


def views(n: int, scale: int | tuple[int, int] = 256, *, flip: bool = True) -> NDArray[np.float64]:
    """(n, 32, 32): the red planes of n views."""
    a = augmentation(scale, flip=flip)
    draws = a.draw(KEYS[:n])
    return np.stack([a.view(RAMP, draws, row)[0] for row in range(n)]).astype(float)


def test_a_view_depends_on_its_key_alone() -> None:
    a = augmentation()
    together, alone = a.draw(KEYS[:9]), a.draw(KEYS[5:6])
    np.testing.assert_array_equal(a.view(RAMP, together, 5), a.view(RAMP, alone, 0))
    np.testing.assert_array_equal(together.colour[5], alone.colour[0])
    assert not np.array_equal(together.colour[5], together.colour[6])
    view = a.view(RAMP, alone, 0)
    assert (view.dtype, view.shape) == (np.uint8, (3, 32, 32))


def test_draws_never_change() -> None:
    """A run that an older version began goes on with the same views."""
    draws = Augmentation((256, 512), 224, True, 0.1, np.eye(3)).draw(sample_keys(1, 2, np.arange(4)))
    assert draws.shorter.tolist() == [494, 411, 407, 262]
    assert draws.mirrored.tolist() == [False, True, False, True]
    np.testing.assert_allclose(draws.right, [0.34618, 0.9825, 0.64192, 0.38979], atol=1e-4)
    np.testing.assert_allclose(draws.down, [0.91025, 0.78121, 0.68313, 0.21431], atol=1e-4)
    np.testing.assert_allclose(draws.colour[0], [0.0857, 0.13357, 0.0177], atol=1e-4)


def test_half_of_the_views_are_mirrored_and_none_where_that_changes_the_class() -> None:
    def falling(pictures: NDArray[np.float64]) -> float:
        return float((pictures[:, 16, 0] > pictures[:, 16, -1]).mean())

    assert 0.42 < falling(views(400)) < 0.58
    assert falling(views(100, flip=False)) == 0


@pytest.mark.parametrize(("scale", "low", "high"), [(256, 37, 37), (384, 55, 55), ((256, 512), 37, 73)])
def test_scale_is_fixed_or_drawn_from_all_of_the_range(scale: int | tuple[int, int], low: int, high: int) -> None:
    # The ramp's slope in a view tells the size that the image was resized to: 64 levels over `shorter` pixels.
    rows = views(400, scale, flip=False)[:, 16]
    shorter = np.array([64 / np.polyfit(np.arange(20), row[6:26], 1)[0] for row in rows])
    assert shorter.min() == pytest.approx(low, rel=0.08)
    assert shorter.max() == pytest.approx(high, rel=0.08)


def test_every_scale_is_as_likely() -> None:
    drawn = augmentation((256, 287)).draw(KEYS).shorter  # 32 scales, which are 5 sizes in pixels
    sizes, counts = np.unique(drawn, return_counts=True)
    expected = np.unique([round(s * 32 / 224) for s in range(256, 288)], return_counts=True)
    np.testing.assert_array_equal(sizes, expected[0])
    np.testing.assert_allclose(counts / 3000, expected[1] / 32, rtol=0.2)


def test_crops_reach_every_corner() -> None:
    pictures = views(300, 512, flip=False)
    assert pictures.min() <= 1
    assert pictures.max() >= 62


def test_colour_shift_has_the_components_spread() -> None:
    shifts = augmentation().draw(KEYS).colour
    np.testing.assert_allclose(shifts.std(axis=0), [5.0, 2.0, 0.5], rtol=0.06)
    np.testing.assert_allclose(shifts.mean(axis=0) / shifts.std(axis=0), 0, atol=0.06)


def test_the_kinds_of_randomness_are_unrelated() -> None:
    d: Draws = augmentation((256, 512)).draw(KEYS)
    kinds = [d.shorter, d.right, d.down, d.mirrored, d.colour[:, 0], d.colour[:, 1], d.colour[:, 2]]
    related = np.corrcoef(np.stack([np.asarray(kind, float) for kind in kinds]))
    assert np.abs(related - np.eye(7)).max() < 0.06


def test_alexnets_crops_come_from_the_central_square() -> None:
    wide = np.repeat(np.tile(np.arange(128, dtype=np.uint8), (64, 1))[:, :, None], 3, axis=2)
    for square, lowest, highest in ((False, 0, 127), (True, 32, 95)):
        a = Augmentation(512, 32, False, 0.1, np.eye(3), square=square)
        draws = a.draw(KEYS[:300])
        pictures = np.stack([a.view(wide, draws, row) for row in range(300)])
        assert abs(int(pictures.min()) - lowest) <= 1
        assert abs(int(pictures.max()) - highest) <= 1


@given(st.integers(20, 200), st.integers(20, 200), st.integers(256, 512), st.integers(0, 2999), st.booleans())
def test_a_view_depends_on_no_row_below_its_bottom(width: int, height: int, scale: int, key: int, square: bool) -> None:
    a = Augmentation(scale, 32, True, 0.1, np.eye(3), square=square)
    draws = a.draw(KEYS[key : key + 1])
    image = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    cut = image.copy()
    cut[a.bottom(draws, 0, width, height) :] = 0
    np.testing.assert_array_equal(a.view(cut, draws, 0), a.view(image, draws, 0))
