"""The panel that a file of tests is about, and the question what it says."""

import functools
import importlib.util
from collections.abc import Callable

import pytest

if importlib.util.find_spec("ipywidgets") is None:  # only the library is installed, without the kit
    collect_ignore_glob = ["*"]


@functools.cache
def _made(make: Callable):
    panel = make()
    return panel, panel.png, panel.words


@pytest.fixture
def panel(request: pytest.FixtureRequest):
    """The panel that the file's ``PANEL`` makes, in its first state: made once, since another costs a drawing."""
    panel, *first = _made(request.module.PANEL)
    if [panel.png, panel.words] != first:
        panel.reset()
        panel.set()
        assert [panel.png, panel.words] == first
    return panel


@pytest.fixture
def says(panel):
    """Move controls away from the first state, and compare: are the words red, and which are among them."""

    def compare(red: bool, *texts: str, **values: object) -> None:
        panel.reset()
        panel.set(**values)
        assert panel.words.alert == red, panel.words
        for text in texts:
            assert text in panel.words

    return compare
