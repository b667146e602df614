"""First weights: their statistics, and the transplant layer by layer."""

import pytest
import torch

from alexvgg.errors import InputError
from alexvgg.init import ALEXNET_BIASED, format_report, initialise, transplant, weight_layers
from alexvgg.models import Net, build


def net(name: str, width: float = 0.125, *, seed: int = 0, classes: int = 10) -> Net:
    model = build(name, num_classes=classes, width=width, crop=64 if name == "alexnet" else 32)
    initialise(model, "gaussian", std=0.05, seed=seed)
    return model


# What section 3.1 of the VGG paper copies, written out: the first four convolutions of A and its last three layers.
COPIED = {"conv1_1", "conv2_1", "conv3_1", "conv3_2", "fc6", "fc7", "fc8"}
LAYERS = {
    "vgg_b": "1_1 1_2 2_1 2_2 3_1 3_2 4_1 4_2 5_1 5_2",
    "vgg_c": "1_1 1_2 2_1 2_2 3_1 3_2 3_3 4_1 4_2 4_3 5_1 5_2 5_3",
    "vgg_d": "1_1 1_2 2_1 2_2 3_1 3_2 3_3 4_1 4_2 4_3 5_1 5_2 5_3",
    "vgg_e": "1_1 1_2 2_1 2_2 3_1 3_2 3_3 3_4 4_1 4_2 4_3 4_4 5_1 5_2 5_3 5_4",
}


@pytest.mark.parametrize("name", LAYERS)
def test_transplant_copies_the_papers_layers_and_no_other(name: str) -> None:
    shallow, deep = net("vgg_a", seed=1).state_dict(), net(name, seed=2).state_dict()
    before = {k: v.clone() for k, v in deep.items()}
    state, report = transplant(shallow, deep)
    layers = [f"conv{n}" for n in LAYERS[name].split()] + ["fc6", "fc7", "fc8"]
    assert [(o.layer, o.source) for o in report] == [(n, "copied" if n in COPIED else "random") for n in layers]
    for key, value in state.items():
        source = shallow if key.split(".")[1] in COPIED else deep
        assert torch.equal(value, source[key]), key
    assert all(torch.equal(before[k], deep[k]) for k in deep), "its argument was modified"
    assert state.keys() == deep.keys()
    text = format_report(report)
    assert text.count("copied") == 7
    if name == "vgg_c":
        assert "conv3_3  32x32x1x1        random" in text


def test_whole_copy() -> None:
    first, second = net("vgg_e", seed=1).state_dict(), net("vgg_e", seed=2).state_dict()
    state, report = transplant(first, second, layers=None)
    assert all(torch.equal(state[k], first[k]) for k in first)
    assert {o.source for o in report} == {"copied"}
    assert len(report) == 19


@pytest.mark.parametrize(
    ("shallow", "shapes"),
    [
        (net("vgg_a", 0.25), [r"\(8, 3, 3, 3\)", r"\(16, 3, 3, 3\)"]),
        (net("vgg_a", classes=7), [r"\(10, 512\)", r"\(7, 512\)"]),
        (net("vgg_b_shallow"), [r"\(8, 3, 3, 3\)", r"\(8, 3, 5, 5\)"]),
    ],
)
def test_a_parent_that_does_not_fit_is_refused_with_both_shapes(shallow: Net, shapes: list[str]) -> None:
    with pytest.raises(InputError, match="doesn't fit.*" + ".*".join(shapes)):
        transplant(shallow.state_dict(), net("vgg_d").state_dict())


def test_nets_without_these_layers_are_refused() -> None:
    with pytest.raises(InputError, match=r"no conv1_1, conv2_1"):
        transplant(net("vgg_a").state_dict(), net("alexnet").state_dict())
    with pytest.raises(InputError, match="has no such layer"):
        transplant({}, net("vgg_d").state_dict())


@pytest.mark.parametrize("kind", ["gaussian", "glorot", "he"])
def test_random_weights_have_their_distributions_spread(kind: str) -> None:
    model = build("vgg_c", width=0.5, crop=32)
    initialise(model, kind, std=0.03, seed=0)  # type: ignore[arg-type]
    for name, layer in weight_layers(model):
        w = layer.weight
        kernel = w[0, 0].numel()
        fan_in, fan_out = w.shape[1] * kernel, w.shape[0] * kernel
        expected = {"gaussian": 0.03, "glorot": (2 / (fan_in + fan_out)) ** 0.5, "he": (2 / fan_out) ** 0.5}[kind]
        assert w.std().item() == pytest.approx(expected, rel=0.1), name
        assert abs(w.mean().item()) < 0.1 * expected + 3 * expected / w.numel() ** 0.5
        assert layer.bias is not None
        assert not layer.bias.any()
        if kind == "glorot":
            assert w.abs().max() <= (6 / (fan_in + fan_out)) ** 0.5


def test_the_seed_decides() -> None:
    one, same, other = (net("vgg_b", seed=s).state_dict() for s in (3, 3, 4))
    assert all(torch.equal(one[k], same[k]) for k in one)
    assert not torch.equal(one["features.conv1_1.weight"], other["features.conv1_1.weight"])


def test_alexnets_biases() -> None:
    model = build("alexnet", width=0.125, crop=64)
    initialise(model, "gaussian", std=0.01, seed=0, biases=dict.fromkeys(ALEXNET_BIASED, 1.0))
    biases = {name: set(layer.bias.tolist()) for name, layer in weight_layers(model) if layer.bias is not None}
    assert biases == {
        "conv1": {0.0}, "conv2": {1.0}, "conv3": {0.0}, "conv4": {1.0}, "conv5": {1.0},
        "fc6": {1.0}, "fc7": {1.0}, "fc8": {0.0},
    }  # fmt: skip
