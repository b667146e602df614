"""Both papers as data, against what the papers say."""

import pytest

from alexvgg.architectures import MODEL_NAMES
from alexvgg.campaign.tables import rows_of
from alexvgg.config import to_dict
from alexvgg.errors import InputError
from alexvgg.planning import Images, plan_runs
from alexvgg.recipes import GEOMETRIES, RECIPES, find_recipe, lineage
from alexvgg.results.paper import ABLATIONS, TABLES

BESIDE_THE_TABLES = {
    "alexnet_no_lrn-s256", "alexnet_no_overlap-s256", "alexnet_half-s256", "alexnet_no_colour-s256",
    "alexnet_no_conv3-s256", "alexnet_no_conv4-s256", "fourlayer_relu-s256", "fourlayer_tanh-s256",
}  # fmt: skip
PARENTS = {
    **dict.fromkeys(BESIDE_THE_TABLES, None),
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
        vgg = r.model.startswith("vgg")
        assert (r.global_batch, r.epochs, r.iterations) == ((256, 74, 370_000) if vgg else (128, 90, None))
        assert r.lr == (1e-2 if r.scale == 256 and r.name != "fourlayer_relu-s256" else 1e-3)
    paper = GEOMETRIES["paper"]
    assert (paper.crop, paper.width, paper.global_batch, paper.epochs, paper.copy_epochs) == (
        224,
        1.0,
        None,
        None,
        None,
    )


def test_nets_beside_the_tables_say_what_they_show_and_have_a_table_of_their_own() -> None:
    beside = {*BESIDE_THE_TABLES, "vgg_b_shallow-s256"}
    assert {r.name for r in RECIPES.values() if r.shows} == beside
    tables = {name: {net.recipe.name for row in rows for net in row.nets} for name, rows in TABLES.items()}
    assert tables[ABLATIONS] == {*beside, "alexnet-s256", "vgg_b-s256"}, "and what they are held against"
    assert not any(beside & nets for name, nets in tables.items() if name != ABLATIONS)
    assert not beside & {net.recipe.name for row in rows_of("all") for net in row.nets}
    for name in BESIDE_THE_TABLES:
        r = RECIPES[name]
        assert r.shows is not None
        assert r.shows.startswith("AlexNet ")
        assert find_recipe(r.target, "256") is r
        (spec,) = plan_runs([r], Images("x", 10, "0" * 64), GEOMETRIES["small"])
        own = to_dict(spec)
        for key, value in r.settings:
            section, setting = key.split(".")
            assert own[section][setting] == value
    assert dict(RECIPES["alexnet_no_colour-s256"].settings) == {
        "data.mean": "image", "data.crops": "square", "data.colour_std": 0.0,
    }  # fmt: skip


def test_vggs_iterations_are_the_papers_370_thousand() -> None:
    images = Images("imagenet", 1000, "0" * 64)
    (paper,) = plan_runs([RECIPES["vgg_a-s256"]], images, GEOMETRIES["paper"])
    (small,) = plan_runs([RECIPES["vgg_a-s256"]], images, GEOMETRIES["small"])
    assert (paper.train.epochs, paper.train.max_steps) == (74, 370_000)
    assert (small.train.epochs, small.train.max_steps) == (24, None)
    assert 73 * 5005 < 370_000 < 74 * 5005, "1,281,167 images in batches of 256"


def test_lineage_has_parents_first_and_each_once() -> None:
    names = [r.name for r in lineage([RECIPES["vgg_e-jitter"], RECIPES["vgg_d-s256"]])]
    assert names == ["vgg_a-s256", "vgg_e-s256", "vgg_e-s384", "vgg_e-jitter", "vgg_d-s256"]


@pytest.mark.parametrize(
    ("model", "scale", "sentence"),
    [
        ("vgg_f", "256", "no model 'vgg_f'; did you mean"),
        ("VGG_E", "256", "no model 'VGG_E'; did you mean 'vgg_e'"),
        ("", "256", "there are alexnet, vgg_a"),
        ("vgg_b", "384", "trains vgg_b at S = 256, not at '384'"),
        ("vgg_e", "200", "S=200 is smaller than the 224-pixel crop"),
        ("vgg_e", "big", "at S = 256, 384, jitter"),
    ],
)
def test_what_no_paper_trains_is_refused(model: str, scale: str, sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        find_recipe(model, scale)
