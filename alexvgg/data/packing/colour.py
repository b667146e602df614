"""The training pixels' colours: their mean, which VGG subtracts, and the components that AlexNet shifts them along."""

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np

from alexvgg.data.decode import Pixels, UndecodableError, decode
from alexvgg.data.keyed import Ints
from alexvgg.data.views import whole
from alexvgg.errors import InputError

# Every image is measured as training at S=256 sees it (AlexNet's images were of that size too): so a large one doesn't
# count for many. Resizing levels single pixels' noise: colour_std depends a little on this.
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
        """The sums over the pixels of an image, uint8 (..., 3)."""
        planes = [rgb[..., c].ravel().astype(np.float64) for c in range(3)]  # exact: all sums stay below 2^53
        total = np.array([plane.sum() for plane in planes], np.int64)
        # Not `a @ b`: BLAS would start its own threads for each of many small products.
        products = np.array([[np.einsum("n,n->", a, b) for b in planes] for a in planes], np.int64)
        return cls(planes[0].size, total, products)

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
        return ColourSums.of(np.moveaxis(whole(decode(data), SHORTER), 0, -1))
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
