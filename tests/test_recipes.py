"""Both papers as data, against what the papers say."""

import pytest

from alexvgg.errors import InputError
from alexvgg.models import MODEL_NAMES
from alexvgg.recipes import GEOMETRIES, RECIPES, find_recipe, lineage

PARENTS = {
    "alexnet-s256": None, "vgg_a-s256": None, "vgg_a_lrn-s256": None, "vgg_b_shallow-s256": None,
    "vgg_b-s256": "vgg_a-s256", "vgg_c-s256": "vgg_a-s256", "vgg_d-s256": "vgg_a-s256", "vgg_e-s256": "vgg_a-s256",
    "vgg_c-s384": "vgg_c-s256", "vgg_d-s384": "vgg_d-s256", "vgg_e-s384": "vgg_e-s256",
    "vgg_c-jitter": "vgg_c-s384", "vgg_d-jitter": "vgg_d-s384", "vgg_e-jitter": "vgg_e-s384",
}  # fmt: skip


def test_lineage_is_the_papers() -> None:
    assert {name: r.parent.name if r.parent else None for name, r in RECIPES.items()} == PARENTS
    assert {r.how for r in RECIPES.values() if r.parent and r.scale == 256} == {"transplant"}
    assert {r.how for r in RECIPES.values() if r.scale != 256} == {"copy"}
    assert {r.model for r in RECIPES.values()} == set(MODEL_NAMES)


def test_hyper_parameters_are_the_papers() -> None:
    for r in RECIPES.values():
        vgg = r.model != "alexnet"
        assert (r.global_batch, r.epochs) == ((256, 74) if vgg else (128, 90))
        assert r.lr == (1e-2 if r.scale == 256 else 1e-3)
    paper = GEOMETRIES["paper"]
    assert (paper.crop, paper.width, paper.global_batch, paper.epochs, paper.copy_epochs) == (
        224,
        1.0,
        None,
        None,
        None,
    )


def test_lineage_has_parents_first_and_each_once() -> None:
    names = [r.name for r in lineage([RECIPES["vgg_e-jitter"], RECIPES["vgg_d-s256"]])]
    assert names == ["vgg_a-s256", "vgg_e-s256", "vgg_e-s384", "vgg_e-jitter", "vgg_d-s256"]


@pytest.mark.parametrize(
    ("model", "scale", "sentence"),
    [
        ("vgg_f", "256", "no model 'vgg_f'; did you mean"),
        ("", "256", "there are alexnet, vgg_a"),
        ("vgg_b", "384", "trains vgg_b at S = 256, not at '384'"),
        ("vgg_e", "200", "S=200 is smaller than the 224-pixel crop"),
        ("vgg_e", "big", "at S = 256, 384, jitter"),
    ],
)
def test_what_no_paper_trains_is_refused(model: str, scale: str, sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        find_recipe(model, scale)
