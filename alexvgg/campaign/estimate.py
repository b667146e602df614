"""How long training runs will take: from what was measured here, else published, else computed. Pure.

Every figure says where it comes from. Evaluation isn't counted: dense evaluation of a run on three scales is less than
1 % of its training.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from alexvgg.architectures import FLOP_PER_MAC
from alexvgg.config import PAPER_CROP, RunSpec
from alexvgg.runs import RunRecord

# Images/s of one GPU in training at full size in 16 bits, on synthetic data, as others published them. AlexNet's were
# measured with the later one-GPU variant, whose cost is near that of the paper's net.
PUBLISHED: Mapping[str, Mapping[str, float]] = {
    "RTX3090": {"vgg_a": 954, "vgg_d": 546, "vgg_e": 457},
    "A100": {"vgg_d": 1190, "alexnet": 16_487},
}
# Dense products in TFLOP/s at the precision that a GPU trains in, as the makers print them: bf16, or float32 of those
# that lack it. And the share of it that training is taken to reach.
PEAK_TFLOPS: Mapping[str, float] = {
    "A10G": 70, "A100": 312, "A100-80GB": 312, "H100": 989, "H200": 989, "L4": 121, "L40S": 362, "T4": 8.1,
}  # fmt: skip
SHARE_OF_PEAK = 0.4
GPUS = tuple(sorted({*PUBLISHED, *PEAK_TFLOPS}))

Macs = Callable[[str, float, int], int]  # multiply-accumulates of one image's forward pass: model, width, crop


@dataclass(frozen=True)
class Speed:
    """Images/s of one worker in training, and where the figure comes from: `alone`, or as one of many."""

    images_per_s: float
    source: str
    alone: bool = True


@dataclass(frozen=True)
class Estimate:
    """One run: `images` to train on, `speed` of each worker (None if nothing is known), hours on the clock.

    `together` are the images/s of all workers, if more is known than that each reaches `speed`.
    """

    images: int
    workers: int
    speed: Speed | None
    together: float | None = None

    @property
    def images_per_s(self) -> float | None:
        """Of all workers."""
        return self.together or (None if self.speed is None else self.speed.images_per_s * self.workers)

    @property
    def hours(self) -> float | None:
        """Wall time."""
        return None if self.images_per_s is None else self.images / self.images_per_s / 3600

    @property
    def worker_hours(self) -> float | None:
        """GPU-hours, with one worker for each GPU."""
        return None if self.hours is None else self.hours * self.workers


@dataclass(frozen=True)
class Measured:
    """What a run in the storage has reached: images/s of a GPU, or of one of its hosts' CPUs, which workers share."""

    run: str
    model: str
    width: float
    crop: int
    device: str
    images_per_s: float


def measured(runs: Iterable[RunRecord]) -> list[Measured]:
    """The speed of each run that has trained an epoch: the median of its newest attempt's epochs."""
    found = []
    for r in runs:
        starts = [i for i, e in enumerate(r.journal) if e["event"] == "start"]
        if not starts:
            continue
        start = r.journal[starts[-1]]
        epochs = [e["metrics"]["perf/images_per_s"] for e in r.journal[starts[-1] :] if e["event"] == "epoch"]
        if epochs:
            parts = start["workers"] if start["device"] != "cpu" else start.get("hosts", start["workers"])
            m, one = r.spec.model, sorted(epochs)[len(epochs) // 2] / parts
            found.append(Measured(r.name, m.name, m.width, m.crop, start["device"], one))
    return found


def speed(
    spec: RunSpec, macs: Macs, gpu: str | None, device: str, known: Iterable[Measured], on_a_host: int = 1
) -> Speed | None:
    """The best figure there is for training `spec` on one worker; None if there is none for this hardware.

    `on_a_host` is how many workers share a host's CPUs.

    `gpu` is one of GPUS, if its own precision is trained in; `device` is cpu or cuda; `known` are the figures of
    earlier runs. Of nets too small to fill a GPU only these say anything.
    """
    m = spec.model
    own = macs(m.name, m.width, m.crop)
    same = [k for k in known if (k.width, k.crop, k.device) == (m.width, m.crop, device)]
    for k in sorted(same, key=lambda k: k.model == m.name, reverse=True)[:1]:
        scaled = "" if k.model == m.name else f", a {k.model}, scaled by MACs"
        one = k.images_per_s / (on_a_host if device == "cpu" else 1)
        return Speed(one * macs(k.model, k.width, k.crop) / own, f"measured in {k.run}{scaled}", alone=False)
    if gpu is None or (m.width, m.crop) != (1.0, PAPER_CROP):
        return None
    published = PUBLISHED.get(gpu, {})
    for model in sorted(published, key=lambda model: model == m.name, reverse=True)[:1]:
        scaled = "" if model == m.name else ", scaled by MACs"
        images_per_s = published[model] * macs(model, m.width, m.crop) / own
        return Speed(images_per_s, f"published for {model} on one {gpu}{scaled}")
    reached = PEAK_TFLOPS[gpu] * 1e12 * SHARE_OF_PEAK
    source = f"computed: {SHARE_OF_PEAK:.0%} of the {PEAK_TFLOPS[gpu]:g} TFLOP/s that {gpu}'s maker prints"
    return Speed(reached / (FLOP_PER_MAC * own), source)


def estimate(
    spec: RunSpec,
    train_images: int,
    workers: int,
    speed: Speed | None,
    consumed: int = 0,
    together: float | None = None,
) -> Estimate:
    """`spec` on a dataset of `train_images`, of which the run has `consumed` already, over all epochs."""
    t = spec.train
    images = t.epochs * train_images
    if t.max_steps is not None:
        images = min(images, t.max_steps * t.global_batch)
    return Estimate(max(0, images - consumed), workers, speed, together)


def as_dict(e: Estimate) -> dict[str, Any]:
    """For `--json`."""
    return {
        "images": e.images, "images_per_s": e.images_per_s,
        "source": None if e.speed is None else e.speed.source, "hours": e.hours, "worker_hours": e.worker_hours,
    }  # fmt: skip
