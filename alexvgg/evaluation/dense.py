"""Dense evaluation: whole images at several scales, posteriors averaged over scales and flips (VGG section 3.2)."""

from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor

from alexvgg.batch import Batch
from alexvgg.evaluation.counts import Counts


def posteriors(model: Callable[[Tensor], Tensor], images: Tensor, *, flip: bool) -> Tensor:
    """Softmax posteriors float64 (N, classes) of normalised images (N, 3, h, w), averaged with the mirrored image's."""
    result = model(images).double().softmax(dim=1)
    if flip:
        result = (result + model(images.flip(3)).double().softmax(dim=1)) / 2
    return result


def evaluate_rows(
    model: Callable[[Tensor], Tensor],
    batches_at: Callable[[int], Iterable[Batch]],
    normalise: Callable[[Batch], Tensor],
    rows: Sequence[tuple[int, ...]],
    *,
    flip: bool,
    device: torch.device,
) -> list[Counts]:
    """This rank's counts for each row: a tuple of Q's whose posteriors are averaged.

    Every image meets the net once per Q, however many rows need that Q. `batches_at(Q)` yields this rank's images.
    """
    stored: dict[int, dict[int, Tensor]] = {}
    labels: dict[int, int] = {}
    with torch.inference_mode():
        for q in sorted({q for row in rows for q in row}):
            stored[q] = {}
            for batch in batches_at(q):
                batch = batch.to(device)
                result = posteriors(model, normalise(batch), flip=flip).cpu()
                for sample, label, weight, p in zip(
                    batch.samples.tolist(), batch.labels.tolist(), batch.weights.tolist(), result, strict=True
                ):
                    if weight > 0:
                        stored[q][sample], labels[sample] = p, label
    order = sorted(labels)
    if not order:
        return [Counts(0, 0, 0) for _ in rows]
    truth, real = torch.tensor([labels[s] for s in order]), torch.ones(len(order))
    return [
        Counts.of(torch.stack([torch.stack([stored[q][s] for s in order]) for q in row]).mean(dim=0), truth, real)
        for row in rows
    ]
