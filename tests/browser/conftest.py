"""Chromium and a JupyterLab with a scratch copy of the notebooks, shared by the browser tests of a file."""

import os
import shutil
from pathlib import Path

import pytest

from tests.browser.lab import CHROMIUM_FLAGS, Reader
from tests.browser.server import Server

NOTEBOOKS = Path(__file__).resolve().parents[2] / "notebooks"


def _absent(reason: str) -> None:
    if os.environ.get("CONVKIT_DEMAND_BROWSER") == "1":
        pytest.fail(f"a browser is demanded, but {reason}")
    pytest.skip(reason)


@pytest.fixture(scope="module")  # not longer: playwright keeps an event loop running, and other tests start their own
def browser():
    """Chromium, headless."""
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        _absent("playwright is not installed (pip install playwright)")
    names = ("chromium", "chromium-browser", "google-chrome", "chrome")
    chromium = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, names)), None)
    if chromium is None:
        _absent("there is no Chromium (install one, or name it in the variable CHROMIUM)")
    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=chromium, args=CHROMIUM_FLAGS)
        yield launched
        launched.close()


@pytest.fixture(scope="module")
def lab(browser, tmp_path_factory):
    """Serves a scratch copy of the notebooks."""
    folder = tmp_path_factory.mktemp("lab") / "notebooks"
    shutil.copytree(NOTEBOOKS, folder, ignore=shutil.ignore_patterns(".ipynb_checkpoints"))
    with Server(folder, tmp_path_factory.mktemp("jupyter")) as server:
        yield server


@pytest.fixture
def reader(browser, lab):
    """A new page, whose console and requests are listened to."""
    person = Reader(browser, lab)
    yield person
    person.close()
