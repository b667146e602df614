"""torchvision's names for the layers that its vgg11, 13, 16 and 19 share with A, B, D and E."""

from collections.abc import Mapping

from torch import Tensor

from alexvgg.errors import InputError

TWINS = {"vgg_a": "vgg11", "vgg_b": "vgg13", "vgg_d": "vgg16", "vgg_e": "vgg19"}


def from_torchvision(name: str, state: Mapping[str, Tensor], ours: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """torchvision's state dict under our keys. Both list the same layers in the same order.

    Raises InputError if the net has no twin in torchvision or the weights are another net's.
    """
    if name not in TWINS:
        raise InputError(f"torchvision has no twin of {name}; it has those of {', '.join(TWINS)}")
    if [t.shape for t in state.values()] != [t.shape for t in ours.values()]:
        raise InputError(f"these are not the weights of torchvision's {TWINS[name]} at this width, crop and classes")
    return dict(zip(ours, state.values(), strict=True))
