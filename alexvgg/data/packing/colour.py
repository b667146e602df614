"""What is subtracted from the training images, and added: the mean RGB (VGG), the mean image and the principal colour
components (AlexNet). One pass measures all."""

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from alexvgg.data.decode import Pixels, UndecodableError, decode
from alexvgg.data.keyed import Ints
from alexvgg.data.shards import MEAN_SIDE
from alexvgg.data.views import whole
from alexvgg.errors import InputError

# Every image is measured as training at S=256 sees it (AlexNet's images were of that size too): so a large one doesn't
# count for many. Resizing levels single pixels' noise: colour_std depends a little on this.
SHORTER = 256
# The last bits are each processor's own, and a dataset's fingerprint isn't. A deviation of 0 comes out as 1e-6.
AXES_DECIMALS, STD_DECIMALS = 6, 4
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

        The paper scales each component by its eigenvalue, which depends on the pixels' unit: it would be thousands with
        pixels in 0 to 255. This takes the standard deviation, its square root, as the authors' own code does
        (cuda-convnet2's convdata.py). Many reproductions take the eigenvalue with pixels in 0 to 1 (fb.resnet.torch's
        0.2175, 0.0188, 0.0045), which is half as much along the first axis and a fifteenth along the last.
        """
        mean = self.total / self.pixels
        covariance = (self.products - np.outer(mean, self.total)) / (self.pixels - 1)
        values, vectors = np.linalg.eigh(covariance)
        std = np.sqrt(np.clip(values[::-1], 0, None)).round(STD_DECIMALS)
        axes = vectors[:, ::-1].round(AXES_DECIMALS) * (std > 0)  # along others any axis would do
        axes = axes * np.sign(axes[np.abs(axes).argmax(axis=0), range(3)]) + 0.0  # +0.0: no -0
        return {"mean_rgb": mean.tolist(), "colour_axes": axes.tolist(), "colour_std": std.tolist()}


NONE = ColourSums(0, np.zeros(3, np.int64), np.zeros((3, 3), np.int64))


class MeanImage:
    """The mean of the images' central squares, pixel by pixel (AlexNet section 2)."""

    def __init__(self) -> None:
        self.images, self.total = 0, np.zeros((3, MEAN_SIDE, MEAN_SIDE), np.int64)

    def add(self, image: Pixels) -> None:
        """An image with a shorter side of `SHORTER`: uint8 (3, h, w)."""
        top, left = ((length - MEAN_SIDE) // 2 for length in image.shape[1:])
        self.total += image[:, top : top + MEAN_SIDE, left : left + MEAN_SIDE]
        self.images += 1

    def merge(self, other: "MeanImage") -> None:
        """Add all that `other` has: integers, so that their order doesn't matter."""
        self.total += other.total
        self.images += other.images

    @property
    def mean(self) -> NDArray[np.float32]:
        """float32 (3, MEAN_SIDE, MEAN_SIDE), 0 to 255."""
        return (self.total / self.images).astype(np.float32)


def measured(images: Iterable[bytes]) -> tuple[ColourSums, MeanImage]:
    """The sums over the images that can be decoded, each at a shorter side of `SHORTER`."""
    sums, mean = NONE, MeanImage()
    for data in images:
        try:
            image = whole(decode(data), SHORTER)
        except UndecodableError:
            continue
        sums += ColourSums.of(np.moveaxis(image, 0, -1))
        mean.add(image)
    return sums, mean


def chosen(images: int, wanted: int | None, seed: int) -> Ints:
    """The numbers of `wanted` of `images` images, drawn without replacement, ascending; of all if `wanted` is None."""
    if wanted is None or wanted >= images:
        return np.arange(images)
    random = np.random.Philox(key=np.array([seed, 1], np.uint64))
    return np.sort(np.argsort(random.random_raw(images), kind="stable")[:wanted])


def measure(
    read: Callable[[Ints], Iterable[bytes]], images: Ints, threads: int
) -> tuple[dict[str, Any], NDArray[np.float32]]:
    """Colour statistics of `images`, which `read` fetches by number, and how many they were; and the mean image.

    Raises InputError if none of them can be decoded.
    """
    batches = [images[i : i + BATCH] for i in range(0, len(images), BATCH)]
    sums, mean = NONE, MeanImage()
    with ThreadPoolExecutor(threads) as pool:
        for colours, centres in pool.map(lambda batch: measured(read(batch)), batches):
            sums += colours
            mean.merge(centres)
    if sums.pixels < 2:
        raise InputError(f"none of {len(images)} training images can be decoded; they must be JPEG, PNG or WebP")
    return {**sums.statistics(), "colour_images": len(images)}, mean.mean
