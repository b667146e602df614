"""Our numbers beside the paper's, each empty row with the command that fills it (`formats` shows them)."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from alexvgg.config import PAPER_CROP, PAPER_DATASET, RunSpec, Scale, flat
from alexvgg.data.shards import Dataset
from alexvgg.planning import Images, plan_runs
from alexvgg.recipes import RECIPES, Geometry, scale_name
from alexvgg.results.paper import TABLES, PaperNet, PaperRow, asked, tested
from alexvgg.runs import RunRecord

NOT_COMPARABLE = "This shows that the pipeline works end to end, not how accurate the nets are."
ILSVRC = (PAPER_DATASET, 1000, 1_281_167, 50_000)  # name, classes, training and validation images


@dataclass(frozen=True)
class Row:
    """One row of the paper and, where something has filled it, ours. Errors in per cent."""

    paper: PaperRow
    run: str | None = None  # or the name of a fusion
    images: int | None = None
    top1: float | None = None
    top5: float | None = None
    changed: tuple[str, ...] = ()  # what isn't the paper's, like `train.epochs=2`, `parent=…`
    runs: int = 0  # finished runs or fusions that could fill it as well, this one among them
    command: str | None = None  # the next one on the way to fill it; None if it is filled, or can't be


@dataclass(frozen=True)
class _Run:
    """A finished run that may fill a table."""

    name: str
    spec: RunSpec
    weights: str
    evaluation: Sequence[Mapping[str, Any]]
    changed: frozenset[str]  # what of it isn't the recipe's


def fill(
    table: str,
    runs: Sequence[RunRecord],
    fusions: Sequence[Mapping[str, Any]],
    dataset: Dataset,
    geometry: Geometry,
    options: str = "",
    size: str = "",
    others: Sequence[RunRecord] = (),
) -> list[Row]:
    """The table's rows, from the finished runs on this dataset at this geometry only: others are never mixed in.

    If several runs of a recipe are finished, those with its own settings go before those with others, and of these the
    one counts that finished last; of several fusions the last one.
    `options`, like ` --profile lab`, are added to the commands, and `size`, like ` --geometry small`, to submissions.
    `others` fill no row, but runs may start from them.
    """
    specs = {r.name: r.spec for r in (*others, *runs)}
    usable = [
        _Run(r.name, r.spec, r.weights, r.evaluation, _changed(r.spec, specs, geometry))
        for r in sorted(runs, key=lambda r: r.last_seen)
        if r.weights is not None
        and r.spec.recipe in RECIPES
        and r.spec.data.fingerprint == dataset.fingerprint
        and (own := _planned(r.spec, geometry).model).width == r.spec.model.width
        and r.spec.model.crop in (own.crop, geometry.crop, geometry.alexnet_crop)
    ]
    return [_fill_row(paper, usable, fusions, len(dataset.val), options, size) for paper in TABLES[table]]


def _fill_row(
    paper: PaperRow, usable: Sequence[_Run], fusions: Sequence[Mapping[str, Any]], images: int, options: str, size: str
) -> Row:
    if not paper.nets:
        return Row(paper)
    runs, recipes = {(r.name, r.weights): r for r in usable}, {r.name: r.spec.recipe for r in usable}
    alone = [(r.name, d) for r in usable for d in r.evaluation]
    documents = alone if len(paper.nets) == 1 else [(d["name"], d) for d in fusions]
    filled = []
    for name, d in reversed(documents):
        members = [runs.get((m["run"], m["weights"])) for m in d["members"]]
        if d["method"] == paper.method and d["images"] and None not in members and tested(recipes, d) == asked(paper):
            changed = {c for r in members if r is not None for c in r.changed}
            if d["images"] != images:
                changed.add(f"{d['images']} of {images} images")
            filled.append(Row(paper, name, d["images"], d["top1_error"], d["top5_error"], tuple(sorted(changed))))
    if filled:
        own = [row for row in filled if not row.changed] or filled
        return replace(own[0], runs=len({row.run for row in own}))
    return Row(paper, command=_command(paper, usable, size) + options)


def _changed(spec: RunSpec, specs: Mapping[str, RunSpec], geometry: Geometry) -> frozenset[str]:
    return frozenset((*changed_settings(spec, geometry), *other_start(spec, specs, geometry)))


def changed_settings(spec: RunSpec, geometry: Geometry) -> list[str]:
    """Settings that aren't those of the recipe at this geometry, seed aside, as `--set` takes them."""
    planned = flat(_planned(spec, geometry))
    return [
        f"{key}={json.dumps(value)}"
        for key, value in flat(spec).items()
        if value != planned.get(key, value) and key != "train.seed" and not key.startswith("parent")
    ]


def _planned(spec: RunSpec, geometry: Geometry) -> RunSpec:
    """The run of the same recipe and images, with the recipe's own settings."""
    images = Images(spec.data.dataset, spec.model.num_classes, spec.data.fingerprint)
    return plan_runs([RECIPES[spec.recipe]], images, geometry)[-1]


def other_start(spec: RunSpec, specs: Mapping[str, RunSpec], geometry: Geometry) -> list[str]:
    """Where a run's first weights come from, or its parent's and so on, if that isn't where the paper took them from,
    or was trained with other settings than its recipe's.

    `specs` are those of all stored runs: one that isn't there any more may have been anything.
    """
    asked, own = RECIPES[spec.recipe].parent, spec.parent
    if own is None:
        return [f"init={spec.init.kind}"] if asked is not None else []
    parent = specs.get(own.run)
    images = None if parent is None else other_images(spec, parent)
    if parent is None or asked is None or parent.recipe != asked.name or images is not None:
        return [f"parent={own.run}" + (f" of {images}" if images else "")]
    theirs = [f"{parent.recipe}: {c}" for c in changed_settings(parent, geometry)]
    return [*theirs, *other_start(parent, specs, geometry)]


def other_images(spec: RunSpec, parent: RunSpec) -> str | None:
    """What the parent was trained on, if those aren't the images of the run itself."""
    ours, theirs = spec.data, parent.data
    return None if theirs.fingerprint == ours.fingerprint else f"{theirs.dataset} ({theirs.fingerprint[:8]})"


def _command(paper: PaperRow, usable: Sequence[_Run], size: str) -> str:
    """Train what is missing, one run after the other; then evaluate."""
    same_scales = len({net.test_scales for net in paper.nets}) == 1
    chosen: list[str] = []
    for net in paper.nets:
        # Nets that are tested at different scales are evaluated at each run's own, which a setting may have changed.
        runs = [
            r
            for r in reversed(usable)
            if r.spec.recipe == net.recipe.name and (same_scales or r.spec.test_scales[-1] == net.test_scales)
        ]
        runs.sort(key=lambda r: bool(r.changed))  # those with the recipe's own settings first
        free = [r.name for r in runs if r.name not in chosen]
        if not free:
            return _submit(net, taken={r.spec.train.seed for r in runs}) + size
        chosen.append(free[0])
    scales = f" --test-scales {','.join(map(str, paper.nets[0].test_scales))}" if same_scales else ""
    fuse = " --fuse" if len(chosen) > 1 else ""
    return f"alexvgg evaluate {' '.join(chosen)} --method {paper.method}{scales}{fuse}"


def _submit(net: PaperNet, taken: set[int]) -> str:
    seed = next(n for n in range(len(taken) + 1) if n not in taken)
    setting = f" --set train.seed={seed}" if seed else ""
    scale = scale_name(net.train_scale).removeprefix("s")
    return f"alexvgg submit --model {net.model} --scale {scale} --nodes 4{setting}"


def scale_text(scale: Scale) -> str:
    return str(scale) if isinstance(scale, int) else f"[{scale[0]};{scale[1]}]"


def why_not_comparable(dataset: Dataset, geometry: Geometry) -> list[str]:
    """Why our numbers may not be read against the paper's; empty if they may."""
    reasons = []
    name, *counts = dataset.name, len(dataset.classes), len(dataset.train), len(dataset.val)
    if name != ILSVRC[0]:
        reasons.append(f"the images are {name}, not ILSVRC-2012")
    elif (name, *counts) != ILSVRC:
        sizes = "{:,} classes, {:,} training and {:,} validation images"
        reasons.append(f"the dataset has {sizes.format(*counts)}; ILSVRC-2012 has {sizes.format(*ILSVRC[1:])}")
    if geometry.crop != PAPER_CROP:
        alexnet = "" if geometry.alexnet_crop == geometry.crop else f" ({geometry.alexnet_crop} for AlexNet)"
        reasons.append(f"the crop is {geometry.crop} pixels{alexnet}, not {PAPER_CROP}")
    if geometry.width != 1:
        reasons.append(f"the nets are {geometry.width:g} times as wide")
    if geometry.epochs is not None:
        batch, length = geometry.global_batch, f"{geometry.epochs} or {geometry.copy_epochs} epochs"
        reasons.append(f"training takes {length}" + (f" in batches of {batch}" if batch else ""))
    return reasons


def comparability(dataset: Dataset, geometry: Geometry) -> str:
    """Which data and geometry a table shows, and whether they are the paper's."""
    reasons = why_not_comparable(dataset, geometry)
    if not reasons:
        return "Data: ILSVRC-2012, the paper's geometry: comparable."
    return (
        f"Data: {dataset.name}, {geometry.name} geometry. Not comparable with the paper's numbers, because "
        f"{'; '.join(reasons)}. {NOT_COMPARABLE}"
    )
