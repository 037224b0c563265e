"""The page for teachers: each state of a panel that it names exists and says what the page promises."""

import ast
import importlib
import json
import pkgutil
import re

import pytest

import convkit.widgets
from tests import ROOT

PAGE = (ROOT / ".github" / "TEACHING.md").read_text(encoding="utf-8")
ROWS = re.findall(r"^\| (\d\d) \| .*? \| `(\w+)`, `panel\.set\((.*?)\)` \| (.+?) \|$", PAGE, re.MULTILINE)
MODULES = [module.name for module in pkgutil.iter_modules(convkit.widgets.__path__) if not module.ispkg]


def test_the_page_has_a_state_for_most_panels_and_no_row_is_skipped():
    table = PAGE.partition("a student believes")[2].partition("\n\n")[0]
    assert len(ROWS) == table.count("panel.set") > 10
    assert len({name for _, name, _, _ in ROWS}) > 8


@pytest.mark.parametrize("number, name, state, words", ROWS)
def test_a_panel_in_its_state_says_what_the_page_promises(number, name, state, words):
    found = [module for module in MODULES if hasattr(importlib.import_module(f"convkit.widgets.{module}"), name)]
    panel = getattr(importlib.import_module(f"convkit.widgets.{found[0]}"), name)()
    call = ast.parse(f"f({state})", mode="eval").body
    assert isinstance(call, ast.Call)
    panel.set(**{keyword.arg: ast.literal_eval(keyword.value) for keyword in call.keywords if keyword.arg})
    assert words in panel.words
    [notebook] = (ROOT / "notebooks").glob(f"{number}_*.ipynb")
    assert name in notebook.read_text(encoding="utf-8")


def test_the_page_names_every_notebook_and_its_sections_as_they_are():
    for path in (ROOT / "notebooks").glob("*.ipynb"):
        assert re.search(rf"\b{path.name[:2]}\b", PAGE), path.name


def test_lessons_name_sections_and_exercises_that_the_notebooks_have():
    table = PAGE.partition("| bet, then | exercise |\n")[2].partition("\n\n")[0]
    lessons = re.findall(r"^\| (\d\d) \| (.+) \| (\d) \|$", table, re.MULTILINE)
    assert [number for number, _, _ in lessons] == sorted(
        path.name[:2] for path in (ROOT / "notebooks").glob("*.ipynb")
    )
    for number, sections, exercise in lessons:
        [path] = (ROOT / "notebooks").glob(f"{number}_*.ipynb")
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        text = "\n".join("".join(cell["source"]) for cell in cells)
        for section in re.findall(r"\d+", re.sub(r"steps \d and \d", "", sections)):
            assert f"\n## {section} · " in f"\n{text}", (number, section)
        for section in re.findall(r"the panel of section (\d+)", sections):
            assert re.search(r"Panel\(", text.partition(f"## {section} · ")[2].partition("\n## ")[0]), (number, section)
        for section in re.findall(r"(\d+) \(the bet is there\)", sections):
            assert "### A bet" in text.partition(f"## {section} · ")[2].partition("\n## ")[0], (number, section)
        assert f'"Exercise {exercise}"' in text, (number, exercise)


def test_each_arrow_is_a_link_in_the_first_cell_of_the_later_notebook():
    arrows = re.findall(r"n(\d\d)(?:\[[^\]]*\])? -(?:-|\.-)> n(\d\d)", PAGE)
    assert len(arrows) > 12
    for earlier, later in arrows:
        [notebook] = (ROOT / "notebooks").glob(f"{later}_*.ipynb")
        first = notebook.read_text(encoding="utf-8").partition('"cell_type": "code"')[0]
        assert re.search(rf"\]\({earlier}_\w+\.ipynb\)", first) or (earlier, later) == ("00", "01"), (earlier, later)
