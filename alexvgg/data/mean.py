"""What a net subtracts from its pixels: the mean RGB (VGG section 3.1) or the mean image (AlexNet section 2)."""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from alexvgg.config import PAPER_CROP
from alexvgg.data.shards import MEAN_SIDE, Dataset


def mean_of(dataset: Dataset, kind: Literal["rgb", "image"], crop: int) -> Tensor:
    """float32 (3,), or (3, crop, crop) of the mean image's centre, 0 to 255.

    Another crop than 224 sees the same part of an image in other pixels. Raises InputError if the dataset has no mean
    image.
    """
    if kind == "rgb":
        return torch.tensor(dataset.mean_rgb)
    edge = (MEAN_SIDE - PAPER_CROP) // 2
    centre = torch.from_numpy(dataset.mean_image())[:, edge : edge + PAPER_CROP, edge : edge + PAPER_CROP]
    if crop == PAPER_CROP:
        return centre
    return F.interpolate(centre[None], size=(crop, crop), mode="bilinear", antialias=True)[0]
