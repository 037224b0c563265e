"""Animations in the page: Play goes on by itself and stops at the end, time has a slider, and the words follow."""

import nbformat
import pytest

from tests.browser.lab import Reader
from tests.browser.view import PanelView

CELLS = [
    "from convkit.widgets.moving_window import WindowAnimation\npanel = WindowAnimation()\npanel",
    "panel.values['time']",
    "panel.set(time=3)",
    "from convkit.widgets.moving_torus import TorusAnimation\nTorusAnimation()",
]
WINDOW, ASKED, SET, TORUS = range(len(CELLS))
LAST = 19
STATE = """panel => ({
    time: Number(panel.querySelector('.convkit-player input').value),
    button: panel.querySelector('.convkit-player button').innerText.replace(/^\\W+/, ''),
    told: panel.querySelector('.convkit-player output').innerText,
    words: panel.querySelector('.convkit-words').innerText,
    live: panel.querySelector('.convkit-words').ariaLive,
    painted: Number(panel.querySelector('svg.convkit-drawing').dataset.painted),
})"""
COLLECT = """panel => {
    const svg = panel.querySelector('svg.convkit-drawing');
    window.pictures = new Set();
    new MutationObserver(() => window.pictures.add(svg.querySelector('[role=img]').innerHTML))
        .observe(svg, {attributeFilter: ['data-painted']});
}"""


@pytest.fixture(scope="module")
def page(browser, lab):
    cells = [nbformat.v4.new_code_cell(source) for source in CELLS]
    kernel = {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}
    notebook = nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": kernel})
    (lab.folder / "moving.ipynb").write_text(nbformat.writes(notebook), encoding="utf-8")
    person = Reader(browser, lab)
    person.open("moving.ipynb")
    yield person
    person.close()


@pytest.fixture
def panel(page) -> PanelView:
    page.run_cell(WINDOW)
    page.forget()
    found = PanelView(page, page.cell(WINDOW).locator(".convkit-panel"))
    found.root.scroll_into_view_if_needed()
    return found


def state(panel) -> dict:
    return panel.root.evaluate(STATE)


def until(panel, condition: str) -> dict:
    where = f"panel => {{ const now = ({STATE})(panel); return {condition} && [now] }}"
    return panel.page.wait_for_function(where, arg=panel.root.element_handle()).json_value()[0]


def kernel_time(page) -> int:
    page.run_cell(ASKED)
    return int(page.cell(ASKED).locator(".jp-OutputArea-output").inner_text())


@pytest.mark.parametrize("motion", ["reduce", "no-preference"])
def test_play_advances_pause_stops_and_the_words_follow(page, panel, motion):
    page.page.emulate_media(reduced_motion=motion)
    first = state(panel)
    assert (first["time"], first["button"], first["told"]) == (LAST, "Play again", f"{LAST} of {LAST}")
    page.page.wait_for_timeout(1000)
    assert state(panel) == first  # nothing moves by itself
    panel.root.evaluate(COLLECT)
    button = panel.root.locator(".convkit-player button")
    button.click()
    playing = until(panel, f"now.time >= 3 && now.time < {LAST}")
    assert (playing["button"], playing["live"]) == ("Pause", "off")
    assert playing["words"].startswith(f"Row {playing['time']}: ")
    button.click()
    stopped = state(panel)
    assert (stopped["button"], stopped["live"]) == ("Play", "polite")
    assert playing["time"] <= stopped["time"] < LAST
    assert stopped["words"].startswith(f"Row {stopped['time']}: ")
    between = page.ask("() => window.pictures.size") - stopped["time"]  # pictures between the moments
    assert between <= 2 if motion == "reduce" else between > 4
    page.page.wait_for_timeout(1000)
    assert state(panel) == stopped
    assert panel.settle()["words"] == stopped["words"]
    assert kernel_time(page) == stopped["time"]
    assert page.trouble() == []


def test_it_stops_at_the_end_and_the_kernel_sends_no_picture(page, panel):
    page.ask("""() => {
        const count = (_, {header, content}) => { window.scenes += Boolean(content.data?.state?.scene) };
        if (window.scenes === undefined) window.listened.iopubMessage.connect(count);
        window.scenes = 0;
    }""")
    panel.root.locator(".convkit-player select").select_option(label="2 ×")
    panel.root.locator(".convkit-player input").focus()
    page.page.keyboard.press("End")
    for _ in range(3):
        page.page.keyboard.press("ArrowLeft")
    assert state(panel)["words"].startswith(f"Row {LAST - 3}: ")
    page.page.keyboard.press("Shift+Tab")
    page.page.keyboard.press("Space")
    assert state(panel)["button"] == "Pause"
    ended = until(panel, f"now.time === {LAST}")
    ended = until(panel, "now.button === 'Play again'")
    page.page.wait_for_timeout(500)
    assert state(panel) == ended
    assert kernel_time(page) == LAST
    assert page.ask("() => window.scenes") == 0
    assert page.trouble() == []


def test_a_surface_turns_in_front_of_the_reader_to_the_last_moment(page):
    page.page.emulate_media(reduced_motion="no-preference")
    page.forget()
    page.run_cell(TORUS)
    torus = PanelView(page, page.cell(TORUS).locator(".convkit-panel"))
    torus.root.scroll_into_view_if_needed()
    faces = torus.root.locator("svg g[clip-path] path[stroke-linejoin=round]")
    assert faces.count() == 100
    torus.root.evaluate(COLLECT)
    torus.root.locator(".convkit-player button").click()
    until(torus, "now.button === 'Pause'")
    until(torus, "now.button === 'Play again'")
    assert page.ask("() => window.pictures.size") > 16  # moments, and pictures between them
    assert faces.count() == 100
    assert page.trouble() == []


def test_code_moves_the_slider_and_another_boundary_brings_other_pictures(page, panel):
    page.run_cell(SET)
    assert until(panel, "now.time === 3")["words"].startswith("Row 3: ")
    before = panel.settle()
    panel.pick(panel.control("beyond the edge"), "zeros")
    after = panel.wait_change(before)
    assert state(panel)["time"] == 3
    assert "meet zeros" in after["words"]
    panel.reset()
    assert until(panel, f"now.time === {LAST}")["words"].startswith(f"Row {LAST}: ")
    assert page.trouble() == []


def test_the_player_and_each_picture_have_names_and_keys_zoom(page, panel):
    player = panel.root.locator(".convkit-player")
    assert player.get_by_role("button", name="Play again").count() == 1
    assert player.get_by_role("slider", name="row of the matrix").count() == 1
    assert player.get_by_role("combobox", name="speed").count() == 1
    before = panel.settle()["picture"]
    panes = panel.root.locator(".convkit-pane")
    names = panes.evaluate_all("panes => panes.map(pane => pane.getAttribute('aria-label'))")
    assert len(set(names)) == 4
    assert names[2] == "the matrix M (3 of 4): + and − zoom, arrows move, Home shows all"
    panes.nth(2).focus()
    seen = [before]
    for key in ("+", "ArrowRight", "ArrowUp", "-", "Home"):
        page.page.keyboard.press(key)
        seen.append(panel.settle()["picture"])
        assert page.ask("() => document.activeElement.dataset.name") == "pane 2"
    assert len(set(seen[:4])) == 4
    assert seen[-1] == before
    assert page.trouble() == []


@pytest.mark.parametrize("width", [1400, 900, 600])
def test_letters_stay_readable_on_a_narrow_page(page, panel, width):
    page.page.set_viewport_size({"width": width, "height": 1100})
    try:
        svg = panel.root.locator("svg.convkit-drawing")
        page.until("document.querySelector('svg.convkit-drawing').getBoundingClientRect().right <= innerWidth")
        scale = svg.evaluate("svg => svg.getBoundingClientRect().width / svg.viewBox.baseVal.width")
        sizes = svg.locator("text").evaluate_all("all => all.map(one => parseFloat(one.getAttribute('font-size')))")
        assert scale * min(sizes) >= 10
        over = panel.root.evaluate("root => root.scrollWidth - root.clientWidth")
        assert over <= 1
        page.screenshot(f"animation_{width}", panel.root)
    finally:
        page.page.set_viewport_size({"width": 1400, "height": 1100})
