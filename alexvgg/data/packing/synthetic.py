"""Images with ImageNet's sizes, weights and oddities but no content: for benchmarks and tests without a download.

What makes streaming and decoding as costly as the real thing follows ILSVRC2012: a median of 500x375 pixels, 110 KB a
file, amplitudes that fall as 1/f, correlated colour channels, mostly 4:2:0 chroma. Greyscale, CMYK and progressive
files are more frequent than there, so that a small set has some of each.
"""

import io
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from alexvgg.data.decode import Pixels, decode
from alexvgg.data.index import ShardIndex, index_shard, write_dataset
from alexvgg.data.keyed import Ints
from alexvgg.data.packing.colour import NONE, SHORTER, ColourSums, MeanImage
from alexvgg.data.shards import MEAN_SIDE, write_mean_image
from alexvgg.data.store import Store
from alexvgg.data.tars import BLOCK
from alexvgg.data.views import central
from alexvgg.process import cores

Texture = NDArray[np.float32]  # (TEXTURE_SIDE, TEXTURE_SIDE, 3)

TEXTURE_SIDE = 1728  # holds the largest image, with room to choose where it lies
SMOOTH, ROUGH = 1.3, 0.8  # amplitudes fall as 1/f^a; of photographs a is around 1.2 (Tolhurst et al. 1992)
RGB_AXES = np.array([[1, 1, 1], [1, 0, -1], [1, -2, 1]]) / np.sqrt([[3], [2], [6]])
RGB_STD = np.sqrt([0.2175, 0.0188, 0.0045])  # of ImageNet's pixels along about these axes, in 0 to 1
MEAN_RGB = np.array([123.7, 116.8, 103.9])  # of ImageNet's pixels
TAR_END = 20 * BLOCK  # bytes; the end mark is padded to a record

# (percent, (width, height)), after ILSVRC2012's frequent sizes; None is any size.
SIZES: tuple[tuple[int, tuple[int, int] | None], ...] = (
    (40, (500, 375)), (14, (375, 500)), (12, (500, 333)), (6, (333, 500)), (4, (500, 500)), (4, (500, 334)),
    (3, (640, 480)), (2, (800, 600)), (1, (768, 1024)), (1, (1600, 1200)), (13, None),
)  # fmt: skip
# (percent, mode, chroma subsampling, progressive)
KINDS = (
    (79, "RGB", "4:2:0", False), (8, "RGB", "4:4:4", False), (4, "RGB", "4:2:2", False), (4, "RGB", "4:2:0", True),
    (3, "L", "4:4:4", False), (2, "CMYK", "4:4:4", False),
)  # fmt: skip
SPLITS = ("train", "val")
CHUNK = 64  # images made at a time, so that memory holds these and one shard


@dataclass(frozen=True)
class SyntheticSpec:
    """How many images, of how many classes, in shards of at most `shard_bytes`."""

    images: int = 1000
    val: int = 100
    classes: int = 100
    seed: int = 0
    shard_bytes: int = 64 << 20


@dataclass(frozen=True)
class _Sample:
    key: str
    extension: str
    image: bytes
    label: int


def pack_synthetic(store: Store, spec: SyntheticSpec) -> None:
    """Write `spec.images` training and `spec.val` validation images with index and dataset.json.

    The bytes depend only on the spec, NumPy and Pillow, not on the number of threads. Labels say nothing about
    pixels: no net can learn these.
    """
    textures = _texture(spec.seed, SMOOTH), _texture(spec.seed, ROUGH)
    sums, mean = NONE, MeanImage()
    splits: dict[str, list[ShardIndex]] = {split: [] for split in SPLITS}
    with ThreadPoolExecutor(cores()) as pool:
        for split, images in zip(SPLITS, (spec.images, spec.val), strict=True):
            for samples in _shards(_samples(pool, textures, spec.seed, split, images, spec.classes), spec):
                name = f"{split}-{len(splits[split]):06d}.tar"
                tar = _tar(samples)
                store.put(name, tar)
                splits[split].append(index_shard(name, tar))
                if split == "train":
                    for colours, centre in pool.map(_measured, samples):
                        sums += colours
                        mean.add(centre)
    about = {
        "name": "synthetic", "classes": [f"synthetic {c}" for c in range(spec.classes)], "flip": True,
        **sums.statistics(), "mean_image": write_mean_image(store, mean.mean),
    }  # fmt: skip
    write_dataset(store, about, splits)


def _measured(sample: _Sample) -> tuple[ColourSums, Pixels]:
    """The colours of all its pixels, and its centre for the mean image."""
    image = decode(sample.image)
    return ColourSums.of(image), central(image, SHORTER, MEAN_SIDE)


def _texture(seed: int, exponent: float) -> Texture:
    """A periodic picture whose amplitudes fall as 1/f^exponent, with ImageNet's colour covariance, in 0 to 255."""
    random = np.random.default_rng([seed, round(100 * exponent)])
    side = TEXTURE_SIDE
    frequency = np.hypot(np.fft.fftfreq(side)[:, None], np.fft.rfftfreq(side)[None, :]).astype(np.float32)
    frequency[0, 0] = np.inf
    planes = []
    for std in RGB_STD:
        noise = random.standard_normal((2, *frequency.shape), np.float32)
        plane = np.fft.irfft2((noise[0] + 1j * noise[1]) * frequency**-exponent, (side, side))
        planes.append(plane * (255 * std / plane.std()))
    return (np.stack(planes, axis=-1) @ RGB_AXES).astype(np.float32)


def _samples(
    pool: ThreadPoolExecutor, textures: tuple[Texture, Texture], seed: int, split: str, images: int, classes: int
) -> Iterator[_Sample]:
    """The samples of one split in order, each class equally often, sizes and kinds in their shares."""
    stream = SPLITS.index(split)
    random = np.random.default_rng([seed, stream])
    labels = random.permutation(np.arange(images) % classes)
    sizes = _dealt([share for share, *_ in SIZES], images, random)
    kinds = _dealt([share for share, *_ in KINDS], images, random)
    png = int(random.integers(images)) if split == "train" else None  # like ILSVRC2012's n02105855_2933.JPEG

    def sample(i: int) -> _Sample:
        own = np.random.default_rng([seed, stream, i])
        pixels = _pixels(textures, *_size(sizes[i], own), own)
        key, label = f"{split}_{i:08d}", int(labels[i])
        if i == png:
            return _Sample(key, "jpeg", _encoded(Image.fromarray(pixels), format="PNG"), label)
        _, mode, chroma, progressive = KINDS[kinds[i]]
        quality = int(own.integers(82, 97))
        jpeg = {"format": "JPEG", "quality": quality, "subsampling": chroma, "progressive": progressive}
        return _Sample(key, "jpg", _encoded(Image.fromarray(pixels).convert(mode), **jpeg), label)

    for start in range(0, images, CHUNK):
        yield from pool.map(sample, range(start, min(start + CHUNK, images)))


def _dealt(shares: Sequence[int], n: int, random: np.random.Generator) -> Ints:
    """`n` choices in random order, of which each occurs as often as its share (in percent) says, rounded."""
    chosen = np.searchsorted(np.cumsum(shares), 100 * (np.arange(n) + 0.5) / n)
    return random.permutation(chosen)


def _size(choice: int, random: np.random.Generator) -> tuple[int, int]:
    """(width, height) in pixels."""
    _, size = SIZES[choice]
    if size is not None:
        return size
    area, aspect = 160_000 * np.exp(0.7 * random.standard_normal()), np.exp(0.35 * random.standard_normal())
    width, height = (int(np.clip(side, 60, TEXTURE_SIDE)) for side in (np.sqrt(area * aspect), np.sqrt(area / aspect)))
    return width, height


def _pixels(textures: tuple[Texture, Texture], width: int, height: int, random: np.random.Generator) -> Pixels:
    """Two textures at random places in a random proportion, brightness and contrast: uint8 (height, width, 3)."""
    rough = random.uniform(0.05, 0.7)
    contrast, brightness = random.uniform(0.4, 1.0), MEAN_RGB + random.normal(0, 20)
    total = np.empty((height, width, 3), np.float32)
    total[:] = brightness
    for texture, weight in zip(textures, (contrast * (1 - rough), contrast * rough), strict=True):
        x, y = (int(random.integers(TEXTURE_SIDE - side + 1)) for side in (width, height))
        total += texture[y : y + height, x : x + width] * np.float32(weight)
    return np.clip(total, 0, 255, out=total).astype(np.uint8)


def _encoded(image: Image.Image, **how: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, **how)
    return file.getvalue()


def _shards(samples: Iterable[_Sample], spec: SyntheticSpec) -> Iterator[list[_Sample]]:
    """Samples in shards as full as they can be without getting bigger than the spec allows."""
    shard: list[_Sample] = []
    size = TAR_END
    for sample in samples:
        room = 3 * BLOCK + -(-len(sample.image) // BLOCK) * BLOCK  # headers, the label, the padded image
        if shard and size + room > spec.shard_bytes:
            yield shard
            shard, size = [], TAR_END
        shard.append(sample)
        size += room
    yield shard


def _tar(samples: Iterable[_Sample]) -> bytes:
    from webdataset import TarWriter

    file = io.BytesIO()
    with TarWriter(file, encoder=False, mtime=0) as writer:
        for s in samples:
            writer.write({"__key__": s.key, s.extension: s.image, "cls": str(s.label).encode()})
    return file.getvalue()
