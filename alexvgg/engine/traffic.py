"""What a step's gradients cost on a rank's link, by how the ranks exchange them: arithmetic, without a tensor.

Shapes: B images of the global batch, N ranks. An all-reduce sends 2 (N - 1) / N numbers for each parameter from every
rank. But the gradient of a linear layer's weight is dY^T X, summed over the global batch: ranks can send their rows of
X and dY to each other instead, (N - 1) / N B (inputs + outputs) numbers, and each form the whole gradient ("sufficient
factor broadcasting", Xie et al. 2015; Poseidon, Zhang et al. 2017). Which is less depends on B alone.
"""

from dataclasses import dataclass
from typing import Literal

from alexvgg.architectures import Linear

Exchange = Literal["auto", "allreduce", "factors", "bf16"]
Method = Literal["none", "allreduce", "factors", "bf16"]
EXCHANGES: tuple[Exchange, ...] = ("auto", "allreduce", "factors", "bf16")

FLOAT, HALF = 4, 2  # bytes


def break_even(layer: Linear) -> float:
    """The global batch at which a layer's factors are as many bytes as an all-reduce of its gradient."""
    return 2 * layer.inputs * layer.outputs / (layer.inputs + layer.outputs)


@dataclass(frozen=True)
class Gradient:
    """A net's gradient: its linear layers, and how many parameters the others (convolutions) have."""

    layers: tuple[Linear, ...]
    others: int

    @property
    def params(self) -> int:
        return self.others + sum(layer.params for layer in self.layers)

    def by_factors(self, global_batch: int) -> tuple[Linear, ...]:
        """The layers whose factors are fewer bytes than their gradient."""
        return tuple(layer for layer in self.layers if global_batch < break_even(layer))


def choose(asked: Exchange, gradient: Gradient, global_batch: int, ranks: int, hosts: int) -> Method:
    """The exchange that `asked` comes to.

    `auto` is by factors if the ranks are on several hosts. Inside one host they share memory, NVLink or PCIe: there the
    all-reduce stays, hidden behind the backward pass, as each rank would form the gradient of the whole batch for
    nothing. How fast a link between hosts is nobody tells; with fewer bytes factors don't lose on any.
    """
    if ranks == 1:
        return "none"
    if asked == "bf16":
        return "bf16"
    wanted = asked == "factors" or (asked == "auto" and hosts > 1)
    return "factors" if wanted and gradient.by_factors(global_batch) else "allreduce"


def bytes_sent(
    gradient: Gradient, method: Method, global_batch: int, ranks: int, *, factor_bytes: int = FLOAT
) -> float:
    """Bytes that each rank sends in a step, headers aside; `factor_bytes` is 2 where matrix products are in bf16."""
    around = 2 * (ranks - 1) / ranks
    layers = gradient.by_factors(global_batch) if method == "factors" else ()
    reduced = gradient.params - sum(layer.params for layer in layers)
    rows = (ranks - 1) * -(-global_batch // ranks)
    factors = sum(rows * (layer.inputs + layer.outputs) for layer in layers)
    return around * reduced * (HALF if method == "bf16" else FLOAT) + factors * factor_bytes


@dataclass(frozen=True)
class ExchangePlan:
    """How the gradients of a run will be exchanged. Bytes are what each rank sends in a step."""

    method: Method
    layers: tuple[Linear, ...]  # by factors
    sent: float
    allreduce: float  # what an all-reduce would send

    def to_dict(self, link: float | None = None) -> dict[str, object]:
        """For `--json`; with the seconds that a `link` of so many bits a second takes."""
        seconds = {} if link is None else {
            "seconds": 8 * self.sent / link, "allreduce_seconds": 8 * self.allreduce / link,
        }  # fmt: skip
        return {
            "exchange": self.method, "layers": [layer.name for layer in self.layers], "bytes": round(self.sent),
            "allreduce_bytes": round(self.allreduce), **seconds,
        }  # fmt: skip

    def line(self, link: float | None = None) -> str:
        """One line for a plan: "gradients by factors (fc6, fc7): 60.2 MB a step from each rank; …"."""
        if self.method == "none":
            return "no gradients to exchange: one rank"
        names = {"allreduce": "all-reduce", "bf16": "all-reduce in bf16"}
        how = names.get(self.method) or f"factors ({', '.join(layer.name for layer in self.layers)})"
        text = f"gradients by {how}: {_cost(self.sent, link)} a step from each rank"
        return text if self.method == "allreduce" else f"{text}; an all-reduce would take {_cost(self.allreduce, link)}"


def exchange_plan(
    gradient: Gradient,
    asked: Exchange,
    global_batch: int,
    ranks: int,
    hosts: int,
    *,
    factor_bytes: int = FLOAT,
) -> ExchangePlan:
    """What training on `ranks` ranks of `hosts` hosts will do, and what it sends."""
    method = choose(asked, gradient, global_batch, ranks, hosts)
    return ExchangePlan(
        method,
        gradient.by_factors(global_batch) if method == "factors" else (),
        bytes_sent(gradient, method, global_batch, ranks, factor_bytes=factor_bytes),
        bytes_sent(gradient, "allreduce", global_batch, ranks),
    )


def _cost(sent: float, link: float | None) -> str:
    text = f"{sent / 1e6:,.1f} MB"
    return text if link is None else f"{text} ({8 * sent / link:.3f} s at {link / 1e9:g} Gb/s)"
