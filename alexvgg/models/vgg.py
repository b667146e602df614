"""The VGG nets A, A-LRN, B, C, D, E (Simonyan & Zisserman 2014, Table 1) and the "shallow B" of section 2.3."""

from collections import OrderedDict

from torch import Tensor, nn

from alexvgg.errors import InputError
from alexvgg.models.layers import HIDDEN, Head, LocalResponseNorm, scaled

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


class VGG(nn.Module):
    """One column of Table 1. Input (N, 3, crop, crop); output class scores (N, num_classes).

    Layers carry the names that the papers and Caffe use: `features.conv3_2` is the second conv of block 3,
    `classifier.fc6` the first fully connected layer. So two nets share a layer exactly if they share its name.
    """

    stride = STRIDE

    def __init__(self, name: str, *, num_classes: int, width: float, crop: int, dropout: float) -> None:
        super().__init__()
        if crop < STRIDE or crop % STRIDE:
            raise InputError(f"{name}: crop {crop} is not a multiple of {STRIDE}; its five pools need 32, 64, … or 224")
        self.crop = crop
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
        self.classifier = Head(in_channels, crop // STRIDE, scaled(HIDDEN, width), num_classes, dropout)

    def maps(self, images: Tensor) -> Tensor:
        """The last block's feature maps (N, channels, h / 32, w / 32) of images of any size."""
        return self.features(images)  # type: ignore[no-any-return]

    def forward(self, images: Tensor, keys: Tensor | None = None) -> Tensor:
        """`keys` int64 (N,) seed each sample's dropout; needed in training mode only."""
        return self.classifier(self.maps(images).flatten(1), keys)  # type: ignore[no-any-return]
