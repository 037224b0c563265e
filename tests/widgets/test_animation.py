"""A panel that moves sends all its moments at once: the slider for time costs no picture, each moment has words."""

import json

import pytest

from convkit.widgets.animation import AnimationPanel, Film
from convkit.widgets.controls import choice
from convkit.widgets.drawing import Drawing, film, merged
from convkit.widgets.panel import Words
from convkit.widgets.sheet import Sheet
from tests.helpers.panels import kinds, parts, press
from tests.helpers.refusals import refused

ANIMATIONS = [kind for kind in kinds() if issubclass(kind, AnimationPanel)]


class Climb(AnimationPanel):
    """A point that climbs."""

    title, size, clock = "A climb", (4, 3), "step"
    drawings = 0

    def settings(self):
        return {"height": choice("height", [3, 5, 0])}

    def moments(self, height):
        return height + 1

    def draw(self, figure, time, height):
        if height == 0:
            raise ValueError("there is nothing to climb")
        type(self).drawings += 1
        ax = figure.add_axes((0.1, 0.2, 0.8, 0.7))
        ax.plot([0, 1], [0, time], color="#0072B2")
        ax.text(1, time, f"{time}")
        return Words(f"At {time} of {height}.", alert=time == 2)


def at(value, time):
    """What a page makes of a value at a moment."""
    if isinstance(value, dict):
        return value["each"][time] if "each" in value else {name: at(part, time) for name, part in value.items()}
    return [at(part, time) for part in value] if isinstance(value, list) else value


@pytest.fixture
def sent(monkeypatch):
    """The names of what is sent to the page for drawings, one list for each message."""
    messages = []

    def send(widget, message, buffers=None):
        if isinstance(widget, Drawing):
            messages.append(sorted(message.get("state", {})))

    monkeypatch.setattr("ipywidgets.Widget._send", send)
    return messages


def test_the_last_moment_is_shown_first_and_time_has_a_slider_with_a_name():
    panel = Climb()
    assert panel.values == {"height": 3, "time": 3}
    assert (panel.words, panel.words.alert) == ("At 3 of 3.", False)
    clock = panel.control("time")
    assert isinstance(clock, Film)
    assert (clock.description, clock.min, clock.max) == ("step", 0, 3)
    assert [part for part in parts(panel._root) if part is clock] == [clock]  # it is the drawing, and no second control
    assert list(panel.figure.axes[0].lines[0].get_ydata()) == [0, 3]


def test_a_setting_sends_all_moments_in_one_message_and_time_sends_none(sent):
    panel = Climb()
    sent.clear()
    panel.control("height").value = 5
    assert [names for names in sent if "scene" in names] == [["scene"]]
    sent.clear()
    Climb.drawings = 0
    for time in (0, 2, 4):
        panel.control("time").value = time
        assert (panel.words, panel.words.alert) == (f"At {time} of 5.", time == 2)
    assert not any("scene" in names for names in sent)
    assert Climb.drawings == 0
    assert list(panel.figure.axes[0].lines[0].get_ydata()) == [0, 4]


def test_each_moment_of_the_scene_is_that_of_a_sheet_of_its_own():
    panel, sheets = Climb(), [Sheet(Climb.size) for _ in range(4)]
    for time, sheet in enumerate(sheets):
        panel.draw(sheet, time=time, height=3)  # pyright: ignore[reportArgumentType]
    scene = panel._drawing.scene
    assert (scene["moments"], scene["words"], scene["alert"]) == (
        4,
        {"each": [f"At {time} of 3." for time in range(4)]},
        {"each": [False, False, True, False]},
    )
    for time, sheet in enumerate(sheets):
        alone, mine = film([sheet]), at({**scene, "data": 0}, time)
        (line, text), (own_line, own_text) = alone["axes"][0]["marks"], mine["axes"][0]["marks"]
        assert own_text["words"] == text["words"] == [str(time)]
        assert own_line.keys() == line.keys()
        place, count = own_line["y"][1:]
        assert scene["data"][place : place + 4 * count] == alone["data"][line["y"][1] : line["y"][1] + 4 * count]


def test_time_stays_at_the_end_or_where_it_was_and_reset_goes_back():
    panel = Climb()
    panel.control("height").value = 5
    assert panel.values["time"] == 5
    panel.control("time").value = 4
    panel.control("height").value = 3
    assert (panel.values["time"], panel.control("time").max) == (3, 3)
    panel.set(height=5, time=1)
    assert panel.words == "At 1 of 5."
    panel.control("height").value = 3
    assert panel.words == "At 1 of 3."
    press(panel, "Reset")
    assert panel.values == {"height": 3, "time": 3}
    assert panel.words == "At 3 of 3."


def test_a_setting_that_cannot_be_drawn_is_said_at_every_moment_and_the_pictures_stay():
    panel = Climb()
    panel.control("height").value = 0
    scene = panel._drawing.scene
    assert (scene["words"], scene["alert"], scene["moments"]) == ("there is nothing to climb", True, 4)
    assert panel._access.fault == {"control": 0, "words": "there is nothing to climb"}
    panel.control("height").value = 3
    assert (panel._access.fault, panel._drawing.scene["words"]["each"][1]) == ({}, "At 1 of 3.")


def test_equal_parts_are_sent_once():
    assert merged([{"a": 1}, {"a": 1}]) == {"a": 1}
    assert merged([{"a": (1, 2)}, {"a": (1, 3)}]) == {"a": [1, {"each": [2, 3]}]}
    assert merged([{"a": 1}, {"b": 1}]) == {"each": [{"a": 1}, {"b": 1}]}
    assert merged([[1], [1, 2]]) == {"each": [[1], [1, 2]]}


def test_a_page_without_a_kernel_gets_the_picture_and_the_words():
    bundle = Climb()._repr_mimebundle_()
    assert 'alt="At 3 of 3."' in bundle["text/html"]
    assert "data:image/png" in bundle["text/html"]


def differing(value, path=()):
    """The places where moments differ, with the values there."""
    if isinstance(value, dict) and "each" in value:
        yield path, value["each"]
    elif isinstance(value, dict | list):
        for name, part in value.items() if isinstance(value, dict) else enumerate(value):
            yield from differing(part, (*path, name))


@pytest.mark.parametrize("kind", ANIMATIONS, ids=lambda kind: kind.__name__)
def test_all_moments_have_the_same_marks_words_of_their_own_and_fit_into_one_message(kind):
    panel = kind()
    scene = panel._drawing.scene
    for path, values in differing({**scene, "data": 0}):
        assert not any(isinstance(one, dict | list) for one in values), path
    assert len(scene["data"]) + len(json.dumps({**scene, "data": 0})) < 20_000
    words = scene["words"]["each"]
    assert len(words) == scene["moments"] == panel.control("time").max + 1
    assert all(len(one) > 20 for one in words)
    assert len(set(words)) > 2
    assert panel.words == words[-1]


def test_a_surface_needs_a_page():
    refused("object has no attribute 'mesh'", Climb().figure.axes[0].__getattribute__, "mesh", error=AttributeError)
