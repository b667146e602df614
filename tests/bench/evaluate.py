"""Dense evaluation at three scales with flips: in batches of one shape, against one image after the other.

Both see the same JPEG files of mixed aspect ratios through the same fully convolutional net (VGG D at the small
geometry), and must give the same posteriors. The naive way decodes an image for every scale and scores it and its
mirror image one by one.
"""

import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path

import torch
from report import report

sys.path.insert(0, str(Path(__file__).parents[1]))
from images import mixed_dataset

from alexvgg.config import pixels
from alexvgg.data.decode import decode
from alexvgg.data.fetch import read_all
from alexvgg.data.shards import Dataset
from alexvgg.data.store import FileStore
from alexvgg.data.undecodable import Undecodable
from alexvgg.data.views import whole
from alexvgg.engine.world import World
from alexvgg.evaluation.posteriors import read
from alexvgg.evaluation.scoring import Member, Row, score
from alexvgg.models import Net, build
from alexvgg.models.dense import Dense

IMAGES, SCALES, ROUNDS = 64, (256, 384, 512), 3
SIZES = ((500, 375), (500, 333), (375, 500), (500, 500), (500, 375), (500, 375), (333, 500), (640, 480))
CPU = torch.device("cpu")


def ours(dataset: Dataset, net: Net, scales: tuple[int, ...], folder: Path) -> tuple[float, dict[int, torch.Tensor]]:
    """Seconds, and posteriors by scale."""
    row = Row("dense", (Member("bench", "0", scales),), dataset.fingerprint)
    store = FileStore("", folder)
    began = time.perf_counter()
    score({"bench": net}, [row], dataset, store, World(0, 1, CPU), decode_threads=2, undecodable=Undecodable(""))
    seconds = time.perf_counter() - began
    return seconds, {s.q: read(store, s.key, s).values for s in row.scorings()[0]}


def naive(dataset: Dataset, net: Net) -> tuple[dict[int, float], dict[int, torch.Tensor]]:
    """Seconds and posteriors by scale."""
    dense, mean = Dense(net.eval()), torch.tensor(dataset.mean_rgb)[:, None, None]
    seconds, posteriors = {}, defaultdict(list)
    for q in SCALES:
        began = time.perf_counter()
        with torch.inference_mode():
            for sample in range(len(dataset.val)):
                data = read_all(dataset.store, dataset.val, [sample])[sample]
                image = (torch.from_numpy(whole(decode(data), pixels(q, net.crop))) - mean)[None]
                both = dense(image).softmax(1) + dense(image.flip(3)).softmax(1)
                posteriors[q].append(both[0] / 2)
        seconds[q] = time.perf_counter() - began
    return seconds, {q: torch.stack(p) for q, p in posteriors.items()}


def main() -> None:
    torch.manual_seed(0)
    net = build("vgg_d", num_classes=10, width=0.125, crop=32)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        dataset = mixed_dataset(folder, IMAGES, sizes=SIZES)
        ours(dataset, net, (256,), folder / "warm-up")
        pairs = []
        for n in range(ROUNDS):
            batched, one_by_one = ours(dataset, net, SCALES, folder / str(n)), naive(dataset, net)
            for q in SCALES:
                torch.testing.assert_close(batched[1][q], one_by_one[1][q], rtol=1e-4, atol=1e-6)
            pairs.append((batched[0], sum(one_by_one[0].values())))
        print(f"{'Q':>4} {'in batches':>14} {'one by one':>14}   ms per image, with flips")
        for q in SCALES:
            alone, _ = ours(dataset, net, (q,), folder / f"q{q}")
            print(f"{q:>4} {1000 * alone / IMAGES:>14.1f} {1000 * one_by_one[0][q] / IMAGES:>14.1f}")
    mine, theirs = ([1000 * pair[i] / IMAGES for pair in pairs] for i in (0, 1))
    report("evaluate", mine, theirs, "ms/image", ("in batches of one shape", "one image after the other"))


main()
