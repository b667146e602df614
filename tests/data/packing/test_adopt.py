"""Shards that others made: found by their names, indexed where they lie or copied as they are."""

import io
import shutil
import tarfile
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import pytest
from made import image, tar_of

from alexvgg.data.fetch import read_all
from alexvgg.data.packing.adopt import ShardOptions, assign, copy_shards, index_shards, is_shards
from alexvgg.data.packing.commit import Summary
from alexvgg.data.shards import Dataset, open_dataset, read_about
from alexvgg.data.store import Store, open_store
from alexvgg.errors import InputError

OPTIONS = ShardOptions("foreign", colour_images=10)


def quietly(message: str) -> None:
    pass


def shard(numbers: range, classes: int = 3) -> bytes:
    members: dict[str, bytes] = {}
    for i in numbers:
        members[f"n{i % classes}/{i:05d}.JPEG"] = image(i)
        members[f"n{i % classes}/{i:05d}.cls"] = b"%d" % (i % classes)
    return tar_of(members)


SHARDS = {
    "imagenet-train-000000.tar": shard(range(10)),
    "imagenet-train-000001.tar": shard(range(10, 17)),
    "sub/imagenet-val-000000.tar": shard(range(20, 25)),
}


def fill(store: Store, shards: Mapping[str, bytes] = SHARDS) -> Store:
    for name, data in shards.items():
        store.put(name, data)
    return store


@pytest.fixture(params=["file", "localbucket"])
def store(request: pytest.FixtureRequest, tmp_path: Path, s3: Callable[[str], str]) -> Store:
    if request.param == "file":
        return open_store((tmp_path / "store").as_uri())
    return open_store(s3(request.getfixturevalue(request.param)) + f"/{tmp_path.name}")


def digest(dataset: Dataset) -> str:
    """Of the samples alone."""
    return str(read_about(dataset.store)["samples"])


def check(dataset: Dataset, summary: Summary) -> None:
    assert dataset.fingerprint == summary.fingerprint
    assert summary.images == {"train": 17, "val": 5}
    assert summary.per_class == (6, 6, 5)
    assert dataset.train.keys[:2] == ("n0/00000", "n1/00001")
    assert dataset.val.labels.tolist() == [i % 3 for i in range(20, 25)]
    assert dataset.val.shards == ("sub/imagenet-val-000000.tar",)
    data = read_all(dataset.store, dataset.train, range(17))
    assert list(data.values()) == [image(i) for i in range(17)]
    for name, tar in SHARDS.items():
        assert dataset.store.get(name) == tar


def test_shards_are_indexed_where_they_lie(store: Store) -> None:
    summary = index_shards(fill(store), OPTIONS, 2, quietly)
    dataset = open_dataset(store)
    check(dataset, summary)
    assert (dataset.name, dataset.classes, dataset.flip) == ("foreign", ("0", "1", "2"), True)


def test_shards_are_copied_as_they_are(store: Store, tmp_path: Path) -> None:
    folder = tmp_path / "src"
    fill(open_store(folder.as_uri()))
    assert is_shards(folder)
    options = replace(OPTIONS, classes=("cat", "dog", "eel"), flip=False)
    summary = copy_shards(folder, store, options, 2, quietly)
    dataset = open_dataset(store)
    check(dataset, summary)
    assert (dataset.classes, dataset.flip) == (("cat", "dog", "eel"), False)
    assert copy_shards(folder, store, options, 1, quietly) == summary, "again"


def test_copying_goes_on_with_what_is_missing(tmp_path: Path) -> None:
    folder, store = tmp_path / "src", open_store((tmp_path / "out").as_uri())
    source = fill(open_store(folder.as_uri()))
    source.put("imagenet-train-000001.tar", SHARDS["imagenet-train-000001.tar"][:6000])
    with pytest.raises(InputError, match=r"imagenet-train-000001\.tar is no intact tar"):
        copy_shards(folder, store, OPTIONS, 1, quietly)
    assert store.list("imagenet") == ["imagenet-train-000000.tar"]
    fill(source)
    with pytest.raises(InputError, match="from other images"):
        copy_shards(folder, store, OPTIONS, 1, quietly)


@pytest.mark.parametrize(
    ("shards", "options", "sentence"),
    [
        ({"imagenet-train-000001.tar": SHARDS["imagenet-train-000001.tar"][:6000]}, {}, "no intact tar"),
        ({"imagenet-train-000002.tar": shard(range(3))}, {}, "'n0/00000' is in another shard of its split too"),
        ({}, {"classes": ("a", "b")}, "'n2/00002' has label 2, but labels are 0 to 1"),
        ({"train-neg.tar": tar_of({"1.jpg": image(1), "1.cls": b"-1"})}, {}, "'1' has label -1"),
        ({}, {"train": "*nothing*"}, r"no shard matches --train '\*nothing\*'; there are imagenet-train-000000\.tar"),
        ({}, {"val": "*train*"}, "matches both"),
        ({"sub/imagenet-val-000000.tar": tar_of({})}, {}, "the val shards .* have no sample"),
        (
            {name: tar_of({"1.jpg": b"no image", "1.cls": b"0"}) for name in SHARDS if "0000.tar" in name}
            | {"imagenet-train-000001.tar": tar_of({})},
            {},
            "none of 1 training images can be decoded",
        ),
    ],
)
def test_what_is_wrong_is_named_and_nothing_is_written(
    shards: dict[str, bytes], options: dict[str, str], sentence: str, tmp_path: Path
) -> None:
    store = fill(open_store(tmp_path.as_uri()), {**SHARDS, **shards})
    before = store.list("")
    with pytest.raises(InputError, match=sentence):
        index_shards(store, replace(OPTIONS, **options), 2, quietly)  # type: ignore[arg-type]
    assert store.list("") == before


def test_public_names_need_no_options() -> None:
    names = [f"imagenet1k-{s}-{i:04d}.tar" for s in ("train", "validation") for i in range(3)]
    assert assign([*names, "README.md", "index/x-train.tar.json"], OPTIONS) == {"train": names[:3], "val": names[3:]}
    with pytest.raises(InputError, match="there is no tar at all"):
        assign(["README.md"], OPTIONS)


def test_a_packed_dataset_is_not_described_anew(tmp_path: Path) -> None:
    folder = tmp_path / "src"
    fill(open_store(folder.as_uri()))
    store = open_store((tmp_path / "out").as_uri())
    copy_shards(folder, store, OPTIONS, 1, quietly)
    with pytest.raises(InputError, match="was packed by `alexvgg data pack`"):
        index_shards(store, OPTIONS, 1, quietly)
    with pytest.raises(InputError, match="is a dataset already"):
        copy_shards(tmp_path / "out", open_store((tmp_path / "third").as_uri()), OPTIONS, 1, quietly)


@pytest.mark.parametrize("other", [{"flip": False}, {"colour_images": 5}, {"seed": 3}])
def test_other_arithmetic_is_another_dataset(other: dict[str, int], tmp_path: Path) -> None:
    store = fill(open_store(tmp_path.as_uri()))
    first, again = (index_shards(store, OPTIONS, threads, quietly).fingerprint for threads in (1, 3))
    assert first == again == open_dataset(store).fingerprint
    assert index_shards(store, replace(OPTIONS, **other), 2, quietly).fingerprint != first  # type: ignore[arg-type]


def test_a_large_shard_is_read_in_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as tar:
        for i in range(5):
            for end, body in (("png", image(i, "PNG") + bytes(5_000_000)), ("cls", b"0")):
                info = tarfile.TarInfo(f"{i}.{end}")
                info.size = len(body)
                tar.addfile(info, io.BytesIO(body))
    store = fill(open_store(tmp_path.as_uri()), {"train.tar": file.getvalue(), "val.tar": shard(range(1))})
    asked: list[int] = []
    get_range = type(store).get_range

    def counted(self: Store, key: str, start: int, length: int) -> bytes:
        asked.append(length)
        return get_range(self, key, start, length)

    monkeypatch.setattr(type(store), "get_range", counted)
    index_shards(store, OPTIONS, 1, quietly)
    assert max(asked) <= 8 << 20
    assert sum(asked) >= len(file.getvalue())


def test_indexing_anew_keeps_what_was_said_before(digits: Dataset, tmp_path: Path) -> None:
    """Digits are no mirror images of digits."""
    folder = tmp_path / "again"
    shutil.copytree(digits.store.url.removeprefix("file://"), folder)
    store = open_store(folder.as_uri())
    index_shards(store, ShardOptions(), 2, lambda _: None)
    found = open_dataset(store)
    assert (found.name, found.classes, found.flip) == ("digits", digits.classes, False)
    assert digest(found) == digest(digits)
    index_shards(store, ShardOptions(name="other"), 2, lambda _: None)
    assert open_dataset(store).fingerprint == found.fingerprint, "it is only called otherwise"
    index_shards(store, ShardOptions(flip=True), 2, lambda _: None)
    assert digest(open_dataset(store)) == digest(found)
    assert open_dataset(store).fingerprint != found.fingerprint
    assert (open_dataset(store).name, open_dataset(store).flip) == ("other", True)
    store.put("dataset.json", b"{")
    index_shards(store, ShardOptions(), 2, lambda _: None)
    assert (open_dataset(store).name, open_dataset(store).flip) == ("again", True)
