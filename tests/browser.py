"""A headless Chromium, Debian's, driven by Playwright."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager

from playwright.sync_api import Browser, sync_playwright

REQUIRED = "ALEXVGG_REQUIRE_CHROMIUM"  # with this set, tests fail instead of being skipped where there is no Chromium
MISSING = "chromium is not installed; on Debian: apt-get install chromium"


def find() -> str | None:
    """The path of the browser."""
    return shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@contextmanager
def running(path: str) -> Iterator[Browser]:
    # Without its sandbox, as it refuses to run as root with one; it opens our own pages only.
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()
