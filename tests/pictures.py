"""Pictures for tests."""

import numpy as np
from PIL import Image


def photograph(width: int, height: int) -> Image.Image:
    """Smooth structure and noise, as a photograph has."""
    random = np.random.default_rng(0)
    coarse = Image.fromarray(random.integers(0, 256, (height // 16 + 1, width // 16 + 1, 3), dtype=np.uint8))
    smooth = np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC), float)
    return Image.fromarray(np.clip(smooth + random.normal(0, 8, smooth.shape), 0, 255).astype(np.uint8))
