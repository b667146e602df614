"""AlexNet as it was in 2012 (Krizhevsky, Sutskever & Hinton, section 3.5): two groups, LRN, overlapping pooling.

torchvision's `alexnet` is a later, different net (64-192-384-256-256 channels, no groups, no LRN).
"""

from collections import OrderedDict

import torch.nn.functional as F
from torch import Tensor, nn

from alexvgg.errors import InputError
from alexvgg.models.layers import HIDDEN, Head, LocalResponseNorm, scaled

# Name, channels, kernel, stride, padding, groups. Conv 2, 4 and 5 see only the maps of their own GPU: two groups.
CONVS = (
    ("conv1", 96, 11, 4, 0, 1),
    ("conv2", 256, 5, 1, 2, 2),
    ("conv3", 384, 3, 1, 1, 1),
    ("conv4", 384, 3, 1, 1, 2),
    ("conv5", 256, 3, 1, 1, 2),
)
NORM_AFTER = ("conv1", "conv2")
POOL_AFTER = ("conv1", "conv2", "conv5")  # 3x3 windows, 2 apart: they overlap (section 3.4)
SMALLEST_CROP = 64

# The paper's 224 gives conv1's printed 55x55 output only on 227 pixels: (227 - 11) / 4 + 1.
IMPLICIT_PADDING = 3


class AlexNet(nn.Module):
    """Input (N, 3, crop, crop); output class scores (N, num_classes)."""

    def __init__(self, *, num_classes: int, width: float, crop: int, dropout: float) -> None:
        super().__init__()
        if crop < SMALLEST_CROP:
            raise InputError(f"alexnet: crop {crop} is too small for its pools; use {SMALLEST_CROP} or more")
        self.crop = crop
        features: OrderedDict[str, nn.Module] = OrderedDict()
        in_channels, side = 3, crop + IMPLICIT_PADDING
        for name, base, kernel, stride, padding, groups in CONVS:
            channels = 2 * scaled(base // 2, width)  # divisible by the two groups at any width
            features[name] = nn.Conv2d(in_channels, channels, kernel, stride, padding, groups=groups)
            features[name.replace("conv", "relu")] = nn.ReLU(inplace=True)
            side = (side + 2 * padding - kernel) // stride + 1
            if name in NORM_AFTER:
                features[name.replace("conv", "norm")] = LocalResponseNorm()
            if name in POOL_AFTER:
                features[name.replace("conv", "pool")] = nn.MaxPool2d(3, stride=2)
                side = (side - 3) // 2 + 1
            in_channels = channels
        self.features = nn.Sequential(features)
        self.classifier = Head(in_channels, side, scaled(HIDDEN, width), num_classes, dropout)

    def maps(self, images: Tensor) -> Tensor:
        """conv5's pooled feature maps of images of any size."""
        return self.features(F.pad(images, (0, IMPLICIT_PADDING, 0, IMPLICIT_PADDING)))  # type: ignore[no-any-return]

    def forward(self, images: Tensor, keys: Tensor | None = None) -> Tensor:
        """`keys` int64 (N,) seed each sample's dropout; needed in training mode only."""
        return self.classifier(self.maps(images).flatten(1), keys)  # type: ignore[no-any-return]
