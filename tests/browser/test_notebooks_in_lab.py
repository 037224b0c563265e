"""Every panel of every notebook runs in JupyterLab after the first cell, and every control of every kind moves it."""

import pytest

from tests.browser.conftest import NOTEBOOKS

NAMES = sorted(path.name for path in NOTEBOOKS.glob("*.ipynb"))
OFTEN = ("00", "04", "06", "08", "11", "12")  # a bet, bars, a training, 3-D, attacks, the widest: the others with --all
MOVED: set[str] = set()  # titles of panels: several notebooks have a training panel, and one of them is moved


def test_there_are_notebooks():
    assert NAMES


@pytest.mark.slow
@pytest.mark.full
@pytest.mark.parametrize("name", NAMES)
def test_all_cells_run(reader, name):
    reader.open(name)
    reader.run_all()
    assert reader.panels()
    assert reader.trouble() == []


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name[:2] in OFTEN else pytest.mark.full) for name in NAMES]
)
def test_panels_run_after_the_first_cell_and_every_control_moves_them(reader, name):
    reader.open(name)
    outputs = {place: str(cell["outputs"]) for place, cell in enumerate(reader.cells()) if cell["cell_type"] == "code"}
    panels = [place for place, stored in outputs.items() if "convkit-words" in stored]
    for place in (min(outputs), *panels):
        reader.run_cell(place)
    assert reader.trouble() == []
    assert panels
    for number, panel in enumerate(reader.panels()):
        panel.root.scroll_into_view_if_needed()
        reader.screenshot(f"{name.partition('_')[0]}_panel_{number}", panel.root)
        title = panel.root.locator("b").first.inner_text()
        words = panel.settle()["words"]
        assert words.strip(), "the panel says nothing"
        assert "bug in the panel" not in words
        if title not in MOVED:
            panel.move_everything()
            MOVED.add(title)
    assert reader.trouble() == []
