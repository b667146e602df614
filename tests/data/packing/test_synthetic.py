"""The synthetic images against what they imitate: sizes, weights, spectrum, kinds; and the same bytes every time."""

import gc
import io
import tarfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import webdataset
from PIL import Image, JpegImagePlugin

from alexvgg.data.decode import decode
from alexvgg.data.fetch import read_all
from alexvgg.data.packing import synthetic
from alexvgg.data.packing.synthetic import SyntheticSpec, pack_synthetic
from alexvgg.data.shards import Dataset, open_dataset
from alexvgg.data.store import open_store

SPEC = SyntheticSpec(images=200, val=40, classes=7, seed=3, shard_bytes=4 << 20)
SMALL = SyntheticSpec(images=30, val=5, classes=3, shard_bytes=1 << 20)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    store = open_store(tmp_path_factory.mktemp("synthetic").as_uri())
    pack_synthetic(store, SPEC)
    return open_dataset(store)


@pytest.fixture(scope="module")
def images(made: Dataset) -> list[bytes]:
    return list(read_all(made.store, made.train, range(200)).values())


def test_counts_labels_and_shard_sizes(made: Dataset) -> None:
    assert (len(made.train), len(made.val), len(made.classes), made.flip) == (200, 40, 7, True)
    for split in (made.train, made.val):
        per_class = np.bincount(split.labels, minlength=7)
        assert per_class.max() - per_class.min() <= 1
        assert (np.diff(split.labels) < 0).sum() > 10, "labels are shuffled"
    sizes = [len(made.store.get(shard)) for shard in made.train.shards]
    assert max(sizes) <= SPEC.shard_bytes
    assert min(sizes[:-1]) > SPEC.shard_bytes * 0.6


def test_sizes_and_weights_are_imagenets(images: list[bytes]) -> None:
    widths, heights = np.array([Image.open(io.BytesIO(data)).size for data in images]).T
    assert (np.median(widths), np.median(heights)) == (500, 375)
    assert 0.15 < (heights > widths).mean() < 0.35
    assert (widths * heights >= 1600 * 1200).sum() >= 2
    assert len(set(zip(widths, heights, strict=True))) > 20
    assert 90_000 < np.mean([len(data) for data in images]) < 130_000


def test_kinds_of_files(made: Dataset, images: list[bytes]) -> None:
    kinds: Counter[str] = Counter()
    for data in images:
        image = Image.open(io.BytesIO(data))
        if isinstance(image, JpegImagePlugin.JpegImageFile):
            chroma = {0: "4:4:4", 1: "4:2:2", 2: "4:2:0", -1: ""}[JpegImagePlugin.get_sampling(image)]
            kinds.update(
                [f"{image.mode} {chroma}".strip(), *(["progressive"] if image.info.get("progressive") else [])]
            )
        else:
            kinds.update([f"{image.format} {image.mode}"])
    assert kinds["PNG RGB"] == 1
    assert kinds["RGB 4:2:0"] > 150
    assert min(kinds["RGB 4:4:4"], kinds["RGB 4:2:2"], kinds["progressive"], kinds["L"]) >= 5
    assert kinds["CMYK 4:4:4"] + kinds["CMYK"] >= 3


def test_the_png_has_a_jpegs_name(made: Dataset) -> None:
    named = [m for shard in made.train.shards for m in members(made.store.get(shard)) if m[0].endswith(".jpeg")]
    assert len(named) == 1
    assert named[0][1].startswith(b"\x89PNG")


def members(tar: bytes) -> Iterator[tuple[str, bytes]]:
    with tarfile.open(fileobj=io.BytesIO(tar)) as file:
        for member in file:
            content = file.extractfile(member)
            assert content is not None
            yield member.name, content.read()


def test_spectrum_falls_as_a_photographs_and_channels_go_together(images: list[bytes]) -> None:
    slopes, correlations = [], []
    for data in images[:80]:
        rgb = np.asarray(decode(data), float)
        if rgb.shape[:2] != (375, 500):
            continue
        grey = rgb.mean(axis=2)[:, :375]
        amplitude = np.abs(np.fft.fft2(grey * np.outer(np.hanning(375), np.hanning(375))))
        frequency = np.hypot(*np.meshgrid(np.fft.fftfreq(375), np.fft.fftfreq(375)))
        middle = (frequency > 0.02) & (frequency < 0.2)
        slopes.append(np.polyfit(np.log(frequency[middle]), np.log(amplitude[middle]), 1)[0])
        correlations.append(np.corrcoef(rgb.reshape(-1, 3).T)[0, 1])
    assert -1.3 < np.median(slopes) < -0.8
    assert 0.75 < np.median(correlations) < 0.99


def test_colour_statistics_are_the_training_pixels(tmp_path: Path) -> None:
    store = open_store(tmp_path.as_uri())
    pack_synthetic(store, replace(SMALL, images=10))
    dataset = open_dataset(store)
    images = read_all(store, dataset.train, range(10)).values()
    pixels = np.concatenate([np.asarray(decode(data)).reshape(-1, 3) for data in images])
    np.testing.assert_allclose(dataset.mean_rgb, pixels.mean(axis=0))
    axes, std = np.array(dataset.colour_axes), np.array(dataset.colour_std)
    np.testing.assert_allclose(axes @ np.diag(std**2) @ axes.T, np.cov(pixels.T.astype(float)), rtol=1e-5)


def test_bytes_depend_on_the_spec_alone(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(synthetic, "_texture", cache(synthetic._texture))

    def packed(spec: SyntheticSpec, threads: int) -> dict[str, bytes]:
        monkeypatch.setattr(synthetic, "cores", lambda: threads)
        store = open_store(tmp_path_factory.mktemp("again").as_uri())
        pack_synthetic(store, spec)
        return {key: store.get(key) for key in store.list("")}

    first = packed(SMALL, 1)
    assert packed(SMALL, 4) == first
    other = packed(replace(SMALL, seed=9), 1)
    assert other["dataset.json"] != first["dataset.json"]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # it leaves files open
def test_stock_webdataset_reads_the_same_samples(made: Dataset, images: list[bytes]) -> None:
    folder = made.store.url.removeprefix("file://")
    samples = list(webdataset.WebDataset([f"{folder}/{shard}" for shard in made.train.shards], shardshuffle=False))
    gc.collect()
    assert [s["__key__"] for s in samples] == list(made.train.keys)
    assert [s.get("jpg", s.get("jpeg")) for s in samples] == images
    assert [int(s["cls"]) for s in samples] == made.train.labels.tolist()
