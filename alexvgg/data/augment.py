"""What training does to an image: scale, crop, flip, colour (VGG section 3.1, AlexNet section 4.1)."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from alexvgg.config import Scale, pixels
from alexvgg.data.decode import Pixels
from alexvgg.data.keyed import Ints, normals, uniforms
from alexvgg.data.views import central_square, crop_bottom, random_crop


@dataclass(frozen=True)
class Draws:
    """What is random in the views of n samples: each array has n rows."""

    shorter: Ints  # the shorter side, in pixels
    right: NDArray[np.float64]  # where the crop lies, in [0; 1)
    down: NDArray[np.float64]
    mirrored: NDArray[np.bool_]
    colour: NDArray[np.float32]  # (n, 3), to be added, in units of 1/255


@dataclass(frozen=True)
class Augmentation:
    """`scale` is the paper's S; `side` the crop in pixels; `flip` False where mirror images differ in class."""

    scale: Scale
    side: int
    flip: bool
    colour_std: float
    colour_axes: NDArray[np.float64]  # (3, 3): column i is principal component i times its standard deviation
    square: bool = False  # crops come from the image's central square only

    def draw(self, keys: Ints) -> Draws:
        """All that is random, for n keys at once; a pure function of each key."""
        lowest, highest = (self.scale, self.scale) if isinstance(self.scale, int) else self.scale
        scale, right, down, mirror, *rest = uniforms(keys, 10)
        shorter = [pixels(s, self.side) for s in range(lowest, highest + 1)]
        alpha = self.colour_std * np.stack([normals(a, b) for a, b in zip(rest[::2], rest[1::2], strict=True)], axis=1)
        return Draws(
            shorter=np.array(shorter)[(scale * len(shorter)).astype(np.int64)],
            right=right, down=down, mirrored=(mirror < 0.5) & self.flip,
            colour=(alpha @ self.colour_axes.T).astype(np.float32),
        )  # fmt: skip

    def bottom(self, draws: Draws, row: int, width: int, height: int) -> int:
        """Below the last row that `view` looks at, of an image of that size."""
        shorter, down = int(draws.shorter[row]), float(draws.down[row])
        if self.square:
            square = min(width, height)
            return (height - square) // 2 + crop_bottom(square, square, shorter, self.side, down)
        return crop_bottom(width, height, shorter, self.side, down)

    def view(self, image: Pixels, draws: Draws, row: int) -> Pixels:
        """One random view: uint8 (3, side, side)."""
        if self.square:
            image = central_square(image)
        view = random_crop(image, int(draws.shorter[row]), self.side, float(draws.right[row]), float(draws.down[row]))
        return view[:, :, ::-1] if draws.mirrored[row] else view
