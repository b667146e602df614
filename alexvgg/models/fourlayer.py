"""The four-layer nets of AlexNet's section 3.1 and figure 1: with ReLU one learns CIFAR-10 much faster than with tanh.

The paper doesn't print their layers. These are the three convolutions and the one fully connected layer of the CIFAR-10
example that its authors' cuda-convnet came with.
"""

from collections import OrderedDict

from torch import Tensor, nn

from alexvgg.errors import InputError
from alexvgg.models.layers import LinearHead, scaled

CHANNELS = (32, 32, 64)  # 5x5 kernels, each followed by the non-linearity and an overlapping pool
ACTIVATIONS: dict[str, type[nn.Module]] = {"fourlayer_relu": nn.ReLU, "fourlayer_tanh": nn.Tanh}
SMALLEST_CROP = 16


class FourLayer(nn.Module):
    """Input (N, 3, crop, crop), 32 for CIFAR-10; class scores (N, num_classes). No dropout: "no regularization"."""

    stride = 8

    def __init__(self, name: str, *, num_classes: int, width: float, crop: int) -> None:
        super().__init__()
        if crop < SMALLEST_CROP:
            raise InputError(f"{name}: crop {crop} is too small for its pools; use {SMALLEST_CROP} or more")
        self.crop = side = crop
        features: OrderedDict[str, nn.Module] = OrderedDict()
        in_channels = 3
        for number, base in enumerate(CHANNELS, start=1):
            channels = scaled(base, width)
            features[f"conv{number}"] = nn.Conv2d(in_channels, channels, 5, padding=2)
            features[f"activation{number}"] = ACTIVATIONS[name]()
            features[f"pool{number}"] = nn.MaxPool2d(3, stride=2)
            side, in_channels = (side - 3) // 2 + 1, channels
        self.features = nn.Sequential(features)
        self.classifier = LinearHead(in_channels, side, num_classes)

    def maps(self, images: Tensor) -> Tensor:
        """The last pooled feature maps of images of any size."""
        return self.features(images)  # type: ignore[no-any-return]

    def forward(self, images: Tensor, keys: Tensor | None = None) -> Tensor:
        """`keys` are what other nets seed dropout with; this one has none."""
        return self.classifier(self.maps(images).flatten(1))  # type: ignore[no-any-return]
