"""What a finished run says of single images, as AlexNet's figure 4 shows it."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from alexvgg.batch import Batch
from alexvgg.config import check_test_scales, pixels
from alexvgg.data.decode import Pixels, UndecodableError, decode
from alexvgg.data.views import central, whole
from alexvgg.engine.step import Normalisation
from alexvgg.errors import InputError
from alexvgg.evaluation.views import whole_posteriors
from alexvgg.models.dense import Dense
from alexvgg.weights.trained import Trained

Method = Literal["dense", "central"]


@dataclass(frozen=True)
class Guess:
    """A class and its probability."""

    label: int
    name: str
    probability: float


def read_image(path: Path) -> Pixels:
    """RGB pixels (h, w, 3). Raises InputError if it is no JPEG, PNG or WebP image."""
    try:
        return decode(path.read_bytes())
    except UndecodableError as error:
        raise InputError(f"{path} can't be decoded as JPEG, PNG or WebP: {error}") from None


def predict(trained: Trained, image: Pixels, *, method: Method, test_scales: Sequence[int], top: int) -> list[Guess]:
    """The `top` most probable classes, the best first: the mean of the posteriors at all test scales.

    dense: the whole image and, where that keeps its class, its mirror image (VGG section 3.2). central: one crop.
    Raises InputError for a scale below the crop's 224.
    """
    check_test_scales(test_scales)
    with torch.inference_mode():
        posteriors = torch.stack([_posteriors(trained, image, method, q) for q in test_scales]).mean(dim=0)
    best = posteriors.topk(min(top, len(posteriors)))
    return [
        Guess(label, trained.classes[label], probability)
        for probability, label in zip(best.values.tolist(), best.indices.tolist(), strict=True)
    ]


def _posteriors(trained: Trained, image: Pixels, method: Method, q: int) -> Tensor:
    """float64 (classes,) at Q=`q`."""
    crop = trained.net.crop
    shorter = pixels(q, crop)
    if method == "dense":
        images = Normalisation(trained.mean_rgb)(_alone(whole(image, shorter)))
        return whole_posteriors(Dense(trained.net), images, flip=trained.flip)[0]
    view = Normalisation(trained.mean)(_alone(central(image, shorter, crop)))
    scores: Tensor = trained.net(view)[0]
    return scores.double().softmax(dim=0)


def _alone(view: Pixels) -> Batch:
    number = torch.zeros(1, dtype=torch.int64)
    return Batch(torch.from_numpy(view)[None], torch.zeros(1, 3), number, torch.ones(1), number, number)
