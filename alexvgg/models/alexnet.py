"""AlexNet as it was in 2012 (Krizhevsky, Sutskever & Hinton, section 3.5): two groups, LRN, overlapping pooling.

torchvision's `alexnet` is a later, different net (64-192-384-256-256 channels, no groups, no LRN).
"""

from collections import OrderedDict

import torch.nn.functional as F
from torch import Tensor, nn

from alexvgg.models.vgg import LocalResponseNorm, fully_connected, scaled

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
FC_WIDTH = 4096
SMALLEST_CROP = 64

# The paper's 224 gives conv1's printed 55x55 output only on 227 pixels: (227 - 11) / 4 + 1.
IMPLICIT_PADDING = 3


class AlexNet(nn.Module):
    """Input (N, 3, crop, crop); output class scores (N, num_classes)."""

    def __init__(self, *, num_classes: int = 1000, width: float = 1.0, crop: int = 224) -> None:
        super().__init__()
        if crop < SMALLEST_CROP:
            raise ValueError(f"alexnet: crop {crop} is too small for its pools; use {SMALLEST_CROP} or more")
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
        self.classifier = fully_connected(in_channels, side, scaled(FC_WIDTH, width), num_classes)

    def forward(self, images: Tensor) -> Tensor:
        padded = F.pad(images, (0, IMPLICIT_PADDING, 0, IMPLICIT_PADDING))
        return self.classifier(self.features(padded).flatten(1))  # type: ignore[no-any-return]
