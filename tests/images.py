"""Small datasets of pictures in several aspect ratios."""

import io
from collections.abc import Collection
from pathlib import Path

import numpy as np
from PIL import Image
from webdataset import TarWriter

from alexvgg.data.index import index_shard, write_dataset
from alexvgg.data.packing.colour import ColourSums
from alexvgg.data.shards import MEAN_SIDE, Dataset, open_dataset, write_mean_image
from alexvgg.data.store import open_store

# As common in ImageNet: 4:3, 3:2, square, upright, and single odd ones.
SIZES = ((50, 37), (50, 33), (37, 50), (50, 50), (50, 37), (50, 37), (33, 50), (61, 40))


def mixed_dataset(
    folder: Path,
    images: int,
    *,
    classes: int = 10,
    flip: bool = True,
    bad: Collection[int] = (),
    sizes: tuple[tuple[int, int], ...] = SIZES,
) -> Dataset:
    """`images` validation pictures and one for training; those at `bad` can't be decoded."""
    store = open_store(folder.as_uri())
    random = np.random.default_rng(0)
    splits = {}
    for split, n in (("train", 1), ("val", images)):
        path = folder / f"{split}.tar"
        with path.open("wb") as file, TarWriter(file, encoder=False, mtime=0) as writer:
            for i in range(n):
                width, height = sizes[random.integers(len(sizes))]
                coarse = Image.fromarray(random.integers(0, 256, (5, 6, 3), dtype=np.uint8))
                jpeg = io.BytesIO()
                coarse.resize((width, height), Image.Resampling.BICUBIC).save(jpeg, "JPEG")
                body = b"no image" if split == "val" and i in bad else jpeg.getvalue()
                label = str(int(random.integers(classes))).encode()
                writer.write({"__key__": f"{i:06d}", "jpg": body, "cls": label})
        splits[split] = [index_shard(path.name, path.read_bytes())]
    statistics = ColourSums.of(random.integers(0, 256, (1000, 3)).astype(np.uint8)).statistics()
    about = {"name": "mixed", "classes": [str(c) for c in range(classes)], "flip": flip, **statistics}
    mean_image = np.random.default_rng(0).uniform(0, 255, (3, MEAN_SIDE, MEAN_SIDE)).astype(np.float32)
    about["mean_image"] = write_mean_image(store, mean_image)
    write_dataset(store, about, splits)
    return open_dataset(store)
