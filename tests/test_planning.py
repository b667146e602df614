"""Plans: complete, parents first, and their names carry their whole ancestry."""

import pytest

from alexvgg.config import Parent
from alexvgg.errors import InputError
from alexvgg.planning import Images, plan_runs, start_from
from alexvgg.recipes import GEOMETRIES, RECIPES

DIGITS = Images("digits", 10, "f" * 64)
SMALL, PAPER = GEOMETRIES["small"], GEOMETRIES["paper"]


def test_table4_needs_eleven_runs() -> None:
    targets = [r for r in RECIPES.values() if r.model in ("vgg_b", "vgg_c", "vgg_d", "vgg_e")]
    specs = plan_runs(targets, DIGITS, PAPER)
    assert len(specs) == 11
    seen: set[str] = set()
    for spec in specs:
        assert spec.parent is None or spec.parent.run in seen
        seen.add(spec.name)


def test_a_child_is_another_run_if_an_ancestor_is() -> None:
    target = RECIPES["vgg_e-s384"]
    plain = plan_runs([target], DIGITS, SMALL)
    changed = plan_runs([target], DIGITS, SMALL, overrides={"train.seed": "1"})
    assert len(plain) == 3
    assert not {s.name for s in plain} & {s.name for s in changed}
    assert [s.parent.run if s.parent else None for s in changed] == [None, changed[0].name, changed[1].name]


@pytest.mark.parametrize("init", ["random", "glorot", "he"])
def test_random_starts_drop_the_shallow_parent_only(init: str) -> None:
    specs = plan_runs([RECIPES["vgg_e-s384"]], DIGITS, SMALL, init=init)  # type: ignore[arg-type]
    assert [s.recipe for s in specs] == ["vgg_e-s256", "vgg_e-s384"]
    assert specs[0].parent is None
    assert specs[0].init.kind == ("gaussian" if init == "random" else init)
    assert specs[1].parent is not None


def test_a_parent_that_does_not_fit_is_refused() -> None:
    (parent,) = plan_runs([RECIPES["vgg_a-s256"]], DIGITS, SMALL)
    child = [RECIPES["vgg_e-s256"]]
    letters = Images("letters", 10, "0" * 64)
    (spec,) = plan_runs(child, letters, SMALL, start=start_from(parent))
    assert spec.parent == Parent(parent.name, "transplant"), "from other images: a transfer"
    for images, geometry, overrides, said in (
        (Images("letters", 26, "0" * 64), SMALL, {}, "num_classes 10, not 26"),
        (DIGITS, PAPER, {}, "width 0.125, not 1.0, crop 32, not 224"),
        (DIGITS, SMALL, {"model.width": "0.25"}, "width 0.125, not 0.25"),
    ):
        with pytest.raises(InputError, match=f"vgg_e-s256 can't start from {parent.name}.*it has {said}"):
            plan_runs(child, images, geometry, overrides=overrides, start=start_from(parent))


def test_a_finished_run_takes_the_place_of_the_parents_with_its_net() -> None:
    (parent,) = plan_runs([RECIPES["vgg_a-s256"]], DIGITS, SMALL, overrides={"train.seed": "7"})
    target, start = [RECIPES["vgg_e-s384"]], start_from(parent)
    first, second = plan_runs(target, DIGITS, SMALL, start=start)
    assert (first.parent, second.parent) == (Parent(parent.name, "transplant"), Parent(first.name, "copy"))
    other = start_from(plan_runs([RECIPES["vgg_d-s256"]], DIGITS, SMALL)[-1])
    with pytest.raises(InputError, match=f"vgg_e-s384 can't start from {other.run}: no run on the way there starts"):
        plan_runs(target, DIGITS, SMALL, start=other)
    with pytest.raises(InputError, match="starts from a vgg_a, as --init he leaves the parents of other nets out"):
        plan_runs(target, DIGITS, SMALL, start=start, init="he")


def test_geometry_changes_sizes_and_nothing_else() -> None:
    (_, paper), (_, small) = (plan_runs([RECIPES["vgg_d-s256"]], DIGITS, g) for g in (PAPER, SMALL))
    assert (paper.model.crop, paper.model.width, paper.train.global_batch, paper.train.epochs) == (224, 1.0, 256, 74)
    assert (small.model.crop, small.model.width, small.train.global_batch) == (32, 0.125, 64)
    assert paper.test_scales == small.test_scales == ((256,), (224, 256, 288))
    assert (paper.data.train_scale, paper.train.lr, paper.train.momentum, paper.train.weight_decay) == (
        small.data.train_scale, small.train.lr, small.train.momentum, small.train.weight_decay,
    )  # fmt: skip
    crops = {s.recipe: s.model.crop for s in plan_runs(list(RECIPES.values()), DIGITS, SMALL)}
    assert {name: 64 if name.startswith("alexnet") else 32 for name in crops} == crops


def test_how_long_is_trained_is_the_recipes_or_the_geometrys() -> None:
    targets = [RECIPES[name] for name in ("alexnet-s256", "vgg_e-s384")]
    asked = {g.name: plan_runs(targets, DIGITS, g) for g in (PAPER, SMALL)}
    assert {
        name: [(s.train.global_batch, s.train.epochs, s.train.max_steps) for s in specs]
        for name, specs in asked.items()
    } == {
        "paper": [(128, 90, None), *[(256, 74, 370_000)] * 3],
        "small": [*[(64, 24, None)] * 3, (64, 8, None)],
    }
    assert [s.data.train_scale for s in asked["paper"]] == [256, 256, 256, 384]
    assert [s.test_scales for s in asked["small"]] == [
        t.test_scales for t in (targets[0], RECIPES["vgg_a-s256"], RECIPES["vgg_e-s256"], targets[1])
    ]


@pytest.mark.parametrize(
    "key", ["recipe", "parent.run", "imported", "model.name", "model.num_classes", "data.dataset", "data.fingerprint"]
)
def test_what_follows_from_recipe_and_dataset_cannot_be_set(key: str) -> None:
    with pytest.raises(InputError, match="follows from the recipe and the dataset"):
        plan_runs([RECIPES["vgg_b-s256"]], DIGITS, SMALL, overrides={key: "x"})


def test_kernels_of_any_size_start_from_the_same_signal() -> None:
    """B-shallow's 5x5 kernels sum 25 inputs a channel where B's sum 9; the papers print one deviation for all."""
    shallow, b = (
        {g: plan_runs([RECIPES[r]], DIGITS, GEOMETRIES[g], init="random")[-1].init.std for g in GEOMETRIES}
        for r in ("vgg_b_shallow-s256", "vgg_b-s256")
    )
    assert shallow["paper"] == b["paper"] == 0.01
    assert shallow["small"] * 5 == pytest.approx(b["small"] * 3)
