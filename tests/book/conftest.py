"""Chromium for the pages of the book."""

import importlib.util
from pathlib import Path

import pytest

from tests.browser.conftest import browser  # noqa: F401
from tests.browser.lab import PATIENCE

if importlib.util.find_spec("ipywidgets") is None:  # only the library is installed, without the kit
    collect_ignore_glob = ["*"]


class Visit:
    """A page of the book, on the disk or of a server; ``trouble`` lists errors and requests to elsewhere."""

    def __init__(self, browser, width: int = 1400) -> None:  # noqa: F811
        self.trouble: list[str] = []
        self.context = browser.new_context(viewport={"width": width, "height": 1000}, reduced_motion="reduce")
        self.context.route("**/*", self._route)
        self.page = self.context.new_page()
        self.page.set_default_timeout(PATIENCE * 1000)
        self.page.on("console", lambda message: message.type == "error" and self.trouble.append(message.text))
        self.page.on("pageerror", lambda error: self.trouble.append(str(error)))

    def _route(self, route) -> None:
        if route.request.url.startswith(("file://", "data:", "blob:", "http://127.0.0.1:")):
            route.continue_()
        else:
            self.trouble.append(route.request.url)
            route.abort()

    def open(self, place: Path | str) -> "Visit":
        self.page.goto(place if isinstance(place, str) else place.as_uri())
        return self


@pytest.fixture
def visit(browser):  # noqa: F811
    """Open pages, and see at the end that nothing was missing and nothing was asked from outside."""
    person = Visit(browser)
    yield person
    person.context.close()
    assert person.trouble == []
