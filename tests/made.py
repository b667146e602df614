"""Small made inputs: images, tars, an ImageFolder, and an ILSVRC2012 as it is distributed."""

import io
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

# Sorted by wnid; the devkit of `ilsvrc` numbers them in another order.
SYNSETS = {
    "n01440764": "tench, Tinca tinca",
    "n01443537": "goldfish, Carassius auratus",
    "n02105855": "Shetland sheepdog, Shetland sheep dog, Shetland",
    "n03000684": "chain saw, chainsaw",
    "n15075141": "toilet tissue, toilet paper, bathroom tissue",
}
ILSVRC_IDS = {"n15075141": 1, "n01443537": 2, "n03000684": 3, "n01440764": 4, "n02105855": 5}


def image(number: int, kind: str = "JPEG", mode: str = "RGB", size: tuple[int, int] = (40, 32)) -> bytes:
    """A picture of blocks that differs for every number."""
    blocks = np.random.default_rng(number).integers(0, 256, (4, 5, len(mode)), np.uint8)
    file = io.BytesIO()
    Image.fromarray(blocks.squeeze(), mode).resize(size, Image.Resampling.NEAREST).save(file, kind)
    return file.getvalue()


def tar_of(members: Mapping[str, bytes], **options: Any) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", **options) as tar:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return file.getvalue()


def pictures() -> dict[str, dict[str, dict[str, bytes]]]:
    """split -> wnid -> file name -> bytes: 5 classes of 6 training images and 3 validation images, some odd."""
    train = {wnid: {f"{wnid}_{i}.JPEG": image(100 * label + i) for i in range(6)} for label, wnid in enumerate(SYNSETS)}
    train["n02105855"]["n02105855_2933.JPEG"] = image(7, "PNG")  # as in the real one
    train["n03000684"]["n03000684_1.JPEG"] = image(8, mode="CMYK")
    names = iter(f"ILSVRC2012_val_{i:08d}.JPEG" for i in range(1, 16))
    val: dict[str, dict[str, bytes]] = {wnid: {} for wnid in SYNSETS}
    for i in range(15):
        val[list(SYNSETS)[i * 2 % 5]][next(names)] = image(1000 + i)
    return {"train": train, "val": val}


def imagefolder(root: Path) -> Path:
    """`pictures` as SRC/train/CLASS/ and SRC/val/CLASS/."""
    for split, classes in pictures().items():
        for wnid, files in classes.items():
            (root / split / wnid).mkdir(parents=True)
            for name, data in files.items():
                (root / split / wnid / name).write_bytes(data)
    return root


def ilsvrc(root: Path) -> Path:
    """`pictures` as the three files that are distributed."""
    from scipy.io import savemat

    made = pictures()
    root.mkdir(parents=True)
    inner = {f"{wnid}.tar": tar_of(files) for wnid, files in reversed(made["train"].items())}
    (root / "ILSVRC2012_img_train.tar").write_bytes(tar_of(inner))
    val = {name: (wnid, data) for wnid, files in made["val"].items() for name, data in files.items()}
    (root / "ILSVRC2012_img_val.tar").write_bytes(tar_of({n: data for n, (_, data) in val.items()}))
    fields = ["ILSVRC2012_ID", "WNID", "words", "gloss", "num_children", "children", "wordnet_height"]
    synsets = np.zeros(len(SYNSETS) + 1, [(field, object) for field in fields])
    for row, (wnid, number) in zip(synsets, ILSVRC_IDS.items(), strict=False):
        for field, value in zip(fields, (number, wnid, SYNSETS[wnid], "", 0, np.zeros(0), 0), strict=True):
            row[field] = value
    for field, value in zip(fields, (6, "n00001740", "entity", "", 2, np.array([1, 2]), 1), strict=True):
        synsets[-1][field] = value
    meta = io.BytesIO()
    savemat(meta, {"synsets": synsets.reshape(-1, 1)})
    truth = "".join(f"{ILSVRC_IDS[val[name][0]]}\n" for name in sorted(val))
    devkit = {
        "ILSVRC2012_devkit_t12/readme.txt": b"",
        "ILSVRC2012_devkit_t12/data/meta.mat": meta.getvalue(),
        "ILSVRC2012_devkit_t12/data/ILSVRC2012_validation_ground_truth.txt": truth.encode(),
    }
    with tarfile.open(root / "ILSVRC2012_devkit_t12.tar.gz", "w:gz") as archive:
        for name, data in devkit.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return root
