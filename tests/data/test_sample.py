"""The packed digits against scikit-learn's own."""

from pathlib import Path

import numpy as np
from sklearn.datasets import load_digits

from alexvgg.data.decode import decode
from alexvgg.data.sample import colour_statistics, pack_digits
from alexvgg.data.shards import Dataset, read_samples
from alexvgg.data.store import open_store


def test_digits_are_scikit_learns(digits: Dataset) -> None:
    assert (len(digits.train), len(digits.val), digits.flip) == (1437, 360, False)
    scans, labels = load_digits(return_X_y=True)
    seen = []
    for split in (digits.train, digits.val):
        for i, data in read_samples(digits.store, split, np.arange(len(split))).items():
            original = int(split.keys[i])
            seen.append(original)
            assert split.labels[i] == labels[original]
            ours = decode(data).mean(axis=2)
            assert np.abs(ours - scans[original].reshape(8, 8) * 255 / 16).mean() < 4, "more than JPEG's loss"
    assert sorted(seen) == list(range(1797))


def test_split_is_stratified(digits: Dataset) -> None:
    shares = [np.bincount(s.labels, minlength=10) / len(s) for s in (digits.train, digits.val)]
    assert np.abs(shares[0] - shares[1]).max() < 0.005


def test_packing_again_gives_the_same_bytes(digits: Dataset, tmp_path: Path) -> None:
    store = open_store(tmp_path.as_uri())
    pack_digits(store)
    for key in digits.store.list(""):
        assert store.get(key) == digits.store.get(key), key
    pack_digits(store, seed=1)
    assert store.get("dataset.json") != digits.store.get("dataset.json")


def test_colour_statistics_rebuild_the_covariance() -> None:
    mixing = np.array([[40.0, 10, 3], [5, 20, 9], [1, 2, 8]])
    rgb = np.random.default_rng(0).normal(size=(5000, 3)) @ mixing + 100
    stats = colour_statistics(rgb)
    axes, std = np.array(stats["colour_axes"]), np.array(stats["colour_std"])
    np.testing.assert_allclose(axes @ np.diag(std**2) @ axes.T, np.cov(rgb.T), rtol=1e-9)
    np.testing.assert_allclose(axes.T @ axes, np.eye(3), atol=1e-12)
    assert list(std) == sorted(std, reverse=True)
    np.testing.assert_allclose(stats["mean_rgb"], rgb.mean(axis=0))
