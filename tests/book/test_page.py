"""A panel on a page of the book: mouse and keyboard move it, picture, words and alt text follow, without a kernel."""

import json

import pytest

from convkit.teaching.book import BOOK, as_plain_script
from convkit.widgets.states import panel_states
from tests import ROOT
from tests.book.test_states import Curve, Few
from tests.browser.view import READ
from tests.helpers.refusals import refused

pytestmark = pytest.mark.slow
DRAWING = (ROOT / "convkit" / "widgets" / "drawing.js").read_text(encoding="utf-8")
PAGE = """<!doctype html><html lang="en" data-content_root="./" data-theme="light">
<meta charset="utf-8"><title>Panels</title>
<style>html {{ background: #fff }} html[data-theme=dark] {{ background: #121212; color: #eee }}</style>
<link rel="stylesheet" href="_static/book.css"><script src="_static/drawing.js"></script>
<script src="_static/panels.js"></script><body>{}</body></html>"""


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """A page with both panels."""
    folder = tmp_path_factory.mktemp("page")
    (folder / "_static" / "panels").mkdir(parents=True)
    for name in ("book.css", "panels.js"):
        (folder / "_static" / name).write_bytes((BOOK / "static" / name).read_bytes())
    (folder / "_static" / "drawing.js").write_text(as_plain_script(DRAWING), encoding="utf-8")
    for name, kind in (("many-0", Curve), ("few-0", Few)):
        states = json.dumps(panel_states(kind()))
        (folder / "_static" / "panels" / f"{name}.js").write_text(f"convkitPanel({json.dumps(name)}, {states});\n")
    places = "".join(f'<div data-panel="{name}"><img alt="still"></div>' for name in ("many-0", "few-0"))
    (folder / "page.html").write_text(PAGE.format(places), encoding="utf-8")
    return folder / "page.html"


class Shown:
    """One panel of the page."""

    def __init__(self, visit, name: str) -> None:
        self.page, self.root = visit.page, visit.page.locator(f'[data-panel="{name}"]')
        self.root.locator("svg[data-painted]").wait_for()

    def seen(self) -> dict:
        return self.root.evaluate(READ)

    def drag(self, label: str, part: float) -> None:
        box = self.root.get_by_role("slider", name=label).bounding_box()
        self.page.mouse.move(box["x"] + 0.3 * box["width"], box["y"] + box["height"] / 2)
        self.page.mouse.down()
        self.page.mouse.move(box["x"] + part * box["width"], box["y"] + box["height"] / 2, steps=5)
        self.page.mouse.up()


def test_picture_words_and_alt_text_follow_mouse_and_keyboard(visit, page):
    panel = Shown(visit.open(page), "many-0")
    first = panel.seen()
    assert first["words"] == first["alt"] == "From 2.0, far: False, bends 1.0."
    panel.drag("height", 1.0)
    moved = panel.seen()
    assert moved["words"] == moved["alt"] == "From 9.0, far: False, bends 1.0."
    assert moved["picture"] != first["picture"]
    slider = panel.root.get_by_role("slider", name="height")
    assert slider.get_attribute("aria-valuetext") == "9.0"
    slider.press("ArrowLeft")
    assert panel.seen()["words"] == "From 8.5, far: False, bends 1.0."
    panel.root.get_by_role("button", name="Reset").click()
    assert panel.seen() == first
    assert slider.get_attribute("aria-valuetext") == "2.0"


def test_a_moved_control_sets_the_others_back_and_the_page_says_so(visit, page):
    panel = Shown(visit.open(page), "many-0")
    panel.drag("height", 1.0)
    box = panel.root.get_by_role("checkbox", name="far")
    box.click()
    assert (panel.seen()["words"], panel.seen()["alert"]) == ("From 2.0, far: True, bends 1.0.", True)
    assert panel.root.get_by_role("slider", name="height").get_attribute("aria-valuetext") == "2.0"
    kind = panel.root.get_by_role("combobox", name="kind")
    kind.select_option("bent")
    assert panel.seen()["words"] == "From 4.0, far: False, bends 7.0."  # as the kernel would answer
    assert panel.root.get_by_role("slider", name="height").get_attribute("aria-valuetext") == "4.0"
    assert not box.is_checked()
    kind.select_option("none")
    assert (panel.seen()["words"], panel.seen()["alert"]) == ("there is no curve of this kind", True)
    note = panel.root.locator(".convkit-note").inner_text()
    assert "one control is moved at a time" in note
    assert "“bends”" in note


def test_a_small_panel_keeps_what_was_moved_before(visit, page):
    panel = Shown(visit.open(page), "few-0")
    panel.drag("height", 1.0)
    panel.root.get_by_role("checkbox", name="far").click()
    assert panel.seen()["words"] == "From 3, far: True, bends 1.0."
    assert panel.root.locator(".convkit-note").inner_text() == ""


def test_a_place_that_a_later_control_does_not_allow_sets_that_one_back(visit, page):
    panel = Shown(visit.open(page), "few-0")
    far = panel.root.get_by_role("checkbox", name="far")
    far.click()
    panel.root.get_by_role("slider", name="height").press("Home")
    assert (panel.seen()["words"], far.is_checked()) == ("From 1, far: False, bends 1.0.", False)
    far.click()  # the last control: the reader is told
    assert (panel.seen()["words"], panel.seen()["alert"]) == ("nothing is so low and far", True)


def test_the_picture_takes_the_colors_of_the_theme(visit, page):
    panel = Shown(visit.open(page), "many-0")
    light = panel.root.locator("svg text[fill='rgb(34,34,34)']")
    light.first.wait_for()
    visit.page.evaluate("document.documentElement.dataset.theme = 'dark'")
    panel.root.locator("svg text[fill='rgb(238,238,238)']").first.wait_for()
    assert light.count() == 0


def test_every_control_has_a_name_and_the_keyboard_reaches_it(visit, page):
    panel = Shown(visit.open(page), "many-0")
    panel.root.get_by_role("combobox", name="kind").focus()
    reached = []
    for _ in range(4):
        reached.append(visit.page.evaluate("document.activeElement.closest('label, button').innerText.split('\\n')[0]"))
        visit.page.keyboard.press("Tab")
    assert [words.strip() for words in reached] == ["kind", "height", "far", "Reset"]
    assert panel.root.get_by_role("group", name="A curve").count() == 1


def test_a_module_that_imports_another_is_no_plain_script():
    for wrong in ("import x from './x.js';\nexport default { render };\n", "export { render };\n"):
        refused("must import nothing", as_plain_script, wrong)
