"""ILSVRC2012 as it is distributed: two tars and the development kit, read in place.

ILSVRC2012_img_train.tar          a tar of one tar per synset: n01440764.tar has n01440764_10026.JPEG, …
ILSVRC2012_img_val.tar            ILSVRC2012_val_00000001.JPEG, …
ILSVRC2012_devkit_t12.tar.gz      data/meta.mat: synsets with their ILSVRC2012_ID, in an order of its own;
                                  data/ILSVRC2012_validation_ground_truth.txt: one ILSVRC2012_ID per validation image
"""

import io
import tarfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from alexvgg.data.packing.source import Member, Source, members
from alexvgg.data.tars import DamagedTarError, headers
from alexvgg.errors import InputError

TRAIN, VAL = "ILSVRC2012_img_train.tar", "ILSVRC2012_img_val.tar"
META, TRUTH = "data/meta.mat", "data/ILSVRC2012_validation_ground_truth.txt"


@dataclass(frozen=True)
class Devkit:
    """Of each leaf synset: its WordNet id (wnid) and words, by ILSVRC2012_ID; and the validation images' ids."""

    wnids: dict[int, str]
    words: dict[str, str]
    validation: tuple[int, ...]


def find_devkit(folder: Path) -> Path | None:
    """The development kit's archive; task 1 and 2's and task 3's hold the same classification data."""
    return next(iter(sorted(folder.glob("ILSVRC2012_devkit_t*.tar*"))), None)


def is_ilsvrc(folder: Path) -> bool:
    """Whether any of the three files is there."""
    return any((folder / tar).exists() for tar in (TRAIN, VAL)) or find_devkit(folder) is not None


def open_ilsvrc(folder: Path, threads: int) -> Source:
    """Index every image of both tars in one pass over their headers.

    Raises InputError if a file is missing, cut or damaged, or the three don't belong together.
    """
    archive = find_devkit(folder)
    for path in (folder / TRAIN, folder / VAL, archive or folder / "ILSVRC2012_devkit_t12.tar.gz"):
        if not path.exists():
            raise InputError(f"{path} is missing; ILSVRC2012 is {TRAIN}, {VAL} and ILSVRC2012_devkit_t12.tar.gz")
    assert archive is not None
    devkit = read_devkit(archive)
    wnids = sorted(devkit.wnids.values())
    label_of = {wnid: label for label, wnid in enumerate(wnids)}
    train = _train_members(folder / TRAIN, label_of, threads)
    val = _val_members(folder / VAL, [label_of[devkit.wnids[i]] for i in devkit.validation])
    splits = {"train": members([str(folder / TRAIN)], train), "val": members([str(folder / VAL)], val)}
    about = {"words": [devkit.words[wnid] for wnid in wnids]}
    return Source("ilsvrc2012", "imagenet", tuple(wnids), splits, about)


def _train_members(path: Path, label_of: dict[str, int], threads: int) -> Iterator[Member]:
    synsets = {PurePosixPath(m.name).stem: m for m in _entries(path, 0, path.stat().st_size)}
    strange = sorted(synsets.keys() ^ label_of.keys())
    if strange:
        where = f"{path.name} but not in the devkit" if strange[0] in synsets else f"the devkit but not in {path.name}"
        raise InputError(f"synset {strange[0]} is in {where}; the file is incomplete, or of another year")

    def of_synset(wnid: str) -> list[Member]:
        tar = synsets[wnid]
        found = [
            Member(PurePosixPath(m.name).stem, "jpg", label_of[wnid], 0, m.offset_data, m.size)
            for m in _entries(path, tar.offset_data, tar.size)
        ]
        if not found:
            raise InputError(f"{path}: the tar of synset {wnid} has no image")
        return found

    with ThreadPoolExecutor(threads) as pool:
        try:
            for found in pool.map(of_synset, label_of):
                yield from found
        finally:
            pool.shutdown(cancel_futures=True)


def _val_members(path: Path, labels: list[int]) -> list[Member]:
    entries = sorted(_entries(path, 0, path.stat().st_size), key=lambda m: m.name)
    if len(entries) != len(labels):
        raise InputError(f"{path} has {len(entries)} images, but the devkit has labels for {len(labels)}")
    return [
        Member(PurePosixPath(m.name).stem, "jpg", label, 0, m.offset_data, m.size)
        for m, label in zip(entries, labels, strict=True)
    ]


def _entries(path: Path, start: int, size: int) -> Iterator[tarfile.TarInfo]:
    """The plain files of the tar that lies at `start` of a file; their offsets count from the file's beginning."""
    try:
        with path.open("rb", buffering=0) as file:  # of a tar's 138 GB only the headers are wanted
            file.seek(start)
            for member in headers(file):
                if member.offset_data + member.size > start + size:
                    raise DamagedTarError(start + size, f"{member.name} goes beyond its end, byte {start + size}")
                if member.isreg():
                    yield member
    except DamagedTarError as error:
        raise InputError(f"{path} is no intact tar: {error}. Compare its checksum and download it again.") from error


def read_devkit(path: Path) -> Devkit:
    """Read the development kit. Raises InputError if it isn't one."""
    from scipy.io import loadmat

    try:
        with tarfile.open(path) as archive:
            found = {m.name: m for m in archive if m.isreg()}
            meta, truth = (_content(archive, found, name) for name in (META, TRUTH))
        synsets = loadmat(io.BytesIO(meta), squeeze_me=True, variable_names=["synsets"])["synsets"]
        leaves = synsets[synsets["num_children"].astype(int) == 0]
        wnids = {int(s["ILSVRC2012_ID"]): str(s["WNID"]) for s in leaves}
        words = {str(s["WNID"]): str(s["words"]) for s in leaves}
        validation = tuple(int(line) for line in truth.split())
    except (tarfile.TarError, EOFError, KeyError, ValueError, OSError) as error:
        raise InputError(f"{path} is no ILSVRC2012 development kit: {error}") from error
    unknown = sorted(set(validation) - wnids.keys())
    if unknown:
        raise InputError(f"{path}: {TRUTH} names ILSVRC2012_ID {unknown[0]}, which {META} doesn't have")
    return Devkit(wnids, words, validation)


def _content(archive: tarfile.TarFile, found: dict[str, tarfile.TarInfo], name: str) -> bytes:
    member = next((m for path, m in found.items() if path.endswith(name)), None)
    file = archive.extractfile(member) if member is not None else None
    if file is None:
        raise KeyError(f"it has no {name}")
    return file.read()
