"""The pictures in this folder, from a report and a running MLflow server with the same runs:

alexvgg report -o report.html && python docs/screenshots.py report.html http://127.0.0.1:5000
"""

import io
import sys
from pathlib import Path
from urllib.parse import quote

from PIL import Image
from playwright.sync_api import Browser, Page, sync_playwright

HERE = Path(__file__).parent
COLOURS = 128  # enough for pages; keeps the files small


def main() -> None:
    report, mlflow = Path(sys.argv[1]).resolve().as_uri(), sys.argv[2]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=["--no-sandbox"])
        for name, width, height, scheme in (("report", 1160, 1180, "light"), ("report-phone", 390, 844, "dark")):
            page = browser.new_page(viewport={"width": width, "height": height}, color_scheme=scheme)
            page.goto(report)
            if name == "report-phone":
                page.evaluate("document.querySelector('#answers').scrollIntoView()")
            keep(page, name)
        compare(browser, mlflow)
        browser.close()


def compare(browser: Browser, url: str) -> None:
    """MLflow's charts of the runs that fill Table 4."""
    page = browser.new_page(viewport={"width": 1180, "height": 1090})
    search = quote("metrics.`table4/top1_error` >= 0")
    page.goto(f"{url}/#/experiments/1/runs?compareRunsMode=CHART&searchFilter={search}")
    charts = page.get_by_placeholder("Search metric charts")
    charts.wait_for(timeout=60_000)
    page.get_by_role("button", name="Close").first.click()  # of what covers half of the page
    charts.fill("^table4|train/loss$")
    page.wait_for_timeout(6_000)
    keep(page, "mlflow-compare")


def keep(page: Page, name: str) -> None:
    picture = Image.open(io.BytesIO(page.screenshot()))
    picture.convert("RGB").quantize(COLOURS).save(HERE / f"{name}.png", optimize=True)


if __name__ == "__main__":
    main()
