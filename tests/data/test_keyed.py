"""Random numbers that follow from keys alone: distinct, even, and the same for ever."""

import numpy as np
import pytest

from alexvgg.data.keyed import normals, sample_keys, uniforms


def test_sample_keys_are_distinct_and_never_change() -> None:
    ids = np.arange(10_000)
    keys = [sample_keys(seed, epoch, ids) for seed in (0, 1) for epoch in (0, 1)]
    assert len(np.unique(np.concatenate(keys))) == 40_000
    bits = np.unpackbits(keys[0].view(np.uint8).reshape(-1, 8), axis=1)
    assert abs(bits.mean(axis=0) - 0.5).max() < 0.03, "some bit of the keys is not random"
    assert sample_keys(7, 3, np.array([5])).tolist() == [6450149564035291317]


def test_uniform_numbers_are_even_and_unrelated() -> None:
    numbers = uniforms(sample_keys(1, 2, np.arange(20_000)), 5)
    assert numbers.shape == (5, 20_000)
    assert numbers.min() >= 0
    assert numbers.max() < 1
    histogram = np.histogram(numbers, 20, (0, 1))[0] / numbers.size
    np.testing.assert_allclose(histogram, 1 / 20, rtol=0.05)
    related = np.corrcoef(np.concatenate([numbers, numbers[:1, ::-1]]))
    assert np.abs(related - np.eye(6)).max() < 0.03


def test_uniform_numbers_do_not_depend_on_their_neighbours() -> None:
    keys = sample_keys(1, 2, np.arange(100))
    np.testing.assert_array_equal(uniforms(keys, 5)[:, 40], uniforms(keys[40:41], 5)[:, 0])


def test_normal_numbers_have_the_normal_distribution() -> None:
    numbers = normals(*uniforms(sample_keys(1, 2, np.arange(50_000)), 2))
    assert numbers.mean() == pytest.approx(0, abs=0.02)
    assert numbers.std() == pytest.approx(1, abs=0.02)
    assert np.mean(np.abs(numbers) < 1) == pytest.approx(0.6827, abs=0.01)
    assert np.isfinite(normals(np.array([0.0, 1 - 2**-53]), np.array([0.0, 0.0]))).all()
