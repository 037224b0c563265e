"""The states of a panel for a page without a kernel: what the panel itself sends, in few bytes."""

import base64
import json

import pytest

from convkit.widgets.bet import BetPanel
from convkit.widgets.controls import choice, numbers, slider, toggle
from convkit.widgets.drawing import DrawnPanel
from convkit.widgets.matrices import MatrixPanel
from convkit.widgets.moving_waves import FoldingAnimation
from convkit.widgets.moving_window import RingAnimation
from convkit.widgets.panel import Panel, Words
from convkit.widgets.states import keep_states, panel_states
from tests.widgets.test_drawing import decode, decode_image

CURVE = 40  # points


class Curve(DrawnPanel):
    """A panel with a control of each kind: a choice that fills a grid, and a state that cannot be drawn."""

    title, size = "A curve", (4, 3)

    def controls(self):
        return {
            "kind": choice("kind", [("straight", 1), ("bent", 2), ("none", 0)]),
            "height": slider("height", 2.0, 0.0, 9.0, 0.5),
            "far": toggle("far"),
            "bends": numbers("bends", [[1.0]]),
        }

    def react(self, name):
        if name == "kind" and self.values["kind"] == 2:
            self.control("bends").value = ((7.0,),)
            self.control("height").value = 4.0

    def draw(self, figure, kind, height, far, bends):
        if not kind:
            raise ValueError("there is no curve of this kind")
        ax = figure.add_axes((0.1, 0.2, 0.8, 0.7))
        ax.plot(range(CURVE), [height + bends[0][0] * i for i in range(CURVE)])
        ax.imshow([[1.0, 2.0 + far]], "gray")
        return Words(f"From {height}, far: {far}, bends {bends[0][0]}.", alert=far)


class Few(Curve):
    """A panel with six states in all, one of which cannot be drawn."""

    def controls(self):
        return {"height": slider("height", 2, 1, 3), "far": toggle("far")}

    def draw(self, figure, height, far):  # pyright: ignore[reportIncompatibleMethodOverride]
        if far and height == 1:
            raise ValueError("nothing is so low and far")
        return super().draw(figure, 1, height, far, ((1.0,),))

    def react(self, name):
        raise AssertionError("a panel that has all of its states is set, not moved")


def scene_of(found, state):
    """A state as the page puts it together again."""
    return {
        **state,
        "axes": [found["axes"][number] for number in state["axes"]],
        "data": base64.b64decode(found["data"]),
    }


def numbers_of(scene):
    """All numbers of a picture, read back as the page reads them."""
    read = []
    for ax in scene["axes"]:
        for mark in ax["marks"]:
            read += [decode(scene, mark, name).tolist() for name in ("x", "y") if name in mark]
            read += [decode_image(scene, mark)[1].tolist()] if "image" in mark else []
    return read


def test_each_control_is_moved_alone_and_each_state_is_what_the_panel_sends():
    panel = Curve()
    found = json.loads(json.dumps(panel_states(panel)))
    assert [(c["kind"], c["label"], c["at"]) for c in found["controls"]] == [
        ("choice", "kind", 0),
        ("slider", "height", 4),
        ("toggle", "far", 0),
    ]
    assert found["controls"][1]["texts"][:3] == ["0.0", "0.5", "1.0"]
    assert (found["all"], found["thinned"], found["fixed"], found["title"]) == (False, [], ["bends"], "A curve")
    assert len(found["states"]) == 1 + 2 + 18 + 1
    for key, state in found["states"].items():
        kind, height, far = map(int, key.split(","))
        if kind == 2:
            continue
        panel.reset()
        panel.set(kind=1 + kind, height=4.0 if kind else height / 2, far=bool(far), bends=((7.0 if kind else 1.0,),))
        assert numbers_of(scene_of(found, state)) == numbers_of(panel._drawing.scene)
        assert (state["words"], state["alert"]) == (panel.words, panel.words.alert) == (str(panel.words), bool(far))
        assert state["places"] == [kind, 8 if kind else height, far]


def test_a_state_that_cannot_be_drawn_is_a_red_sentence_over_the_opening_picture():
    panel = Curve()
    found = panel_states(panel)
    fault, opening = found["states"]["2,4,0"], found["states"]["0,4,0"]
    assert (fault["words"], fault["alert"]) == ("there is no curve of this kind", True)
    assert numbers_of(scene_of(found, fault)) == numbers_of(scene_of(found, opening))
    assert panel.values == Curve().values
    assert panel.words == opening["words"]


def test_a_panel_with_few_states_has_all_of_them():
    found = panel_states(Few())
    assert found["all"]
    assert sorted(found["states"]) == [f"{height},{far}" for height in range(3) for far in range(2)]
    assert found["states"]["2,1"]["words"] == "From 3, far: True, bends 1.0."
    assert [key for key, state in found["states"].items() if "fault" in state] == ["0,1"]


def test_a_button_that_stays_pressed_is_a_button_and_the_bet_has_an_answer_for_each_place():
    found = panel_states(BetPanel())
    assert [control["kind"] for control in found["controls"]] == ["slider", "button"]
    assert (found["all"], len(found["states"])) == (True, 50)
    for place, text in enumerate(found["controls"][0]["texts"]):
        assert f"{text} comes out" in found["states"][f"{place},0"]["words"] or place == 0
        assert found["states"][f"{place},1"]["words"].startswith(f"You bet {text}, and")


def test_sliders_lose_values_between_their_ends_where_the_states_are_too_large():
    whole = panel_states(Curve())
    size = len(json.dumps(whole, separators=(",", ":")))
    found = panel_states(Curve(), most_bytes=2 * size // 3)
    assert len(json.dumps(found, separators=(",", ":"))) <= 2 * size // 3
    assert found["thinned"] == ["height"]
    texts = found["controls"][1]["texts"]
    assert (texts[0], texts[-1], texts[found["controls"][1]["at"]]) == ("0.0", "9.0", "2.0")
    assert 3 <= len(texts) < 19
    for place, text in enumerate(texts):
        key = f"0,{place},0"
        assert found["states"][key]["words"] == f"From {float(text)}, far: False, bends 1.0."
        assert found["states"][key]["places"] == [0, place, 0]
    assert len(found["controls"][0]["texts"]) == 3


def test_equal_numbers_are_stored_once():
    found = panel_states(MatrixPanel())
    alone = sum(len(state["data"]) for state in (scene_of(found, state) for state in [*found["states"].values()][:1]))
    panel = MatrixPanel()
    assert alone < len(found["states"]) * len(panel._drawing.scene["data"])
    assert len(json.dumps(found)) < 1e6


def test_a_cell_that_shows_a_panel_writes_its_states(tmp_path, monkeypatch):
    class Training(Panel):
        title = "It trains"

        def controls(self):
            return {"on": toggle("on")}

        def draw(self, figure, on):
            return "It trains."

    monkeypatch.setattr(Panel, "_repr_mimebundle_", Panel._repr_mimebundle_)  # to be given back
    keep_states(str(tmp_path))
    for panel in (Few(), Training()):
        assert panel._repr_mimebundle_() == {"text/plain": panel.words}
    assert json.loads((tmp_path / "0.json").read_text()) == json.loads(json.dumps(panel_states(Few())))
    assert json.loads((tmp_path / "1.json").read_text()) is None


@pytest.mark.parametrize("most", [0, 3])
def test_too_small_a_limit_ends_with_the_ends_and_the_opening_value(most):
    found = panel_states(Curve(), most_bytes=most)
    assert found["controls"][1]["texts"] == ["0.0", "2.0", "9.0"]


def test_states_of_buttons_are_what_the_panel_shows_after_a_press():
    panel = Curve().with_states({"high": {"height": 9.0, "far": True}, "bent": {"bends": ((3.0,),)}})
    found = panel_states(panel)
    assert list(found["ready"]) == ["high", "bent"]
    assert found["ready"]["high"]["words"] == "From 9.0, far: True, bends 1.0."
    assert found["ready"]["bent"]["words"] == "From 2.0, far: False, bends 3.0."
    panel.set(height=9.0, far=True)
    shown = panel._drawing.scene
    assert numbers_of(scene_of(found, found["ready"]["high"])) == numbers_of(shown)
    texts = [
        control["texts"][place]
        for control, place in zip(found["controls"], found["ready"]["high"]["places"], strict=True)
    ]
    assert texts[1:] == ["9.0", "on"]
    assert panel_states(Curve())["ready"] == {}


def test_an_animation_keeps_all_its_moments_and_its_slider_is_the_films():
    found = panel_states(FoldingAnimation())
    opening = found["states"][",".join(str(control["at"]) for control in found["controls"])]
    scene = FoldingAnimation()._drawing.scene
    assert opening["moments"] == scene["moments"] > 3
    assert base64.b64decode(opening["data"]) == scene["data"]
    assert opening["axes"] == scene["axes"]
    assert (found["fixed"], [control["label"] for control in found["controls"]]) == (
        [],
        ["stride", "marked frequency g"],
    )
    assert panel_states(RingAnimation())["states"].keys() == {""}  # it has no other control
