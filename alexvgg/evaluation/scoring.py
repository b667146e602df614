"""From nets to stored posteriors to table rows: what the end of training and `alexvgg evaluate` have in common.

Validation images are cut into parts. A part is read and decoded once for all nets, methods and scales that still lack
it, and what is computed of it depends on nothing else: so posteriors are the same numbers on any number of ranks, and
an evaluation that was killed goes on with the parts that aren't stored.

Nets compute in float32 here, on GPUs too (convolutions in TF32 there, torch's default): bf16 scores have less than
three digits, so that the best two classes of many an image would tie.
"""

import hashlib
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from alexvgg.config import pixels
from alexvgg.data.documents import encode
from alexvgg.data.progress import Progress, Say
from alexvgg.data.shards import Dataset
from alexvgg.data.store import Store
from alexvgg.data.undecodable import Undecodable
from alexvgg.data.validation import Span, Validation, parts
from alexvgg.engine.step import Normalisation
from alexvgg.engine.world import World
from alexvgg.evaluation.posteriors import Posteriors, Scoring, count, is_whole, merge, missing_parts, write
from alexvgg.evaluation.views import Method, Scores, corner_places, crop_posteriors, grid_places, whole_posteriors
from alexvgg.keys import fusion_key, row_key
from alexvgg.models import Net
from alexvgg.models.dense import Dense

BATCH_PIXELS = 1 << 21  # of images that meet a net together, mirror images not counted: 41 of 224x224
STALLED_SECONDS = 1800.0  # without a part from any rank

RowMethod = Literal["dense", "multicrop", "both", "tencrop"]
PASSES: dict[RowMethod, tuple[Method, ...]] = {
    "dense": ("dense",),
    "multicrop": ("multicrop",),
    "both": ("dense", "multicrop"),  # the mean of both methods' posteriors (VGG section 4.3)
    "tencrop": ("tencrop",),
}

Columns = tuple[Tensor, Tensor, Tensor]  # sample ids int64 (n,), labels int64 (n,), posteriors float32 (n, classes)


@dataclass(frozen=True)
class Member:
    """One net's part in a table row: its posteriors averaged over test scales, and over methods for `both`."""

    run: str
    weights: str
    test_scales: tuple[int, ...]


@dataclass(frozen=True)
class Row:
    """What fills one row of a table: one net's mean posteriors, or the mean over several nets' (VGG section 4.4)."""

    method: RowMethod
    members: tuple[Member, ...]
    fingerprint: str  # of the dataset

    @property
    def name(self) -> str:
        """The run's, or one that follows from what is fused, e.g. `fusion-3f2a91c4`."""
        if len(self.members) == 1:
            return self.members[0].run
        return f"fusion-{hashlib.sha256(json.dumps(asdict(self)).encode()).hexdigest()[:8]}"

    @property
    def key(self) -> str:
        """Where its document lies."""
        if len(self.members) == 1:
            return row_key(self.name, f"{self.method}-q{'-'.join(map(str, self.members[0].test_scales))}")
        return fusion_key(self.name)

    def scorings(self) -> list[list[Scoring]]:
        """Of each member, the passes whose posteriors are averaged."""
        return [
            [
                Scoring(m.run, m.weights, self.fingerprint, method, q)
                for method in PASSES[self.method]
                for q in m.test_scales
            ]
            for m in self.members
        ]


def score(
    nets: Mapping[str, Net],
    rows: Sequence[Row],
    dataset: Dataset,
    storage: Store,
    world: World,
    *,
    decode_threads: int,
    undecodable: Undecodable,
    means: Mapping[str, Tensor] | None = None,
    say: Say = lambda _: None,
    between: Callable[[], None] = lambda: None,
) -> None:
    """Store all posteriors that `rows` need and storage lacks. Every rank calls this; on return everything is there.

    `nets` by run, on the world's device; `means` by run what it subtracts, of those that don't subtract the dataset's
    mean RGB. `between` is called before every part and while others are waited for, and may raise; what was stored is
    kept. Raises RuntimeError if other ranks owe parts and none has stored one for half an hour.
    """
    wanted = list(dict.fromkeys(s for row in rows for scorings in row.scorings() for s in scorings))
    cut = parts(len(dataset.val))
    missing = {s: missing_parts(storage, s, cut) for s in wanted}
    scorer = _Scorer(nets, means or {}, dataset, world.device)
    validation = Validation(dataset, world.rank, world.size, decode_threads, undecodable)
    mine = [part for part in cut[world.rank :: world.size] if any(part in missing[s] for s in wanted)]
    progress = Progress("scored", len(mine), say, "parts of this rank's images")
    for part in mine:
        between()
        lacking = [s for s in wanted if part in missing[s]]
        for scoring, posteriors in _score_part(scorer, validation, part, lacking).items():
            write(storage, scoring.part_key(part), scoring, posteriors)
        progress.add()
    _gather(storage, wanted, cut, world, between)


def _score_part(
    scorer: "_Scorer", validation: Validation, part: range, scorings: Sequence[Scoring]
) -> dict[Scoring, Posteriors]:
    """Posteriors of one part's images, each decoded once for all scorings."""
    found = {s: [_nothing(len(validation.dataset.classes))] for s in scorings}
    with torch.inference_mode():
        for span in validation.spans(part):
            for scoring, columns in scorer.score(span, scorings):
                found[scoring].append(columns)
    return {s: Posteriors.of(*map(torch.cat, zip(*columns, strict=True))) for s, columns in found.items()}


def _nothing(classes: int) -> Columns:
    return torch.empty(0, dtype=torch.int64), torch.empty(0, dtype=torch.int64), torch.empty(0, classes)


class _Scorer:
    """The nets of an evaluation, by run, with their fully convolutional forms."""

    def __init__(
        self, nets: Mapping[str, Net], means: Mapping[str, Tensor], dataset: Dataset, device: torch.device
    ) -> None:
        self.nets = {run: net.eval() for run, net in nets.items()}
        rgb = torch.tensor(dataset.mean_rgb)[:, None, None]
        self.offsets = {run: (mean - rgb).to(device) for run, mean in means.items() if mean.ndim == 3}
        self.dense = {run: Dense(net) for run, net in nets.items()}
        self.normalise, self.flip, self.device = Normalisation(dataset.mean_rgb), dataset.flip, device

    def score(self, span: Span, scorings: Sequence[Scoring]) -> Iterator[tuple[Scoring, Columns]]:
        """What each scoring says of the span's images, batch by batch; images are resized once to each size."""
        sizes: dict[int, list[Scoring]] = {}
        for s in scorings:
            sizes.setdefault(pixels(s.q, self.nets[s.run].crop), []).append(s)
        for shorter, group in sizes.items():
            for batch in span.whole(shorter, BATCH_PIXELS):
                images = self.normalise(batch.to(self.device))
                for s in group:
                    yield s, (batch.samples, batch.labels, self._posteriors(s, images, shorter).float().cpu())

    def _posteriors(self, scoring: Scoring, images: Tensor, shorter: int) -> Tensor:
        """float64 (N, classes) of normalised images (N, 3, h, w) whose shorter side is `shorter`."""
        if scoring.method == "dense":
            return whole_posteriors(self.dense[scoring.run], images, flip=self.flip)
        net = self.nets[scoring.run]
        height, width = images.shape[2:]
        if scoring.method == "multicrop":
            places = grid_places(height, width, net.crop)
        else:
            places = corner_places(height, width, net.crop, square=shorter)
        limit = max(1, BATCH_PIXELS // net.crop**2)
        return crop_posteriors(
            self._of_crops(scoring.run), images, places, net.crop, flip=self.flip, views_per_batch=limit
        )

    def _of_crops(self, run: str) -> Scores:
        """The net, for crops of images that lack the mean RGB: with what its mean image says beside that.

        A whole image has no mean image of its size, so dense evaluation subtracts the mean RGB.
        """
        net, offset = self.nets[run], self.offsets.get(run)
        return net if offset is None else lambda crops: net(crops - offset)


def _gather(
    storage: Store, scorings: Sequence[Scoring], cut: Sequence[range], world: World, between: Callable[[], None]
) -> None:
    """Wait for all ranks' parts, and merge them: each scoring by one rank.

    Ranks look into the storage instead of a barrier, since one may need far longer for its last part than a collective
    may wait; the launcher ends this rank if it loses another one.
    """
    own = [s for n, s in enumerate(scorings) if n % world.size == world.rank]
    owed: dict[Scoring, list[range]] = {s: list(cut) for s in scorings}
    changed, pause = time.monotonic(), 0.05
    while owed:
        between()
        before = sum(map(len, owed.values()))
        for s in list(owed):
            owed[s] = missing_parts(storage, s, owed[s])
            if not owed[s] and s in own:
                merge(storage, s, cut)
            if not owed[s] and is_whole(storage, s):
                del owed[s]
        if sum(map(len, owed.values())) < before:
            changed = time.monotonic()
        elif time.monotonic() - changed > STALLED_SECONDS:
            raise RuntimeError(
                f"no rank has stored a part of {next(iter(owed)).key} for {STALLED_SECONDS / 60:.0f} minutes. "
                "Evaluate again: what is stored is kept."
            )
        if owed:
            time.sleep(pause)
            pause = min(2 * pause, 2.0)


def record(storage: Store, row: Row) -> dict[str, Any]:
    """Count a row's errors and store its document: what it is of, and its errors in per cent (null for no image)."""
    counts = count(storage, row.scorings())
    document = {
        "method": row.method,
        "members": [asdict(m) | {"test_scales": list(m.test_scales)} for m in row.members],
        "fingerprint": row.fingerprint,
        **asdict(counts),
        "top1_error": counts.top1_error,
        "top5_error": counts.top5_error,
        "time": round(time.time(), 3),
    }
    storage.put(row.key, encode(document))
    return document
