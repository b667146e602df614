"""The nets of both papers, by name."""

from alexvgg.architectures import architecture
from alexvgg.models.net import Net

__all__ = ["Net", "build"]


def build(name: str, *, num_classes: int = 1000, width: float = 1.0, crop: int = 224, dropout: float = 0.5) -> Net:
    """The net `name`, initialised by PyTorch's defaults; `alexvgg.init` gives it the papers' weights.

    `width` scales every hidden channel count, `crop` is the side of the square input in pixels.
    Raises InputError for an unknown name or a crop that the net's pools can't take.
    """
    return Net(architecture(name, num_classes=num_classes, width=width, crop=crop), dropout)
