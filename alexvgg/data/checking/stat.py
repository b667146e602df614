"""What a dataset holds, in numbers: from its index, the sizes of its shards, and the headers of some images."""

import io
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from PIL import Image, JpegImagePlugin

from alexvgg.data.decode import TYPES
from alexvgg.data.shards import Dataset, Split, open_dataset
from alexvgg.data.store import Store
from alexvgg.errors import InputError

THREADS = 16  # small ranged reads wait for answers, not for the processor
HEADER_BYTES = 16 << 10  # of an image, which hold its header if no large profile or thumbnail comes first
CHROMA = {0: "4:4:4", 1: "4:2:2", 2: "4:2:0"}
MOST = 8  # image sizes that are listed


@dataclass(frozen=True)
class Spread:
    """The least, middle and greatest of some numbers."""

    min: float
    median: float
    mean: float
    max: float

    @classmethod
    def of(cls, values: ArrayLike) -> "Spread":
        array = np.asarray(values, float)
        return cls(*(round(float(f(array)), 3) for f in (np.min, np.median, np.mean, np.max)))


@dataclass(frozen=True)
class Pictures:
    """What the headers of `looked_at` images say; sizes in pixels, aspect is width / height."""

    looked_at: int
    width: Spread
    height: Spread
    shorter: Spread
    aspect: Spread
    sizes: dict[str, int]  # WIDTHxHEIGHT -> images, the most frequent first
    kinds: dict[str, int]  # file format, colours, chroma subsampling -> images
    unreadable: list[str]  # keys


@dataclass(frozen=True)
class SplitFacts:
    """One split. `per_class` counts images, and `empty_classes` the classes that have none."""

    images: int
    shards: int
    per_class: Spread
    empty_classes: int
    image_bytes: Spread
    shard_bytes: Spread
    total_bytes: int  # of its shards
    pictures: Pictures


@dataclass(frozen=True)
class Facts:
    """A dataset in numbers."""

    url: str
    name: str
    fingerprint: str
    classes: int
    flip: bool
    splits: dict[str, SplitFacts]

    def to_dict(self) -> dict[str, Any]:
        """As JSON types."""
        return asdict(self)


def describe(store: Store, images: int) -> Facts:
    """Look at the index, the shards' sizes and the headers of up to `images` images of each split, evenly spread.

    No pixel is decoded. Raises InputError if there is no dataset, or no image in it that a decoder knows.
    """
    dataset = open_dataset(store)
    with ThreadPoolExecutor(THREADS) as pool:
        splits = {
            name: _split_facts(pool, dataset, split, images)
            for name, split in (("train", dataset.train), ("val", dataset.val))
        }
    return Facts(store.url, dataset.name, dataset.fingerprint, len(dataset.classes), dataset.flip, splits)


def _split_facts(pool: ThreadPoolExecutor, dataset: Dataset, split: Split, images: int) -> SplitFacts:
    per_class = np.bincount(split.labels, minlength=len(dataset.classes))
    shard_bytes = list(pool.map(dataset.store.size, split.shards))
    chosen = np.arange(min(images, len(split))) * len(split) // min(images, len(split))
    headers = list(pool.map(lambda sample: _header(dataset.store, split, int(sample)), chosen))
    return SplitFacts(
        images=len(split), shards=len(split.shards), per_class=Spread.of(per_class),
        empty_classes=int((per_class == 0).sum()), image_bytes=Spread.of(split.sizes),
        shard_bytes=Spread.of(shard_bytes), total_bytes=sum(shard_bytes),
        pictures=_pictures([split.keys[sample] for sample in chosen], headers),
    )  # fmt: skip


@dataclass(frozen=True)
class _Header:
    width: int
    height: int
    kind: str


def _header(store: Store, split: Split, sample: int) -> _Header | None:
    """What an image's first bytes say or, where they don't, all of them; None if no decoder knows the format."""
    shard, size = split.shards[split.shard_of[sample]], int(split.sizes[sample])
    for length in dict.fromkeys((min(HEADER_BYTES, size), size)):
        data = store.get_range(shard, int(split.offsets[sample]), length)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                image = Image.open(io.BytesIO(data), formats=TYPES)
        except Exception:  # Pillow raises many types on damaged or shortened data
            continue
        return _Header(image.width, image.height, _kind(image))
    return None


def _kind(image: Image.Image) -> str:
    words = [str(image.format), image.mode]
    if isinstance(image, JpegImagePlugin.JpegImageFile):
        if image.mode == "RGB":
            words.append(CHROMA.get(JpegImagePlugin.get_sampling(image), "other chroma"))
        if image.info.get("progressive"):
            words.append("progressive")
    return " ".join(words)


def _pictures(keys: Sequence[str], headers: Sequence[_Header | None]) -> Pictures:
    known = [header for header in headers if header is not None]
    if not known:
        raise InputError(f"none of {len(headers)} images is JPEG, PNG or WebP; `alexvgg data verify` looks at each")
    sizes = np.array([(h.width, h.height) for h in known])
    width, height = sizes.T
    return Pictures(
        looked_at=len(headers), width=Spread.of(width), height=Spread.of(height),
        shorter=Spread.of(sizes.min(axis=1)), aspect=Spread.of(width / height),
        sizes=dict(Counter(f"{h.width}x{h.height}" for h in known).most_common(MOST)),
        kinds=dict(Counter(h.kind for h in known).most_common()),
        unreadable=[key for key, header in zip(keys, headers, strict=True) if header is None],
    )  # fmt: skip


def to_text(facts: Facts) -> Iterator[str]:
    """The facts in lines."""
    mirror = "mirror images keep their class" if facts.flip else "mirror images may change their class"
    yield f"{facts.name}  {facts.url}"
    yield f"{facts.classes} classes, {mirror}, fingerprint {facts.fingerprint}"
    for name, split in facts.splits.items():
        pictures = split.pictures
        yield ""
        yield f"{name}: {split.images:,} images in {split.shards:,} shards, {_size(split.total_bytes)}"
        if split.empty_classes:
            yield f"  {split.empty_classes} classes have no image"
        yield f"  {'':<16}{'min':>12}{'median':>12}{'mean':>12}{'max':>12}"
        rows = (
            ("images per class", split.per_class, "{:,.0f}"), ("bytes per image", split.image_bytes, "{:,.0f}"),
            ("bytes per shard", split.shard_bytes, "{:,.0f}"), ("width", pictures.width, "{:,.0f}"),
            ("height", pictures.height, "{:,.0f}"), ("shorter side", pictures.shorter, "{:,.0f}"),
            ("width / height", pictures.aspect, "{:.2f}"),
        )  # fmt: skip
        for title, spread, form in rows:
            values = (spread.min, spread.median, spread.mean, spread.max)
            yield f"  {title:<16}" + "".join(f"{form.format(value):>12}" for value in values)
        yield f"  of {pictures.looked_at:,} images' headers:"
        yield f"    {_shares(pictures.sizes, pictures.looked_at)}"
        yield f"    {_shares(pictures.kinds, pictures.looked_at)}"
        if pictures.unreadable:
            yield f"    {len(pictures.unreadable)} are of no known kind: {', '.join(pictures.unreadable[:5])}"


def _shares(counts: dict[str, int], of: int) -> str:
    return ", ".join(f"{name} {100 * count / of:.1f} %" for name, count in counts.items())


def _size(size: int) -> str:
    return f"{size / 1e9:.2f} GB" if size >= 1e9 else f"{size / 1e6:.1f} MB"
