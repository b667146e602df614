"""The tables as people see them, and that nothing is mixed in that doesn't belong there."""

import csv
import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest
from records import DATASET, SMALL, SPECS, VALIDATION, document, fusion, images, record

from alexvgg.config import Parent
from alexvgg.recipes import GEOMETRIES
from alexvgg.results.formats import FORMATS, to_json, to_text
from alexvgg.results.paper import TABLES
from alexvgg.results.table import Row, comparability, fill
from alexvgg.runs import RunRecord

PLANNED = [record(name, 0.0, state="planned") for name in SPECS]  # what the others may have started from


def filled(table: str, runs: Sequence[RunRecord], fusions: Sequence[dict[str, Any]] = ()) -> list[Row]:
    return fill(table, runs, fusions, DATASET, SMALL, others=PLANNED)


ALEXNETS = [record("alexnet-s256", 9.0, methods=("tencrop",), seed=seed) for seed in range(5)]
D, E = record("vgg_d-jitter", 5.5), record("vgg_e-jitter", 28.2, methods=("dense", "multicrop"))


@pytest.mark.parametrize("table", TABLES)
def test_tables_look_so(table: str, golden: Callable[[str, str], None]) -> None:
    runs = [record("vgg_a-s256", 5.25), record("vgg_e-s256", 4.0), D, E, *ALEXNETS[:3]]
    fusions = [fusion("fusion-aa11bb22", [D, E], "both", 3.75)]
    rows, note = filled(table, runs, fusions), comparability(DATASET, SMALL)
    golden(f"{table}.txt", to_text(table, rows, note) + "\n")
    if table in ("table4", "table6"):
        for name, suffix in (("markdown", "md"), ("csv", "csv"), ("html", "html"), ("latex", "tex")):
            golden(f"{table}.{suffix}", FORMATS[name](table, rows, note) + "\n")
    if table in ("table4", "table6"):
        golden(f"{table}.json", json.dumps(to_json(table, rows, note), indent=2) + "\n")


def test_every_empty_row_names_the_command_that_fills_it() -> None:
    rows = to_json("table4", filled("table4", [record("vgg_d-s256", 3.0)]), "")["rows"]
    assert len(rows) == 10  # type: ignore[arg-type]
    ours = [r for r in rows if r["run"]]  # type: ignore[attr-defined]
    assert [(r["model"], r["train_scale"], r["command"]) for r in ours] == [("vgg_d", 256, None)]
    commands = [r["command"] for r in rows if not r["run"]]  # type: ignore[attr-defined]
    assert "alexvgg submit --model vgg_c --scale jitter --nodes 4" in commands
    assert len(set(commands)) == 9
    json.dumps(rows)


def test_what_is_trained_needs_only_evaluation() -> None:
    commands = [r.command for r in filled("table5", [E])]
    assert commands == [
        *["alexvgg submit --model vgg_d --scale jitter --nodes 4"] * 3,
        None,
        None,
        f"alexvgg evaluate {E.name} --method both --test-scales 256,384,512",
    ]


def test_a_fusion_needs_each_of_its_nets_first() -> None:
    both = "alexvgg submit --model vgg_d --scale jitter --nodes 4"
    assert filled("table6", [E])[3].command == both
    fuse = f"alexvgg evaluate {D.name} {E.name} --method both --test-scales 256,384,512 --fuse"
    assert filled("table6", [E, D])[3].command == fuse
    assert filled("table7", [E, D])[0].command == fuse
    got = filled("table6", [E, D], [fusion("f", [E, D], "both", 3.0)])
    assert [r.run for r in got] == [None, None, None, "f"]


def test_the_seven_nets_are_each_tested_at_their_own_scales() -> None:
    names = ("vgg_d-s256", "vgg_d-s384", "vgg_d-jitter", "vgg_c-s256", "vgg_c-s384", "vgg_e-s256", "vgg_e-s384")
    runs = [record(name, 5.0) for name in names]
    listed = " ".join(r.name for r in runs)
    assert filled("table6", runs)[0].command == f"alexvgg evaluate {listed} --method dense --fuse"
    assert filled("table6", runs, [fusion("f", runs[::-1], "dense", 3.0)])[0].run == "f"
    other = runs[0]
    changed = replace(other, spec=replace(other.spec, test_scales=((256,),)))
    assert filled("table6", [changed, *runs[1:]])[0].command == "alexvgg submit --model vgg_d --scale 256 --nodes 4"


def test_five_alexnets_are_five_runs_of_different_seeds() -> None:
    for n in range(5):
        seed = f" --set train.seed={n}" if n else ""
        row = filled("alexnet", ALEXNETS[:n])[1]
        assert row.command == f"alexvgg submit --model alexnet --scale 256 --nodes 4{seed}"
    listed = " ".join(r.name for r in reversed(ALEXNETS))
    row = filled("alexnet", ALEXNETS)[1]
    assert row.command == f"alexvgg evaluate {listed} --method tencrop --test-scales 256 --fuse"
    one, five, *starred = filled("alexnet", ALEXNETS, [fusion("f", ALEXNETS, "tencrop", 3.0)])
    assert (one.run, five.run) == (ALEXNETS[-1].name, "f")
    assert [(r.run, r.command) for r in starred] == [(None, None)] * 2, "nobody has the 2011 release"


def test_settings_that_are_not_the_recipes_stand_behind_the_run() -> None:
    quick = record("vgg_e-s256", 4.0)
    quick = replace(quick, spec=replace(quick.spec, train=replace(quick.spec.train, epochs=2, seed=7)))
    row = next(r for r in filled("table3", [quick]) if r.run)
    assert row.changed == ("train.epochs=2",)
    assert f"{quick.name} (train.epochs=2)" in to_text("table3", [row], "")
    assert filled("table3", [record("vgg_e-s256", 4.0)])[9].changed == ()


def test_a_trial_does_not_push_the_recipes_own_run_out() -> None:
    own, trial = record("vgg_e-s256", 4.0, time=1.0), record("vgg_e-s256", 60.0, time=2.0, seed=1)
    trial = replace(trial, spec=replace(trial.spec, train=replace(trial.spec.train, epochs=2)))
    for runs, shown in (([own, trial], 4.0), ([trial, own], 4.0), ([trial], 60.0)):
        assert [r.top1 for r in filled("table3", runs) if r.run] == [shown]


def test_first_weights_that_are_not_the_papers_stand_behind_the_run() -> None:
    e, e384 = record("vgg_e-s256", 4.0), record("vgg_e-s384", 3.0)
    imported = replace(e, spec=replace(e.spec, parent=Parent("torchvision-vgg11-1b2c3d4e", "transplant")))
    alone = replace(e, spec=replace(e.spec, parent=None))
    for changed, shown in ((imported, "parent=torchvision-vgg11-1b2c3d4e"), (alone, "init=gaussian"), (e, None)):
        rows = [r for r in filled("table4", [changed, e384]) if r.run]
        assert [r.changed for r in rows] == [(shown,) if shown else ()] * 2, "of E, and of what starts from it"


def test_a_parent_of_another_recipe_stands_behind_the_run() -> None:
    e, b = record("vgg_e-s256", 4.0), SPECS["vgg_b-s256"]
    child = replace(e, spec=replace(e.spec, parent=Parent(b.name, "transplant")))
    assert [r.changed for r in filled("table3", [child]) if r.run] == [(f"parent={b.name}",)]


def test_a_parent_with_other_settings_stands_behind_the_run() -> None:
    e, a = record("vgg_e-s256", 4.0), record("vgg_a-s256", 4.0)
    short = replace(a.spec, train=replace(a.spec.train, epochs=1))
    trial = replace(a, name=short.name, spec=short)
    child = replace(e, spec=replace(e.spec, parent=Parent(short.name, "transplant")))
    row = next(r for r in filled("table4", [trial, child]) if r.run)
    assert row.changed == ("vgg_a-s256: train.epochs=1",)


def test_a_parent_that_is_gone_or_saw_other_images_stands_behind_the_run() -> None:
    e, a = record("vgg_e-s256", 4.0), record("vgg_a-s256", 4.0)
    elsewhere = replace(a, spec=replace(a.spec, data=replace(a.spec.data, dataset="letters", fingerprint="ab" * 32)))
    gone = f"parent={a.name}"
    for others, shown in (([a], ()), ([], (gone,)), ([elsewhere], (f"{gone} of letters (abababab)",))):
        (row,) = (r for r in fill("table4", [e], [], DATASET, SMALL, others=others) if r.run)
        assert row.changed == shown


def test_csv_says_more_than_it_shows_and_html_is_escaped() -> None:
    rows = filled("table4", [E])
    lines = list(csv.DictReader(FORMATS["csv"]("table4", rows, 'a "note", <b>').splitlines()))
    assert [line["run"] for line in lines].count(E.name) == 1
    assert float(lines[-1]["delta_top1_error"]) == pytest.approx(28.2 - 24.8)
    assert all(line["note"] == 'a "note", <b>' for line in lines)
    assert "<b>" not in FORMATS["html"]("table4", rows, 'a "note", <b>')


def test_commands_name_the_profile() -> None:
    for table in TABLES:
        for row in fill(table, [E], [], DATASET, SMALL, " --profile lab"):
            assert row.command is None or row.command.endswith(" --profile lab")


def test_a_table_fits_into_80_columns(golden: Callable[[str, str], None]) -> None:
    note = comparability(DATASET, SMALL)
    for table in TABLES:
        rows = filled(table, [D, E, record("vgg_e-s256", 4.0)], [fusion("fusion-aa11bb22", [D, E], "both", 3.8)])
        text = to_text(table, rows, note, 80)
        shown, _, below = text.partition("\n\n")[2].partition("\n\n")
        assert max(map(len, [*text.partition("\n\n")[0].splitlines()[1:], *shown.splitlines()])) <= 80
        runs = {r.run or r.command for r in rows} - {None}
        assert {line.partition(": ")[2].partition(" (")[0] for line in below.splitlines()} == runs
    golden("table6_narrow.txt", to_text("table6", filled("table6", [D, E]), note, 80) + "\n")


def test_other_runs_are_not_mixed_in() -> None:
    good = record("vgg_e-s256", 4.0)
    spec = SPECS["vgg_e-s256"]
    others = [
        record("vgg_e-s256", 1.0, state="started"),
        replace(good, spec=replace(spec, data=replace(spec.data, fingerprint="0" * 64))),
        replace(good, spec=replace(spec, model=replace(spec.model, width=1.0))),
        replace(good, spec=replace(spec, model=replace(spec.model, crop=224))),
    ]
    assert not any(r.run for r in filled("table3", others))


def test_other_fusions_are_not_mixed_in() -> None:
    stranger = replace(E, name="vgg_e-jitter-ffffffff")
    old = fusion("f", [D, E], "both", 3.0)
    old["members"][1]["weights"] = "of an earlier training"
    others = [
        fusion("f", [D, stranger], "both", 3.0),
        fusion("f", [D, D], "both", 3.0),
        fusion("f", [D, E, record("vgg_e-s256", 4.0)], "both", 3.0),
        fusion("f", [D, E], "tencrop", 3.0),
        old,
    ]
    assert not any(r.run for r in filled("table6", [D, E, record("vgg_e-s256", 4.0)], others))


def test_the_run_that_finished_last_counts() -> None:
    old, new = record("vgg_e-s256", 9.0, time=10.0), record("vgg_e-s256", 4.0, time=20.0)
    for runs in ([old, new], [new, old]):
        row = next(r for r in filled("table3", runs) if r.run)
        assert row.top1 == 4.0
    twice = [fusion("old", [D, E], "both", 9.0), fusion("new", [E, D], "both", 4.0)]
    assert filled("table6", [D, E], twice)[3].run == "new"


def test_only_ilsvrc_2012_at_the_papers_geometry_is_comparable() -> None:
    paper, imagenet = GEOMETRIES["paper"], images("imagenet", 1000, 1_281_167, 50_000)
    assert "Not comparable" in comparability(DATASET, SMALL)
    assert "the crop is 32 pixels (64 for AlexNet), not 224" in comparability(imagenet, SMALL)
    assert "the images are digits, not ILSVRC-2012" in comparability(DATASET, paper)
    assert "Not comparable" not in comparability(imagenet, paper)
    for sizes in ((10, 1_281_167, 50_000), (1000, 1_000_000, 50_000), (1000, 1_281_167, 49_999)):
        said = "the dataset has {:,} classes, {:,} training and {:,} validation images; ILSVRC-2012 has".format(*sizes)
        assert said in comparability(images("imagenet", *sizes), paper)


def test_errors_of_some_of_the_images_are_marked() -> None:
    part = replace(E, evaluation=[{**d, "images": VALIDATION - 1} for d in E.evaluation])
    assert [r.changed for r in filled("table4", [part]) if r.run] == [("359 of 360 images",)]
    assert [r.changed for r in filled("table4", [part, replace(E, name="whole")]) if r.run] == [()]


def test_one_net_five_times_is_one_net() -> None:
    five = fusion("five", [ALEXNETS[0]] * 5, "tencrop", 3.0)
    assert filled("alexnet", ALEXNETS, [five])[1].run is None
    assert filled("alexnet", ALEXNETS, [five, fusion("f", ALEXNETS, "tencrop", 3.0)])[1].run == "f"


def test_the_order_of_test_scales_is_none() -> None:
    turned = replace(E, evaluation=[document([(E.name, (512, 384, 256))], "dense", 5.0)])
    assert [r.top1 for r in filled("table4", [turned]) if r.run] == [5.0]


def test_commands_take_the_run_with_the_recipes_own_settings() -> None:
    trial = record("vgg_e-jitter", 60.0, time=2.0, seed=1, methods=())
    trial = replace(trial, spec=replace(trial.spec, train=replace(trial.spec.train, epochs=2)))
    for runs in ([E, trial], [trial, E]):
        assert f"evaluate {E.name} --method both" in str(filled("table5", runs)[5].command)
