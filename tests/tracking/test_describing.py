"""What MLflow says of a run, beside its points."""

from pathlib import Path

import pytest
from records import SPECS

from alexvgg.data.store import open_store
from alexvgg.planning import Images, plan_runs
from alexvgg.recipes import GEOMETRIES, RECIPES
from alexvgg.tracking.describing import describe_run

IMAGENET = Images("imagenet", 1000, "f" * 64)


@pytest.mark.parametrize("recipe", ["vgg_e-s256", "alexnet-s256", "fourlayer_tanh-s256"])
def test_a_run_says_whether_its_errors_may_be_held_against_the_papers(recipe: str, tmp_path: Path) -> None:
    storage, paper = open_store(tmp_path.as_uri()), plan_runs([RECIPES[recipe]], IMAGENET, GEOMETRIES["paper"])[-1]
    assert describe_run(storage, paper).tags["alexvgg.comparable"] == "with the paper"


def test_small_nets_and_other_images_are_named(tmp_path: Path) -> None:
    assert describe_run(open_store(tmp_path.as_uri()), SPECS["vgg_e-s256"]).tags["alexvgg.comparable"] == (
        "not with the paper: the images are digits, not ILSVRC-2012; the crop is 32 pixels, not 224; the net is 0.125 "
        "times as wide"
    )
