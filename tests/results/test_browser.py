"""What people see in a browser: MLflow's own pages with our runs, and the report."""

import time
from pathlib import Path
from urllib.parse import quote

import pytest
from mlserver import MlflowServer
from playwright.sync_api import Browser, Page, expect
from results.conftest import Trained

from alexvgg.recipes import GEOMETRIES
from alexvgg.results.report.page import Material, page
from alexvgg.results.sync import sync
from alexvgg.runs import list_runs
from alexvgg.tracking.remote import connect, experiment_id

PATIENCE = 60_000  # milliseconds, for a machine with much else to do


def test_mlflow_compares_the_table_4_runs(browser: Browser, mlflow: MlflowServer, three_runs: Trained) -> None:
    list(sync(mlflow.url, three_runs.storage, list_runs(three_runs.storage), [], time.time()))
    context = browser.new_context(viewport={"width": 1400, "height": 2400})
    context.set_default_timeout(PATIENCE)
    opened = context.new_page()
    search = quote("metrics.`table4/top1_error` >= 0")
    runs = f"{mlflow.url}/#/experiments/{experiment_id(connect(mlflow.url))}/runs?searchFilter={search}"
    opened.goto(runs)
    for name in three_runs.names[1:]:
        expect(opened.get_by_text(name).first).to_be_visible(timeout=PATIENCE)
    assert opened.get_by_text(three_runs.names[0], exact=True).count() == 0, "A is in Table 3 only"
    opened.locator(".ag-header input[type=checkbox]").first.check()
    opened.get_by_role("button", name="Compare", exact=True).click()
    expect(opened.get_by_text("Comparing 2 Runs from 1 Experiment")).to_be_visible(timeout=PATIENCE)
    for metric in ("delta/table4/top1_error", "delta/table4/top5_error"):
        expect(opened.get_by_text(metric, exact=True).first).to_be_attached(timeout=PATIENCE)

    opened.goto(f"{runs}&compareRunsMode=CHART")
    opened.reload()
    charts = opened.get_by_placeholder("Search metric charts")
    for group, metric in (("table4", "table4/top1_error"), ("train/loss", "train/loss")):
        charts.fill(group)
        expect(opened.get_by_text(metric, exact=True).first).to_be_visible(timeout=PATIENCE)
    context.close()


@pytest.fixture(scope="module")
def report(three_runs: Trained, digits: object, tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("report") / "report.html"
    material = Material(list_runs(three_runs.storage), [], three_runs.storage, digits, GEOMETRIES["small"])  # type: ignore[arg-type]
    file.write_text(page(material, time.time()))
    return file


@pytest.mark.parametrize(("width", "scheme"), [(1200, "light"), (390, "dark"), (390, "light")])
def test_the_report_opens_without_a_word_and_without_asking_anyone(
    browser: Browser, report: Path, width: int, scheme: str
) -> None:
    context = browser.new_context(viewport={"width": width, "height": 844}, color_scheme=scheme)  # type: ignore[arg-type]
    opened, said, asked = context.new_page(), [], []
    opened.on("console", lambda message: said.append(message.text))
    opened.on("pageerror", lambda error: said.append(str(error)))
    opened.on("request", lambda request: asked.append(request.url))
    opened.goto(report.as_uri())
    assert said == []
    assert [url for url in asked if not url.startswith("data:")] == [report.as_uri()]
    assert opened.evaluate("document.documentElement.scrollWidth") == width, "it scrolls sideways"
    assert broken_pictures(opened) == 0
    assert opened.locator("svg.chart:visible").count() >= 4
    background = opened.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (background == "rgb(20, 22, 26)") == (scheme == "dark")
    context.close()


def broken_pictures(opened: Page) -> int:
    return int(opened.evaluate("[...document.images].filter(i => !i.complete || i.naturalWidth == 0).length"))
