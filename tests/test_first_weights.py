"""AlexNet's biases, and what is said to someone whose net doesn't learn. (Parents that do: tests/test_run.py.)"""

import math
from pathlib import Path

import pytest
from records import SPECS, store_finished

from alexvgg.data.store import open_store
from alexvgg.errors import DamagedError, InputError
from alexvgg.first_weights import better_start, first_weights
from alexvgg.planning import Images, Init, plan_runs
from alexvgg.recipes import GEOMETRIES, RECIPES

IMAGES = Images("x", 10, "0" * 64)


@pytest.mark.parametrize("value", [1.0, 0.1])
def test_alexnets_biases(value: float, tmp_path: Path) -> None:
    overrides = {"init.alexnet_bias": str(value)}
    (spec,) = plan_runs([RECIPES["alexnet-s256"]], IMAGES, GEOMETRIES["small"], overrides=overrides)
    net, _ = first_weights(spec, open_store(tmp_path.as_uri()))
    biases = {name.split(".")[1]: p.unique().tolist() for name, p in net.named_parameters() if name.endswith("bias")}
    others = {"conv1": [0.0], "conv3": [0.0], "fc8": [0.0]}
    assert biases == others | {n: [pytest.approx(value)] for n in ("conv2", "conv4", "conv5", "fc6", "fc7")}


@pytest.mark.parametrize(
    ("recipe", "init", "overrides", "hint"),
    [
        ("vgg_e-s256", "random", {}, "Start from the trained net A"),
        ("vgg_e-s256", "glorot", {}, "Check the labels and the learning rate."),
        ("vgg_e-s256", "auto", {}, "Check the labels and the learning rate, and try --init glorot."),
        ("vgg_a-s256", "auto", {}, "Start from Glorot's weights"),
        ("alexnet-s256", "auto", {}, "biases at 0.1"),
        ("alexnet-s256", "auto", {"init.alexnet_bias": "0.1"}, "Check the labels"),
    ],
)
def test_the_hint_is_one_that_this_run_can_follow(
    recipe: str, init: Init, overrides: dict[str, str], hint: str
) -> None:
    spec = plan_runs([RECIPES[recipe]], IMAGES, GEOMETRIES["small"], init=init, overrides=overrides)[-1]
    assert hint in better_start(spec)


@pytest.mark.parametrize(
    ("loss", "step", "learned"),
    [
        (math.log(10), 200, False),
        (math.log(10) + 0.01, 552, False),
        (math.log(10), 199, True),  # a trial of the way through
        (2.2, 552, True),
    ],
)
def test_nothing_starts_from_a_parent_that_has_learned_nothing(
    loss: float, step: int, learned: bool, tmp_path: Path
) -> None:
    storage, parent, child = open_store(tmp_path.as_uri()), SPECS["vgg_a-s256"], SPECS["vgg_e-s256"]
    store_finished(storage, parent, loss=loss, step=step)
    refusal = f"{child.name} starts from {parent.name}, which has learned nothing: the loss of its last epoch is 2.3"
    kind, sentence = (DamagedError, "model.safetensors is missing") if learned else (InputError, refusal)
    with pytest.raises(kind, match=sentence):
        first_weights(child, storage)
