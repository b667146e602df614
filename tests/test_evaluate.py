"""Finished runs from the command line to the tables' documents, in one process and in several."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner, Result
from images import mixed_dataset
from processes import free_port

import alexvgg.evaluate as module
from alexvgg.cli import main
from alexvgg.config import Execution, RunSpec
from alexvgg.data.shards import Dataset
from alexvgg.data.store import Store, open_store
from alexvgg.engine.world import World
from alexvgg.errors import InputError
from alexvgg.evaluate import Request, describe, evaluate, plan_rows
from alexvgg.planning import images_of, plan_runs
from alexvgg.recipes import GEOMETRIES, RECIPES
from alexvgg.results.table import fill
from alexvgg.run import train
from alexvgg.runs import Finished, list_fusions, list_runs, read_run
from alexvgg.tracking.journal import Event, points
from alexvgg.tracking.remote import Description

ALONE = World(0, 1, torch.device("cpu"))
THREE = (256, 384, 512)


THIN = replace(GEOMETRIES["small"], width=1 / 64)
IMAGES = 67  # a prime number, in three parts


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Such small nets gain nothing from several, and lose much if others use this machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return mixed_dataset(tmp_path_factory.mktemp("pictures"), IMAGES)


def specs(dataset: Dataset) -> dict[str, RunSpec]:
    """D and E with jitter without their parents, and AlexNet, of one step each."""
    recipes = [replace(RECIPES[r], parent=None) for r in ("vgg_d-jitter", "vgg_e-jitter", "alexnet-s256")]
    planned = plan_runs(recipes, images_of(dataset), THIN, overrides={"train.max_steps": "1"})
    return {s.model.name: s for s in planned}


@pytest.fixture(scope="module")
def trained(pictures: Dataset, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The URL of a storage with finished runs of D, E and AlexNet, and one of A that has only begun."""
    url = tmp_path_factory.mktemp("storage").as_uri()
    for spec in specs(pictures).values():
        train(replace(spec, test_scales=spec.test_scales[-1:]), Execution(pictures.store.url, url), ALONE)
    begun = plan_runs([RECIPES["vgg_a-s256"]], images_of(pictures), THIN)[0]
    store = open_store(url)
    store.put(f"runs/{begun.name}/spec.json", store.get(f"runs/{names(store)['vgg_d']}/spec.json"))
    store.put(f"runs/{begun.name}/journal.jsonl", b"")
    return url


def names(store: Store) -> dict[str, str]:
    return {r.spec.model.name: r.name for r in list_runs(store) if r.state == "finished" and r.spec}


@pytest.fixture
def command(trained: str, pictures: Dataset) -> Callable[..., Result]:
    def run(*arguments: str) -> Result:
        return CliRunner().invoke(main, ["evaluate", *arguments, "--storage", trained, "--dataset", pictures.store.url])

    return run


def test_the_end_of_training_evaluates_as_the_nets_paper_does(trained: str) -> None:
    store = open_store(trained)
    for model, method, scales in (("vgg_d", "dense", THREE), ("alexnet", "tencrop", (256,))):
        rows = read_run(store, names(store)[model]).evaluation
        (row,) = (r for r in rows if r["members"][0]["test_scales"] == list(scales))
        assert (row["method"], tuple(row["members"][0]["test_scales"])) == (method, scales)
        assert row["images"] == IMAGES


def test_commands_that_the_tables_name_fill_them(
    trained: str, pictures: Dataset, command: Callable[..., Result]
) -> None:
    store = open_store(trained)

    def rows() -> list[tuple[str, int, str | None, str | None]]:
        return [
            (table, n, row.run, row.command)
            for table in ("table5", "table6", "table7")
            for n, row in enumerate(fill(table, list_runs(store), list_fusions(store), pictures, THIN))
            if row.command is None or "evaluate" in row.command
        ]

    assert sum(line is not None for *_, line in rows()) == 4 + 3 + 2
    for table, number, _, line in rows():
        if line is not None:
            program, sub, *arguments = line.split()
            assert (program, sub) == ("alexvgg", "evaluate")
            result = command(*arguments)
            assert result.exit_code == 0, result.output
            assert [r for t, n, r, _ in rows() if (t, n) == (table, number)] != [None], line
    assert all(line is None for *_, line in rows())
    assert len(list_fusions(store)) == 3


def test_both_is_the_mean_of_dense_and_multicrop_and_computes_nothing_new(
    trained: str, command: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    d = names(open_store(trained))["vgg_d"]
    for method in ("dense", "multicrop"):
        assert command(d, "--method", method, "--test-scales", "256").exit_code == 0
    monkeypatch.setattr("alexvgg.evaluation.scoring._score_part", None)
    (document,) = json.loads(command(d, "--method", "both", "--test-scales", "256", "--json").stdout)
    assert document["members"][0]["test_scales"] == [256]
    assert document["images"] == IMAGES
    text = command(d, "--method", "both", "--test-scales", "256").stdout
    assert text == f"{d} at Q=256, both: top-1 error {document['top1_error']:.2f} %, " \
        f"top-5 error {document['top5_error']:.2f} % of {IMAGES} images\n"  # fmt: skip


def test_several_ranks_give_the_same_document_and_the_same_bytes(
    trained: str, pictures: Dataset, tmp_path: Path, command: Callable[..., Result]
) -> None:
    store = open_store(trained)
    run = names(store)["vgg_e"]
    elsewhere = open_store(tmp_path.as_uri())
    for key in store.list(f"runs/{run}/"):
        if "/posteriors/" not in key:
            elsewhere.put(key, store.get(key))
    launcher = ["-m", "torch.distributed.run", "--nproc-per-node", "3", "--master-port", str(free_port())]
    arguments = [run, "--method", "both", "--test-scales", "256", "--json"]
    places = ["--storage", tmp_path.as_uri(), "--dataset", pictures.store.url]
    done = subprocess.run(
        [sys.executable, *launcher, "-m", "alexvgg", "evaluate", *arguments, *places],
        capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    (several,), (alone,) = json.loads(done.stdout), json.loads(command(*arguments).stdout)
    assert several | {"time": 0} == alone | {"time": 0}
    for method in ("dense", "multicrop"):
        key = f"runs/{run}/eval/posteriors/{method}-q256.safetensors"
        assert elsewhere.get(key) == store.get(key)


@pytest.mark.parametrize(
    ("runs", "code", "sentence"),
    [
        (("vgg_d-jitter-x",), 102, "there is no 'vgg_d-jitter-x' in .*; did you mean 'vgg_d-jitter-"),
        (("x",), 102, "there is no 'x' in .*; there are alexnet-s256-"),
        (("vgg_a-s256-*",), 2, "has started but isn't finished, and only final weights can be used"),
    ],
)
def test_runs_that_cannot_be_evaluated(
    trained: str, command: Callable[..., Result], runs: tuple[str, ...], code: int, sentence: str
) -> None:
    known = sorted({key.split("/")[1] for key in open_store(trained).list("runs/")})
    listed = [next(k for k in known if k.startswith(r[:-1])) if r.endswith("*") else r for r in runs]
    result = command(*listed)
    assert result.exit_code == code
    with pytest.raises(ValueError, match=sentence):
        raise ValueError(result.stderr)
    assert "Traceback" not in result.stderr


def test_runs_of_another_dataset_are_refused(pictures: Dataset) -> None:
    runs = [Finished(s, "0" * 64) for s in specs(pictures).values()]
    other = replace(runs[1], spec=replace(runs[1].spec, data=replace(runs[1].spec.data, fingerprint="0" * 64)))
    request = Request((runs[0].name, other.name), fuse=True)
    with pytest.raises(InputError, match=f"{other.name} was trained on the dataset .* nets of different classes"):
        plan_rows(request, [runs[0], other], pictures.fingerprint)


def test_each_run_is_tested_at_its_own_scales_unless_told(pictures: Dataset) -> None:
    runs = [Finished(s, "0" * 64) for s in specs(pictures).values()]
    listed = tuple(r.name for r in runs)
    own = plan_rows(Request(listed), runs, pictures.fingerprint)
    assert [[m.test_scales for m in row.members] for row in own] == [[THREE], [THREE], [(256,)]]
    (fused,) = plan_rows(Request(listed, test_scales=(288,), fuse=True), runs, pictures.fingerprint)
    assert [m.test_scales for m in fused.members] == [(288,)] * 3


def test_the_order_of_runs_and_scales_is_none_and_each_run_counts_once(pictures: Dataset) -> None:
    runs = [Finished(s, "0" * 64) for s in specs(pictures).values()][:2]

    def row(runs: list[Finished], scales: tuple[int, ...] | None) -> tuple[str, str]:
        request = Request(tuple(r.name for r in runs), "dense", scales, fuse=True)
        (planned,) = plan_rows(request, runs, pictures.fingerprint)
        return request.name, planned.key

    for scales in (None, (256, 288)):
        assert row(runs, scales) == row(runs[::-1], scales and scales[::-1])
    (alone,) = plan_rows(Request((runs[0].name,), "dense", (288, 256)), runs[:1], pictures.fingerprint)
    assert alone.key.endswith("eval/dense-q256-288.json")
    cut = Request(tuple(runs[0].name[:n] for n in (9, 10, 11, 12)), fuse=True)
    with pytest.raises(InputError, match="a run stands twice"):
        plan_rows(cut, [runs[0]] * 4, pictures.fingerprint)


def test_cells_reach_mlflow_under_the_tables_names(
    trained: str, pictures: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    logged = []

    def send(url: str, description: Description, events: list[Event]) -> None:
        cells = sorted(p.metric for p in points(events) if "/top1" in p.metric)
        logged.append((description.name, {p.step for p in points(events)}, cells))

    monkeypatch.setattr(module, "send_once", send)
    d, e = (names(open_store(trained))[n] for n in ("vgg_d", "vgg_e"))
    execution = Execution(pictures.store.url, trained, "http://x")
    documents = evaluate(Request((e,), "multicrop", THREE), execution, ALONE)
    evaluate(Request((e,), "multicrop", (288,)), execution, ALONE)
    evaluate(Request((d, e), "dense", fuse=True), execution, ALONE)

    def twins(*cells: str) -> list[str]:
        return sorted(f"{p}{c}/top1_error" for c in cells for p in ("", "paper/", "delta/"))

    one, other, fused = logged
    assert one == (e, {0}, sorted([*twins("table5/multicrop"), "eval/multicrop-q256-384-512/top1_error"]))
    assert other == (e, {0}, ["eval/multicrop-q288/top1_error"]), "which no table has"
    assert (fused[0][:7], *fused[1:]) == ("fusion-", {0}, twins("table6/dense"))
    assert describe(documents[0]).startswith(f"{e} at Q=256,384,512, multicrop: top-1 error ")


def test_an_evaluation_of_no_image_says_so() -> None:
    member = {"run": "r", "weights": "", "test_scales": [256]}
    document = {"members": [member], "method": "dense", "images": 0, "top1_error": None, "top5_error": None}
    assert describe(document) == "r at Q=256, dense: no image could be decoded"
