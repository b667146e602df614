"""The VGG nets A, A-LRN, B, C, D, E (Simonyan & Zisserman 2014, Table 1) and the "shallow B" of section 2.3."""

from collections import OrderedDict

from torch import Tensor, nn

CHANNELS = (64, 128, 256, 512, 512)  # of every conv in blocks 1 to 5

# Kernel sizes of the convs in each block; every conv has stride 1, keeps the size, and is followed by a ReLU.
KERNELS: dict[str, tuple[tuple[int, ...], ...]] = {
    "vgg_a":         ((3,),   (3,),   (3, 3),       (3, 3),       (3, 3)),
    "vgg_a_lrn":     ((3,),   (3,),   (3, 3),       (3, 3),       (3, 3)),
    "vgg_b":         ((3, 3), (3, 3), (3, 3),       (3, 3),       (3, 3)),
    "vgg_b_shallow": ((5,),   (5,),   (5,),         (5,),         (5,)),
    "vgg_c":         ((3, 3), (3, 3), (3, 3, 1),    (3, 3, 1),    (3, 3, 1)),
    "vgg_d":         ((3, 3), (3, 3), (3, 3, 3),    (3, 3, 3),    (3, 3, 3)),
    "vgg_e":         ((3, 3), (3, 3), (3, 3, 3, 3), (3, 3, 3, 3), (3, 3, 3, 3)),
}  # fmt: skip

LRN_AFTER = {"vgg_a_lrn": ("conv1_1",)}

STRIDE = 32  # five 2x2 max-pools
FC_WIDTH = 4096


class LocalResponseNorm(nn.LocalResponseNorm):
    """AlexNet's b = a / (k + alpha * sum a^2)^beta, with the paper's k=2, n=5, alpha=1e-4, beta=0.75 (section 3.3).

    PyTorch divides alpha by n, so it is given n * alpha. VGG uses the same parameters (section 2.3).
    """

    def __init__(self) -> None:
        super().__init__(size=5, alpha=5 * 1e-4, beta=0.75, k=2.0)


class VGG(nn.Module):
    """One column of Table 1. Input (N, 3, crop, crop); output class scores (N, num_classes).

    Layers carry the names that the papers and Caffe use: `features.conv3_2` is the second conv of block 3,
    `classifier.fc6` the first fully connected layer. So two nets share a layer exactly if they share its name.
    """

    def __init__(self, name: str, *, num_classes: int = 1000, width: float = 1.0, crop: int = 224) -> None:
        super().__init__()
        if crop < STRIDE or crop % STRIDE:
            raise ValueError(f"{name}: crop {crop} is not a multiple of {STRIDE}; its five pools need 32, 64, … or 224")
        features: OrderedDict[str, nn.Module] = OrderedDict()
        in_channels = 3
        for block, (kernels, base) in enumerate(zip(KERNELS[name], CHANNELS, strict=True), start=1):
            channels = scaled(base, width)
            for position, kernel in enumerate(kernels, start=1):
                layer = f"conv{block}_{position}"
                features[layer] = nn.Conv2d(in_channels, channels, kernel, padding=kernel // 2)
                features[layer.replace("conv", "relu")] = nn.ReLU(inplace=True)
                if layer in LRN_AFTER.get(name, ()):
                    features[layer.replace("conv", "norm")] = LocalResponseNorm()
                in_channels = channels
            features[f"pool{block}"] = nn.MaxPool2d(2)
        self.features = nn.Sequential(features)
        self.classifier = fully_connected(in_channels, crop // STRIDE, scaled(FC_WIDTH, width), num_classes)

    def forward(self, images: Tensor) -> Tensor:
        return self.classifier(self.features(images).flatten(1))  # type: ignore[no-any-return]


def scaled(channels: int, width: float) -> int:
    """`channels` times `width`, at least 1."""
    return max(1, round(channels * width))


def fully_connected(channels: int, side: int, hidden: int, num_classes: int) -> nn.Sequential:
    """The head that both papers share: two hidden layers with dropout 0.5 on their outputs, then the class scores.

    Its input is a flattened (channels, side, side) map.
    """
    return nn.Sequential(
        OrderedDict(
            fc6=nn.Linear(channels * side * side, hidden),
            relu6=nn.ReLU(inplace=True),
            drop6=nn.Dropout(0.5),
            fc7=nn.Linear(hidden, hidden),
            relu7=nn.ReLU(inplace=True),
            drop7=nn.Dropout(0.5),
            fc8=nn.Linear(hidden, num_classes),
        )
    )
