"""AlexNet as it was in 2012 (Krizhevsky, Sutskever & Hinton, section 3.5): two groups, LRN, overlapping pooling.

And the nets that its text compares it with. torchvision's `alexnet` is a later, different net (64-192-384-256-256
channels, no groups, no LRN).
"""

from collections import OrderedDict
from dataclasses import dataclass
from typing import NamedTuple

import torch.nn.functional as F
from torch import Tensor, nn

from alexvgg.errors import InputError
from alexvgg.models.layers import HIDDEN, Head, LocalResponseNorm, scaled


class Conv(NamedTuple):
    name: str
    channels: int
    kernel: int
    stride: int
    padding: int
    groups: int  # conv 2, 4 and 5 see only the maps of their own GPU: two groups


CONV1 = Conv("conv1", 96, 11, 4, 0, 1)
CONV2 = Conv("conv2", 256, 5, 1, 2, 2)
CONV3 = Conv("conv3", 384, 3, 1, 1, 1)
CONV4 = Conv("conv4", 384, 3, 1, 1, 2)
CONV5 = Conv("conv5", 256, 3, 1, 1, 2)

# Section 3.2, footnote: half as many kernels on one GPU, but not in the last convolutional layer, so that the
# fully connected layers, which hold most parameters, stay as they are.
HALF = (
    Conv("conv1", 48, 11, 4, 0, 1),
    Conv("conv2", 128, 5, 1, 2, 1),
    Conv("conv3", 192, 3, 1, 1, 1),
    Conv("conv4", 192, 3, 1, 1, 1),
    Conv("conv5", 256, 3, 1, 1, 1),
)


@dataclass(frozen=True)
class Layout:
    """The layers before the head, each conv followed by a ReLU. Pools are 2 pixels apart: windows of 3 overlap."""

    convs: tuple[Conv, ...] = (CONV1, CONV2, CONV3, CONV4, CONV5)
    norm_after: tuple[str, ...] = ("conv1", "conv2")
    pool_after: tuple[str, ...] = ("conv1", "conv2", "conv5")
    pool: int = 3


LAYOUTS = {
    "alexnet": Layout(),
    "alexnet_no_lrn": Layout(norm_after=()),  # section 3.3
    "alexnet_no_overlap": Layout(pool=2),  # section 3.4
    "alexnet_half": Layout(convs=HALF),  # section 3.2
    "alexnet_no_conv3": Layout(convs=(CONV1, CONV2, CONV4, CONV5)),  # section 7: "any of the middle layers"
    "alexnet_no_conv4": Layout(convs=(CONV1, CONV2, CONV3, CONV5)),  # section 7
}

SMALLEST_CROP = 64

# The paper's 224 gives conv1's printed 55x55 output only on 227 pixels: (227 - 11) / 4 + 1.
IMPLICIT_PADDING = 3


class AlexNet(nn.Module):
    """One of LAYOUTS. Input (N, 3, crop, crop); output class scores (N, num_classes)."""

    stride = 32  # input pixels between neighbours of the last feature map

    def __init__(self, name: str, *, num_classes: int, width: float, crop: int, dropout: float) -> None:
        super().__init__()
        if crop < SMALLEST_CROP:
            raise InputError(f"{name}: crop {crop} is too small for its pools; use {SMALLEST_CROP} or more")
        self.crop, layout = crop, LAYOUTS[name]
        features: OrderedDict[str, nn.Module] = OrderedDict()
        in_channels, side = 3, crop + IMPLICIT_PADDING
        for conv in layout.convs:
            channels = 2 * scaled(conv.channels // 2, width)  # divisible by the two groups at any width
            features[conv.name] = nn.Conv2d(
                in_channels, channels, conv.kernel, conv.stride, conv.padding, groups=conv.groups
            )
            features[conv.name.replace("conv", "relu")] = nn.ReLU(inplace=True)
            side = (side + 2 * conv.padding - conv.kernel) // conv.stride + 1
            if conv.name in layout.norm_after:
                features[conv.name.replace("conv", "norm")] = LocalResponseNorm()
            if conv.name in layout.pool_after:
                features[conv.name.replace("conv", "pool")] = nn.MaxPool2d(layout.pool, stride=2)
                side = (side - layout.pool) // 2 + 1
            in_channels = channels
        self.features = nn.Sequential(features)
        self.classifier = Head(in_channels, side, scaled(HIDDEN, width), num_classes, dropout)

    def maps(self, images: Tensor) -> Tensor:
        """conv5's pooled feature maps of images of any size."""
        return self.features(F.pad(images, (0, IMPLICIT_PADDING, 0, IMPLICIT_PADDING)))  # type: ignore[no-any-return]

    def forward(self, images: Tensor, keys: Tensor | None = None) -> Tensor:
        """`keys` int64 (N,) seed each sample's dropout; needed in training mode only."""
        return self.classifier(self.maps(images).flatten(1), keys)  # type: ignore[no-any-return]
