"""A finished run as something to use: its net, its classes, and what its input must look like."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from alexvgg.config import pixels
from alexvgg.data.mean import mean_of
from alexvgg.data.shards import open_dataset
from alexvgg.data.store import Store
from alexvgg.errors import InputError
from alexvgg.evaluate import load_net
from alexvgg.models import Net
from alexvgg.runs import Finished, find_finished


@dataclass(frozen=True)
class Trained:
    """`net` is on the CPU, in evaluation mode.

    `mean`, float32 (3,) or (3, crop, crop) from 0 to 255, is subtracted from a crop's pixels, and `mean_rgb` from those
    of a whole image.
    """

    run: Finished
    net: Net
    classes: tuple[str, ...]
    mean: Tensor
    mean_rgb: tuple[float, float, float]
    flip: bool  # are mirror images of its classes?

    @property
    def test_scales(self) -> tuple[int, ...]:
        """The Q's that the recipe averages."""
        return self.run.spec.test_scales[-1]


def open_trained(storage: Store, dataset: Store, name: str) -> Trained:
    """The run `name` with what its dataset says. Raises InputError if it isn't finished, or is of other images."""
    run, images = find_finished(storage, name), open_dataset(dataset)
    if run.spec.data.fingerprint != images.fingerprint:
        raise InputError(
            f"{name} was trained on {run.spec.data.dataset} with fingerprint {run.spec.data.fingerprint[:12]}…, the "
            f"dataset at {dataset.url} has {images.fingerprint[:12]}…. Its classes and its mean colour are needed: "
            "name its URL with --dataset."
        )
    net = load_net(storage, run, torch.device("cpu"))
    mean = mean_of(images, run.spec.data.mean, net.crop)
    return Trained(run, net, images.words, mean, images.mean_rgb, images.flip)


def describe_input(
    trained: Trained, *, scale: float, mean: Sequence[float] | str, std: Sequence[float]
) -> dict[str, Any]:
    """What someone needs who has only the weights, as JSON types. The net takes (pixels * scale - mean) / std.

    `mean` is a sentence if it is no colour.
    """
    spec, shape = trained.run.spec, f"(N, 3, {trained.net.crop}, {trained.net.crop})"
    return {
        "run": trained.run.name, "weights_sha256": trained.run.weights,
        "model": spec.model.name, "width": spec.model.width,
        "dataset": spec.data.dataset, "dataset_fingerprint": spec.data.fingerprint, "classes": list(trained.classes),
        "input": f"RGB, float32 {shape}: (pixels from 0 to 255 * scale - mean) / std",
        "scale": scale, "mean": mean if isinstance(mean, str) else list(mean), "std": list(std),
        "resize_shorter_side": pixels(spec.test_scales[0][0], trained.net.crop), "crop": trained.net.crop,
        "interpolation": "bilinear, antialiased", "output": "class scores (N, classes), before the softmax",
    }  # fmt: skip
