"""One class for all nets of `alexvgg.architectures`."""

from collections import OrderedDict
from collections.abc import Callable
from functools import partial

import torch.nn.functional as F
from torch import Tensor, nn

from alexvgg.architectures import Architecture
from alexvgg.models.layers import Head, LocalResponseNorm

ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {"relu": partial(nn.ReLU, inplace=True), "tanh": nn.Tanh}


class Net(nn.Module):
    """Input (N, 3, crop, crop); output class scores (N, num_classes).

    Layers carry the names that the papers and Caffe use: `features.conv3_2` is the second conv of block 3,
    `classifier.fc6` the first fully connected layer. So two nets share a layer exactly if they share its name.
    """

    def __init__(self, architecture: Architecture, dropout: float) -> None:
        super().__init__()
        layout = architecture.layout
        self.crop, self.stride, self.border = architecture.crop, layout.stride, layout.border
        features: OrderedDict[str, nn.Module] = OrderedDict()
        for row, inputs, outputs, _ in architecture.convs:
            number = row.name.removeprefix("conv")
            features[row.name] = nn.Conv2d(inputs, outputs, row.kernel, row.stride, row.padding, groups=row.groups)
            features[f"{layout.activation}{number}"] = ACTIVATIONS[layout.activation]()
            if row.norm:
                features[f"norm{number}"] = LocalResponseNorm()
            if row.pool:
                features[f"pool{number}"] = nn.MaxPool2d(row.pool, stride=2)
        self.features = nn.Sequential(features)
        self.classifier = Head(architecture.linears, architecture.side, dropout)

    def maps(self, images: Tensor) -> Tensor:
        """The last pooled feature maps (N, channels, h', w') of images of any size."""
        if self.border:
            images = F.pad(images, (0, self.border, 0, self.border))
        return self.features(images)  # type: ignore[no-any-return]

    def forward(self, images: Tensor, keys: Tensor | None = None) -> Tensor:
        """`keys` int64 (N,) seed each sample's dropout; needed in training mode only."""
        return self.classifier(self.maps(images).flatten(1), keys)  # type: ignore[no-any-return]
