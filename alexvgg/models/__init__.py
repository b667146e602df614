"""The nets of both papers, by name."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from alexvgg.errors import InputError, did_you_mean
from alexvgg.models.alexnet import LAYOUTS, AlexNet
from alexvgg.models.fourlayer import ACTIVATIONS, FourLayer
from alexvgg.models.vgg import KERNELS, VGG

MODEL_NAMES = (*LAYOUTS, *ACTIVATIONS, *KERNELS)

Net = VGG | AlexNet | FourLayer


def build(name: str, *, num_classes: int = 1000, width: float = 1.0, crop: int = 224, dropout: float = 0.5) -> Net:
    """The net `name`, initialised by PyTorch's defaults; `alexvgg.init` gives it the papers' weights.

    `width` scales every hidden channel count, `crop` is the side of the square input in pixels.
    Raises InputError for an unknown name or a crop that the net's pools can't take.
    """
    if name not in MODEL_NAMES:
        raise InputError(f"there is no model {name!r}{did_you_mean(name, MODEL_NAMES)}")
    if name in LAYOUTS:
        return AlexNet(name, num_classes=num_classes, width=width, crop=crop, dropout=dropout)
    if name in ACTIVATIONS:
        return FourLayer(name, num_classes=num_classes, width=width, crop=crop)
    return VGG(name, num_classes=num_classes, width=width, crop=crop, dropout=dropout)


@dataclass(frozen=True)
class Size:
    """Cost of one net: layers with weights, parameters, multiply-accumulates of one image's forward pass."""

    weight_layers: int
    params: int
    macs: int


def size(name: str, *, num_classes: int = 1000, width: float = 1.0, crop: int = 224) -> Size:
    """Counted on the real module on the meta device: no memory, no arithmetic. LRN isn't counted, as is usual."""
    convolved = 0

    def count(layer: nn.Conv2d, _inputs: object, output: Tensor) -> None:
        nonlocal convolved
        convolved += output.numel() * layer.weight[0].numel()

    with torch.device("meta"), torch.no_grad():
        model = build(name, num_classes=num_classes, width=width, crop=crop).eval()
        convs = [m for m in model.modules() if isinstance(m, nn.Conv2d)]
        linears = [m for m in model.modules() if isinstance(m, nn.Linear)]
        for conv in convs:
            conv.register_forward_hook(count)
        model.maps(torch.empty(1, 3, crop, crop))  # a linear layer's forward would import torch's compiler, 1.6 s
    connected = sum(layer.weight.numel() for layer in linears)
    return Size(len(convs) + len(linears), sum(p.numel() for p in model.parameters()), convolved + connected)
