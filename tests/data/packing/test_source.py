"""Listing images in place: ILSVRC2012 as distributed and ImageFolders, whole and damaged."""

import os
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from made import ILSVRC_IDS, SYNSETS, ilsvrc, image, imagefolder, pictures, tar_of

from alexvgg.data.packing.source import Member, Reader, Source, members, open_source
from alexvgg.errors import InputError

SOURCES = [ilsvrc, imagefolder]


def contents(source: Source) -> dict[str, dict[str, tuple[str, bytes]]]:
    """split -> key -> (class, bytes)"""
    found: dict[str, dict[str, tuple[str, bytes]]] = {}
    for split, images in source.splits.items():
        with Reader(images) as reader:
            found[split] = {
                key: (source.classes[images.labels[i]], reader.read(i)) for i, key in enumerate(images.keys)
            }
    return found


@pytest.mark.parametrize("make", SOURCES)
def test_every_image_with_its_class(make: Callable[[Path], Path], tmp_path: Path) -> None:
    source = open_source(make(tmp_path / "src"), threads=3)
    assert source.classes == tuple(SYNSETS), "a label is the rank of its wnid"
    expected = {
        split: {
            name.removesuffix(".JPEG"): (wnid, data) for wnid, files in classes.items() for name, data in files.items()
        }
        for split, classes in pictures().items()
    }
    assert contents(source) == expected


def test_the_devkit_has_an_order_of_its_own(tmp_path: Path) -> None:
    assert sorted(ILSVRC_IDS, key=ILSVRC_IDS.__getitem__) != sorted(ILSVRC_IDS), "or the tests above test nothing"
    source = open_source(ilsvrc(tmp_path / "src"), threads=1)
    assert source.about == {"words": list(SYNSETS.values())}


def test_the_digest_says_which_images_wherever_they_lie(tmp_path: Path) -> None:
    tars, folder = ilsvrc(tmp_path / "tars"), imagefolder(tmp_path / "folder")
    digest = open_source(tars, threads=1).digest()
    assert open_source(folder, threads=1).digest() == digest
    (folder / "val" / "n01440764" / "ILSVRC2012_val_00000001.JPEG").write_bytes(image(1) + b"x")
    assert open_source(folder, threads=1).digest() != digest


def edit_tar(path: Path, change: Callable[[dict[str, bytes]], None]) -> None:
    with tarfile.open(path) as tar:
        found = {m.name: tar.extractfile(m).read() for m in tar}  # type: ignore[union-attr]
    change(found)
    with tarfile.open(path, "w:gz" if path.suffix == ".gz" else "w") as tar:
        for name, data in found.items():
            part = path.with_name("part")
            part.write_bytes(data)
            tar.add(part, name)
            part.unlink()


TRAIN, VAL, DEVKIT = "ILSVRC2012_img_train.tar", "ILSVRC2012_img_val.tar", "ILSVRC2012_devkit_t12.tar.gz"
META = "ILSVRC2012_devkit_t12/data/meta.mat"
TRUTH = "ILSVRC2012_devkit_t12/data/ILSVRC2012_validation_ground_truth.txt"


@pytest.mark.parametrize(
    ("name", "change", "sentence"),
    [
        (TRAIN, lambda f: f.pop("n01440764.tar"), f"n01440764 is in the devkit but not in {TRAIN}"),
        (TRAIN, lambda f: f.update({"n09.tar": tar_of({})}), f"n09 is in {TRAIN} but not in the devkit"),
        (TRAIN, lambda f: f.update({"n01440764.tar": tar_of({})}), "the tar of synset n01440764 has no image"),
        (TRAIN, lambda f: f.update({"n01440764.tar": b"x" * 2048}), f"{TRAIN} is no intact tar"),
        (
            TRAIN,
            lambda f: f.update({"n01440764.tar": f["n01440764.tar"].rstrip(b"\0")[:-600]}),
            f"{TRAIN} is no intact tar",
        ),
        (VAL, lambda f: f.pop("ILSVRC2012_val_00000003.JPEG"), "has 14 images, but the devkit has labels for 15"),
        (DEVKIT, lambda f: f.pop(META), "no ILSVRC2012 development kit.*it has no data/meta.mat"),
        (DEVKIT, lambda f: f.update({META: b"x" * 200}), "no ILSVRC2012 development kit"),
        (DEVKIT, lambda f: f.update({TRUTH: b"1\n6\n"}), "names ILSVRC2012_ID 6, which data/meta.mat doesn't have"),
        (DEVKIT, lambda f: f.update({TRUTH: b"1\ncat\n"}), "no ILSVRC2012 development kit"),
    ],
)
def test_files_that_do_not_belong_together(
    name: str, change: Callable[[dict[str, bytes]], None], sentence: str, tmp_path: Path
) -> None:
    source = ilsvrc(tmp_path / "src")
    edit_tar(source / name, change)
    with pytest.raises(InputError, match=sentence):
        open_source(source, threads=2)


@pytest.mark.parametrize("name", [TRAIN, VAL])
def test_an_ilsvrc_tar_cut_anywhere_is_refused(name: str, tmp_path: Path) -> None:
    source = ilsvrc(tmp_path / "src")
    whole = (source / name).read_bytes()
    end = len(whole.rstrip(b"\0")) // 512 * 512
    for cut in {*range(0, end, 5 * 512), *range(300, end, 7001)}:
        (source / name).write_bytes(whole[:cut])
        with pytest.raises(InputError, match=f"{name} is no intact tar"):
            open_source(source, threads=1)


@pytest.mark.parametrize("name", [TRAIN, VAL, DEVKIT])
def test_a_missing_file_is_named(name: str, tmp_path: Path) -> None:
    source = ilsvrc(tmp_path / "src")
    (source / name).unlink()
    with pytest.raises(InputError, match=f"{name} is missing"):
        open_source(source, threads=1)


def test_folders_that_are_no_source(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no images that can be packed"):
        open_source(tmp_path, threads=1)
    (tmp_path / "train" / "cat").mkdir(parents=True)
    (tmp_path / "train" / "cat" / "1.jpg").write_bytes(image(1))
    with pytest.raises(InputError, match=r"no folder .*val"):
        open_source(tmp_path, threads=1)
    (tmp_path / "val" / "cat").mkdir(parents=True)
    with pytest.raises(InputError, match="val has no image"):
        open_source(tmp_path, threads=1)
    (tmp_path / "val" / "dog").mkdir()
    with pytest.raises(InputError, match="has the class 'dog', which"):
        open_source(tmp_path, threads=1)


def folder_of(root: Path, files: list[str]) -> Path:
    for name in (*(f"train/{f}" for f in files), "val/cat/v.png"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(image(len(name)))
    return root


def test_names_become_keys_that_webdataset_can_hold(tmp_path: Path) -> None:
    files = ["cat/a.v2.JPEG", "cat/deep/images/b.PNG", "dog/c.webp", "dog/notes.txt", "dog/more.txt", "dog/.hidden"]
    source = open_source(folder_of(tmp_path, files), threads=1)
    train = source.splits["train"]
    assert list(zip(train.keys, train.extensions, train.labels.tolist(), strict=True)) == [
        ("a_v2", "jpg", 0), ("b", "png", 0), ("c", "webp", 1),
    ]  # fmt: skip
    assert "2 files ending in '.txt' were left out: they are no images" in source.notes


def test_images_that_are_called_alike_are_told_apart_by_class(tmp_path: Path) -> None:
    source = open_source(folder_of(tmp_path, ["cat/1.jpg", "cat/2.jpg", "dog/1.jpg"]), threads=1)
    assert source.splits["train"].keys == ("cat/1", "cat/2", "dog/1")


def test_images_that_cannot_be_told_apart_are_refused(tmp_path: Path) -> None:
    source = folder_of(tmp_path, ["cat/1.jpg", "cat/1.png", "dog/1.jpg"])
    with pytest.raises(InputError, match=r"two images are called 'cat/1', in .*1\.jpg and .*1\.png"):
        open_source(source, threads=1)


@pytest.mark.parametrize("name", ["x" * 97, "é" * 49, os.fsdecode(b"\xff")])
def test_names_that_no_shard_can_hold_are_refused(name: str) -> None:
    with pytest.raises(InputError, match="does not fit into a shard"):
        members(["f"], [Member(name, "jpg", 0, 0, 0, 1)])


def test_a_file_that_changes_under_the_reader(tmp_path: Path) -> None:
    source = open_source(folder_of(tmp_path, ["cat/1.jpg", "cat/2.jpg"]), threads=1).splits["train"]
    (tmp_path / "train" / "cat" / "1.jpg").write_bytes(b"short")
    (tmp_path / "train" / "cat" / "2.jpg").unlink()
    with Reader(source) as reader:
        with pytest.raises(InputError, match="'1' is cut off"):
            reader.read(0)
        with pytest.raises(InputError, match="'2' can't be read"):
            reader.read(1)
    assert np.all(source.sizes > 5)
