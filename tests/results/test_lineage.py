"""The order of runs and their tree."""

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from records import document, record

from alexvgg.config import Imported
from alexvgg.results.lineage import ancestors, errors, family, parents_first, summary, to_json, to_text
from alexvgg.tracking.describing import params_of

NAMES = ("vgg_a-s256", "vgg_b-s256", "vgg_e-s256", "vgg_e-s384", "vgg_e-jitter", "alexnet-s256")
RUNS = [record(name, 4.0) for name in NAMES]
A, B, E, E384, JITTER, ALEXNET = RUNS


def origins(copied: int, of: int) -> list[dict[str, Any]]:
    return [
        {"layer": f"conv{n}", "shape": [8, 3, 3, 3], "source": "copied" if n < copied else "random", "sha256": "ab"}
        for n in range(of)
    ]


def test_a_tree_looks_so(golden: Callable[[str, str], None]) -> None:
    unfinished = record("vgg_e-s384", 4.0, state="started")
    runs = [A, B, E, unfinished, ALEXNET]
    layers = {A.name: origins(0, 11), B.name: origins(7, 13), E.name: origins(7, 19), unfinished.name: origins(19, 19)}
    golden("lineage.txt", to_text(A, runs, layers) + "\n")
    golden("lineage.json", json.dumps(to_json(E, runs, layers), indent=2) + "\n")


def test_parents_come_first_whatever_the_order() -> None:
    for runs in (RUNS, RUNS[::-1]):
        names = [r.name for r in parents_first(runs)]
        assert sorted(names) == sorted(r.name for r in RUNS)
        assert names.index(A.name) < names.index(E.name) < names.index(E384.name) < names.index(JITTER.name)
    assert parents_first([B, ALEXNET, A]) == [ALEXNET, A, B], "those without a parent by name"


def test_a_family_has_no_cousins() -> None:
    assert ancestors(JITTER, RUNS) == [A, E, E384, JITTER]
    for runs in (RUNS, RUNS[::-1]):
        assert [r.name for r in family(E, runs)] == [A.name, E.name, E384.name, JITTER.name]
    assert [r.name for r in family(ALEXNET, RUNS)] == [ALEXNET.name]
    assert family(E384, [E384, JITTER]) == family(E384, [JITTER, E384]) == [E384, JITTER]
    assert B.name not in to_text(E, RUNS, {r.name: [] for r in family(E, RUNS)})


def test_a_parent_that_is_not_stored_is_named() -> None:
    tree = to_text(E, [E], {E.name: origins(7, 19)})
    assert tree.startswith(f"{A.name} (not in this storage)\n{E.name} (this one)")


def test_a_parent_of_other_images_is_named_with_them() -> None:
    letters = replace(A, spec=replace(A.spec, data=replace(A.spec.data, dataset="letters", fingerprint="ab" * 32)))
    tree = to_text(E, [letters, E], {A.name: origins(0, 11), E.name: origins(7, 19)})
    assert "transplant from a net of letters (abababab), 7 of 19 layers copied" in tree
    document = to_json(E, [letters, E], {A.name: [], E.name: []})
    assert [(r["dataset"], r["fingerprint"][:4]) for r in document["runs"]] == [("letters", "abab"), ("digits", "ffff")]


def test_imported_weights_are_not_random() -> None:
    imported = replace(A.spec, imported=Imported("torchvision:vgg11", "ab" * 32))
    (told,) = to_json(replace(A, spec=imported), [replace(A, spec=imported)], {A.name: []})["runs"]
    assert told["how"] == params_of(imported)["init"] == "imported"
    assert [s.first_weights for s in (A.spec, E.spec, E384.spec)] == ["gaussian", "transplant", "copy"]
    run = replace(A, spec=imported)
    assert "imported from torchvision:vgg11, not started" in to_text(run, [run], {A.name: []})


def test_errors_are_of_a_nets_own_test_at_its_single_scale() -> None:
    one, several = ((A.name, scales) for scales in ((256,), (224, 256, 288)))
    others = [
        document([several], "dense", 9.0), document([one], "multicrop", 8.0),
        document([one], "dense", 7.0) | {"images": 0},
    ]  # fmt: skip
    assert errors(replace(A, evaluation=others)) == "finished"
    assert errors(replace(A, evaluation=[*others, document([one], "dense", 4.0)])) == "top-1 error 4.0 %, top-5 1.0 %"


def test_what_was_copied_in_words() -> None:
    assert summary([]) == "not started"
    assert summary(origins(0, 11)) == "all 11 layers random"
    assert summary(origins(19, 19)) == "all 19 layers copied"
    assert summary(origins(2, 3)) == "2 of 3 layers copied: conv0 conv1"
