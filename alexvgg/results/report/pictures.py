"""Pictures as AlexNet's paper has them: first-layer filters (figure 3), images with the net's answers (figure 4)."""

import base64
import io
import json
import math
from collections.abc import Sequence
from html import escape
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from alexvgg.data.shards import Dataset
from alexvgg.data.store import Store
from alexvgg.errors import StoreError, reading
from alexvgg.evaluation.posteriors import Scoring, is_whole, read
from alexvgg.keys import final_weights_key
from alexvgg.results.paper import own_method
from alexvgg.runs import RunRecord

SHOWN = 8  # images, as in figure 4
WRONG = 3  # of them, if the net got as many wrong
SIDE = 160  # pixels of an image's longer side, if it has more


def filters(runs: Sequence[RunRecord], storage: Store) -> str:
    """The first layer's kernels of every finished run."""
    cards = []
    for run in runs:
        if run.weights is None:
            continue
        kernels = first_layer(storage, final_weights_key(run.name))
        count, side = kernels.shape[0], kernels.shape[2]
        picture, columns = grid_of(kernels)
        width = min(columns * (side + 1) * max(2, 30 // side), 330)
        cards.append(
            f"<article><h3>{escape(run.name)}</h3><p>{count} kernels of {side}×{side}</p>"
            f'<img class="pixels" src="{picture}" style="width:{width}px" alt="{count} first-layer kernels"></article>'
        )
    return f'<div class="cards">{"".join(cards)}</div>'


def first_layer(storage: Store, key: str) -> NDArray[np.float32]:
    """The first convolution's kernels (N, 3, k, k) out of a safetensors file, of which nothing else is read."""
    length = int.from_bytes(storage.get_range(key, 0, 8), "little")
    header = storage.get_range(key, 8, length)
    with reading(key):
        tensors = sorted((name, t) for name, t in json.loads(header).items() if name != "__metadata__")
        about: dict[str, Any] = next((t for _, t in tensors if t["shape"][1:2] == [3] and len(t["shape"]) == 4), {})
        start, end = about["data_offsets"]
        return np.frombuffer(storage.get_range(key, 8 + length + start, end - start), "<f4").reshape(about["shape"])


def grid_of(kernels: NDArray[np.float32]) -> tuple[str, int]:
    """(a PNG as a data URL, number of columns): kernels in rows, each stretched to its own full range of colours."""
    n, _, side, _ = kernels.shape
    columns = min(n, 16) if n <= 16 else 16
    rows = math.ceil(n / columns)
    canvas = np.zeros((rows * (side + 1) - 1, columns * (side + 1) - 1, 4), np.uint8)
    for i, kernel in enumerate(kernels):
        low, high = kernel.min(), kernel.max()
        shade = (kernel - low) / ((high - low) or 1) * 255
        top, left = (i // columns) * (side + 1), (i % columns) * (side + 1)
        canvas[top : top + side, left : left + side, :3] = shade.round().astype(np.uint8).transpose(1, 2, 0)
        canvas[top : top + side, left : left + side, 3] = 255
    return data_url(Image.fromarray(canvas), "png"), columns


def data_url(image: Image.Image, kind: str) -> str:
    file = io.BytesIO()
    image.save(file, kind, **({"quality": 85} if kind == "jpeg" else {"optimize": True}))
    return f"data:image/{kind};base64,{base64.b64encode(file.getvalue()).decode()}"


def predictions(run: RunRecord, dataset: Dataset, storage: Store) -> str:
    """Validation images with the net's five best classes; empty if the run's posteriors aren't there or readable."""
    assert run.weights is not None
    method, q = own_method(run.spec.model.name), run.spec.test_scales[0][0]
    assert method != "both"
    scoring = Scoring(run.name, run.weights, dataset.fingerprint, method, q)
    try:
        if not is_whole(storage, scoring):
            return ""
        stored = read(storage, scoring.key, scoring)
    except StoreError:
        return ""
    cards = [
        _prediction(dataset, int(stored.samples[i]), int(stored.labels[i]), stored.values[i])
        for i in choose_images(stored.labels, stored.values)
    ]
    return f'<div class="images">{"".join(cards)}</div>'


def choose_images(labels: Tensor, values: Tensor) -> list[int]:
    """Rows to show: those that the net is most wrong about, then the least certain right answer of each next class."""
    own = values.gather(1, labels[:, None]).squeeze(1)
    right = values.argmax(dim=1) == labels
    wrong = [int(i) for i in torch.where(right, torch.inf, own).argsort(stable=True) if not right[i]][:WRONG]
    chosen, classes = list(wrong), {int(labels[i]) for i in wrong}
    for i in own.argsort(stable=True).tolist():
        if len(chosen) == SHOWN:
            break
        if right[i] and int(labels[i]) not in classes:
            chosen.append(i)
            classes.add(int(labels[i]))
    return chosen


def _prediction(dataset: Dataset, sample: int, label: int, posteriors: Tensor) -> str:
    best = posteriors.topk(min(5, len(posteriors)))
    bars = "".join(
        f'<li class="{"right" if int(c) == label else ""}"><i style="--share:{float(p):.3f}"></i>'
        f"<span>{escape(dataset.words[int(c)])}</span><b>{100 * float(p):.0f} %</b></li>"
        for p, c in zip(best.values, best.indices, strict=True)
    )
    split = dataset.val
    shard = split.shards[int(split.shard_of[sample])]
    data = dataset.store.get_range(shard, int(split.offsets[sample]), int(split.sizes[sample]))
    picture, small = thumbnail(data)
    state = "right" if int(best.indices[0]) == label else "wrong"
    name = escape(dataset.words[label])
    return (
        f'<figure class="{state}"><img{" class=pixels" if small else ""} src="{picture}" alt="{name}">'
        f"<figcaption>{name}</figcaption><ol>{bars}</ol></figure>"
    )


def thumbnail(data: bytes) -> tuple[str, bool]:
    """(a data URL, is it so small that pixels should be seen?)"""
    with Image.open(io.BytesIO(data)) as image:
        picture = image.convert("RGB")
    small = max(picture.size) < SIDE
    picture.thumbnail((SIDE, SIDE))
    return data_url(picture, "png" if small else "jpeg"), small
