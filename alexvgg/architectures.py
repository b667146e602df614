"""The nets of both papers as data: every layer that has weights, and what stands between them.

Without torch, so that a plan is made in a moment; `alexvgg.models` builds its modules from the same tables.
"""

from dataclasses import dataclass
from typing import Literal, NamedTuple

from alexvgg.errors import InputError, did_you_mean

HIDDEN = 4096  # units of fc6 and fc7
FLOP_PER_MAC = 6  # of training: forward, and backward to inputs and to weights; a multiply and an add each


class Row(NamedTuple):
    """A convolution as the papers print it, each followed by a non-linearity."""

    name: str
    channels: int
    kernel: int
    stride: int = 1
    padding: int = 0
    groups: int = 1
    norm: bool = False  # local response normalisation follows
    pool: int = 0  # side of the max-pool's windows that follow, 2 pixels apart


@dataclass(frozen=True)
class Layout:
    """A net at the paper's width: its convolutions, then fully connected layers, the last of which gives the scores."""

    rows: tuple[Row, ...]
    linears: tuple[str, ...] = ("fc6", "fc7", "fc8")
    activation: Literal["relu", "tanh"] = "relu"
    stride: int = 32  # input pixels between neighbours of the last feature map
    border: int = 0  # pixels of zeros at the image's right and bottom
    multiple: int = 1  # that every channel count is of, at any width
    crop: int = 224  # the side of the paper's input


# VGG (Simonyan & Zisserman 2014), Table 1, and the "shallow B" of section 4.1: kernel sizes of the convolutions in each
# block. Every one has stride 1 and keeps the size.
VGG_CHANNELS = (64, 128, 256, 512, 512)  # of every convolution in blocks 1 to 5
VGG_KERNELS: dict[str, tuple[tuple[int, ...], ...]] = {
    "vgg_a":         ((3,),   (3,),   (3, 3),       (3, 3),       (3, 3)),
    "vgg_a_lrn":     ((3,),   (3,),   (3, 3),       (3, 3),       (3, 3)),
    "vgg_b":         ((3, 3), (3, 3), (3, 3),       (3, 3),       (3, 3)),
    "vgg_b_shallow": ((5,),   (5,),   (5,),         (5,),         (5,)),
    "vgg_c":         ((3, 3), (3, 3), (3, 3, 1),    (3, 3, 1),    (3, 3, 1)),
    "vgg_d":         ((3, 3), (3, 3), (3, 3, 3),    (3, 3, 3),    (3, 3, 3)),
    "vgg_e":         ((3, 3), (3, 3), (3, 3, 3, 3), (3, 3, 3, 3), (3, 3, 3, 3)),
}  # fmt: skip
VGG_NORMED = {"vgg_a_lrn": ("conv1_1",)}


def _vgg(name: str) -> Layout:
    rows = []
    for block, (kernels, channels) in enumerate(zip(VGG_KERNELS[name], VGG_CHANNELS, strict=True), start=1):
        for position, kernel in enumerate(kernels, start=1):
            conv = f"conv{block}_{position}"
            norm, pool = conv in VGG_NORMED.get(name, ()), 2 if position == len(kernels) else 0
            rows.append(Row(conv, channels, kernel, padding=kernel // 2, norm=norm, pool=pool))
    return Layout(tuple(rows))


# AlexNet as it was in 2012 (Krizhevsky, Sutskever & Hinton, section 3.5): two groups, LRN, overlapping pooling. Conv 2,
# 4 and 5 see only the maps of their own GPU. torchvision's `alexnet` is a later, different net (64-192-384-256-256
# channels, no groups, no LRN).
CONV1 = Row("conv1", 96, 11, stride=4, norm=True, pool=3)
CONV2 = Row("conv2", 256, 5, padding=2, groups=2, norm=True, pool=3)
CONV3 = Row("conv3", 384, 3, padding=1)
CONV4 = Row("conv4", 384, 3, padding=1, groups=2)
CONV5 = Row("conv5", 256, 3, padding=1, groups=2, pool=3)


def _alexnet(*rows: Row) -> Layout:
    """The paper's 224 gives conv1's printed 55x55 output only on 227 pixels: (227 - 11) / 4 + 1."""
    return Layout(rows, border=3, multiple=2)


ALEXNETS = {
    "alexnet": _alexnet(CONV1, CONV2, CONV3, CONV4, CONV5),
    # Section 3.3: without normalisation.
    "alexnet_no_lrn": _alexnet(CONV1._replace(norm=False), CONV2._replace(norm=False), CONV3, CONV4, CONV5),
    # Section 3.4: pools that don't overlap.
    "alexnet_no_overlap": _alexnet(
        CONV1._replace(pool=2), CONV2._replace(pool=2), CONV3, CONV4, CONV5._replace(pool=2)
    ),
    # Section 3.2, footnote: half as many kernels on one GPU, but not in the last convolutional layer, so that the fully
    # connected layers, which hold most parameters, stay as they are.
    "alexnet_half": _alexnet(
        CONV1._replace(channels=48),
        CONV2._replace(channels=128, groups=1),
        CONV3._replace(channels=192),
        CONV4._replace(channels=192, groups=1),
        CONV5._replace(groups=1),
    ),
    # Section 7: without "any of the middle layers".
    "alexnet_no_conv3": _alexnet(CONV1, CONV2, CONV4, CONV5),
    "alexnet_no_conv4": _alexnet(CONV1, CONV2, CONV3, CONV5),
}

# AlexNet's section 3.1 and figure 1: a four-layer net with ReLU learns CIFAR-10 much faster than one with tanh. The
# paper doesn't print its layers. These are the three convolutions and the one fully connected layer of the CIFAR-10
# example that its authors' cuda-convnet came with, with max-pools throughout. No dropout: "no regularization".
_FOUR = tuple(Row(f"conv{n}", channels, 5, padding=2, pool=3) for n, channels in enumerate((32, 32, 64), start=1))

LAYOUTS: dict[str, Layout] = {
    **ALEXNETS,
    "fourlayer_relu": Layout(_FOUR, ("fc4",), stride=8, crop=32),
    "fourlayer_tanh": Layout(_FOUR, ("fc4",), "tanh", stride=8, crop=32),
    **{name: _vgg(name) for name in VGG_KERNELS},
}
MODEL_NAMES = tuple(LAYOUTS)


class Conv(NamedTuple):
    """A convolution at a width and a crop, and the side of its square output maps."""

    row: Row
    inputs: int
    outputs: int
    side: int

    @property
    def params(self) -> int:
        return self.outputs * (self.inputs // self.row.groups * self.row.kernel**2 + 1)

    @property
    def macs(self) -> int:
        """Multiply-accumulates of one image's forward pass."""
        return (self.params - self.outputs) * self.side**2


class Linear(NamedTuple):
    """A fully connected layer, `outputs` x `inputs` weights and a bias."""

    name: str
    inputs: int
    outputs: int

    @property
    def params(self) -> int:
        return self.inputs * self.outputs + self.outputs

    @property
    def macs(self) -> int:
        return self.inputs * self.outputs


@dataclass(frozen=True)
class Architecture:
    """A net of some width for crops of some side: what `alexvgg.models` builds, and what that costs.

    `side` is that of the last pooled maps, which the first fully connected layer takes. LRN isn't counted, as is usual.
    """

    layout: Layout
    crop: int
    convs: tuple[Conv, ...]
    side: int
    linears: tuple[Linear, ...]

    @property
    def weight_layers(self) -> int:
        return len(self.convs) + len(self.linears)

    @property
    def params(self) -> int:
        return sum(conv.params for conv in self.convs) + sum(linear.params for linear in self.linears)

    @property
    def macs(self) -> int:
        """Multiply-accumulates of one image's forward pass."""
        return sum(conv.macs for conv in self.convs) + sum(linear.macs for linear in self.linears)


def architecture(name: str, *, num_classes: int = 1000, width: float = 1.0, crop: int | None = None) -> Architecture:
    """The net `name`. `width` scales every hidden channel count, `crop` is the side of the square input in pixels, the
    paper's by default.

    Raises InputError for an unknown name or a crop that the net's pools can't take.
    """
    if name not in LAYOUTS:
        raise InputError(f"there is no model {name!r}{did_you_mean(name, MODEL_NAMES)}")
    layout = LAYOUTS[name]
    crop = layout.crop if crop is None else crop
    _check_crop(name, crop)
    convs, inputs, side = [], 3, crop + layout.border
    for row in layout.rows:
        outputs = layout.multiple * _scaled(row.channels // layout.multiple, width)
        side = (side + 2 * row.padding - row.kernel) // row.stride + 1
        convs.append(Conv(row, inputs, outputs, side))
        inputs = outputs
        if row.pool:
            side = (side - row.pool) // 2 + 1
    units = [inputs * side**2, *[_scaled(HIDDEN, width) for _ in layout.linears[1:]], num_classes]
    linears = [Linear(name, *sizes) for name, *sizes in zip(layout.linears, units, units[1:], strict=False)]
    return Architecture(layout, crop, tuple(convs), side, tuple(linears))


def _scaled(channels: int, width: float) -> int:
    return max(1, round(channels * width))


def _check_crop(name: str, crop: int) -> None:
    if name in VGG_KERNELS:
        if crop < 32 or crop % 32:
            raise InputError(f"{name}: crop {crop} is not a multiple of 32; its five pools need 32, 64, … or 224")
    elif crop < (smallest := 64 if name in ALEXNETS else 16):
        raise InputError(f"{name}: crop {crop} is too small for its pools; use {smallest} or more")
