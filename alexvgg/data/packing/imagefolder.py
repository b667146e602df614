"""Images sorted into folders: SRC/train/CLASS/… and SRC/val/CLASS/…, as torchvision's ImageFolder has them."""

import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from alexvgg.data.decode import EXTENSIONS
from alexvgg.data.packing.source import Member, Members, Source, members
from alexvgg.errors import InputError

SPLITS = ("train", "val")


def is_imagefolder(folder: Path) -> bool:
    """Whether it has a folder for each class of the training images."""
    return (folder / SPLITS[0]).is_dir() and bool(_classes(folder / SPLITS[0]))


def open_imagefolder(folder: Path) -> Source:
    """List the images. Raises InputError if a split is missing or empty, or val has a class that train hasn't."""
    classes = _classes(folder / "train")
    strange = sorted(set(_classes(folder / "val")) - set(classes))
    if strange:
        raise InputError(f"{folder / 'val'} has the class {strange[0]!r}, which {folder / 'train'} hasn't")
    splits, ignored = {}, Counter[str]()
    for split in SPLITS:
        splits[split] = _members(folder / split, classes, ignored)
        if not len(splits[split]):
            raise InputError(f"{folder / split} has no image ({', '.join(EXTENSIONS)}) in its class folders")
    notes = tuple(f"{n} files ending in {end!r} were left out: they are no images" for end, n in ignored.items())
    return Source("imagefolder", folder.resolve().name, tuple(classes), splits, notes=notes)


def _classes(split: Path) -> list[str]:
    if not split.is_dir():
        raise InputError(f"there is no folder {split}; an ImageFolder has train/CLASS/ and val/CLASS/")
    return sorted(entry.name for entry in os.scandir(split) if entry.is_dir())


def _members(split: Path, classes: list[str], ignored: Counter[str]) -> Members:
    """Images are called as their files are without ending, or CLASS/NAME if two of the split are called alike."""
    files: list[str] = []
    found: list[Member] = []
    for label, name in enumerate(classes):
        for path, size in _files(split / name):
            stem, _, extension = path.rpartition("/")[2].rpartition(".")
            if extension.lower() not in EXTENSIONS or not stem:
                ignored["." + extension if stem else ""] += 1
                continue
            extension = extension.lower().replace("jpeg", "jpg")
            # In a WebDataset, a key ends at the first dot.
            found.append(Member(stem.replace(".", "_"), extension, label, len(files), 0, size))
            files.append(path)
    if len({m.key for m in found}) < len(found):
        found = [m._replace(key=f"{classes[m.label]}/{m.key}") for m in found]
    return members(files, found)


def _files(folder: Path) -> Iterator[tuple[str, int]]:
    """Every plain file below a class's folder, and its size."""
    if not folder.is_dir():  # a class without validation images
        return
    for entry in sorted(os.scandir(folder), key=lambda e: e.name):
        if entry.is_dir():
            yield from _files(Path(entry.path))
        elif entry.is_file():
            yield entry.path, entry.stat().st_size
