"""What training does to the loss: the same as when it was last looked at, and what the VGG paper says of deep nets."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import alexvgg.run as run
from alexvgg.config import Execution, RunSpec
from alexvgg.data.shards import Dataset
from alexvgg.data.store import open_store
from alexvgg.engine.world import World
from alexvgg.planning import images_of, plan_runs
from alexvgg.recipes import GEOMETRIES, RECIPES
from alexvgg.runs import RunRecord, read_run

ALONE = World(0, 1, torch.device("cpu"))
GOLDEN = Path(__file__).with_name("golden") / "losses.json"


pytestmark = pytest.mark.usefixtures("one_thread")


def plan(digits: Dataset, recipe: str, **settings: str) -> list[RunSpec]:
    overrides = {"test_scales": "[[256]]", **{k.replace("__", "."): v for k, v in settings.items()}}
    return plan_runs([RECIPES[recipe]], images_of(digits), GEOMETRIES["small"], overrides=overrides)


@pytest.fixture
def trained(digits_url: str, tmp_path: Path) -> Callable[[RunSpec], RunRecord]:
    def train(spec: RunSpec) -> RunRecord:
        run.train(spec, Execution(digits_url, tmp_path.as_uri(), sample_log=str(tmp_path / "log")), ALONE)
        return read_run(open_store(tmp_path.as_uri()), spec.name)

    return train


@pytest.mark.parametrize("recipe", ["vgg_a-s256", "alexnet-s256"])
def test_twenty_losses_are_the_golden_ones(
    recipe: str, digits: Dataset, trained: Callable[[RunSpec], RunRecord], tmp_path: Path,
    golden: Callable[[str, str], None],
) -> None:  # fmt: skip
    """To a thousandth: the order of a CPU's float additions differs, and at lr 0.001 it grows to 1e-4 in 20 steps."""
    trained(plan(digits, recipe, train__max_steps="20", train__lr="0.001")[-1])
    (file,) = (tmp_path / "log").iterdir()
    losses = [json.loads(line)["loss"] for line in file.read_text().splitlines()]
    assert len(losses) == 20
    expected = json.loads(GOLDEN.read_text()) if GOLDEN.exists() else {}
    if recipe not in expected or losses != pytest.approx(expected[recipe], rel=1e-3):
        renewed = {**expected, recipe: [round(loss, 5) for loss in losses]}
        golden("losses.json", json.dumps(renewed, indent=1) + "\n")


def test_e_does_not_learn_from_random_weights_but_does_from_a(
    digits: Dataset, trained: Callable[[RunSpec], RunRecord], caplog: pytest.LogCaptureFixture
) -> None:
    """VGG section 3.1's reason for starting deep nets from A; and the guard says so, in the journal and the log.

    N(0, 0.05) is where it shows at this size. How long E takes to leave chance from A is a matter of the seed.
    """
    settings = {"train.epochs": "12", "init.std": "0.05"}
    a, from_a = plan(digits, "vgg_e-s256", **{k.replace(".", "__"): v for k, v in settings.items()})
    random = plan_runs(
        [RECIPES["vgg_e-s256"]], images_of(digits), GEOMETRIES["small"], init="random",
        overrides={"test_scales": "[[256]]", **settings},
    )[-1]  # fmt: skip
    stuck = trained(random)
    assert stuck.last_epoch is not None
    assert stuck.last_epoch["metrics"]["val/top1_error"] > 80
    (warning,) = (e["message"] for e in stuck.journal if e["event"] == "warning")
    assert "that is chance, ln(10) = 2.303" in warning
    assert "Start from the trained net A" in warning
    assert warning in caplog.text
    caplog.clear()
    trained(a)
    learnt = trained(from_a)
    assert learnt.last_epoch is not None
    assert learnt.last_epoch["metrics"]["val/top1_error"] < 60
    assert not [e for e in learnt.journal if e["event"] == "warning"]
    assert "chance" not in caplog.text
