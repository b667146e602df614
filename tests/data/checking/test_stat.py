"""The numbers of a dataset against Pillow and NumPy on the whole images; and how little is read for them."""

import io
import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image
from smalldata import members_of, pack, picture

from alexvgg.cli import main
from alexvgg.data.checking import stat
from alexvgg.data.checking.stat import describe, to_text
from alexvgg.data.shards import open_dataset
from alexvgg.data.store import FileStore, Store, open_store
from alexvgg.errors import InputError

SIZES = [(500, 375), (375, 500), (500, 375), (640, 480), (100, 300), (500, 375)]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """Images of several sizes and kinds in the first shard."""
    members = members_of("train-0.tar")
    for i, size in enumerate(SIZES):
        members[f"{i:03d}.jpg"] = picture(i, size, subsampling="4:2:0", quality=100)
    members["001.jpg"] = picture(1, SIZES[1], mode="CMYK")
    members["002.jpg"] = picture(2, SIZES[2], mode="L")
    members["003.jpg"] = picture(3, SIZES[3], subsampling="4:4:4", progressive=True)
    members["004.jpg"] = picture(4, SIZES[4], kind="PNG")
    members["005.cls"] = b"0"
    return pack(open_store(tmp_path.as_uri()), {"train-0.tar": members})


def test_numbers_are_the_images_own(store: Store) -> None:
    dataset = open_dataset(store)
    facts = describe(store, 1000)
    assert (facts.classes, facts.fingerprint, facts.flip) == (3, dataset.fingerprint, True)
    train = facts.splits["train"]
    assert (train.images, train.shards, train.empty_classes) == (12, 2, 0)
    sizes = [*SIZES, *[(40, 30)] * 6]
    for spread, values in (
        (train.per_class, [5, 4, 3]),
        (train.image_bytes, dataset.train.sizes),
        (train.shard_bytes, [len(store.get(shard)) for shard in dataset.train.shards]),
        (train.pictures.width, [w for w, _ in sizes]),
        (train.pictures.height, [h for _, h in sizes]),
        (train.pictures.shorter, [min(size) for size in sizes]),
        (train.pictures.aspect, [w / h for w, h in sizes]),
    ):
        expected = (np.min(values), np.median(values), np.mean(values), np.max(values))
        np.testing.assert_allclose((spread.min, spread.median, spread.mean, spread.max), expected, atol=1e-3)
    assert train.total_bytes == sum(len(store.get(shard)) for shard in dataset.train.shards)
    assert train.pictures.sizes == dict(Counter(f"{w}x{h}" for w, h in sizes).most_common())
    assert train.pictures.kinds == {
        "JPEG RGB 4:2:0": 8, "JPEG CMYK": 1, "JPEG L": 1, "JPEG RGB 4:4:4 progressive": 1, "PNG RGB": 1,
    }  # fmt: skip


class Counting(FileStore):
    """A folder that counts what is read of it by ranges."""

    read: list[int]

    def get_range(self, key: str, start: int, length: int) -> bytes:
        self.read.append(length)
        return super().get_range(key, start, length)


def test_only_headers_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (200, 300, 3), np.uint8))
    file = io.BytesIO()
    noise.save(file, "JPEG", quality=95)
    assert len(file.getvalue()) > 2 * stat.HEADER_BYTES
    pack(open_store(tmp_path.as_uri()), {"train-0.tar": members_of("train-0.tar") | {"003.jpg": file.getvalue()}})
    monkeypatch.setattr(Image.Image, "load", lambda self: pytest.fail("pixels were decoded"))
    store = Counting(tmp_path.as_uri(), tmp_path)
    store.read = []
    facts = describe(store, 1000)
    assert facts.splits["train"].pictures.sizes["300x200"] == 1
    assert len(store.read) == 18
    assert max(store.read) == stat.HEADER_BYTES


def test_a_header_behind_a_large_profile_is_found(tmp_path: Path) -> None:
    profiled = picture(1, (77, 66), icc_profile=bytes(3 * stat.HEADER_BYTES))
    pack(open_store(tmp_path.as_uri()), {"val-0.tar": members_of("val-0.tar") | {"013.jpg": profiled}})
    assert describe(open_store(tmp_path.as_uri()), 1000).splits["val"].pictures.sizes["77x66"] == 1


def test_a_sample_of_the_images_is_spread_evenly(store: Store) -> None:
    pictures = describe(store, 4).splits["train"].pictures
    assert pictures.looked_at == 4  # images 0, 3, 6 and 9 of 12
    assert pictures.sizes == {"40x30": 2, "500x375": 1, "640x480": 1}


def test_classes_without_images_and_unknown_kinds_are_named(tmp_path: Path) -> None:
    members = {name: b"0" if name.endswith("cls") else data for name, data in members_of("val-0.tar").items()}
    store = pack(open_store(tmp_path.as_uri()), {"val-0.tar": members | {"014.jpg": b"GIF89a"}})
    facts = describe(store, 1000)
    assert (facts.splits["val"].empty_classes, facts.splits["val"].pictures.unreadable) == (2, ["014"])
    text = "\n".join(to_text(facts))
    assert "2 classes have no image" in text
    assert "1 are of no known kind: 014" in text
    nothing = {name: data if name.endswith("cls") else b"x" for name, data in members.items()}
    with pytest.raises(InputError, match="none of 6 images is JPEG, PNG or WebP"):
        describe(pack(store, {"val-0.tar": nothing}), 1000)


def run(*arguments: str) -> Any:
    return CliRunner().invoke(main, ["data", "stat", *arguments])


def test_the_command_prints_text_and_json(store: Store, tmp_path: Path) -> None:
    text = run(store.url).stdout
    assert re.search(r"^train: 12 images in 2 shards, \d+\.\d MB$", text, re.MULTILINE)
    assert re.search(r"^  images per class +3 +4 +4 +5$", text, re.MULTILINE)
    assert "500x375 25.0 %" in text
    document = json.loads(run(store.url, "--json", "--images", "4").stdout)
    assert document == describe(store, 4).to_dict()
    assert run((tmp_path / "none").as_uri()).exit_code == 2
