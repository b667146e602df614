"""The tables as people see them, and that nothing is mixed in that doesn't belong there."""

import json
from collections.abc import Callable
from dataclasses import replace

from alexvgg.planning import Images, plan_runs
from alexvgg.recipes import GEOMETRIES, RECIPES
from alexvgg.results.table import comparability, fill, to_json, to_text
from alexvgg.runs import RunRecord

DIGITS = Images("digits", 10, "f" * 64)
SMALL = GEOMETRIES["small"]
SPECS = {s.recipe: s for s in plan_runs([RECIPES["vgg_e-jitter"], RECIPES["vgg_d-s256"]], DIGITS, SMALL)}


def record(recipe: str, top1: float, *, time: float = 1.0, state: str = "finished") -> RunRecord:
    spec = SPECS[recipe]
    rows = [
        {"test_scales": list(q), "images": 360, "top1_error": top1, "top5_error": top1 / 4} for q in spec.test_scales
    ]
    journal = [{"event": "final", "step": 9, "time": time}]
    return RunRecord(spec.name, state, spec, journal, rows if state == "finished" else [], None)  # type: ignore[arg-type]


def test_tables_look_so(golden: Callable[[str, str], None]) -> None:
    runs = [record("vgg_a-s256", 5.25), record("vgg_e-s256", 4.0), record("vgg_e-jitter", 28.2)]
    note = comparability("digits", SMALL)
    for table in ("table3", "table4"):
        golden(f"{table}.txt", to_text(table, fill(table, runs, DIGITS.fingerprint, SMALL), note) + "\n")


def test_every_empty_row_names_the_command_that_fills_it() -> None:
    rows = to_json("table4", fill("table4", [record("vgg_d-s256", 3.0)], DIGITS.fingerprint, SMALL), "")["rows"]
    assert len(rows) == 10  # type: ignore[arg-type]
    filled = [r for r in rows if r["run"]]  # type: ignore[attr-defined]
    assert [(r["model"], r["train_scale"], r["command"]) for r in filled] == [("vgg_d", 256, None)]
    commands = [r["command"] for r in rows if not r["run"]]  # type: ignore[attr-defined]
    assert "alexvgg submit --model vgg_c --scale jitter --nodes 4" in commands
    assert len(set(commands)) == 9
    json.dumps(rows)


def test_other_runs_are_not_mixed_in() -> None:
    good = record("vgg_e-s256", 4.0)
    spec = SPECS["vgg_e-s256"]
    others = [
        record("vgg_e-s256", 1.0, state="started"),
        replace(good, spec=replace(spec, data=replace(spec.data, fingerprint="0" * 64))),
        replace(good, spec=replace(spec, model=replace(spec.model, width=1.0))),
        replace(good, spec=replace(spec, model=replace(spec.model, crop=224))),
        replace(good, spec=None),
    ]
    assert not any(r.run for r in fill("table3", others, DIGITS.fingerprint, SMALL))


def test_the_run_that_finished_last_counts() -> None:
    old, new = record("vgg_e-s256", 9.0, time=10.0), record("vgg_e-s256", 4.0, time=20.0)
    for runs in ([old, new], [new, old]):
        row = next(r for r in fill("table3", runs, DIGITS.fingerprint, SMALL) if r.run)
        assert row.top1 == 4.0


def test_only_imagenet_at_the_papers_geometry_is_comparable() -> None:
    assert "Not comparable" in comparability("digits", SMALL)
    assert "Not comparable" in comparability("imagenet", SMALL)
    assert "Not comparable" in comparability("digits", GEOMETRIES["paper"])
    assert "Not comparable" not in comparability("imagenet", GEOMETRIES["paper"])
