"""A finished run as something to use: its net, its classes, and what its input must look like."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from alexvgg.config import pixels
from alexvgg.data.shards import read_about
from alexvgg.data.store import Store
from alexvgg.errors import InputError
from alexvgg.evaluate import Finished, find_finished, load_net
from alexvgg.models import Net


@dataclass(frozen=True)
class Trained:
    """`net` is on the CPU, in evaluation mode. `mean_rgb` (0 to 255) is subtracted from its input's pixels."""

    run: Finished
    net: Net
    classes: tuple[str, ...]
    mean_rgb: tuple[float, float, float]
    flip: bool  # are mirror images of its classes?

    @property
    def test_scales(self) -> tuple[int, ...]:
        """The Q's that the recipe averages."""
        return self.run.spec.test_scales[-1]


def open_trained(storage: Store, dataset: Store, name: str) -> Trained:
    """The run `name` with what its dataset says. Raises InputError if it isn't finished, or is of other images."""
    run, about = find_finished(storage, name), read_about(dataset)
    if run.spec.data.fingerprint != about["fingerprint"]:
        raise InputError(
            f"{name} was trained on {run.spec.data.dataset} with fingerprint {run.spec.data.fingerprint[:12]}…, the "
            f"dataset at {dataset.url} has {about['fingerprint'][:12]}…. Its classes and its mean colour are needed: "
            "name its URL with --dataset."
        )
    net = load_net(storage, run, torch.device("cpu"))
    return Trained(run, net, tuple(about["classes"]), tuple(about["mean_rgb"]), about["flip"])


def describe_input(trained: Trained, *, scale: float, mean: Sequence[float], std: Sequence[float]) -> dict[str, Any]:
    """What someone needs who has only the weights, as JSON types. The net takes (pixels * scale - mean) / std."""
    spec, shape = trained.run.spec, f"(N, 3, {trained.net.crop}, {trained.net.crop})"
    return {
        "run": trained.run.name, "weights_sha256": trained.run.weights,
        "model": spec.model.name, "width": spec.model.width,
        "dataset": spec.data.dataset, "dataset_fingerprint": spec.data.fingerprint, "classes": list(trained.classes),
        "input": f"RGB, float32 {shape}: (pixels from 0 to 255 * scale - mean) / std",
        "scale": scale, "mean": list(mean), "std": list(std),
        "resize_shorter_side": pixels(spec.test_scales[0][0], trained.net.crop), "crop": trained.net.crop,
        "interpolation": "bilinear, antialiased", "output": "class scores (N, classes), before the softmax",
    }  # fmt: skip
