"""First weights: random initialisations by name, and the transplant from a shallower net (VGG section 3.1)."""

import hashlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from alexvgg.errors import InputError

# "The first four convolutional layers and the last three fully connected layers" of net A. Layers have the same name
# exactly if they stand at the same place of the same block; counted through, the shapes would differ.
TRANSPLANTED = ("conv1_1", "conv2_1", "conv3_1", "conv3_2", "fc6", "fc7", "fc8")

ALEXNET_BIASED = ("conv2", "conv4", "conv5", "fc6", "fc7")  # whose biases don't start at 0 (AlexNet section 5)


def initialise(
    model: nn.Module,
    kind: Literal["gaussian", "glorot", "he"],
    *,
    std: float,
    seed: int,
    biases: Mapping[str, float] | None = None,
) -> None:
    """Fill all weights in place, the same for the same seed on any machine and any number of workers.

    gaussian: N(0, std^2), both papers. glorot: U(-sqrt(6/(in+out)), +) (Glorot & Bengio 2010), which the VGG authors
    recommend in a note to section 3.1. he: N(0, 2/out) (He et al. 2015, fan-out), torchvision's choice for its VGGs.
    Biases are 0, or what `biases` gives for the layer's name.
    """
    generator = torch.Generator().manual_seed(seed)
    for name, layer in weight_layers(model):
        with torch.no_grad():
            if kind == "gaussian":
                layer.weight.normal_(0, std, generator=generator)
            elif kind == "glorot":
                nn.init.xavier_uniform_(layer.weight, generator=generator)
            else:
                nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu", generator=generator)
            assert layer.bias is not None
            layer.bias.fill_((biases or {}).get(name, 0.0))


def weight_layers(model: nn.Module) -> list[tuple[str, nn.Conv2d | nn.Linear]]:
    """(short name, layer) of every layer with weights, in forward order: ("conv1_1", Conv2d(…)), …"""
    return [(n.rpartition(".")[2], m) for n, m in model.named_modules() if isinstance(m, nn.Conv2d | nn.Linear)]


@dataclass(frozen=True)
class LayerOrigin:
    """Where one layer's first weights came from."""

    layer: str
    shape: tuple[int, ...]
    source: Literal["copied", "random"]
    sha256: str  # of the weight's bytes, first 12 digits


def transplant(
    shallow: Mapping[str, Tensor], deep: Mapping[str, Tensor], *, layers: Collection[str] | None = TRANSPLANTED
) -> tuple[dict[str, Tensor], list[LayerOrigin]]:
    """A new state dict: `deep`'s, with `layers` (None: all of them) from `shallow`; and where each layer came from.

    Nothing is modified. Raises InputError, naming both shapes, if a layer to copy is missing or doesn't fit.
    """
    own_layers = {_layer(key) for key in deep}
    names = own_layers if layers is None else set(layers)
    if missing := sorted(names - own_layers):
        raise InputError(f"the net has no {', '.join(missing)} to give weights to; only VGG A to E have these layers")
    state: dict[str, Tensor] = {}
    report: list[LayerOrigin] = []
    for key, own in deep.items():
        copied = _layer(key) in names
        theirs = shallow.get(key) if copied else own
        if theirs is None or theirs.shape != own.shape:
            found = "has no such layer" if theirs is None else f"has {tuple(theirs.shape)}"
            raise InputError(
                f"the parent doesn't fit: {key} needs shape {tuple(own.shape)}, the parent {found}. "
                "Use a parent trained with the same width, crop and number of classes."
            )
        state[key] = theirs.clone()
        if key.endswith(".weight"):
            digest = hashlib.sha256(theirs.contiguous().numpy().tobytes()).hexdigest()[:12]
            report.append(LayerOrigin(_layer(key), tuple(own.shape), "copied" if copied else "random", digest))
    return state, report


def _layer(key: str) -> str:
    """`features.conv3_2.weight` -> `conv3_2`"""
    return key.split(".")[-2]


def format_report(report: list[LayerOrigin]) -> str:
    """The transplant as a text table."""
    rows = [f"{o.layer:<8} {'x'.join(map(str, o.shape)):<16} {o.source:<7} {o.sha256}" for o in report]
    return "\n".join([f"{'layer':<8} {'shape':<16} {'origin':<7} sha256", *rows])
