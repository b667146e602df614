"""The bytes of an exchange against counting them, and what `auto` takes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alexvgg.architectures import Linear
from alexvgg.engine.traffic import Gradient, break_even, bytes_sent, choose, exchange_plan

# The papers' classifiers and convolutions, by their printed sizes.
VGG_D = Gradient((Linear("fc6", 25088, 4096), Linear("fc7", 4096, 4096), Linear("fc8", 4096, 1000)), 14_714_688)
ALEXNET = Gradient((Linear("fc6", 9216, 4096), Linear("fc7", 4096, 4096), Linear("fc8", 4096, 1000)), 2_334_080)


def test_break_even_batches_are_those_of_both_papers_nets() -> None:
    assert [round(break_even(layer)) for layer in VGG_D.layers] == [7042, 4096, 1608]
    assert [round(break_even(layer)) for layer in ALEXNET.layers] == [5671, 4096, 1608]
    assert (VGG_D.params, ALEXNET.params) == (138_357_544, 60_965_224)


@pytest.mark.parametrize(
    ("batch", "layers"), [(256, "fc6 fc7 fc8"), (1607, "fc6 fc7 fc8"), (1608, "fc6 fc7"), (4096, "fc6"), (7043, "")]
)
def test_each_layer_takes_what_is_fewer_bytes(batch: int, layers: str) -> None:
    assert [layer.name for layer in VGG_D.by_factors(batch)] == layers.split()


@given(st.integers(2, 64), st.integers(1, 40), st.integers(1, 300), st.integers(1, 300))
def test_break_even_is_where_both_send_the_same(ranks: int, per_rank: int, inputs: int, outputs: int) -> None:
    """Biases aside: their factors are dY's, which travel anyway."""
    net, batch = Gradient((Linear("fc", inputs, outputs),), 0), ranks * per_rank
    reduced, factors = bytes_sent(net, "allreduce", batch, ranks), bytes_sent(net, "factors", batch, ranks)
    bias = 4 * 2 * (ranks - 1) / ranks * outputs
    assert factors <= reduced
    if net.by_factors(batch):
        assert factors == 4 * (ranks - 1) * per_rank * (inputs + outputs) < reduced - bias
    else:
        assert factors == reduced
        assert 4 * (ranks - 1) * per_rank * (inputs + outputs) >= (reduced - bias) * (1 - 1e-12)


@pytest.mark.parametrize(
    ("asked", "batch", "ranks", "hosts", "method"),
    [
        ("auto", 256, 1, 1, "none"),
        ("factors", 256, 1, 1, "none"),
        ("auto", 256, 8, 1, "allreduce"),
        ("auto", 256, 8, 2, "factors"),
        ("auto", 8192, 8, 2, "allreduce"),
        ("factors", 256, 8, 1, "factors"),
        ("factors", 8192, 8, 1, "allreduce"),
        ("allreduce", 256, 8, 2, "allreduce"),
        ("bf16", 256, 8, 1, "bf16"),
    ],
)
def test_what_is_asked_for_comes_to_a_method(asked: str, batch: int, ranks: int, hosts: int, method: str) -> None:
    assert choose(asked, VGG_D, batch, ranks, hosts) == method  # type: ignore[arg-type]


def test_a_plan_says_bytes_and_seconds() -> None:
    plan = exchange_plan(VGG_D, "auto", 256, 4, 4)
    assert plan.line(25e9) == (
        "gradients by factors (fc6, fc7, fc8): 120.9 MB (0.039 s at 25 Gb/s) a step from each rank; "
        "an all-reduce would take 830.1 MB (0.266 s at 25 Gb/s)"
    )
    assert plan.to_dict(1e9) == {
        "exchange": "factors", "layers": ["fc6", "fc7", "fc8"], "bytes": 120906624, "allreduce_bytes": 830145264,
        "seconds": pytest.approx(0.967, abs=1e-3), "allreduce_seconds": pytest.approx(6.641, abs=1e-3),
    }  # fmt: skip
    assert exchange_plan(VGG_D, "auto", 256, 4, 1).line() == "gradients by all-reduce: 830.1 MB a step from each rank"
    assert exchange_plan(VGG_D, "auto", 256, 1, 1).line() == "no gradients to exchange: one rank"
