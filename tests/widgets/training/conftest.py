"""A small training panel that draws no pixels and lets messages in after each step; the views that ``run`` shows."""

import pytest


@pytest.fixture
def quick(monkeypatch):
    """No pixels, and messages after each step: else a fast machine is done before anybody can act."""
    from convkit.widgets import panel
    from convkit.widgets.training import runner
    from tests.helpers.panels import drawn

    monkeypatch.setattr(panel, "png_bytes", drawn)
    monkeypatch.setattr(runner, "SLICE", 0)


@pytest.fixture
def panel(quick):
    from tests.helpers.training_panels import small

    return small()


@pytest.fixture
def views(monkeypatch):
    """The views that ``run`` has shown."""
    from convkit.widgets.training import live

    shown = []
    monkeypatch.setattr(live, "_display", shown.append)
    return shown
