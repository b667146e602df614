"""The model of a step: its limits, its numbers for VGG, and the command that prints it."""

import json
from dataclasses import asdict, replace

import pytest
from click.testing import CliRunner, Result

from alexvgg.architectures import FLOP_PER_MAC, Linear, architecture
from alexvgg.cli import main
from alexvgg.config import Execution, ModelConfig
from alexvgg.engine.traffic import FLOAT, Gradient
from alexvgg.scaling import (
    METHODS,
    Cost,
    Hardware,
    images_per_s,
    planned_exchange,
    predict,
    scale,
    step_seconds,
    to_text,
)

FAST, SLOW = Hardware(1e14, 1e15, FLOAT), Hardware(1e14, 1e6)


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, ("plan", "scaling", *arguments))


def test_the_costs_are_the_nets_own() -> None:
    cost = Cost.of("vgg_e")
    assert (cost.gradient.params, cost.macs) == (143_667_240, 19_632_062_464)
    assert cost.convolutions == pytest.approx(0.9937, abs=1e-4)
    assert [layer.name for layer in cost.gradient.layers] == ["fc6", "fc7", "fc8"]
    assert Cost.of("alexnet").gradient.others == 2_334_080


def test_a_step_waits_for_what_of_the_exchange_nothing_hides() -> None:
    assert step_seconds(3.0, 0.0, hidden=2.0) == pytest.approx(3.0)
    assert step_seconds(3.0, 2.0, hidden=2.0) == pytest.approx(3.0)
    assert step_seconds(3.0, 5.0, hidden=2.0, forming=0.5) == pytest.approx(6.5)


def test_links_are_nothing_or_everything() -> None:
    cost = Cost(Gradient((Linear("fc", 4000, 4000),), 1000), 10**9)
    for method in METHODS[:2]:
        assert scale(cost, FAST, 256, 8, method).efficiency == pytest.approx(1)
    slow = {method: scale(cost, SLOW, 256, 8, method) for method in METHODS}
    assert slow["allreduce"].seconds / slow["bf16"].seconds == pytest.approx(2, rel=1e-3)
    assert slow["factors"].seconds == pytest.approx(8 * slow["factors"].sent / SLOW.link, rel=1e-3)
    assert scale(cost, SLOW, 256, 1, "factors").efficiency == 1


def test_forming_the_gradient_of_the_whole_batch_costs_its_arithmetic() -> None:
    cost = Cost(Gradient((Linear("fc", 4000, 4000),), 0), 16_000_000)
    alone, many = (scale(cost, FAST, 256, ranks, "factors").seconds for ranks in (1, 256))
    assert many == pytest.approx(alone / 256 + alone / 3 * 255 / 256, rel=1e-2)


def test_bf16_factors_are_multiplied_six_times_slower() -> None:
    cost = Cost(Gradient((Linear("fc", 4000, 4000),), 0), 10**9)

    def forming(factor_bytes: int) -> float:
        found = scale(cost, Hardware(1e14, 1e18, factor_bytes), 256, 8, "factors")
        return found.seconds - found.efficiency * found.seconds

    assert forming(FLOAT) == pytest.approx(2 * 16_004_000 * (256 - 32) / 1e14)
    assert forming(2) == pytest.approx(6 * forming(FLOAT))


def test_two_thirds_of_the_convolutions_hide_the_exchange() -> None:
    cost = Cost(Gradient((Linear("fc", 1000, 1000),), 0), 2_000_000)  # half of it is convolutions
    compute = FLOP_PER_MAC * 2_000_000 * 256 / 3 / 1e14
    sent = 4 * 2 * 2 / 3 * 1_001_000
    for share, waits in ((0.3, 0.0), (0.9, 0.9 - 1 / 3)):
        found = scale(cost, Hardware(1e14, 8 * sent / (share * compute), FLOAT), 256, 3, "allreduce")
        assert found.sent == pytest.approx(sent)
        assert found.seconds == pytest.approx(compute * (1 + waits))
        assert found.images_per_s == pytest.approx(256 / found.seconds)


def test_a_batch_too_large_for_factors_is_reduced() -> None:
    cost = Cost(Gradient((Linear("fc", 1000, 1000),), 0), 2_000_000)
    reduced, factors = (scale(cost, Hardware(), 2000, 8, method) for method in ("allreduce", "factors"))  # type: ignore[arg-type]
    assert factors == replace(reduced, method="factors")


def test_one_rank_exchanges_nothing() -> None:
    points = predict("vgg_a", [1], Hardware(), global_batch=256).points
    assert {(p.method, p.sent, p.efficiency) for p in points} == {("none", 0.0, 1.0)}


def test_a_batch_may_grow_with_the_ranks() -> None:
    grown = predict("vgg_a", [2, 8], Hardware(), per_rank=64).points
    assert grown == tuple(p for n in (2, 8) for p in predict("vgg_a", [n], Hardware(), global_batch=64 * n).points)


@pytest.mark.parametrize(("nodes", "method"), [(1, "allreduce"), (4, "factors")])
def test_a_runs_speed_is_the_models_with_its_own_exchange(nodes: int, method: str) -> None:
    net, how = ModelConfig("vgg_d", 1000), Execution("file:///d", "file:///s", workers=8, gpus_per_worker=1)
    cost = Cost.of("vgg_d")
    for execution, factor_bytes in ((how, 2), (replace(how, precision="fp32"), FLOAT)):
        hardware = Hardware(FLOP_PER_MAC * cost.macs * 1190, 25e9, factor_bytes)
        expected = scale(cost, hardware, 256, 8, method)  # type: ignore[arg-type]
        assert images_per_s(net, 256, execution, nodes, 1190, 25e9) == pytest.approx(expected.images_per_s)
    assert images_per_s(net, 256, replace(how, workers=1), 1, 1190, 25e9) == pytest.approx(1190)


@pytest.mark.parametrize(
    ("precision", "gpus", "factor_bytes"), [("auto", 0, FLOAT), ("auto", 1, 2), ("bf16", 0, 2), ("fp32", 1, FLOAT)]
)
def test_factors_are_of_the_precision_that_is_trained_in(precision: str, gpus: int, factor_bytes: int) -> None:
    net = architecture("vgg_d", num_classes=10, width=0.5, crop=64)
    how = Execution("file:///d", "file:///s", workers=4, gpus_per_worker=gpus, precision=precision)  # type: ignore[arg-type]
    plan = planned_exchange(ModelConfig("vgg_d", 10, 0.5, 64), 64, how, nodes=4)
    assert plan.layers == net.linears[:2], "fc8 is small"
    assert plan.allreduce == pytest.approx(4 * 2 * 3 / 4 * net.params)
    others = net.params - sum(layer.params for layer in plan.layers)
    rows = 3 * 16 * sum(layer.inputs + layer.outputs for layer in plan.layers)
    assert plan.sent == pytest.approx(4 * 2 * 3 / 4 * others + factor_bytes * rows)


def test_what_this_project_cannot_cut_is_marked() -> None:
    for ranks, marks in ([64], 0), ([32, 128], 2), ([128], 2):
        assert to_text(predict("vgg_a", ranks, Hardware(), global_batch=256)).count("*") == marks


def test_a_run_is_planned_with_its_own_net_and_precision() -> None:
    net = ModelConfig("vgg_d", 1000)
    on_gpus = Execution("file:///d", "file:///s", workers=32, gpus_per_worker=8)
    plan = planned_exchange(net, 256, on_gpus, nodes=4)
    assert [layer.name for layer in plan.layers] == ["fc6", "fc7", "fc8"]
    assert plan.sent == pytest.approx(4 * 2 * 31 / 32 * 14_714_688 + 2 * 31 * 8 * 42_472)
    assert planned_exchange(net, 256, on_gpus, nodes=1).method == "allreduce"
    in_floats = planned_exchange(net, 256, replace(on_gpus, precision="fp32"), nodes=4)
    assert in_floats.sent - plan.sent == pytest.approx(2 * 31 * 8 * 42_472)


def test_factors_scale_where_an_all_reduce_does_not() -> None:
    reduced, _, factors = predict("vgg_e", [4], Hardware(110e12, 25e9), global_batch=256).points
    assert factors.efficiency > 0.95
    assert reduced.efficiency < 0.3


def test_the_command_prints_the_model_with_its_assumptions_beside_published_points() -> None:
    result = run("--model", "vgg_e", "--gpus", "1..512", "--link", "25Gb")
    assert result.exit_code == 0, result.output
    rows = [line.split()[0] for line in result.output.splitlines() if line.split()[:1] and line.split()[0].isdigit()]
    assert rows == [str(1 << n) for n in range(10)]
    for text in ("a model, not a measurement", "25 Gb/s each way", "Horovod, VGG-16, 512 GPUs, 25 Gb RoCE: 68 %"):
        assert text in result.output
    document = json.loads(run("--model", "vgg_d", "--gpus", "8", "--per-gpu", "64", "--json").stdout)
    assert [p["method"] for p in document["points"]] == list(METHODS)
    assert document["points"][0]["sent"] == pytest.approx(2 * 7 / 8 * 4 * 138_357_544)
    assert document["hardware"] == asdict(Hardware()), "the report shows the same"
    assert document["published"]
    assert document["assumptions"]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--model", "vgg_f"], "no model 'vgg_f'; did you mean"),
        (["--model", "vgg_e", "--gpus", "8..1"], "the smaller one first"),
        (["--model", "vgg_e", "--gpus", "0"], "go from 1 to"),
        (["--model", "vgg_e", "--gpus", "some"], "write 8, 1,4,16 or 1..512"),
        (["--model", "vgg_e", "--link", "25GB"], "write for example 25Gb or 100Mb, in bits a second"),
        (["--model", "vgg_e", "--link", "0Gb"], "is no link"),
        (["--model", "vgg_e", "--global-batch", "256", "--per-gpu", "2"], "give one of them"),
    ],
)
def test_what_makes_no_sense_is_refused(arguments: list[str], sentence: str) -> None:
    result = run(*arguments)
    assert result.exit_code == 2
    assert sentence in result.output
