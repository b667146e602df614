"""The nets beside the tables train as they are: a few steps of each, through the evaluation."""

from pathlib import Path

import pytest
import torch

import alexvgg.run as run
from alexvgg.config import Execution
from alexvgg.data.shards import Dataset
from alexvgg.data.store import open_store
from alexvgg.engine.world import World
from alexvgg.planning import images_of, plan_runs
from alexvgg.recipes import GEOMETRIES, RECIPES
from alexvgg.runs import read_run


@pytest.mark.parametrize("name", [r.name for r in RECIPES.values() if r.shows])
def test_it_trains_and_is_evaluated(name: str, digits: Dataset, digits_url: str, tmp_path: Path) -> None:
    settings = {"train.max_steps": "3", "test_scales": "[[224]]"}
    (spec,) = plan_runs([RECIPES[name]], images_of(digits), GEOMETRIES["small"], overrides=settings)
    run.train(spec, Execution(digits_url, tmp_path.as_uri()), World(0, 1, torch.device("cpu")))
    record = read_run(open_store(tmp_path.as_uri()), spec.name)
    assert record.state == "finished"
    assert record.evaluation[0]["images"] == 360
