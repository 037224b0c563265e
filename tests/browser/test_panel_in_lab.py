"""What a reader meets around a panel: a picture before the first run, sentences for bad input, no queue of drawings."""

import pytest

pytest.importorskip("nbclient")

import nbformat

from convkit.teaching import execute, stored
from tests.browser.lab import ANSWERED, BOOK, Reader
from tests.browser.view import PanelView

PROBE = """
import pathlib, threading, time
from matplotlib.figure import Figure
from convkit.widgets.controls import choice, numbers, slider, toggle
from convkit.widgets.panel import Panel, Words

class Probe(Panel):
    title, size = "A probe", (4, 2)
    drawings = 0
    def controls(self):
        return {
            "height": slider("how high it climbs", 2, 0, 9),
            "shift": slider("how far it is moved", 0.5, 0.0, 1.0, 0.05),
            "kind": choice("kind of curve", ["straight", "bent", "forbidden"]),
            "bold": toggle("draw it bold"),
            "kernel": numbers("kernel", [[1, -2], [0.5, 3]]),
        }
    def draw(self, figure, height, shift, kind, bold, kernel):
        self.drawings += 1
        self.gate.wait(240)
        if kind == "forbidden":
            raise ValueError("a forbidden curve cannot be drawn; choose another")
        if height == self.broken:
            raise KeyError("lost")
        ax = figure.subplots()
        ax.plot([0, height, kernel[0][0]], [shift, 1, 2], linewidth=3 if bold else 1)
        return Words(f"Height {height}, shift {shift:g}, {kernel}, drawing", alert=kind == "bent")
    gate, broken = threading.Event(), None
    gate.set()
"""
BUSY_CELL = """
display(Probe())
print("busy", flush=True)
enough, began = pathlib.Path("enough"), time.monotonic()
while not enough.exists() and time.monotonic() < began + 240:
    time.sleep(0.05)
print("done")
"""
SLOW_CELL = """
class Slow(Probe):
    gate = threading.Event()
Slow.gate.set()
slow = Slow()
slow.gate.clear()
slow
"""
CELLS = [
    PROBE,
    "Probe()",
    BUSY_CELL,
    SLOW_CELL,
    "class Broken(Probe):\n    broken = 9\nBroken()",
    "class Dead(Probe):\n    def draw(self, figure, **values):\n        return 'nothing moves'\nDead()",
    "class Stuck(Probe):\n    def _assign(self, values):\n        pass\nStuck()",
    "slow.gate.set()",
    "slow.drawings",
    "spare = 1",
]
PROBE_CLASS, PANEL, BUSY, SLOW, BROKEN, DEAD, STUCK, OPEN, COUNT, SPARE = range(len(CELLS))


@pytest.fixture(scope="module")
def probe(lab):
    """A notebook with panels of several kinds, built as all notebooks are."""
    path = lab.folder / "probe.ipynb"
    cells = [nbformat.v4.new_code_cell(source) for source in CELLS]
    (path.parent / "enough").touch()
    path.write_text(stored(execute(nbformat.v4.new_notebook(cells=cells), path.parent)), encoding="utf-8")
    (path.parent / "enough").unlink()
    return path.name


@pytest.fixture(scope="module")
def page(browser, lab, probe):
    """One page for all tests that do not mind what ran before."""
    person = Reader(browser, lab)
    person.open(probe)
    yield person
    person.close()


@pytest.fixture
def opened(page):
    page.forget()
    return page


def shown(reader, *cells):
    """Run cells of the probe, and return the panel that the last of them shows."""
    for cell in (PROBE_CLASS, *cells):
        reader.run_cell(cell)
    assert reader.trouble() == []
    return PanelView(reader, reader.cell(cells[-1]).locator(".convkit-panel"))


def test_picture_and_words_are_there_before_the_first_run(reader, probe):
    reader.open(probe)
    cell = reader.cell(PANEL)
    cell.scroll_into_view_if_needed()
    (image,) = cell.locator("img").all()
    assert image.get_attribute("alt").startswith("Height 2, shift 0.5")
    assert reader.width(image) > 300
    assert "Height 2, shift 0.5" in cell.locator(".jp-OutputArea").inner_text()
    assert "Error displaying widget" not in reader.page.inner_text("body")
    reader.screenshot("before_the_first_run")
    assert reader.trouble() == []


def test_run_puts_the_live_panel_in_place_of_the_picture_and_every_kind_of_control_moves_it(opened):
    panel = shown(opened, PANEL)
    cell = opened.cell(PANEL)
    assert cell.locator("img").count() == 1
    assert panel.seen()["alt"] == panel.seen()["words"]
    labels = [label for _, label, _ in panel.controls()]
    assert labels[:4] == ["how high it climbs", "how far it is moved", "kind of curve", "draw it bold"]
    assert labels[4:] == [*(f"kernel, row {i}, column {j}" for i in (1, 2) for j in (1, 2)), "Reset"]
    cut_off = """panel => [...panel.querySelectorAll('label')]
        .filter(label => label.scrollWidth > label.clientWidth).map(label => label.innerText)"""
    assert opened.ask(cut_off, panel.root.element_handle()) == []
    opened.screenshot("panel", panel.root)
    panel.move_everything()
    assert opened.trouble() == []


def test_bad_input_gets_a_sentence_and_the_picture_stays(opened):
    panel = shown(opened, PANEL)
    before = panel.seen()
    panel.pick(panel.control("kind of curve"), "forbidden")
    after = panel.wait_change(before)
    assert after == before | {"words": "a forbidden curve cannot be drawn; choose another", "alert": True}
    panel.pick(panel.control("kind of curve"), "straight")
    assert panel.wait_change(after) == before
    panel.type(panel.control("kernel, row 1, column 2"), "two")
    after = panel.wait_change(before)
    assert after == before | {"words": "kernel, row 1, column 2 needs a number, got 'two'", "alert": True}
    opened.screenshot("bad_input", panel.root)
    panel.reset()
    panel.wait_for(before, "a bad number")
    assert opened.trouble() == []


def test_slider_answers_while_the_cell_that_shows_it_is_busy(reader, probe):
    reader.open(probe)
    reader.run_cell(PROBE_CLASS)
    reader.run_cell(BUSY, wait=False)
    cell = reader.cell(BUSY)
    cell.locator("[data-mime-type='application/vnd.jupyter.stdout']", has_text="busy").wait_for()
    cell.locator(".convkit-panel img").wait_for()
    panel = PanelView(reader, cell.locator(".convkit-panel"))
    before = panel.seen()
    for fraction in (0.5, 0.8):  # a kernel without working subshells answers once, or not at all
        panel.drag(panel.control("how high it climbs"), fraction)
        reader.until(ANSWERED)  # all but the cell
        assert panel.seen() != before
        before = panel.seen()
    assert "done" not in cell.locator(".jp-OutputArea").inner_text()
    (reader.server.folder / "enough").touch()
    reader.wait_idle()
    assert "done" in cell.locator(".jp-OutputArea").inner_text()
    assert reader.trouble() == []


def test_dragging_a_slow_panel_queues_no_drawings(opened):
    panel = shown(opened, SLOW)
    slider = panel.control("how far it is moved")
    slider.scroll_into_view_if_needed()
    handle, track = (slider.locator(part).first.bounding_box() for part in (".noUi-handle", ".noUi-base"))
    height, mouse = handle["y"] + handle["height"] / 2, opened.page.mouse
    mouse.move(handle["x"] + handle["width"] / 2, height)
    mouse.down()
    for step in range(60):  # 60 places while the first of them is drawn
        mouse.move(track["x"] + track["width"] * (0.5 + 0.4 * (step % 20) / 20), height)
    mouse.up()
    value = float(slider.locator(".noUi-handle").first.get_attribute("aria-valuenow"))
    assert value != 0.5
    assert "shift 0.5," in panel.seen()["words"]
    opened.run_cell(OPEN)  # the drawing goes on, and whatever waits behind it
    assert f"shift {value:g}," in panel.seen()["words"]
    opened.run_cell(COUNT)
    drawings = int(opened.cell(COUNT).locator(".jp-OutputArea-output").inner_text())
    assert drawings == 3  # the first state, the first place of the drag, the last one


@pytest.mark.parametrize(
    "cell, message",
    [
        (BROKEN, "'how high it climbs': this is a bug in the panel: KeyError: 'lost'"),
        (DEAD, "'how high it climbs' changed nothing"),
        (STUCK, "Reset did not undo 'how high it climbs'"),
    ],
)
def test_a_broken_panel_is_noticed(opened, cell, message):
    panel = shown(opened, cell)
    with pytest.raises(AssertionError, match=message):
        panel.move_everything()


TROUBLE = {
    "1 / 0": "ZeroDivisionError: division by zero",
    "import warnings; warnings.warn('careful')": "UserWarning: careful",
    "import sys; print('oops', file=sys.stderr)": "oops",
    "console: console.error('a mistake')": "a mistake",
    "pageerror: setTimeout(() => { throw new Error('late') })": "late",
    "requestfailed: fetch('https://example.org/x').catch(() => null)": "https://example.org/x",
}


@pytest.mark.parametrize("what", TROUBLE)
def test_trouble_in_the_kernel_and_in_the_page_is_noticed(opened, what):
    event, found, script = what.partition(": ")
    if found:
        with opened.page.expect_event(event):
            opened.ask(f"() => {{ {script} }}")
    else:
        opened.ask(f"code => {{ {BOOK}.content.widgets[{SPARE}].model.sharedModel.setSource(code) }}", what)
        opened.run_cell(SPARE)
    assert any(TROUBLE[what] in trouble for trouble in opened.trouble())
