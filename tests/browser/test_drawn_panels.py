"""Two panels whose pictures the page draws: they follow the mouse and the theme, and a keyboard reaches everything."""

import nbformat
import pytest

from tests.browser.lab import Reader
from tests.browser.view import PanelView

CELLS = [
    "from convkit.widgets.matrices import MatrixPanel\nMatrixPanel()",
    "from convkit.widgets.fourier import FourierPanel\nFourierPanel()",
    "from convkit.widgets.bet import BetPanel\nBetPanel()",  # a slider over a list has another view
    "from convkit.widgets.clouds import CloudPanel\nCloudPanel()",
]
MATRIX, FOURIER, BET, CLOUD = range(len(CELLS))
ROLES = ("slider", "combobox", "checkbox", "textbox", "button", "image")
FOCUSED = """() => {
    const part = document.activeElement.closest('.widget-inline-hbox, .widget-checkbox, button');
    return part.querySelector('input')?.ariaLabel || part.innerText.split('\\n')[0] || part.title;
}"""
CONTRAST = """([part, channel]) => {
    const numbers = color => color.match(/[\\d.]+/g).map(Number);
    const light = rgb => rgb.map(v => v / 255).map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
        .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
    const canvas = Object.assign(document.createElement('canvas'), {width: 1, height: 1}).getContext('2d');
    const seen = color => {
        canvas.fillStyle = color;
        canvas.fillRect(0, 0, 1, 1);
        return [...canvas.getImageData(0, 0, 1, 1).data].slice(0, 3);
    };
    let node = part, paper = 'rgba(0, 0, 0, 0)';
    for (; node && numbers(paper)[3] === 0; node = node.parentElement) paper = getComputedStyle(node).backgroundColor;
    const [low, high] = [seen(paper), seen(getComputedStyle(part)[channel])].map(light).sort((a, b) => a - b);
    return (high + 0.05) / (low + 0.05);
}"""


@pytest.fixture(scope="module")
def page(browser, lab):
    cells = [nbformat.v4.new_code_cell(source) for source in CELLS]
    kernel = {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}
    notebook = nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": kernel})
    (lab.folder / "drawn.ipynb").write_text(nbformat.writes(notebook), encoding="utf-8")
    person = Reader(browser, lab)
    person.open("drawn.ipynb")
    for cell in range(len(CELLS)):
        person.run_cell(cell)
    yield person
    person.close()


def view(page, cell) -> PanelView:
    page.forget()
    found = PanelView(page, page.cell(cell).locator(".convkit-panel"))
    found.root.scroll_into_view_if_needed()
    return found


def painted(panel) -> int:
    return int(panel.root.locator("svg.convkit-drawing").get_attribute("data-painted"))


@pytest.mark.parametrize("cell, slider", [(MATRIX, "Row of the matrix"), (FOURIER, "image size")])
def test_picture_and_words_follow_the_mouse_with_one_message_for_each_move(page, cell, slider):
    panel = view(page, cell)
    before = panel.settle()
    page.ask("""() => {
        const count = (_, {header, content}) => {
            window.updates += header.msg_type === 'comm_msg' && content.data.method === 'update';
        };
        if (window.updates === undefined) window.listened.iopubMessage.connect(count);
        window.updates = 0;
    }""")
    drawn = painted(panel)
    panel.drag(panel.control(slider), 0.3)
    after = panel.wait_change(before, slider)
    assert (after["picture"] != before["picture"], after["words"] != before["words"]) == (True, True)
    assert after["alt"] == after["words"]
    assert page.ask("() => window.updates") == painted(panel) - drawn > 0
    assert panel.root.locator("img").count() == 0
    panel.reset()
    panel.wait_for(before, slider)
    assert page.trouble() == []


def test_hover_tells_the_number_below_the_mouse_and_the_legend_picks_a_curve(page):
    panel = view(page, MATRIX)
    box = panel.root.locator("svg image").first.bounding_box()
    page.page.mouse.move(box["x"] + box["width"] * 12.5 / 25, box["y"] + box["height"] * 12.5 / 25)
    assert panel.root.locator(".convkit-tip").inner_text() == "row 12, column 12: 5"
    panel = view(page, FOURIER)
    curve = panel.root.locator(".convkit-entry").first
    curve.focus()
    page.page.keyboard.press("Enter")
    assert panel.root.locator("[aria-pressed=true]").get_attribute("aria-label") == "pick SVD of the dense matrix"
    pale = panel.root.locator("svg g[opacity='0.15']")
    assert pale.count() == 1
    page.page.keyboard.press("Enter")  # the focus is still there
    assert pale.count() == 0
    assert page.trouble() == []


def test_a_drag_zooms_and_a_button_shows_the_whole_picture(page):
    panel = view(page, FOURIER)
    before = panel.settle()["picture"]
    whole = panel.root.get_by_role("button", name="Whole picture")
    assert not whole.is_visible()
    box = panel.root.locator("svg clipPath rect").first
    left, top, width, height = (float(box.get_attribute(name)) for name in ("x", "y", "width", "height"))
    corner, mouse = panel.root.locator("svg.convkit-drawing").bounding_box(), page.page.mouse
    mouse.move(corner["x"] + left + 0.2 * width, corner["y"] + top + 0.2 * height)
    mouse.down()
    mouse.move(corner["x"] + left + 0.5 * width, corner["y"] + top + 0.6 * height, steps=4)
    mouse.up()
    assert panel.settle()["picture"] != before
    whole.click()
    assert panel.settle()["picture"] == before
    assert page.trouble() == []


def test_a_drag_turns_the_cloud_and_a_click_picks_one_of_its_points(page):
    panel = view(page, CLOUD)
    before, mouse = panel.settle(), page.page.mouse
    numbers = {name: panel.control(name).locator(".widget-readout") for name in ("turn", "tilt", "picked point")}
    assert [number.inner_text() for number in numbers.values()] == ["30", "20", "4"]
    box = panel.root.locator(".convkit-steered").first.bounding_box()
    middle = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    mouse.move(*middle)
    mouse.down()
    mouse.move(middle[0] + box["width"] / 4, middle[1] - box["height"] / 4, steps=9)
    mouse.up()
    after = panel.wait_change(before, "a drag")
    page.page.wait_for_function("number => number.innerText === '75'", arg=numbers["turn"].element_handle())
    assert numbers["tilt"].inner_text() == "−25"
    after = panel.settle()
    assert (after["words"], after["picture"]) != (before["words"], before["picture"])
    assert not panel.root.get_by_role("button", name="Whole picture").is_visible()  # no zoom
    for step in range(8):  # along a radius there is a point
        mouse.click(middle[0] + step * box["width"] / 20, middle[1])
        panel.settle()
    assert numbers["picked point"].inner_text() != "4"
    assert panel.settle()["words"].startswith(f"Point {numbers['picked point'].inner_text()}:")
    panel.reset()
    panel.wait_for(before, "the mouse")
    assert page.trouble() == []


def test_an_impossible_state_dims_the_picture_and_its_fault_stands_beside_the_field(page):
    panel = view(page, MATRIX)
    before = panel.settle()
    field = panel.control("Kernel, row 1, column 2")
    panel.type(field, "two")
    after = panel.wait_change(before)
    assert after["words"] == "Kernel, row 1, column 2 needs a number, got 'two'"
    svg = panel.root.locator("svg.convkit-drawing")
    assert svg.evaluate("svg => getComputedStyle(svg).opacity") == "0.3"
    assert panel.root.locator(".convkit-control-1 .convkit-fault").inner_text() == after["words"]
    assert panel.root.locator("[aria-invalid=true]").count() == 1
    assert field.locator("input").get_attribute("aria-invalid") == "true"
    panel.reset()
    panel.wait_for(before, "a bad number")
    assert svg.evaluate("svg => getComputedStyle(svg).opacity") == "1"
    assert panel.root.locator(".convkit-fault").count() == 0
    assert page.trouble() == []


def test_every_control_has_a_name_and_a_place_in_the_order_of_the_keyboard(page):
    session = page.context.new_cdp_session(page.page)
    for cell in (MATRIX, FOURIER, BET):
        panel = view(page, cell)
        root = panel.root.element_handle()
        root.evaluate("root => root.setAttribute('data-asked', '')")
        document = session.send("DOM.getDocument")["root"]["nodeId"]
        node = session.send("DOM.querySelector", {"nodeId": document, "selector": "[data-asked]"})["nodeId"]
        root.evaluate("root => root.removeAttribute('data-asked')")
        found = []
        for role in ROLES:
            nodes = session.send("Accessibility.queryAXTree", {"nodeId": node, "role": role})["nodes"]
            found += [(role, one.get("name", {}).get("value", "")) for one in nodes if not one.get("ignored")]
        assert [one for one in found if not one[1]] == []
        labels = [label for kind, label, _ in panel.controls() if kind == "slider"]
        assert [name for role, name in found if role == "slider"] == labels
        assert sum(role == "textbox" for role, _ in found) >= len(labels)  # read-outs, and the fields of a grid
        panel.root.locator("select, .noUi-handle").first.focus()
        reached = [page.ask(FOCUSED)]
        while reached[-1] != "Reset":
            page.page.keyboard.press("Tab")
            reached.append(page.ask(FOCUSED))
            assert len(reached) < 60, reached
        assert list(dict.fromkeys(reached)) == [label for _, label, _ in panel.controls()]


@pytest.mark.parametrize("width", [1400, 900, 600])
def test_controls_stand_in_columns(page, width):
    page.page.set_viewport_size({"width": width, "height": 1100})
    try:
        for cell in (MATRIX, FOURIER):
            panel = view(page, cell)
            lefts = """root => [...root.querySelectorAll('.widget-hslider > label, .widget-dropdown > label')]
                .map(label => [Math.round(label.getBoundingClientRect().left), Math.round(label.offsetWidth)])"""
            places = page.ask(lefts, panel.root.element_handle())
            assert len({left for left, _ in places}) <= 3
            assert len({size for _, size in places}) == 1
            over = "root => root.scrollWidth - root.clientWidth"
            assert page.ask(over, panel.root.element_handle()) <= 1
            page.screenshot(f"drawn_{cell}_{width}", panel.root)
    finally:
        page.page.set_viewport_size({"width": 1400, "height": 1100})


@pytest.mark.parametrize("theme", ["JupyterLab Dark", "JupyterLab Light"])
def test_picture_and_words_have_enough_contrast_in_both_themes(page, theme):
    page.ask("theme => window.jupyterapp.commands.execute('apputils:change-theme', {theme}).then(() => null)", theme)
    page.until(f"document.body.dataset.jpThemeName === '{theme}'")
    panel = view(page, FOURIER)
    before = panel.settle()
    panel.tick(panel.control("SVD over the wrong axes"))
    assert panel.wait_change(before)["alert"]
    ink = "rgb(238,238,238)" if "Dark" in theme else "rgb(34,34,34)"
    panel.root.locator(f"svg text[fill='{ink}']").first.wait_for()
    words = panel.root.locator(".convkit-words").element_handle()
    assert page.ask(CONTRAST, [words, "color"]) >= 4.5
    for part in panel.root.locator("svg text").all():
        assert page.ask(CONTRAST, [part.element_handle(), "fill"]) >= 4.5
    for part in panel.root.locator("svg g[clip-path] path[stroke]:not([stroke-width='0'])").all():
        if part.get_attribute("stroke") not in (None, "none"):
            assert page.ask(CONTRAST, [part.element_handle(), "stroke"]) >= 2.99
    page.screenshot(f"drawn_{theme}", panel.root)
    panel.reset()
    panel.wait_for(before, "the wrong axes")
    assert page.trouble() == []
