"""The model of a step: its limits, its numbers for VGG, and the command that prints it."""

import json
from dataclasses import asdict, replace

import pytest
from click.testing import CliRunner, Result

from alexvgg.architectures import Linear
from alexvgg.cli import main
from alexvgg.config import Execution, ModelConfig
from alexvgg.engine.traffic import FLOAT, Gradient
from alexvgg.scaling import METHODS, Cost, Hardware, planned_exchange, predict, scale, step_seconds

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
