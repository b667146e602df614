"""The training pixels' colours: their mean, which VGG subtracts, and the components that AlexNet shifts them along."""

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from alexvgg.data.decode import Pixels, UndecodableError, decode, whole
from alexvgg.errors import InputError

Ints = NDArray[np.int64]

# Every image is measured as training at S=256 sees it (AlexNet's images were of that size too): so a large one doesn't
# count for many. Reduced decoding and resizing level single pixels' noise: colour_std depends a little on this.
SHORTER = 256
BATCH = 16  # images that one thread reads and adds up together


@dataclass(frozen=True)
class ColourSums:
    """Sums over RGB pixels, as integers: exact, so that they don't depend on the order in which they are added."""

    pixels: int
    total: Ints  # (3,): of each channel
    products: Ints  # (3, 3): of each pair of channels

    @classmethod
    def of(cls, rgb: Pixels) -> "ColourSums":
        """The sums over pixels (n, 3)."""
        values = rgb.astype(np.float64)  # exact below 2^53, and BLAS multiplies floats
        return cls(len(rgb), values.sum(axis=0).astype(np.int64), (values.T @ values).astype(np.int64))

    def __add__(self, other: "ColourSums") -> "ColourSums":
        return ColourSums(self.pixels + other.pixels, self.total + other.total, self.products + other.products)

    def statistics(self) -> dict[str, Any]:
        """Mean and principal components, 0 to 255, as AlexNet's section 4.1 uses them.

        The paper scales each component by its eigenvalue; with pixels in 0 to 255 that would be thousands, in 0 to 1
        it would be nothing. Like every public reproduction, this takes the standard deviation, its square root.
        """
        mean = self.total / self.pixels
        covariance = (self.products - np.outer(mean, self.total)) / (self.pixels - 1)
        values, vectors = np.linalg.eigh(covariance)
        order = np.argsort(values)[::-1]
        vectors = vectors[:, order] * np.sign(vectors[np.abs(vectors).argmax(axis=0), range(3)])[order]
        return {
            "mean_rgb": mean.tolist(),
            "colour_axes": vectors.tolist(),
            "colour_std": np.sqrt(np.clip(values[order], 0, None)).tolist(),
        }


NONE = ColourSums(0, np.zeros(3, np.int64), np.zeros((3, 3), np.int64))


def colours_of(data: bytes) -> ColourSums:
    """The sums over one image's pixels at a shorter side of `SHORTER`; of none if it can't be decoded."""
    try:
        return ColourSums.of(whole(decode(data, at_least=SHORTER), SHORTER).reshape(3, -1).T)
    except UndecodableError:
        return NONE


def chosen(images: int, wanted: int | None, seed: int) -> Ints:
    """The numbers of `wanted` of `images` images, drawn without replacement, ascending; of all if `wanted` is None."""
    if wanted is None or wanted >= images:
        return np.arange(images)
    random = np.random.Philox(key=np.array([seed, 1], np.uint64))
    return np.sort(np.argsort(random.random_raw(images), kind="stable")[:wanted])


def measure(read: Callable[[Ints], Iterable[bytes]], images: Ints, threads: int) -> dict[str, Any]:
    """Colour statistics of `images`, which `read` fetches by number, and how many they were.

    Raises InputError if none of them can be decoded.
    """
    batches = [images[i : i + BATCH] for i in range(0, len(images), BATCH)]
    with ThreadPoolExecutor(threads) as pool:
        sums = sum(pool.map(lambda batch: sum(map(colours_of, read(batch)), NONE), batches), NONE)
    if sums.pixels < 2:
        raise InputError(f"none of {len(images)} training images can be decoded; they must be JPEG, PNG or WebP")
    return {**sums.statistics(), "colour_images": len(images)}
