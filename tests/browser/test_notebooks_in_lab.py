"""Every notebook runs in JupyterLab, and every control of every panel moves its picture or its words."""

import pytest

from tests.browser.conftest import NOTEBOOKS

NAMES = sorted(path.name for path in NOTEBOOKS.glob("*.ipynb"))


def test_there_are_notebooks():
    assert NAMES


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_run_all_then_move_every_control(reader, name):
    reader.open(name)
    reader.run_all()
    assert reader.trouble() == []
    panels = reader.panels()
    assert panels
    for number, panel in enumerate(panels):
        panel.root.scroll_into_view_if_needed()
        reader.screenshot(f"{name.partition('_')[0]}_panel_{number}", panel.root)
        panel.move_everything()
    assert reader.trouble() == []
