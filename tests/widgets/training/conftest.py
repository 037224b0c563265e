"""A small training panel that draws no pixels and lets messages in after each step; the views that ``run`` shows."""

import pytest

import convkit.widgets.panel as module
from convkit.widgets.training import live, runner
from tests.helpers.panels import drawn
from tests.helpers.training_panels import small


@pytest.fixture
def quick(monkeypatch):
    """No pixels, and messages after each step: else a fast machine is done before anybody can act."""
    monkeypatch.setattr(module, "png_bytes", drawn)
    monkeypatch.setattr(runner, "SLICE", 0)


@pytest.fixture
def panel(quick):
    return small()


@pytest.fixture
def views(monkeypatch):
    """The views that ``run`` has shown."""
    shown = []
    monkeypatch.setattr(live, "_display", shown.append)
    return shown
