"""Packing: what stock webdataset reads back, the same bytes on any number of threads, and what a kill leaves."""

import contextlib
import gc
import io
import json
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import webdataset
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from made import ilsvrc, image, imagefolder, pictures
from PIL import Image

from alexvgg.cli import main
from alexvgg.data import s3 as services
from alexvgg.data.decode import decode
from alexvgg.data.fetch import read_all
from alexvgg.data.index import index_shard, read_index
from alexvgg.data.packing.pack import PackOptions, pack, plan, plan_shards
from alexvgg.data.packing.source import open_source
from alexvgg.data.shards import Dataset, open_dataset
from alexvgg.data.store import FileStore, Store, Writer, create_bucket, open_store
from alexvgg.errors import InputError, StoreError

SMALL = PackOptions(shard_bytes=12_000, colour_images=20)


def packed(source: Path, target: Path, options: PackOptions = SMALL, threads: int = 2) -> Dataset:
    store = open_store(target.as_uri())
    pack(open_source(source, threads), store, options, threads, lambda _: None)
    return open_dataset(store)


def files(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # it leaves files open
@pytest.mark.parametrize("make", [ilsvrc, imagefolder])
def test_stock_webdataset_reads_the_original_bytes(make: Callable[[Path], Path], tmp_path: Path) -> None:
    dataset = packed(make(tmp_path / "src"), tmp_path / "out")
    for name, split in (("train", dataset.train), ("val", dataset.val)):
        assert len(split.shards) > 1
        urls = [str(tmp_path / "out" / shard) for shard in split.shards]
        read = list(webdataset.WebDataset(urls, shardshuffle=False))
        gc.collect()
        assert [s["__key__"] for s in read] == list(split.keys)
        found = {s["__key__"]: (dataset.classes[int(s["cls"])], s["jpg"]) for s in read}
        assert found == {
            file.removesuffix(".JPEG"): (wnid, data)
            for wnid, of_class in pictures()[name].items()
            for file, data in of_class.items()
        }


def test_the_index_written_on_the_way_is_what_reading_finds(tmp_path: Path) -> None:
    source = imagefolder(tmp_path / "src")
    (source / "val" / "n01440764" / "Müller 1.webp").write_bytes(image(3, "WEBP"))  # a longer header
    dataset = packed(source, tmp_path / "out")
    assert "Müller 1" in dataset.val.keys
    for shard in (*dataset.train.shards, *dataset.val.shards):
        assert read_index(dataset.store, shard) == index_shard(shard, dataset.store.get(shard))
    assert len(read_all(dataset.store, dataset.train, range(len(dataset.train)))) == 31


def test_tars_and_folders_of_the_same_images_are_the_same_dataset(tmp_path: Path) -> None:
    one, two = packed(ilsvrc(tmp_path / "a"), tmp_path / "1"), packed(imagefolder(tmp_path / "b"), tmp_path / "2")
    assert one.fingerprint == two.fingerprint
    shards = {k: v for k, v in files(tmp_path / "1").items() if k.endswith(".tar")}
    assert shards == {k: v for k, v in files(tmp_path / "2").items() if k.endswith(".tar")}


def test_any_number_of_threads_writes_the_same_bytes(tmp_path: Path) -> None:
    source = ilsvrc(tmp_path / "src")
    for threads in (1, 4):
        packed(source, tmp_path / str(threads), threads=threads)
    assert files(tmp_path / "1") == files(tmp_path / "4")
    packed(source, tmp_path / "seed", replace(SMALL, seed=1))
    assert files(tmp_path / "1")["train-000000.tar"] != files(tmp_path / "seed")["train-000000.tar"]


def test_dataset_json_says_how_it_was_made(tmp_path: Path) -> None:
    packed(ilsvrc(tmp_path / "src"), tmp_path / "out", replace(SMALL, flip=False, name="tiny"))
    about = json.loads((tmp_path / "out" / "dataset.json").read_text())
    assert (about["name"], about["flip"], about["colour_images"]) == ("tiny", False, 20)
    assert about["words"][0] == "tench, Tinca tinca"
    how = about["packed"]
    assert (how["source"], how["seed"], how["shard_bytes"], how["resize_shorter"]) == ("ilsvrc2012", 0, 12_000, None)


def test_resizing_encodes_only_what_is_larger(tmp_path: Path) -> None:
    source = imagefolder(tmp_path / "src")
    large, small = image(1, size=(90, 60)), image(2, size=(90, 32))
    (source / "train" / "n01440764" / "large.png").write_bytes(image(1, "PNG", size=(90, 60)))
    (source / "train" / "n01440764" / "small.jpg").write_bytes(small)
    (source / "train" / "n01440764" / "broken.jpg").write_bytes(large[:100])
    dataset = packed(source, tmp_path / "out", replace(SMALL, resize_shorter=40))
    data = read_all(dataset.store, dataset.train, range(len(dataset.train)))
    by_key = {dataset.train.keys[i]: body for i, body in data.items()}
    assert by_key["small"] == small
    assert by_key["broken"] == large[:100]
    assert Image.open(io.BytesIO(by_key["large"])).format == "JPEG"
    ours = np.asarray(decode(by_key["large"]), float)
    assert ours.shape == (40, 60, 3)
    expected = np.asarray(Image.fromarray(decode(large)).resize((60, 40), Image.Resampling.BILINEAR), float)
    assert np.abs(ours - expected).mean() < 6
    assert json.loads((tmp_path / "out" / "dataset.json").read_text())["packed"]["jpeg_quality"] == 95


def test_what_no_decoder_can_open_is_counted_and_named(tmp_path: Path) -> None:
    source = imagefolder(tmp_path / "src")
    (source / "val" / "n03000684" / "broken.JPEG").write_bytes(b"no image")
    store = open_store((tmp_path / "out").as_uri())
    for _ in range(2):  # also when all of it was there already
        summary = pack(open_source(source, 1), store, SMALL, 1, lambda _: None)
        assert summary.unreadable == ("broken",)
        assert "1 images can't be opened and will be skipped in training: broken" in summary.lines()
        assert summary.images == {"train": 31, "val": 16}
        assert summary.per_class == (6, 6, 7, 6, 6)


@given(
    st.lists(st.integers(0, 300_000), min_size=1, max_size=200),
    st.just(1) | st.integers(1, 1_000_000),
    st.integers(0, 2**32),
)
def test_shards_hold_every_image_once_in_the_order_given(sizes: list[int], target: int, seed: int) -> None:
    order = np.random.default_rng(seed).permutation(len(sizes))
    shards = plan_shards(np.array(sizes), order, target)
    assert np.concatenate(shards).tolist() == order.tolist()
    assert all(len(s) for s in shards)
    if len(set(sizes)) == target == 1:
        assert len(shards) == len(sizes)


def test_a_plan_of_the_size_of_imagenet() -> None:
    images = 1_281_167
    sizes = np.random.default_rng(0).lognormal(11.5, 0.5, images).astype(np.int64)
    order = np.random.default_rng(1).permutation(images)
    began = time.monotonic()
    shards = plan_shards(sizes, order, 150_000_000)
    assert time.monotonic() - began < 5
    totals = np.array([(1536 + -(-sizes[s] // 512) * 512).sum() for s in shards])
    assert len(shards) == round(totals.sum() / 150e6)
    assert np.abs(totals / 150e6 - 1).max() < 0.02
    assert np.array_equal(np.sort(np.concatenate(shards)), np.arange(images))


def test_training_images_are_shuffled_over_all_classes(tmp_path: Path) -> None:
    source = open_source(imagefolder(tmp_path / "src"), 1)
    shards = plan(source, SMALL)
    order = np.concatenate([s.images for s in shards if s.split == "train"])
    assert order.tolist() != sorted(order.tolist())
    assert np.concatenate([s.images for s in shards if s.split == "val"]).tolist() == list(range(15))
    again = np.concatenate([s.images for s in plan(source, replace(SMALL, shard_bytes=10**9)) if s.split == "train"])
    assert order.tolist() == again.tolist(), "the order doesn't depend on where shards end"


@pytest.mark.parametrize(
    ("change", "sentence"),
    [({"seed": 5}, "seed 0, not 5"), ({"shard_bytes": 1}, "shard_bytes 12000, not 1"), ({"flip": False}, "flip True")],
)
def test_a_rerun_with_other_options_is_refused(change: dict[str, int], sentence: str, tmp_path: Path) -> None:
    source = imagefolder(tmp_path / "src")
    packed(source, tmp_path / "out")
    before = files(tmp_path / "out")
    with pytest.raises(InputError, match=f"packed, or begun, from {sentence}"):
        packed(source, tmp_path / "out", replace(SMALL, **change))
    assert files(tmp_path / "out") == before


def test_a_rerun_with_other_images_is_refused(tmp_path: Path) -> None:
    source = imagefolder(tmp_path / "src")
    packed(source, tmp_path / "out")
    (source / "train" / "n01440764" / "new.jpg").write_bytes(image(5))
    with pytest.raises(InputError, match="packed, or begun, from other images"):
        packed(source, tmp_path / "out")


def test_other_datasets_are_not_written_over(digits: Dataset, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir(parents=True)
    (tmp_path / "out" / "train-000000.tar").write_bytes(b"someone's")
    with pytest.raises(InputError, match=r"holds train-000000\.tar already, made in another way; name an empty folder"):
        packed(imagefolder(tmp_path / "src"), tmp_path / "out")
    sample = CliRunner().invoke(main, ["data", "sample", "digits", (tmp_path / "out").as_uri()])
    assert (sample.exit_code, "holds train-000000.tar already" in sample.stderr) == (2, True)
    assert [p.read_bytes() for p in (tmp_path / "out").iterdir()] == [b"someone's"]
    with pytest.raises(InputError, match=r"holds dataset\.json already, made in another way"):
        pack(open_source(tmp_path / "src", 1), digits.store, SMALL, 1, lambda _: None)


def test_what_another_version_or_a_hand_wrote_is_written_anew(tmp_path: Path) -> None:
    source = imagefolder(tmp_path / "src")
    whole, file = packed(source, tmp_path / "out"), tmp_path / "out" / "dataset.json"
    written = file.read_bytes()
    for change in ({"format": 1}, {"flip": False}):
        file.write_text(json.dumps(json.loads(written) | change))
        assert packed(source, tmp_path / "out").fingerprint == whole.fingerprint
        assert file.read_bytes() == written


def test_a_failing_upload_stops_packing_and_a_rerun_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = imagefolder(tmp_path / "src")
    whole = packed(source, tmp_path / "whole")
    writer = FileStore.writer

    @contextlib.contextmanager
    def full(self: FileStore, key: str) -> Iterator[Writer]:
        with writer(self, key) as out:
            yield out
            if key == "train-000002.tar":
                raise StoreError("the disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(FileStore, "writer", full)
        with pytest.raises(StoreError, match="the disk is full"):
            packed(source, tmp_path / "out")
    assert not (tmp_path / "out" / "dataset.json").exists()
    assert packed(source, tmp_path / "out").fingerprint == whole.fingerprint
    assert files(tmp_path / "out") == files(tmp_path / "whole")


@pytest.fixture
def versioned(moto: str, s3: Callable[[str], str], tmp_path: Path) -> Store:
    """A store in a bucket that keeps every object ever put."""
    s3(moto)
    create_bucket("s3://versioned")
    services._client().put_bucket_versioning(Bucket="versioned", VersioningConfiguration={"Status": "Enabled"})
    return open_store(f"s3://versioned/{tmp_path.name}")


def puts(store: Store) -> Counter[str]:
    """How often each key was put."""
    assert isinstance(store, services.S3Store)
    pages = store._s3.get_paginator("list_object_versions").paginate(Bucket=store.bucket, Prefix=store.prefix)
    return Counter(v["Key"].removeprefix(store.prefix) for page in pages for v in page.get("Versions", ()))


def test_after_kill_9_a_rerun_uploads_only_what_was_not_complete(versioned: Store, tmp_path: Path) -> None:
    source = imagefolder(tmp_path / "src")
    options = ["--shard-bytes", "4000", "--colour-images", "20", "--threads", "2"]
    command = [str(Path(sys.executable).with_name("alexvgg")), "data", "pack", str(source), versioned.url, *options]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    with contextlib.ExitStack() as stack:
        stack.callback(process.wait)
        stack.callback(process.kill)
        deadline = time.monotonic() + 60
        while sum(key.startswith("index/") for key in puts(versioned)) < 4:
            assert process.poll() is None, "it ended before it could be killed"
            assert time.monotonic() < deadline
        process.send_signal(signal.SIGKILL)
    complete = {k.removeprefix("index/").removesuffix(".json") for k in puts(versioned) if k.startswith("index/")}
    assert 4 <= len(complete) < 30
    assert not versioned.exists("dataset.json")
    again = subprocess.run(command, capture_output=True, text=True, check=True)
    counts = puts(versioned)
    assert {counts[shard] for shard in complete} == {1}
    assert {n for key, n in counts.items() if not key.endswith(".tar")} == {1}, "index, pack.json, dataset.json"
    assert sum(n - 1 for n in counts.values()) <= 2, "shards between upload and commit, one for each thread"
    whole = packed(source, tmp_path / "whole", PackOptions(shard_bytes=4000, colour_images=20))
    assert f"fingerprint {whole.fingerprint}" in again.stdout
    assert f"{len(complete)} of which are there already" in again.stderr
    assert {k: versioned.get(k) for k in versioned.list("")} == files(tmp_path / "whole")
    pack(open_source(source, 1), versioned, PackOptions(shard_bytes=4000, colour_images=20), 1, lambda _: None)
    assert puts(versioned) == counts, "when all is complete nothing is uploaded"
