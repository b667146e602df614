"""What the report says, of real runs."""

import re
import time
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from click.testing import CliRunner
from mlserver import MlflowServer
from PIL import Image
from records import record
from results.conftest import Trained

from alexvgg.cli import main
from alexvgg.data.shards import Dataset
from alexvgg.data.store import open_store
from alexvgg.recipes import GEOMETRIES
from alexvgg.results.report.chart import COLOURS
from alexvgg.results.report.curves import epochs, happenings, overview
from alexvgg.results.report.evaluations import beside_the_tables
from alexvgg.results.report.graph import graph
from alexvgg.results.report.jitter import by_model, errors_by_scale
from alexvgg.results.report.page import Material, leaves, page
from alexvgg.results.report.pictures import SHOWN, WRONG, choose_images, first_layer, grid_of, predictions, thumbnail
from alexvgg.results.report.throughput import throughput
from alexvgg.results.sync import sync
from alexvgg.runs import RunRecord, list_runs, read_run
from alexvgg.tracking.remote import RemoteRun, connect

SMALL = GEOMETRIES["small"]


class Tags(HTMLParser):
    """All tags with their attributes, and whether each is closed."""

    VOID = ("meta", "img", "br", "link")

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


@pytest.fixture(scope="module")
def material(three_runs: Trained, digits: Dataset) -> Material:
    return Material(list_runs(three_runs.storage), [], three_runs.storage, digits, SMALL)


def test_one_file_with_everything_in_it(material: Material, three_runs: Trained) -> None:
    text = page(material, 0.0)
    parsed = Tags(text)
    assert parsed.open == [], "every tag is closed"
    tags = [tag for tag, _ in parsed.tags]
    assert not {"script", "link", "iframe", "object"} & set(tags)
    for _, attributes in parsed.tags:
        for name in ("src", "href"):
            assert (attributes.get(name) or "#").startswith(("data:", "#")), attributes
        assert not any(name.startswith("on") for name in attributes), attributes
    style = text[text.index("<style>") : text.index("</style>")]
    assert "url(" not in style
    assert "@import" not in style
    titles = re.findall("<h2>(.*?)</h2>", text)
    assert titles == [
        "Results", "Beside the tables", "Scale jitter", "Training", "Answers", "First-layer filters", "Throughput",
        "Scaling", "Lineage", "Provenance",
    ]  # fmt: skip
    assert "Not comparable with the papers’ numbers" in text
    assert "1970-01-01 00:00 UTC" in text
    assert "a digit fills its picture" in text, "why a large Q is bad here"
    for name in three_runs.names:
        assert text.count(name) > 5
    assert text.count('<figure class="table"') == 7
    assert WRONG < text.count("<figure class=") - 7 <= SHOWN, "a net of one epoch may not be right about enough classes"
    assert len(text) < 1_000_000
    assert page(material, 0.0) == text


def test_a_run_that_failed_says_why(material: Material) -> None:
    failed = replace(material.runs[0], name="vgg_a-s256-0", state="failed", weights=None, error="diverged <at> step 6")
    text = page(replace(material, runs=[*material.runs, failed]), 0.0)
    assert "<p class=warning><b>vgg_a-s256-0</b> failed: diverged &lt;at&gt; step 6</p>" in text
    assert "</b> failed: " not in page(material, 0.0)


def test_a_run_that_learned_nothing_says_so(material: Material) -> None:
    """And one that was only slow, as its next epoch has shown, doesn't."""
    run, *others = material.runs
    warning = {"event": "warning", "step": 300, "time": 0.0, "message": "the loss is 2.303 < ln(11)"}
    (*_, last) = (e for e in run.journal if e["event"] == "epoch")
    late = last | {"step": 400, "metrics": last["metrics"] | {"train/loss_epoch": 2.303}}
    stuck = replace(run, journal=[*run.journal, warning, late])
    said = f"<p class=warning><b>{run.name}</b>: the loss is 2.303 &lt; ln(11)</p>"
    assert said in page(replace(material, runs=[stuck, *others]), 0.0)
    slow = replace(stuck, journal=[*stuck.journal, late | {"metrics": last["metrics"] | {"train/loss_epoch": 1.9}}])
    assert said not in page(replace(material, runs=[slow, *others]), 0.0)


def test_what_no_table_asks_for_is_shown_too(material: Material) -> None:
    known = list(material.runs)
    members = [{"run": r.name, "weights": r.weights, "test_scales": [256]} for r in known[:2]]
    fused = {"name": "fusion-1", "method": "dense", "members": members, "images": 360, "top1_error": 12.5,
             "top5_error": 0.25, "time": 1.0}  # fmt: skip
    strange = fused | {"members": [*members, {"run": "gone", "weights": "0", "test_scales": [256]}]}
    shown = beside_the_tables(known, [fused, strange])
    names = " + ".join(f"{m['run']} at 256" for m in members)
    assert f'<td class="place">{names}</td><td class="place">dense</td><td class="number">12.5</td>' in shown
    assert "gone" not in shown
    assert f"{known[0].name} at 256</td>" not in shown.replace(names, ""), "that is in Table 3"
    assert beside_the_tables([], []) == ""


def test_names_from_outside_are_escaped(material: Material) -> None:
    evil = "<img src=x onerror=alert(1)>"
    dataset = replace(material.dataset, name=evil, classes=tuple(f"{evil}{n}" for n in range(10)))
    text = page(replace(material, dataset=dataset, options=evil), 0.0)
    assert evil not in text
    assert "&lt;img src=x" in text


def test_a_run_that_has_only_started_is_shown_as_such(material: Material) -> None:
    started = record("vgg_a-s256", 0.0, state="started")
    text = page(replace(material, runs=[replace(started, journal=[])]), 0.0)
    assert "0 of 1 runs finished" in text
    assert re.findall("<h2>(.*?)</h2>", text) == ["Results", "Lineage", "Provenance"]


def test_filters_are_the_first_layers_and_nothing_else_is_read(three_runs: Trained) -> None:
    key = f"runs/{three_runs.names[0]}/final/model.safetensors"
    weights = safetensors.torch.load(three_runs.storage.get(key))
    kernels = first_layer(three_runs.storage, key)
    assert np.array_equal(kernels, weights["features.conv1_1.weight"].numpy())

    class OnlyRanges:
        def get_range(self, key: str, start: int, length: int) -> bytes:
            assert length < 20_000
            return three_runs.storage.get_range(key, start, length)

    assert np.array_equal(first_layer(OnlyRanges(), key), kernels)  # type: ignore[arg-type]


def test_96_kernels_stand_in_six_rows_with_gaps_between_them() -> None:
    kernels = np.random.default_rng(0).normal(size=(96, 3, 11, 11)).astype(np.float32)
    url, columns = grid_of(kernels)
    assert columns == 16
    picture = np.asarray(Image.open(_bytes(url)))
    assert picture.shape == (6 * 12 - 1, 16 * 12 - 1, 4)
    assert not picture[11].any()
    assert picture[:11, :11, :3].min() == 0
    assert picture[:11, :11, :3].max() == 255
    assert picture[..., 3].mean() == pytest.approx(255 * 96 * 121 / (71 * 191))


def _bytes(url: str) -> Any:
    import base64
    import io

    return io.BytesIO(base64.b64decode(url.partition(",")[2]))


def test_large_images_become_thumbnails(tmp_path: Path) -> None:
    Image.new("CMYK", (500, 375)).save(tmp_path / "a.jpg")
    url, small = thumbnail((tmp_path / "a.jpg").read_bytes())
    assert not small
    assert Image.open(_bytes(url)).size == (160, 120)


def test_wrong_answers_come_first_then_other_classes() -> None:
    labels = torch.arange(40) % 10
    values = torch.full((40, 10), 0.01)
    values[torch.arange(40), labels] = torch.linspace(0.9, 0.5, 40)
    for row in (5, 17):
        values[row, labels[row]], values[row, (labels[row] + 1) % 10] = 0.02, 0.9
    chosen = choose_images(labels, values)
    assert chosen[:2] == [5, 17]
    assert len(chosen) == SHOWN
    classes = labels[chosen].tolist()
    assert len(set(classes)) == len(classes)
    values[:, 0] = 1.0
    assert len(choose_images(labels, values)) == WRONG + 1, "only class 0 is right"


def test_errors_at_one_scale_are_those_that_the_posteriors_give(three_runs: Trained, digits: Dataset) -> None:
    run = read_run(three_runs.storage, three_runs.names[0])
    stored = errors_by_scale(run, three_runs.storage)
    assert sorted(stored) == [224, 256, 288]
    counted = errors_by_scale(replace(run, evaluation=[]), three_runs.storage)
    assert counted == stored


def test_posteriors_that_cannot_be_read_are_left_out(three_runs: Trained, digits: Dataset, tmp_path: Path) -> None:
    stored, storage = read_run(three_runs.storage, three_runs.names[0]), open_store(tmp_path.as_uri())
    for key in three_runs.storage.list(f"runs/{stored.name}/eval/posteriors/"):
        storage.put(key, three_runs.storage.get(key))
    cut, changed = (f"runs/{stored.name}/eval/posteriors/dense-q{q}.safetensors" for q in (224, 256))
    run = replace(stored, evaluation=[])
    storage.put(cut, storage.get(cut)[:-10])
    assert sorted(errors_by_scale(run, storage)) == [256, 288]
    storage.put(changed, storage.get(changed)[:-1] + b"x")
    storage.put(cut, b"short")
    assert sorted(errors_by_scale(run, storage)) == [288]
    assert predictions(run, digits, storage) == "", "those at 256"


def test_workers_are_shown_as_they_came_and_went(material: Material) -> None:
    (run, *_), starts = material.runs, [{"event": "start", "workers": n} for n in (4, 4, 2, 4)]
    assert ">4 → 2 → 4<" in throughput([replace(run, journal=[*starts, *epochs(run)])])


def test_what_happened_on_the_way_is_marked() -> None:
    def epoch(n: int, lr: float) -> dict[str, Any]:
        return {"event": "epoch", "step": 10 * n, "metrics": {"train/lr": lr}}

    def start(step: int, attempt: int, workers: int) -> dict[str, Any]:
        return {"event": "start", "step": step, "attempt": attempt, "workers": workers}

    journal = [start(0, 1, 4), epoch(1, 0.01), start(15, 2, 2), epoch(2, 0.01), start(20, 3, 2), epoch(3, 0.001)]
    marks = happenings(replace(record("vgg_a-s256", 1.0), journal=journal), per_epoch=10)
    assert [(m.x, m.label) for m in marks] == [
        (1.5, "attempt 2, 4 → 2 workers"), (2.0, "attempt 3"), (2.0, "lr 0.001"),
    ]  # fmt: skip


def test_the_graph_gives_every_run_a_place_of_its_own() -> None:
    runs = [record(n, 1.0) for n in ("vgg_a-s256", "vgg_b-s256", "vgg_e-s256", "vgg_e-s384", "alexnet-s256")]
    drawn = graph(runs, {r.name: [] for r in runs})
    places = re.findall(r'translate\((\d+ \d+)\)"', drawn)
    assert len(places) == len(set(places)) == 5
    assert drawn.count('class="arrow"') == 3
    assert [r.name for r in leaves(runs)] == [runs[1].name, runs[3].name, runs[4].name]


def test_the_command_writes_the_file_and_logs_it(
    three_runs: Trained, mlflow: MlflowServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("ALEXVGG_PROFILE", raising=False)
    (tmp_path / "alexvgg.toml").write_text(
        f'[profile.x]\ndashboard = "http://127.0.0.1:1"\ngeometry = "small"\nmlflow = "{mlflow.url}"\n'
        f'storage = "{three_runs.storage.url}"\ndataset = "{three_runs.dataset_url}"\n'
    )

    def run(*arguments: str) -> str:
        result = CliRunner().invoke(main, [*arguments, "--profile", "x"])
        assert result.exit_code == 0, result.output
        return result.output

    list(sync(mlflow.url, three_runs.storage, list_runs(three_runs.storage), [], time.time()))
    run("report", "vgg_b", "-o", "b.html")
    text = (tmp_path / "b.html").read_text()
    assert three_runs.names[1] in text
    assert three_runs.names[0] in text, "its parent belongs to it"
    assert three_runs.names[2] not in text
    client = connect(mlflow.url)
    for name, logged in zip(three_runs.names, (False, True, False), strict=True):
        found = RemoteRun.find(client, name)
        assert found is not None
        assert ("b.html" in [a.path for a in client.list_artifacts(found.id)]) == logged, name

    assert three_runs.names[0] in run("lineage", "vgg_c")
    assert "Settings that differ" in run("compare", "vgg_b", "vgg_c", "--baseline", "vgg_c")
    assert "unchanged" in run("mlflow", "sync", "vgg_a")
    assert run("table", "table4", "--format", "markdown").startswith("**VGG Table 4")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    refused = CliRunner().invoke(main, ["mlflow", "sync", "--url", "http://127.0.0.1:1", "--profile", "x"])
    assert refused.exit_code == 2
    assert "no MLflow can be used at http://127.0.0.1:1" in refused.stderr
    refused = CliRunner().invoke(main, ["compare", "vgg_b", "--profile", "x"])
    assert refused.exit_code == 2
    assert "comparing needs two runs" in refused.stderr


def test_more_runs_than_colours_are_drawn_by_net(material: Material) -> None:
    run = next(r for r in material.runs if r.spec.model.name == "vgg_a")

    def of(model: str, n: int) -> RunRecord:
        spec = replace(run.spec, model=replace(run.spec.model, name=model))
        return replace(run, name=f"{model}-s256-{n}", spec=spec)

    few = [*(of("vgg_a", n) for n in range(COLOURS - 1)), of("alexnet", 0)]
    assert overview(few).count('<div class="wide">') == 1
    many = [*few[:-1], of("vgg_a", COLOURS), of("fourlayer_relu", 0), of("fourlayer_tanh", 0), of("vgg_b", 0)]
    charts = overview(many).split('<div class="wide">')[1:]
    legends = [re.findall("</i>(.*?)-s256-", chart) for chart in charts]
    assert legends == [["fourlayer_relu", "fourlayer_tanh"], ["vgg_a"] * COLOURS, ["vgg_b"]]


def test_runs_of_one_scale_are_told_apart(material: Material) -> None:
    (a,) = (r for r in material.runs if r.spec.recipe == "vgg_a-s256")
    assert re.findall("</i>(S = .*?)</li>", by_model([a], material.storage)) == ["S = 256"]
    same = re.findall("</i>(S = .*?)</li>", by_model([a, a], material.storage))
    assert same == [f"S = 256 ({a.name.removeprefix('vgg_a-s256-')})"] * 2
