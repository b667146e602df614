"""Specs: validated, exact in both directions, with an identity that only changes on purpose."""

from dataclasses import replace

import pytest

from alexvgg.config import (
    LATER_SETTINGS,
    DataConfig,
    Execution,
    InitConfig,
    ModelConfig,
    Parent,
    RunSpec,
    TrainConfig,
    flat,
    from_dict,
    parse_settings,
    pixels,
    to_dict,
    with_overrides,
)
from alexvgg.errors import InputError

SPEC = RunSpec(
    recipe="vgg_e-jitter",
    model=ModelConfig("vgg_e", 10, 0.125, 32),
    data=DataConfig("digits", "f" * 64, (256, 512)),
    train=TrainConfig(64, 1e-3, 8),
    init=InitConfig(),
    test_scales=((384,), (256, 384, 512)),
    parent=Parent("vgg_e-s384-00000000", "copy"),
)


def test_json_there_and_back() -> None:
    assert from_dict(RunSpec, to_dict(SPEC)) == SPEC
    execution = Execution("s3://b/d", "s3://b", "http://m", workers=4)
    assert from_dict(Execution, to_dict(execution)) == execution


def test_identity_never_changes() -> None:
    # Stored runs are found by it. If a new setting changes it, every run in every storage gets lost.
    assert SPEC.name == "vgg_e-jitter-e2080fff"


def test_every_setting_is_part_of_the_identity() -> None:
    other = {
        "recipe": "x", "model.name": "vgg_d", "model.num_classes": "11", "model.width": "0.25", "model.crop": "64",
        "data.dataset": "x", "data.fingerprint": "x", "data.train_scale": "256", "data.colour_std": "0.2",
        "data.window": "8", "data.mean": "image", "data.crops": "square",
        "train.global_batch": "32", "train.lr": "0.1", "train.epochs": "9", "train.momentum": "0.5",
        "train.weight_decay": "0", "train.dropout": "0", "train.plateau_patience": "7",
        "train.plateau_threshold": "0.5", "train.max_steps": "5", "train.seed": "1", "train.decay_biases": "true",
        "init.kind": "he", "init.std": "0.5", "init.alexnet_bias": "0.1", "test_scales": "[[256]]", "parent.run": "x",
        "parent.how": "transplant", "imported": '{"source": "x", "sha256": "x"}',
    }  # fmt: skip
    assert set(other) == set(flat(SPEC)), "a setting that this test doesn't know"
    digests = {with_overrides(SPEC, {key: value}).digest for key, value in other.items()}
    assert len(digests | {SPEC.digest}) == len(other) + 1


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"model": {"name": "vgg_a", "num_classes": 0}}, "num_classes"),
        ({"model": {"name": "vgg_a", "num_classes": 10, "widht": 1}}, "model.widht is not a setting"),
        ({"model": {"name": "vgg_a"}}, "model.num_classes is missing"),
        ({"train": {"global_batch": 64, "lr": -1, "epochs": 1}}, "train.lr"),
        ({"train": {"global_batch": 64, "lr": "0.1", "epochs": 1}}, "train.lr"),
        ({"init": {"kind": "magic"}}, "init.kind"),
        ({"data": {"dataset": "d", "fingerprint": "f", "train_scale": 223}}, "S=223 is smaller than the 224-pixel"),
        ({"data": {"dataset": "d", "fingerprint": "f", "train_scale": [512, 256]}}, "range"),
        ({"test_scales": [[256, 100]]}, "Q=100 is smaller"),
        ({"extra": 1}, "extra is not a setting of RunSpec"),
    ],
)
def test_wrong_values_are_sentences(change: dict[str, object], sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        from_dict(RunSpec, {**to_dict(SPEC), **change})


def test_overrides_take_json_or_text() -> None:
    changed = with_overrides(SPEC, parse_settings(["train.lr=0.5", "init.kind=he", "data.train_scale=[256, 300]"]))
    assert changed == replace(
        SPEC,
        train=replace(SPEC.train, lr=0.5), init=InitConfig("he"), data=replace(SPEC.data, train_scale=(256, 300)),
    )  # fmt: skip


@pytest.mark.parametrize("key", ["learning_rate", "train", "train.lr.x", "trian.lr", ""])
def test_unknown_settings_are_named(key: str) -> None:
    with pytest.raises(InputError, match="there is no setting"):
        with_overrides(SPEC, {key: "1"})


def test_scales_are_the_papers_numbers_for_a_224_crop() -> None:
    assert [pixels(s, 224) for s in (256, 384, 512)] == [256, 384, 512]
    assert [pixels(s, 32) for s in (224, 256, 384, 512)] == [32, 37, 55, 73]


def test_settings_that_came_later_keep_old_names_and_old_specs() -> None:
    stored = to_dict(SPEC)
    for section, setting, default in LATER_SETTINGS:
        assert stored[section].pop(setting) == default
    assert from_dict(RunSpec, stored) == SPEC, "a spec that was stored before them can still be read"
