"""A small dataset of real JPEGs, made to be changed."""

import io
import tarfile
from collections.abc import Iterable

from PIL import Image

from alexvgg.data.index import index_shard, write_dataset
from alexvgg.data.store import Store

Members = dict[str, bytes]  # by name, in the order of the tar

PER_SHARD = 6
SPLITS = {"train": ["train-0.tar", "train-1.tar"], "val": ["val-0.tar"]}
ABOUT = {
    "name": "made", "classes": ["a", "b", "c"], "flip": True, "mean_rgb": [0, 0, 0],
    "colour_axes": [[1, 0, 0], [0, 1, 0], [0, 0, 1]], "colour_std": [0, 0, 0], "mean_image": None,
}  # fmt: skip


def picture(
    shade: int, size: tuple[int, int] = (40, 30), kind: str = "JPEG", mode: str = "RGB", **how: object
) -> bytes:
    file = io.BytesIO()
    image = Image.new("RGB", size, (shade * 7, 255 - shade * 5, shade)).convert(mode)
    image.save(file, kind, **how)
    return file.getvalue()


def members_of(shard: str) -> Members:
    """The samples 000 to 005, 006 to 011 and 012 to 017 of the three shards; labels count 0, 1, 2, 0, 1, 2."""
    first = [s for shards in SPLITS.values() for s in shards].index(shard) * PER_SHARD
    members = {}
    for i in range(first, first + PER_SHARD):
        members |= {f"{i:03d}.jpg": picture(i), f"{i:03d}.cls": str(i % 3).encode()}
    return members


def tar_of(members: Iterable[tuple[str, bytes]]) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as tar:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return file.getvalue()


def pack(store: Store, changed: dict[str, Members] | None = None) -> Store:
    """Write the dataset, with other members in the shards of `changed`, and index what was written."""
    indexes = {}
    for split, shards in SPLITS.items():
        packed = {shard: tar_of((changed or {}).get(shard, members_of(shard)).items()) for shard in shards}
        for shard, tar in packed.items():
            store.put(shard, tar)
        indexes[split] = [index_shard(shard, tar) for shard, tar in packed.items()]
    write_dataset(store, ABOUT, indexes)
    return store
