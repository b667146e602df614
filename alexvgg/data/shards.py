"""A dataset in a store: plain WebDataset tars, an index of each, and `dataset.json`, which is written last.

dataset.json            classes, colour statistics, fingerprint and what it is of, the shards of each split
mean.npy                the training images' mean image, float32 (3, 256, 256), 0 to 255
train-000000.tar        KEY.jpg + KEY.cls, as any WebDataset reader expects them
index/train-000000.tar.json   per sample: key, offset, size, label, crc32 of the image's bytes
"""

import hashlib
import io
import json
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from alexvgg.data.index import FORMAT, IDENTITY, fingerprint
from alexvgg.data.keyed import Ints
from alexvgg.data.store import MissingKeyError, Store
from alexvgg.errors import InputError, reading

ABOUT = ("name", "classes", *IDENTITY, "fingerprint", "splits")  # of dataset.json

MEAN_IMAGE = "mean.npy"
AGAIN = "Pack or index the dataset again"
MEAN_SIDE = 256  # pixels: the central square of images with a shorter side of 256 (AlexNet section 2)


@dataclass(frozen=True)
class Split:
    """All samples of one split. A sample's id is its position here."""

    shards: tuple[str, ...]
    shard_sizes: tuple[int, ...]
    keys: tuple[str, ...]
    shard_of: Ints
    offsets: Ints
    sizes: Ints
    labels: Ints
    crc32: Ints

    def __len__(self) -> int:
        return len(self.keys)


@dataclass(frozen=True)
class Dataset:
    """What `dataset.json` says, with the index of both splits."""

    name: str
    classes: tuple[str, ...]
    words: tuple[str, ...]  # for people: of ImageNet's classes what their synset means; else the classes
    flip: bool  # is a mirror image still of its class?
    mean_rgb: tuple[float, float, float]  # of the training pixels, 0 to 255
    colour_axes: tuple[tuple[float, ...], ...]  # principal components of the training pixels' RGB, as columns,
    colour_std: tuple[float, ...]  # and the standard deviation along each, in units of 1/255
    mean_sha256: str | None  # of the mean image; None without one
    fingerprint: str
    train: Split
    val: Split
    store: Store

    @property
    def colour_steps(self) -> NDArray[np.float64]:
        """(3, 3): column i is principal component i times its standard deviation, as an `Augmentation` takes it."""
        steps: NDArray[np.float64] = np.array(self.colour_axes) * np.array(self.colour_std)
        return steps

    def mean_image(self) -> NDArray[np.float32]:
        """float32 (3, MEAN_SIDE, MEAN_SIDE), 0 to 255. Raises InputError if it isn't there or isn't the dataset's."""
        try:
            data = self.store.get(MEAN_IMAGE)
        except MissingKeyError:
            raise InputError(
                f"the dataset at {self.store.url} has no mean image, which AlexNet subtracts. Pack or index it again, "
                "or subtract the mean RGB: --set data.mean=rgb."
            ) from None
        if hashlib.sha256(data).hexdigest() != self.mean_sha256:
            raise InputError(f"{self.store.url}/{MEAN_IMAGE} isn't the dataset's: it was changed. {AGAIN}.")
        with reading(f"{self.store.url}/{MEAN_IMAGE}"):
            image: NDArray[np.float32] = np.load(io.BytesIO(data), allow_pickle=False)
        return image


def _check_index(store: Store, shard: str, columns: Mapping[str, Any], classes: int) -> None:
    """Raise InputError if a shard's columns don't belong together, or a label is none of the classes."""
    lengths = {name: len(columns.get(name, ())) for name in ("keys", "offsets", "sizes", "labels", "crc32")}
    if len(set(lengths.values())) > 1:
        raise InputError(
            f"{store.url}/index/{shard}.json is damaged: its columns have {lengths} entries. Index it again"
        )
    if columns["labels"] and not 0 <= min(columns["labels"]) <= max(columns["labels"]) < classes:
        raise InputError(
            f"{store.url}/index/{shard}.json has labels from {min(columns['labels'])} to {max(columns['labels'])}, but "
            f"the dataset has {classes} classes: 0 to {classes - 1}. Index it again with the right --classes"
        )


def write_mean_image(store: Store, image: NDArray[np.float32]) -> str:
    """Keep the mean image of a dataset; before `dataset.json`, which holds its sha256, and says that all is there."""
    file = io.BytesIO()
    np.save(file, image, allow_pickle=False)
    store.put(MEAN_IMAGE, file.getvalue())
    return hashlib.sha256(file.getvalue()).hexdigest()


def read_about(store: Store) -> dict[str, Any]:
    """dataset.json. Raises InputError if there is none, or it is of another format."""
    try:
        about: dict[str, Any] = json.loads(store.get("dataset.json"))
    except MissingKeyError:
        raise InputError(
            f"there is no dataset at {store.url}. `alexvgg data sample digits {store.url}` packs a small one."
        ) from None
    except ValueError as error:
        raise InputError(f"{store.url}/dataset.json is damaged ({error}). {AGAIN}") from None
    if about.get("format") != FORMAT:
        raise InputError(
            f"the dataset at {store.url} has format {about.get('format')}; this version reads {FORMAT}. {AGAIN}"
        )
    if missing := [name for name in ABOUT if name not in about]:
        raise InputError(f"{store.url}/dataset.json lacks {', '.join(missing)}. {AGAIN}")
    return about


def is_complete(store: Store) -> bool:
    """Whether it holds a dataset that this version can read."""
    try:
        read_intact(store)
    except InputError:
        return False
    return True


def read_intact(store: Store) -> dict[str, Any]:
    """`read_about`. Raises InputError, too, if what it says isn't what was packed or indexed."""
    about = read_about(store)
    if fingerprint(about) != about["fingerprint"]:
        raise InputError(
            f"{store.url}/dataset.json was changed: what it says of colours, mean and mirror images doesn't fit its "
            f"fingerprint, by which results are told apart. {AGAIN}"
        )
    return about


def open_dataset(store: Store) -> Dataset:
    """Read a dataset's index. Raises InputError if there is none, no image in it, or its description was changed."""
    about = read_intact(store)
    classes = len(about["classes"])
    splits = {name: _open_split(store, shards, classes) for name, shards in about["splits"].items()}
    for name, split in splits.items():
        if len(split) == 0:
            raise InputError(f"the dataset at {store.url} is empty: its {name} split has no image")
    return Dataset(
        name=about["name"], classes=tuple(about["classes"]), words=tuple(about.get("words", about["classes"])),
        flip=about["flip"], mean_rgb=tuple(about["mean_rgb"]),
        colour_axes=tuple(map(tuple, about["colour_axes"])), colour_std=tuple(about["colour_std"]),
        mean_sha256=about["mean_image"], fingerprint=about["fingerprint"],
        train=splits["train"], val=splits["val"], store=store,
    )  # fmt: skip


def _read_index(store: Store, shard: str) -> dict[str, Any]:
    key, remedy = f"index/{shard}.json", "`alexvgg data verify` names all that is wrong; pack or index it again."
    try:
        document = json.loads(store.get(key))
    except MissingKeyError as error:
        raise InputError(f"{error}, though dataset.json names its shard. {remedy}") from None
    except ValueError as error:
        raise InputError(f"{store.url}/{key} is damaged: {error}. {remedy}") from None
    if not isinstance(document, dict):
        raise InputError(f"{store.url}/{key} is no index of a shard. {remedy}")
    return document


def _open_split(store: Store, shards: Sequence[str], classes: int) -> Split:
    with ThreadPoolExecutor(16) as pool:
        columns = list(pool.map(lambda shard: _read_index(store, shard), shards))
    for shard, c in zip(shards, columns, strict=True):
        _check_index(store, shard, c, classes)
    sizes = tuple(len(c["keys"]) for c in columns)

    def column(name: str) -> Ints:
        return np.concatenate([np.asarray(c[name], np.int64) for c in columns]) if columns else np.empty(0, np.int64)

    return Split(
        shards=tuple(shards), shard_sizes=sizes, keys=tuple(k for c in columns for k in c["keys"]),
        shard_of=np.repeat(np.arange(len(shards)), sizes), offsets=column("offsets"), sizes=column("sizes"),
        labels=column("labels"), crc32=column("crc32"),
    )  # fmt: skip
