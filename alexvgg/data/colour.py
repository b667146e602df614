"""Mean and principal components of a dataset's RGB pixels, as AlexNet's section 4.1 uses them."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class ColourMoments:
    """Sums over RGB pixels of 0 to 255. They are integers: in whatever order images are added, the sums are equal."""

    pixels: int
    first: NDArray[np.int64]  # (3,)
    second: NDArray[np.int64]  # (3, 3)

    @classmethod
    def none(cls) -> "ColourMoments":
        return cls(0, np.zeros(3, np.int64), np.zeros((3, 3), np.int64))

    @classmethod
    def of(cls, rgb: NDArray[np.uint8]) -> "ColourMoments":
        """Of one image, uint8 (..., 3)."""
        planes = [rgb[..., c].ravel().astype(np.float64) for c in range(3)]  # exact: all sums stay below 2^53
        first = np.array([plane.sum() for plane in planes], np.int64)
        # Not `a @ b`: BLAS would start its own threads for each of many small products.
        second = np.array([[np.einsum("n,n->", a, b) for b in planes] for a in planes], np.int64)
        return cls(planes[0].size, first, second)

    def __add__(self, other: "ColourMoments") -> "ColourMoments":
        return ColourMoments(self.pixels + other.pixels, self.first + other.first, self.second + other.second)

    def statistics(self) -> dict[str, Any]:
        """`mean_rgb`, `colour_axes` and `colour_std` as dataset.json holds them."""
        mean = self.first / self.pixels
        return colour_components(mean, (self.second - self.pixels * np.outer(mean, mean)) / (self.pixels - 1))


def colour_components(mean: NDArray[np.float64], covariance: NDArray[np.float64]) -> dict[str, Any]:
    """Mean RGB, and the principal components of a covariance (3, 3) with the standard deviation along each.

    The paper scales each component by its eigenvalue; with pixels in 0 to 255 that would be thousands, in 0 to 1 it
    would be nothing. Like every public reproduction, this takes the standard deviation, the eigenvalue's square root.
    """
    values, vectors = np.linalg.eigh(covariance)
    order = np.argsort(values)[::-1]
    vectors = vectors[:, order] * np.sign(vectors[np.abs(vectors).argmax(axis=0), range(3)])[order]
    return {
        "mean_rgb": mean.tolist(),
        "colour_axes": vectors.tolist(),
        "colour_std": np.sqrt(np.clip(values[order], 0, None)).tolist(),
    }
