"""Runs beside one another: only what differs."""

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from records import record

from alexvgg.results.compare import compare, to_json, to_text
from alexvgg.runs import RunRecord

A, D, E = record("vgg_a-s256", 5.0), record("vgg_d-s256", 4.0), record("vgg_e-s256", 3.5)
CODE: dict[str, Any] = {
    "git": {"commit": "0123456789abcdef", "diff_sha256": None},
    "lock_sha256": "ab" * 32,
    "python": "3.11.7",
    "packages": {"torch": "2.14.1", "numpy": "2.4.6"},
    "precision": "fp32", "exchange": "none", "compiled": False,
}  # fmt: skip
OTHER = CODE | {
    "git": {"commit": "fedcba9876543210", "diff_sha256": "5c9e833022c5"},
    "packages": {"torch": "2.14.0", "numpy": "2.4.6"},
    "precision": "bf16", "compiled": True,
}  # fmt: skip


def trained(run: RunRecord, loss: float) -> RunRecord:
    metrics = {"train/loss_epoch": loss, "val/top1_error": 7.0, "train/lr": 0.01, "perf/images_per_s": 1000.0}
    epoch = {"event": "epoch", "step": 552, "epoch": 24, "time": 1.0, "metrics": metrics}
    return replace(run, journal=[epoch, *run.journal])


def test_a_comparison_looks_so(golden: Callable[[str, str], None]) -> None:
    runs = [trained(D, 0.25), trained(E, 0.5)]
    comparison = compare(runs, [CODE, OTHER], [A, D, E])
    golden("compare.txt", to_text(comparison) + "\n")
    golden("compare.json", json.dumps(to_json(comparison), indent=2) + "\n")


def test_what_is_equal_is_left_out_and_what_is_missing_has_no_delta() -> None:
    comparison = compare([trained(E, 0.5), E], [CODE, {}], [A, E])
    assert comparison.settings == {}
    assert comparison.delta("eval/dense-q224-256-288/top1_error") == [0.0, 0.0]
    assert comparison.metrics["train/loss_epoch"] == (0.5, None)
    assert comparison.delta("train/loss_epoch") == [0.0, None]
    assert comparison.code["commit"] == ("0123456789ab", None)
    assert "Settings that differ: none" in to_text(comparison)
    assert comparison.lineage == ((A.name, E.name),) * 2


def test_a_run_that_goes_on_says_how_far_it_is() -> None:
    """Its numbers aren't its last ones."""
    comparison = compare([replace(trained(E, 0.5), state="started", weights=None), D], [CODE, OTHER], [A, D, E])
    assert comparison.states == ("started, epoch 24 of 24", "finished")
    assert to_json(comparison)["states"] == list(comparison.states)
    assert to_text(comparison).splitlines()[1].split("  ")[0] == "state"


def test_what_only_another_run_has_is_shown_beside_nothing() -> None:
    """Whichever of them is the baseline: its column is a dash, and nothing is held against it."""
    bare = replace(A, state="started", journal=[], evaluation=[])
    comparison = compare([bare, trained(E, 0.5), A], [{"git": None}, CODE, OTHER | {"packages": {"jax": "1"}}], [A, E])
    assert comparison.settings["parent.run"] == (None, A.name, None)
    assert comparison.metrics["train/loss_epoch"] == (None, 0.5, None)
    assert comparison.delta("train/loss_epoch") == [None, None, None]
    assert comparison.states == ("started", "finished", "finished")
    assert comparison.code["commit"] == (None, "0123456789ab", "fedcba987654")
    assert comparison.code["precision"] == (None, "fp32", "bf16")
    assert comparison.code["jax"] == (None, None, "1")
    row = next(line for line in to_text(comparison).splitlines() if line.startswith("train/loss_epoch"))
    assert row.split() == ["train/loss_epoch", "-", "0.5", "-"]


def test_of_three_runs_one_that_differs_is_enough() -> None:
    comparison = compare([D, E, D], [CODE, OTHER, CODE], [A, D, E])
    assert comparison.settings["model.name"] == ("vgg_d", "vgg_e", "vgg_d")
    assert comparison.code["torch"] == ("2.14.1", "2.14.0", "2.14.1")


def test_nought_is_a_value() -> None:
    text = to_text(compare([E, record("vgg_e-s256", 3.5, seed=1)], [CODE, CODE], [A, E]))
    assert ["train.seed", "0", "1"] in [line.split() for line in text.splitlines()]


def test_runs_of_several_seeds_have_a_mean_and_a_deviation() -> None:
    seeds = [record("alexnet-s256", error, methods=("tencrop",), seed=n) for n, error in enumerate((5.0, 7.0, 6.0))]
    comparison = compare(seeds, [CODE] * 3, seeds)
    assert comparison.settings == {"train.seed": (0, 1, 2)}
    assert comparison.spread("eval/tencrop-q256/top1_error") == (6.0, 1.0)
    row = next(line for line in to_text(comparison).splitlines() if line.startswith("eval/tencrop-q256/top1_error"))
    assert row.endswith("6 ± 1")
    assert to_json(comparison)["metrics"]["eval/tencrop-q256/top1_error"]["spread"] == (6.0, 1.0)
    others = compare([*seeds, D], [CODE] * 4, seeds)
    assert others.spread("eval/tencrop-q256/top1_error") is None, "these differ in more"
    assert "±" not in to_text(others)
    same = compare([seeds[0], seeds[0]], [CODE] * 2, seeds)
    assert same.spread("eval/tencrop-q256/top1_error") is None, "one run twice has no deviation"
