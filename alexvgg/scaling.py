"""How a net's training scales with ranks, by how they exchange gradients: a model of one step, beside published points.

T = c + e + max(0, t - h): a rank computes for c on its share. The exchange takes t, and hides behind the h of c that is
the convolutions' backward pass, as the largest gradients, the classifier's, exist before it. By factors each rank forms
the classifier's gradient of the whole batch, of which its own rows are in c: e is the rest.
"""

from dataclasses import asdict, dataclass
from typing import Any

from alexvgg.architectures import FLOP_PER_MAC, Architecture, architecture
from alexvgg.config import Execution, ModelConfig
from alexvgg.data.plan import MAX_LANES
from alexvgg.engine.traffic import FLOAT, HALF, ExchangePlan, Gradient, Method, bytes_sent, exchange_plan

LABELS: dict[Method, str] = {"allreduce": "all-reduce", "bf16": "all-reduce, bf16", "factors": "factors"}
METHODS = tuple(LABELS)
BACKWARD = 2 / 3  # of a step's arithmetic
SLOWER = 6  # factors in bf16 are multiplied in 32 bits: an A100 does 19.5 TFLOP/s of that beside the 110 it trains with


@dataclass(frozen=True)
class Cost:
    """What a step of a net costs: its gradient, and multiply-accumulates of one image's forward pass."""

    gradient: Gradient
    macs: int

    @property
    def convolutions(self) -> float:
        """Their share of the arithmetic."""
        return 1 - sum(layer.inputs * layer.outputs for layer in self.gradient.layers) / self.macs

    @classmethod
    def of(cls, model: str) -> "Cost":
        """Of a net at the paper's geometry. Raises InputError for an unknown name."""
        net = architecture(model)
        return cls(_gradient_of(net), net.macs)


def planned_exchange(model: ModelConfig, global_batch: int, execution: Execution, nodes: int) -> ExchangePlan:
    """How a run on so many nodes will exchange its gradients, and what that sends.

    On a cluster of one machine's making its nodes are one host: `auto` then keeps the all-reduce.
    """
    gradient, factor_bytes = _gradient_of(_net(model)), _factor_bytes(execution)
    return exchange_plan(
        gradient, execution.exchange, global_batch, execution.workers, nodes, factor_bytes=factor_bytes
    )


def images_per_s(
    model: ModelConfig, global_batch: int, execution: Execution, nodes: int, alone: float, link: float
) -> float:
    """What a run's workers reach together on nodes with such a link each, if one `alone` trains so many a second."""
    net, how = _net(model), planned_exchange(model, global_batch, execution, nodes)
    hardware = Hardware(FLOP_PER_MAC * net.macs * alone, link, _factor_bytes(execution))
    return scale(Cost(_gradient_of(net), net.macs), hardware, global_batch, execution.workers, how.method).images_per_s


def _net(model: ModelConfig) -> Architecture:
    return architecture(model.name, num_classes=model.num_classes, width=model.width, crop=model.crop)


def _factor_bytes(execution: Execution) -> int:
    half = execution.precision == "bf16" or (execution.precision == "auto" and execution.gpus_per_worker > 0)
    return HALF if half else FLOAT


def _gradient_of(net: Architecture) -> Gradient:
    return Gradient(net.linears, sum(conv.params for conv in net.convs))


@dataclass(frozen=True)
class Hardware:
    """`flops` a rank sustains in training; `link` bits a second that a rank sends; bytes of a factor's number.

    By default an A100 on VGG-16 in half precision (1,190 images/s), and a usual link.
    """

    flops: float = 110e12
    link: float = 25e9
    factor_bytes: int = HALF


@dataclass(frozen=True)
class Point:
    """One step on `ranks` ranks. `efficiency` is of the speed that so many ranks alone would add up to."""

    ranks: int
    method: Method
    seconds: float
    efficiency: float
    images_per_s: float
    sent: float  # bytes of each rank


def step_seconds(compute: float, exchange: float, *, hidden: float, forming: float = 0.0) -> float:
    """T of the model: its c, t, h and e."""
    return compute + forming + max(0.0, exchange - hidden)


def scale(cost: Cost, hardware: Hardware, global_batch: int, ranks: int, method: Method) -> Point:
    """One step of a global batch, shared by `ranks` ranks with a link each."""
    share = global_batch / ranks
    compute = FLOP_PER_MAC * cost.macs * share / hardware.flops
    how: Method = "none" if ranks == 1 else method
    sent = bytes_sent(cost.gradient, how, global_batch, ranks, factor_bytes=hardware.factor_bytes)
    layers = cost.gradient.by_factors(global_batch) if how == "factors" else ()
    others = 2 * sum(layer.params for layer in layers) * (global_batch - share)
    forming = others / hardware.flops * (SLOWER if hardware.factor_bytes == HALF else 1)
    hidden = BACKWARD * cost.convolutions * compute
    seconds = step_seconds(compute, 8 * sent / hardware.link, hidden=hidden, forming=forming)
    return Point(ranks, how, seconds, compute / seconds, global_batch / seconds, sent)


# What others measured, on their own hardware and software; the model isn't fitted to any of it.
PUBLISHED = (
    "Horovod, VGG-16, 512 GPUs, 25 Gb RoCE: 68 % (ResNet-101: 90 %)",
    "BytePS, VGG-16, 20 Gb TCP: twice Horovod's speed",
    "GradientFlow, AlexNet, 512 GPUs: 80 %",
    "VGG-16, 8 RTX 3090 on PCIe: 22 %",
    "VGG-16, 8 P100 of a DGX-1, 64 images each: 88 % on synthetic images, 73 % on real ones",
    "VGG-16, 8 V100, half precision: 103 %",
)


@dataclass(frozen=True)
class Scaling:
    """The points of one net, and what they assume: one `global_batch`, or `per_rank` images on each rank."""

    model: str
    hardware: Hardware
    global_batch: int | None
    per_rank: int | None
    points: tuple[Point, ...]

    @property
    def assumptions(self) -> tuple[str, ...]:
        """In words, for whoever reads the numbers."""
        h = self.hardware
        return (
            f"A GPU sustains {h.flops / 1e12:g} TFLOP/s on any number of images; in truth small shares are slower.",
            "The exchange uses the whole link, and runs beside the convolutions' backward pass, not beside the rest.",
            f"A host's link carries {h.link / 1e9:g} Gb/s each way. Rings pass it once, however many GPUs a host has.",
            f"Factors travel in {8 * h.factor_bytes} bits; what an all-reduce sums is in 32, or in 16 with bf16.",
            "Forming the classifier's gradient of the whole batch runs in 32 bits, at a sixth of bf16's speed.",
            f"Every GPU has the same share; alexvgg itself cuts a batch in at most {MAX_LANES} shares.",
        )

    def to_dict(self) -> dict[str, Any]:
        return {**asdict(self), "assumptions": self.assumptions, "published": PUBLISHED}


def predict(
    model: str, ranks: list[int], hardware: Hardware, *, global_batch: int | None = None, per_rank: int | None = None
) -> Scaling:
    """The points for each number of ranks and each exchange. Raises InputError for an unknown model."""
    assert (global_batch is None) != (per_rank is None), "one of the two says what a batch is"
    cost = Cost.of(model)
    points = tuple(
        scale(cost, hardware, global_batch or n * (per_rank or 0), n, method) for n in ranks for method in METHODS
    )
    return Scaling(model, hardware, global_batch, per_rank, points)


def to_text(s: Scaling) -> str:
    """A table with a row for each number of GPUs, then the assumptions and the published points."""
    batch = f"a global batch of {s.global_batch}" if s.global_batch else f"{s.per_rank} images on each GPU"
    lines = [
        f"{s.model}, {batch}: a model, not a measurement",
        "",
        f"{'':>6}" + "".join(f"{name:>28}" for name in LABELS.values()),
        f"{'GPUs':>6}" + f"{'s/step':>10}{'efficiency':>11}{'MB':>7}" * len(METHODS),
    ]
    for n in range(0, len(s.points), len(METHODS)):
        row = s.points[n : n + len(METHODS)]
        cells = "".join(f"{p.seconds:>10.4f}{p.efficiency:>11.0%}{p.sent / 1e6:>7.0f}" for p in row)
        lines.append(f"{row[0].ranks:>6}{cells}{'' if row[0].ranks <= MAX_LANES else '  *'}")
    if s.points[-1].ranks > MAX_LANES:
        lines += ["", f"* beyond what alexvgg itself does: it cuts a batch in at most {MAX_LANES} shares"]
    lines += ["", "Assumed:", *(f"  {text}" for text in s.assumptions), ""]
    lines += ["Published efficiencies of data parallelism, most of batches that grow with the GPUs (--per-gpu):"]
    lines += [f"  {text}" for text in PUBLISHED]
    return "\n".join(lines)
