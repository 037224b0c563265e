"""The buttons that notebooks give their panels: each shows a picture, and none the picture of another."""

import ast
import importlib
import json
import math
import re

import pytest

from tests import ROOT
from tests.helpers.panels import press

PANELS = [
    (path.name[:2], node)
    for path in sorted((ROOT / "notebooks").glob("*.ipynb"))
    for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]
    if cell["cell_type"] == "code" and "with_states(" in "".join(cell["source"])
    for node in ast.walk(ast.parse("".join(cell["source"])))
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "with_states"
]
MODULES = {
    panel: module
    for path in (ROOT / "notebooks").glob("*.ipynb")
    for module, panel in re.findall(r"from (convkit\.widgets[\w.]*) import (\w+)", path.read_text(encoding="utf-8"))
}


def test_the_notebooks_have_buttons():
    assert {number for number, _ in PANELS} >= {"00", "01", "02", "03", "04", "05", "07", "08", "09", "10"}


@pytest.mark.parametrize("number, call", PANELS, ids=[number for number, _ in PANELS])
def test_every_button_shows_a_state_of_its_own_without_a_fault(number, call):
    made = call.func.value
    assert isinstance(made, ast.Call)
    assert isinstance(made.func, ast.Name)
    assert not made.args + made.keywords
    states = eval(ast.unparse(call.args[0]), {"math": math})
    module = importlib.import_module(MODULES[made.func.id])
    panel = getattr(module, made.func.id)().with_states(states)
    seen = {panel.words: "the first state"}
    for words in states:
        press(panel, words)
        assert not any(fault in panel.words for fault in ("bug in the panel", " needs ", "must fit")), panel.words
        assert panel.words not in seen, f"{words!r} shows the same as {seen[panel.words]!r}"
        assert {name: panel.values[name] for name in states[words]} == states[words]
        seen[panel.words] = words
