"""A drawn panel sends numbers, one message for each move, and no picture; large matrices keep their largest entries."""

import json
import math
import random

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure

from convkit.plots import plot_by_layer, plot_curves, plot_image, plot_matrix, plot_patch, plot_two_spectra
from convkit.widgets.bounds import BoundsPanel
from convkit.widgets.controls import NumberGrid, choice, slider
from convkit.widgets.drawing import MOST_BYTES, Drawing, DrawnPanel, reduced, scene
from convkit.widgets.fourier import FourierPanel
from convkit.widgets.matrices import MatrixPanel
from convkit.widgets.panel import Words
from convkit.widgets.sheet import Sheet
from convkit.widgets.sphere import SpherePanel
from convkit.widgets.training.panel import TrainingPanel
from tests.helpers.panels import kinds, parts
from tests.helpers.refusals import refused

DRAWN = {kind.__name__: kind for kind in kinds() if issubclass(kind, DrawnPanel)}
FULL = {  # the states with the most numbers
    MatrixPanel: {"size": 8, "c_in": 2, "c_out": 2, "preset": "random"},
    FourierPanel: {"n": 8, "c_in": 3, "c_out": 3, "k": 5},
    BoundsPanel: {"n": 14, "c_in": 8, "c_out": 8},
    SpherePanel: {"steps": 12, "rescale": False},
}


class Line(DrawnPanel):
    """A panel with one curve."""

    title, size = "A line", (4, 3)

    def controls(self):
        return {"height": slider("height", 2, 0, 9), "kind": choice("kind", ["straight", "none"])}

    def draw(self, figure, height, kind):
        if kind == "none":
            raise ValueError("no line can be drawn of this kind")
        ax = figure.add_axes((0.1, 0.2, 0.8, 0.7))
        ax.plot([0, 1, 4], [1, height, 2.5], color="#0072B2", label="it")
        return Words(f"A line to {height}.")


def ax_of(draw, place=(0.1, 0.2, 0.5, 0.6), size=(6, 4)):
    """The sheet and its only axes, drawn on."""
    sheet = Sheet(size)
    ax = sheet.add_axes(place)
    draw(ax)
    return sheet, ax


def decode(found, mark, name):
    """The numbers of a mark, read back as the page reads them."""
    code = mark[name]
    if code[0] == 4:
        return np.frombuffer(found["data"], "<f4", code[2], code[1]).astype(float)
    raw = np.frombuffer(found["data"], "<u2", code[2], code[1])
    return np.where(raw == 65535, np.nan, code[3] + code[4] * raw)


def decode_image(found, mark):
    each, at, whole, shape, channels = mark["image"]
    count = math.prod(shape) * channels
    values = np.frombuffer(found["data"], "<f4" if each == 4 else "u1", count, at).astype(float)
    if each == 1 and channels == 1:
        low, high = mark["range"]
        values = np.where(values == 255, np.nan, low + (high - low) * values / 254)
    return tuple(whole), values.reshape(*shape, *([channels] if channels > 1 else []))


@pytest.fixture
def sent(monkeypatch):
    """What is sent to the page: (what changed, number of bytes), one for each message."""
    messages = []

    def send(widget, message, buffers=None):
        size = len(json.dumps(message, default=str)) + sum(len(memoryview(part).cast("B")) for part in buffers or ())
        messages.append((widget, sorted(message.get("state", {})), size))

    monkeypatch.setattr("ipywidgets.Widget._send", lambda self, message, buffers=None: send(self, message, buffers))
    return messages


def test_a_move_sends_one_message_of_numbers(sent):
    panel = Line()
    sent.clear()
    panel.control("height").value = 5
    sent = [one for one in sent if one[0] is not panel.control("height")]
    assert [(widget, changed) for widget, changed, _ in sent] == [(panel._drawing, ["scene"])]
    assert sent[0][2] < 2000


def test_no_picture_is_made_for_the_page(monkeypatch):
    def never(*_, **__):
        raise AssertionError("a PNG was made")

    monkeypatch.setattr("convkit.widgets.panel.png_bytes", never)
    panel = Line()
    panel.set(height=7)
    assert panel.words == "A line to 7."
    assert b"PNG" not in panel._drawing.scene["data"]
    assert "img" not in json.dumps({**panel._drawing.scene, "data": ""})


@pytest.mark.parametrize("kind", FULL, ids=lambda kind: kind.__name__)
def test_the_largest_state_fits_into_a_message(kind):
    panel = kind()
    panel.set(**FULL[kind])
    found = panel._drawing.scene
    assert len(found["data"]) + len(json.dumps({**found, "data": 0})) < 20_000
    assert found["words"] == panel.words


def test_the_panels_that_draw_are_drawn_by_their_page():
    names = ("Attack", "Bet", "Boundary", "Bounds", "Clipping", "ConvNorm", "Decay", "Depth", "Fourier", "Gan")
    assert {f"{name}Panel" for name in (*names, "Matrix", "Spectra", "Sphere", "Step")} <= DRAWN.keys()
    assert issubclass(TrainingPanel, DrawnPanel)


def test_numbers_come_back_and_equal_arrays_are_stored_once():
    x, y = np.arange(3, 40), np.random.default_rng(0).normal(size=37)
    sheet, _ = ax_of(lambda ax: plot_curves({"one": (x, y), "two": (x, 2 * y)}, ax))
    found = scene(sheet)
    one, two = found["axes"][0]["marks"]
    assert np.allclose(decode(found, one, "x"), x)
    assert np.allclose(decode(found, one, "y"), y, atol=1e-6)
    assert np.allclose(decode(found, two, "y"), 2 * y, atol=1e-6)
    assert one["x"] == two["x"]
    assert len(found["data"]) == 3 * 37 * 4
    assert [mark["name"] for mark in (one, two)] == ["one", "two"]


def test_many_numbers_get_16_bits_then_curves_lose_points():
    def draw(count, length):
        y = np.random.default_rng(1).normal(size=(length, count))
        y[3] = np.nan
        sheet, _ = ax_of(lambda ax: ax.plot(np.arange(length), y))
        return y, scene(sheet)

    y, found = draw(20, 200)
    marks = found["axes"][0]["marks"]
    assert [mark["y"][0] for mark in marks] == [2] * 20
    for mark, column in zip(marks, y.T, strict=True):
        assert np.allclose(decode(found, mark, "y"), column, atol=np.ptp(column[4:]) / 60_000, equal_nan=True)
    y, found = draw(60, 1000)
    assert len(found["data"]) + len(json.dumps({**found, "data": 0})) <= MOST_BYTES
    mark = found["axes"][0]["marks"][7]
    places, values = decode(found, mark, "x").round().astype(int), decode(found, mark, "y")
    assert 50 < len(places) < 1000
    assert np.allclose(values, y[places, 7], atol=1e-3, equal_nan=True)


def test_a_logarithmic_axis_keeps_small_numbers():
    y = torch.logspace(2, -9, 50, dtype=torch.float64)
    sheet, _ = ax_of(lambda ax: plot_by_layer({"a": y, "zero": torch.zeros(3)}, ax))
    found = scene(sheet)
    first, zero = found["axes"][0]["marks"]
    assert np.allclose(10 ** decode(found, first, "y"), y, rtol=1e-5)
    assert np.isnan(decode(found, zero, "y")).all()
    low, high = found["axes"][0]["y"]["span"]
    assert (low, high) == (pytest.approx(-9.55), pytest.approx(2.55))


def test_small_matrices_keep_their_numbers_and_large_ones_the_largest_of_each_block():
    M = torch.randn(9, 7, generator=torch.Generator().manual_seed(0))
    M[2, 3] = torch.nan
    sheet, _ = ax_of(lambda ax: plot_matrix(M, ax, limit=3.0))
    whole, values = decode_image(scene(sheet), scene(sheet)["axes"][0]["marks"][0])
    assert whole == (9, 7)
    assert np.allclose(values, M, equal_nan=True)
    large = np.zeros((300, 410))
    large[250, 3], large[7, 400] = -0.75, 2.0
    sheet, _ = ax_of(lambda ax: plot_matrix(large, ax))
    found = scene(sheet)
    whole, values = decode_image(found, found["axes"][0]["marks"][0])
    factor = math.ceil(410 / values.shape[1])
    assert whole == (300, 410)
    assert len(found["data"]) <= MOST_BYTES
    assert (values.min(), values.max()) == (pytest.approx(-0.75, abs=0.01), pytest.approx(2.0))
    assert values[250 // factor, 3 // factor] == values.min()
    assert values[7 // factor, 400 // factor] == values.max()


def test_reduction_takes_magnitudes_of_matrices_and_means_of_images():
    values = np.array([[1.0, -5, 2], [4, 3, -2], [7, np.nan, 0]])
    assert reduced(values, 2, signed=True).tolist() == [[-5.0, 2.0], [7.0, 0.0]]
    assert reduced(values, 2).tolist() == [[0.75, 0.0], [7.0, 0.0]]
    colors = np.random.default_rng(0).random((4, 6, 3))
    assert np.allclose(reduced(colors, 2), colors.reshape(2, 2, 3, 2, 3).mean((1, 3)))
    assert np.isnan(reduced(np.full((2, 2), np.nan), 2)).all()


def test_axes_have_the_limits_of_matplotlib():
    def bars(ax):
        ax.bar([0, 1, 2], [3, 1, 2])

    plots = {
        "curves": lambda ax: plot_curves({"a": ([1, 2, 6], [-3, 4, 1.5])}, ax),
        "dots": lambda ax: plot_two_spectra(torch.tensor([3.0, 1.0]), torch.tensor([3.0, 1.0]), ax),
        "matrix": lambda ax: plot_matrix(np.ones((4, 9)), ax, blocks=[2], row=1),
        "patch": lambda ax: plot_patch(np.eye(3, 5), ax, framed=(1, 2)),
        "image": lambda ax: plot_image(np.eye(3, 5), ax),
        "levels": lambda ax: (ax.plot([2, 3]), ax.axhline(-7, color="red")),
        "bars": bars,
        "one": lambda ax: ax.plot([4], [7], "o"),
        "logarithmic": lambda ax: plot_by_layer({"a": [1.0, 0.01, 5]}, ax),
    }
    for name, plot in plots.items():
        theirs = Figure().add_axes((0.1, 0.2, 0.5, 0.6))
        plot(theirs)
        _, ours = ax_of(plot)
        for side, limits in ((ours.xaxis, theirs.get_xlim()), (ours.yaxis, theirs.get_ylim())):
            assert side.span() == pytest.approx(tuple(side.scaled(limits)), rel=1e-6, abs=1e-9), name
    _, ours = ax_of(plots["logarithmic"])
    assert ours.get_ylim() == pytest.approx((0.01 / 10**0.1349485, 5 * 10**0.1349485), rel=1e-6)


def test_an_image_from_the_bottom_up_and_a_list_of_colors_are_turned():
    sheet, ax = ax_of(lambda ax: ax.imshow([[0.0, 1.0], [2.0, 3.0], [4.0, 5.0]], origin="lower"))
    assert ax.marks[0]["image"].tolist() == [[4.0, 5.0], [2.0, 3.0], [0.0, 1.0]]
    assert ax.yaxis.span() == (-0.5, 2.5)
    assert decode_image(scene(sheet), scene(sheet)["axes"][0]["marks"][0])[0] == (3, 2)


def test_what_a_sheet_does_not_know_is_an_error():
    _, ax = ax_of(lambda ax: None)
    with pytest.raises(AttributeError):
        ax.quiver()
    refused("unexpected keyword argument 'rasterized'", ax.plot, [1], error=TypeError, rasterized=True)


def test_the_stored_picture_is_matplotlibs_of_the_state_that_is_shown():
    panel = Line()
    first, words = panel.png, panel.words
    panel.set(height=8)
    assert panel.png != first
    assert list(panel.figure.axes[0].lines[0].get_ydata()) == [1, 8, 2.5]
    panel.set(kind="none")
    assert panel.words == "no line can be drawn of this kind"
    assert list(panel.figure.axes[0].lines[0].get_ydata()) == [1, 8, 2.5]
    panel.reset()
    panel.set()
    bundle = panel._repr_mimebundle_()
    assert (panel.png, panel.words) == (first, words)
    assert bundle == Line()._repr_mimebundle_() | {
        name: value for name, value in bundle.items() if name.endswith("widget-view+json")
    }
    assert "data:image/png" in bundle["text/html"]
    assert 'alt="A line to 2."' in bundle["text/html"]


def test_a_fault_dims_the_picture_and_stands_beside_its_control(sent):
    panel = Line()
    panel.control("kind").value = "none"
    assert panel._access.fault == {"control": 1, "words": "no line can be drawn of this kind"}
    assert "convkit-control-1" in panel.control("kind")._dom_classes
    shown = panel._drawing.scene
    assert (shown["words"], shown["alert"], len(shown["axes"])) == ("no line can be drawn of this kind", True, 1)
    panel.set(height=3)
    assert panel._access.fault["control"] == -1  # moved by code
    sent.clear()
    panel.control("kind").value = "straight"
    assert panel._access.fault == {}
    assert sum(isinstance(widget, Drawing) for widget, _, _ in sent) == 1


def test_controls_stand_in_columns_with_labels_of_one_width():
    panel = MatrixPanel()
    (grid,) = [part for part in parts(panel._root) if part.layout.grid_template_columns]
    assert [part.description for part in grid.children][-1] == "Reset"
    widths = {part.style.description_width for part in grid.children if hasattr(part, "readout")}
    assert widths == {"17ch"}
    assert {part.layout.grid_area for part in grid.children if isinstance(part, NumberGrid)} == {
        "span 4 / auto / auto / auto"
    }
    assert panel.control("row").layout.grid_area == "auto / 1 / auto / -1"
    panel = FourierPanel()
    (grid,) = [part for part in parts(panel._root) if part.layout.grid_template_columns]
    assert [part.value for part in grid.children if "<i>" in str(getattr(part, "value", ""))] == [
        f"<i>{words}</i>" for words in panel.headings.values()
    ]


def test_a_slow_picture_is_announced_and_the_next_one_takes_the_words_away(sent):
    panel = Line()
    sent.clear()
    panel.announce("A long line is drawn.")
    assert [(widget, changed) for widget, changed, _ in sent] == [(panel._drawing, ["working"])]
    sent.clear()
    panel.control("height").value = 7
    pictures = [changed for widget, changed, _ in sent if widget is panel._drawing]
    assert pictures == [["scene", "working"]]  # one message
    assert panel._drawing.working == ""


def test_empty_curves_and_bands_are_drawn_when_numbers_must_be_few():
    def draw(ax):
        ax.plot([], [], label="none")
        ax.fill([0, 1, 1], [0, 0, 1], color="#0072B2", alpha=0.2, label="band")
        ax.plot(np.arange(9000), np.random.default_rng(2).normal(size=(9000, 3)))

    sheet, _ = ax_of(draw)
    found = scene(sheet)
    marks = {mark.get("name"): mark for mark in found["axes"][0]["marks"]}
    assert marks["none"]["x"][2] == 0
    assert (marks["band"]["kind"], marks["band"]["alpha"]) == ("area", 0.2)
    assert len(found["data"]) + len(json.dumps({**found, "data": 0})) <= MOST_BYTES


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(DRAWN.keys() - {"AttackPanel", "ClaimsPanel", "SpectraPanel"}))
def test_no_state_needs_more_than_20_kb(name):
    panel, draw = DRAWN[name](), random.Random(name)
    for _ in range(12):
        for control in panel._controls.values():
            if hasattr(control, "max"):
                control.value = draw.choice([control.min, control.max])
            elif hasattr(control, "options"):
                control.index = draw.randrange(len(control.options))
        found = panel._drawing.scene
        assert len(found["data"]) + len(json.dumps({**found, "data": 0})) < 20_000
        assert "bug in the panel" not in panel.words
