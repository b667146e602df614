"""From recipes to the specs of the runs they need, parents first: pure."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from alexvgg.config import (
    DataConfig,
    InitConfig,
    ModelConfig,
    Parent,
    RunSpec,
    TrainConfig,
    flat,
    to_dict,
    with_overrides,
)
from alexvgg.data.shards import Dataset
from alexvgg.errors import InputError
from alexvgg.recipes import Geometry, Recipe

Init = Literal["auto", "random", "glorot", "he"]

FIXED = ("recipe", "parent", "imported", "model.name", "model.num_classes", "data.dataset", "data.fingerprint")


@dataclass(frozen=True)
class Images:
    """What a plan must know of a dataset."""

    name: str
    classes: int
    fingerprint: str


@dataclass(frozen=True)
class Start:
    """A finished run that takes the place of the ancestors that have its net."""

    run: str
    model: ModelConfig


def start_from(finished: RunSpec) -> Start:
    """That run in its own full name: it goes into the names of those that start from it."""
    return Start(finished.name, finished.model)


def images_of(dataset: Dataset) -> Images:
    """A dataset's name, number of classes and fingerprint."""
    return Images(dataset.name, len(dataset.classes), dataset.fingerprint)


def plan_runs(
    targets: Sequence[Recipe],
    images: Images,
    geometry: Geometry,
    *,
    init: Init = "auto",
    overrides: Mapping[str, str] | None = None,
    start: Start | None = None,
) -> list[RunSpec]:
    """The targets' specs and those of all ancestors that they start from, each once, parents first.

    `init` other than auto replaces transplants by random weights, so that those parents aren't needed. `overrides`
    apply to every run, so that parents keep fitting their children. `start` takes the place of parents with its net,
    which then needn't be trained. Raises InputError if there is none, or its weights don't fit.
    """
    specs: dict[str, RunSpec] = {}

    def spec_of(recipe: Recipe) -> RunSpec:
        if recipe.name not in specs:
            parent = None
            if recipe.parent is not None and (init == "auto" or recipe.how == "copy"):
                given = start.run if start is not None and start.model.name == recipe.parent.model else None
                parent = Parent(run=given or spec_of(recipe.parent).name, how=recipe.how)
            spec = _with_overrides(_spec(recipe, parent, images, geometry, init), overrides or {})
            if start is not None and parent is not None and parent.run == start.run:
                _check_fit(spec, start)
            specs[recipe.name] = spec
        return specs[recipe.name]

    for target in targets:
        spec_of(target)
    if start is not None and not any(s.parent and s.parent.run == start.run for s in specs.values()):
        names = ", ".join(t.name for t in targets)
        why = f"no run on the way there starts from a {start.model.name}"
        if init != "auto":
            why += f", as --init {init} leaves the parents of other nets out"
        raise InputError(f"{names} can't start from {start.run}: {why}")
    return list(specs.values())


def _check_fit(spec: RunSpec, start: Start) -> None:
    theirs, ours = to_dict(start.model), to_dict(spec.model)
    if other := [f"{key} {theirs[key]}, not {ours[key]}" for key in ours if key != "name" and theirs[key] != ours[key]]:
        raise InputError(
            f"{spec.recipe} can't start from {start.run}, whose weights don't fit: it has {', '.join(other)}. Name a "
            "run of the same classes, --geometry and settings."
        )


def _spec(recipe: Recipe, parent: Parent | None, images: Images, geometry: Geometry, init: Init) -> RunSpec:
    alexnet = recipe.model.startswith("alexnet")
    copied = recipe.parent is not None and recipe.how == "copy"
    epochs = geometry.copy_epochs if copied else geometry.epochs
    std = geometry.shallow_init_std if recipe.model == "vgg_b_shallow" else geometry.init_std
    spec = RunSpec(
        recipe=recipe.name,
        model=ModelConfig(
            name=recipe.model, num_classes=images.classes, width=geometry.width,
            crop=geometry.alexnet_crop if alexnet else geometry.crop,
        ),
        data=DataConfig(dataset=images.name, fingerprint=images.fingerprint, train_scale=recipe.scale),
        train=TrainConfig(
            global_batch=geometry.global_batch or recipe.global_batch, lr=recipe.lr,
            epochs=epochs or recipe.epochs, max_steps=None if epochs else recipe.iterations,
            plateau_patience=geometry.plateau_patience,
        ),
        init=InitConfig(kind=init if init in ("glorot", "he") else "gaussian", std=std),
        test_scales=recipe.test_scales,
        parent=parent,
    )  # fmt: skip
    return with_overrides(spec, {key: json.dumps(value) for key, value in recipe.settings})


def _with_overrides(spec: RunSpec, overrides: Mapping[str, str]) -> RunSpec:
    for key in overrides:
        if key.startswith(FIXED):
            settable = ", ".join(k for k in flat(spec) if not k.startswith(FIXED))
            raise InputError(f"{key} follows from the recipe and the dataset. The settings are {settable}")
    changed = with_overrides(spec, overrides)
    if changed.train.epochs == 0:
        raise InputError("train.epochs=0 would train nothing; use 1 or more")
    return changed
