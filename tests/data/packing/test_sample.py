"""The packed digits against scikit-learn's own."""

from pathlib import Path

import numpy as np
from sklearn.datasets import load_digits

from alexvgg.data.decode import decode
from alexvgg.data.fetch import read_all
from alexvgg.data.packing.sample import pack_digits
from alexvgg.data.shards import Dataset
from alexvgg.data.store import open_store


def test_digits_are_scikit_learns(digits: Dataset) -> None:
    assert (len(digits.train), len(digits.val), digits.flip) == (1437, 360, False)
    scans, labels = load_digits(return_X_y=True)
    seen = []
    for split in (digits.train, digits.val):
        for i, data in read_all(digits.store, split, range(len(split))).items():
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
