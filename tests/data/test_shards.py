"""Datasets in a store: what is damaged is named, what is intact stock webdataset reads too."""

import gc
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import webdataset

from alexvgg.data.fetch import read_all
from alexvgg.data.index import write_dataset
from alexvgg.data.shards import Dataset, open_dataset
from alexvgg.data.store import open_store
from alexvgg.errors import InputError, StoreError


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # it leaves files open
def test_stock_webdataset_reads_the_same_samples(digits_url: str, digits: Dataset) -> None:
    folder = digits_url.removeprefix("file://")
    urls = [f"{folder}/{shard}" for shard in digits.train.shards]
    ids = np.arange(len(digits.train))
    ours = read_all(digits.store, digits.train, ids)
    samples = list(webdataset.WebDataset(urls, shardshuffle=False))
    gc.collect()
    assert len(samples) == len(ids)
    for i, sample in enumerate(samples):
        assert sample["__key__"] == digits.train.keys[i]
        assert sample["jpg"] == ours[i]
        assert int(sample["cls"]) == digits.train.labels[i]


def copied(digits: Dataset, tmp_path: Path) -> Path:
    store = open_store(tmp_path.as_uri())
    for key in digits.store.list(""):
        store.put(key, digits.store.get(key))
    return tmp_path


def test_a_flipped_bit_is_found_and_located(digits: Dataset, tmp_path: Path) -> None:
    folder = copied(digits, tmp_path)
    shard, offset = digits.train.shards[1], int(digits.train.offsets[250])
    data = bytearray((folder / shard).read_bytes())
    data[offset + 20] ^= 1
    (folder / shard).write_bytes(data)
    damaged = open_dataset(open_store(folder.as_uri()))
    with pytest.raises(StoreError, match=rf"{shard} at offset {offset}: sample '{digits.train.keys[250]}'"):
        read_all(damaged.store, damaged.train, range(245, 260))
    assert len(read_all(damaged.store, damaged.train, range(0, 240))) == 240


def test_a_shard_cut_after_indexing_is_an_error(digits: Dataset, tmp_path: Path) -> None:
    folder = copied(digits, tmp_path)
    shard = folder / digits.train.shards[0]
    shard.write_bytes(shard.read_bytes()[:100_000])
    cut = open_dataset(open_store(folder.as_uri()))
    with pytest.raises(StoreError, match="too early"):
        read_all(cut.store, cut.train, range(0, 240))


def test_an_empty_dataset_is_refused(tmp_path: Path) -> None:
    store = open_store(tmp_path.as_uri())
    about = {
        "name": "none", "classes": ["a"], "flip": True, "mean_rgb": [0, 0, 0],
        "colour_axes": [[1, 0, 0], [0, 1, 0], [0, 0, 1]], "colour_std": [0, 0, 0], "mean_image": None,
    }  # fmt: skip
    write_dataset(store, about, {"train": [], "val": []})
    with pytest.raises(InputError, match=r"is empty: its train split has no image"):
        open_dataset(store)


@pytest.mark.parametrize("change", [{"flip": True}, {"mean_rgb": [0, 0, 0]}, {"mean_image": None}])
def test_what_was_changed_by_hand_is_refused(digits: Dataset, tmp_path: Path, change: dict[str, object]) -> None:
    folder = copied(digits, tmp_path)
    about = json.loads((folder / "dataset.json").read_text())
    (folder / "dataset.json").write_text(json.dumps({**about, **change}))
    with pytest.raises(InputError, match=r"dataset\.json was changed.*doesn't fit its fingerprint"):
        open_dataset(open_store(folder.as_uri()))


def test_no_dataset_names_what_packs_one(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="alexvgg data sample digits"):
        open_dataset(open_store(tmp_path.as_uri()))


def test_a_newer_format_is_refused(digits: Dataset, tmp_path: Path) -> None:
    folder = copied(digits, tmp_path)
    about = json.loads((folder / "dataset.json").read_text())
    (folder / "dataset.json").write_text(json.dumps({**about, "format": 3}))
    with pytest.raises(InputError, match="format 3"):
        open_dataset(open_store(folder.as_uri()))


@pytest.mark.parametrize(
    ("column", "change", "told"),
    [
        ("labels", lambda c: c[:-1], r"its columns have .*'labels': 239"),
        ("labels", lambda c: [*c[:-1], 10], r"labels from 0 to 10, but the dataset has 10 classes: 0 to 9"),
        ("labels", lambda c: [-1, *c[1:]], r"labels from -1 to 9"),
        ("crc32", lambda c: [*c, 0], r"'crc32': 241"),
    ],
)
def test_an_index_that_lies_is_refused(
    digits: Dataset, tmp_path: Path, column: str, change: Callable[[list[int]], list[int]], told: str
) -> None:
    folder = copied(digits, tmp_path)
    path = folder / "index" / f"{digits.train.shards[0]}.json"
    index = json.loads(path.read_text())
    path.write_text(json.dumps({**index, column: change(index[column])}))
    with pytest.raises(InputError, match=rf"{path.name}.*{told}"):
        open_dataset(open_store(folder.as_uri()))


@pytest.mark.parametrize("document", [[], "index", 7, None])
def test_an_index_of_another_kind_is_named(digits: Dataset, tmp_path: Path, document: object) -> None:
    folder = copied(digits, tmp_path)
    key = f"index/{digits.train.shards[1]}.json"
    (folder / key).write_text(json.dumps(document))
    with pytest.raises(InputError, match=f"{key} is no index of a shard"):
        open_dataset(open_store(folder.as_uri()))
