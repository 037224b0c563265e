"""A panel draws what its controls say, says what is to be seen, and answers bad input with a sentence."""

import base64
import html
import re
from concurrent.futures import ThreadPoolExecutor

import ipywidgets
import pytest

from convkit.teaching.pictures import few_colors
from convkit.widgets.controls import NumberGrid, choice, numbers, slider, toggle
from convkit.widgets.panel import Panel, Words
from tests.helpers.panels import parts, press
from tests.helpers.refusals import refused


class Wave(Panel):
    """A panel with a control of every kind; counts its drawings."""

    title = "A <wave>"
    size = (3, 2)
    drawings = 0

    def controls(self):
        return {
            "count": slider("how many", 2, 1, 9),
            "shift": slider("how far", 0.25, 0.0, 1.0, 0.05),
            "kind": choice("which curve", ["straight", "bent"]),
            "bold": toggle("bold line"),
            "kernel": numbers("kernel", [[1, -2], [0.5, 3]]),
        }

    def draw(self, figure, count, shift, kind, bold, kernel):
        self.drawings += 1
        if count == 9:
            raise ValueError("nine is too many; take at most 8")
        if count == 8:
            raise KeyError("lost")
        if count == 7:
            return ""
        ax = figure.subplots()
        ax.plot([0, count, kernel[0][0]], [shift, 1, 2], linewidth=3 if bold else 1)
        return Words(f"A {kind} & <{count}> line.", alert=kind == "bent")


@pytest.fixture
def wave():
    return Wave()


def picture(panel) -> tuple[str, bytes]:
    """(alt, bytes) of the picture that a page shows."""
    found = re.search(r'<img alt="([^"]*)" src="data:image/png;base64,([^"]*)"', panel._picture.value)
    assert found is not None
    return html.unescape(found[1]), base64.b64decode(found[2])


def fields(wave) -> list[ipywidgets.Text]:
    """The fields of its kernel, row by row."""
    return [part for part in parts(wave.control("kernel")) if isinstance(part, ipywidgets.Text)]


def test_first_state_is_drawn_told_and_stored(wave):
    kernel = ((1.0, -2.0), (0.5, 3.0))
    assert wave.values == {"count": 2, "shift": 0.25, "kind": "straight", "bold": False, "kernel": kernel}
    assert wave.words == "A straight & <2> line."
    assert picture(wave) == (wave.words, wave.png)
    assert wave.png.startswith(b"\x89PNG")
    assert wave.drawings == 1
    bundle = wave._repr_mimebundle_()
    assert bundle["application/vnd.jupyter.widget-view+json"]["model_id"] == wave._root.model_id
    assert base64.b64encode(few_colors(wave.png)).decode() in bundle["text/html"]
    assert (bundle["text/plain"], type(bundle["text/plain"])) == (wave.words, str)
    assert html.escape(wave.words) in bundle["text/html"]


@pytest.mark.parametrize(
    "name, value", [("count", 3), ("shift", 0.5), ("bold", True), ("kernel", ((2, -2), (0.5, 3))), ("kind", "bent")]
)
def test_every_control_changes_the_picture_or_the_words_in_one_drawing(wave, name, value):
    before = (wave.png, wave.words)
    wave.control(name).value = value
    assert wave.drawings == 2
    assert (wave.png, wave.words) != before
    assert wave.values[name] == value
    assert picture(wave) == (wave.words, wave.png)


def test_set_changes_several_controls_with_one_drawing_and_the_same_state_gives_the_same_bytes(wave):
    before = wave.png
    wave.set(count=5, shift=0.1, bold=True, kernel=[[4, 4], [4, 4]])
    assert wave.drawings == 2
    assert (wave.values["count"], wave.values["kernel"]) == (5, ((4.0, 4.0), (4.0, 4.0)))
    assert wave.png != before
    wave.set(count=2, shift=0.25, bold=False, kernel=[[1, -2], [0.5, 3]])
    assert wave.png == before == Wave().png
    refused(r"Wave has controls \['count', .*\], got \['colour'\]", wave.set, colour=1)


def test_reset_brings_the_first_state_back_with_one_drawing_or_says_what_failed(wave):
    first = wave.png, wave.words
    wave.set(count=9)
    fields(wave)[0].value = "no number"
    drawings = wave.drawings
    press(wave, "Reset")
    assert (wave.png, wave.words, wave.drawings) == (*first, drawings + 1)
    wave.control("kind").options = ["curly"]
    press(wave, "Reset")
    assert wave.words.startswith("this is a bug in the panel: TraitError: ")


def test_a_button_shows_its_state_whatever_was_moved_before_with_one_drawing(wave):
    fresh = Wave()
    fresh.set(count=5, kind="bent")
    assert wave.with_states({"five, bent": {"count": 5, "kind": "bent"}, "nine": {"count": 9}, "as it was": {}}) is wave
    wave.set(shift=0.5, bold=True)
    drawings = wave.drawings
    press(wave, "five, bent")
    assert (wave.png, wave.words, wave.drawings) == (fresh.png, fresh.words, drawings + 1)
    press(wave, "nine")
    assert (wave.words, wave.words.alert) == ("nine is too many; take at most 8", True)
    press(wave, "as it was")
    assert (wave.png, wave.words) == (Wave().png, Wave().words)


def test_a_button_says_in_its_tooltip_what_it_sets_and_refuses_a_control_that_is_not_there(wave):
    wave.with_states({"bent": {"kind": "bent", "count": 3}})
    [button] = [part for part in parts(wave._root) if getattr(part, "description", "") == "bent"]
    assert button.tooltip == "which curve: bent, how many: 3"
    refused(r"Wave has controls \['count', .*\], got \['colour'\]", wave.with_states, {"red": {"colour": 1}})
    assert [part.description for part in parts(wave._root) if isinstance(part, ipywidgets.Button)] == ["Reset", "bent"]


FAILURES = {
    9: "nine is too many; take at most 8",
    8: "this is a bug in the panel: KeyError: 'lost'",
    7: "this is a bug in the panel: TypeError: draw must return words that say what is to be seen, got ''",
}


@pytest.mark.parametrize("count, sentence", FAILURES.items())
def test_what_draw_raises_becomes_a_red_sentence_and_the_picture_stays(wave, count, sentence):
    before = picture(wave)
    wave.set(count=count)
    assert (wave.words, wave.words.alert) == (sentence, True)
    assert 'role="alert"' in wave._line.value
    assert html.escape(sentence) in wave._line.value
    assert picture(wave) == before
    wave.set(count=3)
    assert 'role="status"' in wave._line.value
    assert picture(wave) == ("A straight & <3> line.", wave.png)


def test_words_turn_red_on_request_and_are_escaped(wave):
    assert 'role="status"' in wave._line.value
    wave.set(kind="bent")
    assert wave.words.alert
    assert "color: #b3001b" in wave._line.value
    assert "A bent &amp; &lt;2&gt; line." in wave._line.value
    assert "<wave>" not in " ".join(part.value for part in parts(wave._root) if isinstance(part, ipywidgets.HTML))


def test_a_first_state_that_cannot_be_drawn_and_a_control_without_description_are_raised():
    class Wrong(Wave):
        def controls(self):
            return super().controls() | {"count": count}

    count = slider("how many", 9, 1, 9)
    refused("nine is too many", Wrong)
    count = ipywidgets.IntSlider(2)
    refused("control 'count' needs a description", Wrong)


def test_react_fills_other_controls_before_the_one_drawing_and_its_failure_becomes_a_sentence(wave):
    def fill(name):
        wave.control("kernel").value = [[7, 7], [7, 7]]

    wave.react = fill
    wave.control("kind").value = "bent"
    assert wave.values["kernel"] == ((7.0, 7.0), (7.0, 7.0))
    assert wave.drawings == 2
    wave.react = lambda name: 1 / 0
    wave.control("count").value = 3
    assert wave.words == "this is a bug in the panel: ZeroDivisionError: division by zero"


def test_panels_moved_in_several_threads_end_in_their_own_state():
    waves, alone = [Wave() for _ in range(3)], Wave()

    def move(panel):
        for count in (1, 3, 5, 4):
            panel.set(count=count)

    with ThreadPoolExecutor(3) as pool:
        list(pool.map(move, waves))
    alone.set(count=4)
    assert {panel.words for panel in waves} == {"A straight & <4> line."}
    assert {panel.png for panel in waves} == {alone.png}


@pytest.mark.parametrize(
    "grid, readout", [((3, 1, 9, 2), "d"), ((0.125, 0.0, 1.0, 0.125), ".3f"), ((1, 0, 2, 0.5), ".1f")]
)
def test_slider_is_whole_or_reads_out_every_decimal_of_its_step(grid, readout):
    control = slider("a label that is long", *grid)
    assert type(control) is (ipywidgets.IntSlider if readout == "d" else ipywidgets.FloatSlider)
    assert (control.value, control.min, control.max, control.step) == grid
    assert (control.readout_format, control.description) == (readout, "a label that is long")
    assert control.style.description_width == "initial"


def test_slider_refuses_a_value_off_its_grid():
    for value, *grid in ((2, 1, 9, 2), (0, 1, 9, 1), (0.25, 0.0, 1.0, 0.1)):
        refused(rf"slider 'x' needs a value min \+ k \* step .* got {value}", slider, "x", value, *grid)


def test_choice_takes_texts_values_and_pairs():
    assert choice("kind", ["a", "b"]).value == "a"
    assert choice("size", [3, 5], 5).value == 5
    named = choice("size", [("three", 3), ("five", 5)], 5)
    assert (named.value, named.label) == (5, "five")


def test_number_grid_reads_what_is_typed_and_names_a_bad_field(wave):
    field, before = fields(wave)[2], wave.png
    field.value = " 2.5e1 "
    assert wave.values["kernel"] == ((1.0, -2.0), (25.0, 3.0))
    for text in ("x", "", "nan", "inf", "1,5"):
        field.value = text
        assert wave.words == f"kernel, row 2, column 1 needs a number, got {text!r}"
        assert wave.words.alert
        assert wave.png == before  # which does not depend on this number
    field.value = "7"
    assert not wave.words.alert
    assert wave.values["kernel"][1][0] == 7.0


def test_number_grid_takes_another_shape_and_labels_every_field():
    grid = numbers("kernel", [[1, 2], [3, 4]])
    grid.value = [[1 / 3, 2, 3]]
    assert isinstance(grid, NumberGrid)
    assert grid.value == ((pytest.approx(1 / 3, abs=1e-6), 2.0, 3.0),)
    labels = [part.tooltip for part in parts(grid) if isinstance(part, ipywidgets.Text)]
    assert labels == [f"kernel, row 1, column {j}" for j in (1, 2, 3)]
