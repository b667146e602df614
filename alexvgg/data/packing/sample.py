"""Small real datasets that need no download."""

import io
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from alexvgg.data.index import ShardIndex, index_shard, write_dataset
from alexvgg.data.packing.colour import ColourSums
from alexvgg.data.shards import MEAN_SIDE, write_mean_image
from alexvgg.data.store import Store
from alexvgg.data.views import RESAMPLE
from alexvgg.errors import InputError

SHARD_SAMPLES = 240
VALIDATION_IMAGES = 360


def pack_digits(store: Store, seed: int = 0) -> None:
    """scikit-learn's digits, 1,797 scans of handwriting of 8x8 pixels, as JPEG shards: 1,437 train, 360 validation.

    The split is stratified; order and split depend only on `seed`. (Alpaydin & Kaynak 1998, UCI repository.)
    Raises InputError without scikit-learn.
    """
    try:
        from sklearn.datasets import load_digits
        from sklearn.model_selection import train_test_split
    except ModuleNotFoundError:
        raise InputError(
            "the digits are scikit-learn's, which isn't installed: install alexvgg with its extra, as by `pip install "
            "'alexvgg[local]'`"
        ) from None

    scans, labels = load_digits(return_X_y=True)
    pictures = np.rint(scans.reshape(-1, 8, 8) * (255 / 16)).astype(np.uint8)
    parts = train_test_split(
        np.arange(len(labels)), test_size=VALIDATION_IMAGES, stratify=labels, shuffle=True, random_state=seed
    )
    splits = {}
    for name, ids in zip(("train", "val"), parts, strict=True):
        splits[name] = [
            _pack_shard(store, f"{name}-{n:06d}.tar", pictures, labels, ids[start : start + SHARD_SAMPLES])
            for n, start in enumerate(range(0, len(ids), SHARD_SAMPLES))
        ]
    rgb = np.repeat(pictures[parts[0]].reshape(-1, 1), 3, axis=1)
    about = {
        "name": "digits", "classes": [str(d) for d in range(10)], "flip": False, **ColourSums.of(rgb).statistics(),
        "mean_image": write_mean_image(store, _mean_image(pictures[parts[0]])),
    }  # fmt: skip
    write_dataset(store, about, splits)


def _mean_image(pictures: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Resizing is linear: the mean picture, enlarged, is the mean of the enlarged pictures."""
    mean = Image.fromarray(pictures.mean(axis=0, dtype=np.float32)).resize((MEAN_SIDE, MEAN_SIDE), RESAMPLE)
    return np.repeat(np.asarray(mean)[None], 3, axis=0)


def _pack_shard(
    store: Store, shard: str, pictures: NDArray[np.uint8], labels: NDArray[np.int64], ids: Sequence[int]
) -> ShardIndex:
    from webdataset import TarWriter

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / shard
        with path.open("wb") as file, TarWriter(file, encoder=False, mtime=0) as writer:
            for i in ids:
                jpeg = io.BytesIO()
                Image.fromarray(pictures[i]).save(jpeg, "JPEG", quality=95)
                writer.write({"__key__": f"{i:06d}", "jpg": jpeg.getvalue(), "cls": str(labels[i]).encode()})
        data = path.read_bytes()
    index = index_shard(shard, data)
    store.put(shard, data)
    return index
