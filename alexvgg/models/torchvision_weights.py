"""torchvision's vgg11, 13, 16 and 19 are A, B, D and E under other names, and with another input.

torchvision's nets take (x / 255 - MEAN) / STD, ours x minus the dataset's mean RGB (VGG section 3.1). Towards
torchvision nothing is folded: its preprocessing with mean = mean RGB / 255 and std = 1 / 255 is our input, so weights
stay as they are, to the bit. From torchvision the published preprocessing is given, so conv1_1 takes it up.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from alexvgg.architectures import VGG_KERNELS
from alexvgg.config import PAPER_CROP, ModelConfig
from alexvgg.errors import InputError

TWINS = {"vgg_a": "vgg11", "vgg_b": "vgg13", "vgg_d": "vgg16", "vgg_e": "vgg19"}

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of pixels from 0 to 1, of torchvision's IMAGENET1K_V1
FIRST = "features.conv1_1"

WHY_NOT = {
    "vgg_a_lrn": "torchvision's VGG has no local response normalisation",
    "vgg_b_shallow": "torchvision's VGG has 3x3 convolutions only",
    "vgg_c": "torchvision's VGG has 3x3 convolutions only, and C has 1x1 ones",
    "alexnet": "torchvision's alexnet is a later net, of 64-192-384-256-256 channels without groups and normalisation",
}


def check_twin(model: ModelConfig) -> None:
    """Raise InputError, with the reason, if torchvision has no net of this form."""
    if model.name not in TWINS:
        reason = WHY_NOT.get(model.name, f"it has those of {', '.join(TWINS)} only")
        raise InputError(f"torchvision has no twin of {model.name}: {reason}")
    if model.width != 1 or model.crop != PAPER_CROP:
        raise InputError(
            f"torchvision's {TWINS[model.name]} has fixed channels and a head for 7x7 maps: it can't hold a net of "
            f"width {model.width:g} for crops of {model.crop} pixels. Use another format"
        )


def to_torchvision(name: str, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Our state dict under torchvision's keys."""
    return {theirs: state[ours] for ours, theirs in _keys(name).items()}


def from_torchvision(name: str, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """torchvision's state dict under our keys. Raises InputError if it is another net's."""
    keys = _keys(name)
    there, asked = set(state), set(keys.values())
    if there != asked:
        odd = [f"the file has no {min(asked - there)}"] if asked - there else []
        odd += [f"the net has no {min(there - asked)}"] if there - asked else []
        raise InputError(
            f"these are not the weights of torchvision's {TWINS[name]}: {', and '.join(odd)}. Name the net that they "
            "are of (vgg11, 13, 16 or 19, none of its _bn forms), and save its own state_dict()."
        )
    return {ours: state[theirs] for ours, theirs in keys.items()}


def take_pixels(state: Mapping[str, Tensor], mean_rgb: Sequence[float]) -> dict[str, Tensor]:
    """`from_torchvision`'s weights for pixels from 0 to 255 minus `mean_rgb`: conv1_1 changes, nothing else.

    Exact where no padding is seen. At the image's border both nets pad with zero, which is the colour 255 MEAN for
    theirs and `mean_rgb` for ours; so scores are equal if these are (ImageNet's are, to about one of 255), and near
    each other else.
    """
    weight, bias = (state[f"{FIRST}.{kind}"].double() for kind in ("weight", "bias"))
    mean, std, ours = (torch.tensor(v, dtype=torch.float64) for v in (MEAN, STD, mean_rgb))
    weight = weight / (255 * std)[:, None, None]
    bias = bias + weight.sum(dim=(2, 3)) @ (ours - 255 * mean)
    return {**state, f"{FIRST}.weight": weight.float(), f"{FIRST}.bias": bias.float()}


def _keys(name: str) -> dict[str, str]:
    """Our key of every tensor -> torchvision's. Its layers are numbered, ReLUs, pools and dropouts included."""
    places, number = {}, 0
    for block, kernels in enumerate(VGG_KERNELS[name], start=1):
        for position in range(1, len(kernels) + 1):
            places[f"features.conv{block}_{position}"] = f"features.{number}"
            number += 2
        number += 1
    places |= {"classifier.fc6": "classifier.0", "classifier.fc7": "classifier.3", "classifier.fc8": "classifier.6"}
    return {f"{ours}.{kind}": f"{theirs}.{kind}" for ours, theirs in places.items() for kind in ("weight", "bias")}
