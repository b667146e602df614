"""Run records as the storage gives them, without training anything."""

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from alexvgg.config import RunSpec, to_dict
from alexvgg.data.shards import Dataset, Split
from alexvgg.data.store import Store, open_store
from alexvgg.planning import images_of, plan_runs
from alexvgg.recipes import GEOMETRIES, RECIPES
from alexvgg.runs import RunRecord
from alexvgg.tracking.journal import Journal

VALIDATION = 360


def images(name: str, classes: int, train: int, val: int) -> Dataset:
    """A dataset that says of itself that it is so large."""
    none = np.empty(0, np.int64)
    splits = (Split((), (), ("",) * n, none, none, none, none, none) for n in (train, val))
    labels = tuple(map(str, range(classes)))
    return Dataset(
        name, labels, labels, False, (0, 0, 0), (), (), None, "f" * 64, *splits, open_store("file:///nowhere")
    )


DATASET = images("digits", 10, 1437, VALIDATION)
DIGITS = images_of(DATASET)
SMALL = GEOMETRIES["small"]
SPECS = {s.recipe: s for s in plan_runs(list(RECIPES.values()), DIGITS, SMALL)}


def document(runs: Sequence[tuple[str, tuple[int, ...]]], method: str, top1: float) -> dict[str, Any]:
    members = [{"run": run, "weights": f"sha256 of {run}", "test_scales": list(scales)} for run, scales in runs]
    return {"method": method, "members": members, "images": VALIDATION, "top1_error": top1, "top5_error": top1 / 4}


def record(
    recipe: str,
    top1: float,
    *,
    time: float = 1.0,
    state: str = "finished",
    methods: Sequence[str] = ("dense",),
    seed: int = 0,
) -> RunRecord:
    spec = replace(SPECS[recipe], train=replace(SPECS[recipe].train, seed=seed))
    rows = [document([(spec.name, q)], m, top1 - n) for q in spec.test_scales for n, m in enumerate(methods)]
    journal = [{"event": "final", "step": 9, "time": time}]
    finished = state == "finished"
    weights = f"sha256 of {spec.name}" if finished else None
    return RunRecord(spec.name, state, spec, journal, rows if finished else [], None, weights)  # type: ignore[arg-type]


def store_finished(storage: Store, spec: RunSpec, *, loss: float, step: int) -> None:
    """What a run with this loss in its last epoch leaves behind, but for its weights."""
    folder = f"runs/{spec.name}/"
    storage.put(folder + "spec.json", json.dumps(to_dict(spec)).encode())
    journal = Journal(storage, folder + "journal.jsonl")
    journal.write("epoch", step, epoch=24, metrics={"train/loss_epoch": loss})
    journal.flush()
    storage.put(folder + "final/record.json", b'{"sha256": "0"}')


def fusion(name: str, runs: Sequence[RunRecord], method: str, top1: float) -> dict[str, Any]:
    return {"name": name, **document([(r.name, r.spec.test_scales[-1]) for r in runs if r.spec], method, top1)}
