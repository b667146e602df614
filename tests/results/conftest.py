"""Three small runs of one lineage, trained once, and a browser to look at what is made of them."""

import os
from collections.abc import Iterator
from dataclasses import dataclass

import browser as chromium
import pytest
import torch
from playwright.sync_api import Browser

from alexvgg.config import Execution
from alexvgg.data.shards import Dataset
from alexvgg.data.store import Store, open_store
from alexvgg.engine.world import World
from alexvgg.planning import images_of, plan_runs
from alexvgg.recipes import GEOMETRIES, RECIPES
from alexvgg.run import train


@dataclass(frozen=True)
class Trained:
    """Where the runs vgg_a, vgg_b and vgg_c lie, and their names."""

    storage: Store
    dataset_url: str
    names: tuple[str, ...]


@pytest.fixture(scope="session")
def three_runs(digits: Dataset, digits_url: str, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """A, and B and C from it, trained for an epoch and evaluated as Table 4 asks."""
    targets = [RECIPES["vgg_b-s256"], RECIPES["vgg_c-s256"]]
    specs = plan_runs(targets, images_of(digits), GEOMETRIES["small"], overrides={"train.epochs": "1"})
    storage, threads = tmp_path_factory.mktemp("trained").as_uri(), torch.get_num_threads()
    torch.set_num_threads(1)  # several get into each other's way where much else runs
    for spec in specs:
        train(spec, Execution(digits_url, storage), World(0, 1, torch.device("cpu")))
    torch.set_num_threads(threads)
    return Trained(open_store(storage), digits_url, tuple(s.name for s in specs))


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    path = chromium.find()
    if path is None:
        if os.environ.get(chromium.REQUIRED):
            pytest.fail(f"{chromium.REQUIRED} is set, but {chromium.MISSING}")
        pytest.skip(chromium.MISSING)
    with chromium.running(path) as opened:
        yield opened
