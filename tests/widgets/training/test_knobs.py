"""Controls for knobs: valid places, the method's defaults, and a mapping that a run reads."""

import pytest

from convkit.methods.registry import METHODS
from convkit.widgets.training.knobs import HIDDEN, MethodControl, grid, knob_control, knob_sliders, knob_text
from tests.helpers.refusals import refused


def test_sliders_write_into_the_knobs_that_a_run_reads():
    knobs = {"bound": 0.5}
    controls = knob_sliders("norm_clip", knobs)
    assert [control.description for control in controls] == ["learning rate", "weight decay", "bound of the norm"]
    assert knobs == {"lr": 0.1, "weight_decay": 0.0, "bound": 0.5}
    controls[2].value = 2.0
    assert knobs["bound"] == 2.0
    (only,) = knob_sliders("norm_clip", knobs, "every")
    assert only.value == knobs["every"] == 100


@pytest.mark.parametrize("method", METHODS)
def test_every_knob_of_every_method_has_a_control_with_valid_places(method):
    for name, knob in METHODS[method].knobs.items():
        control = knob_control(name, knob)
        assert control.value == knob.default
        if not knob.choices:
            places = grid(name, knob)
            assert 4 <= len(places) <= 30
            for place in places:
                assert knob.check(name, place) == place
            assert len({label for label, _ in control.options}) == len(places)


def test_a_knob_off_its_grid_gets_a_place_and_one_out_of_range_a_sentence():
    lr = METHODS["plain"].knobs["lr"]
    assert knob_control("lr", lr, 0.123).value == 0.123
    refused("lr must be a number from 1e-06 to 10, got 11", knob_control, "lr", lr, 11)


def states(control):
    """Every state that the control goes through from now on."""
    seen = []
    control.observe(lambda change: seen.append(change["new"]), names="state")
    return seen


@pytest.mark.parametrize("method", METHODS)
def test_choosing_a_method_brings_its_knobs_at_their_defaults(method):
    control = MethodControl("first", None)
    assert control.value == {"method": None, "objective": "clean", "knobs": {}}
    seen = states(control)
    control._list.value = method
    assert control.value == {"method": method, "objective": "clean", "knobs": METHODS[method].settings()}
    assert seen == [control.value]
    words = [knob.words for name, knob in METHODS[method].knobs.items() if name not in HIDDEN]
    assert [part.description for part in control._row.children] == ["first method", "first trained on", *words]


def test_a_moved_knob_is_one_new_state():
    control = MethodControl("first", "sphere", knobs={"sigma": 0.5, "momentum": 0.5})
    seen = states(control)
    control._knobs["sigma"].value = 1.0
    assert seen == [
        {
            "method": "sphere",
            "objective": "clean",
            "knobs": METHODS["sphere"].settings({"sigma": 1.0, "momentum": 0.5}),
        }
    ]


def test_a_value_given_from_code_is_shown_and_old_controls_are_let_go():
    control = MethodControl("first", "sphere")
    first, old = control.value, control._knobs["lr"]
    control.value = {"method": "sphere", "knobs": {"sigma": 1.0, "lr": 0.123}}
    assert (control._knobs["sigma"].value, control._knobs["lr"].value) == (1.0, 0.123)
    assert old.comm is None
    seen = states(control)
    control.value = first
    assert (control.value, control._knobs["lr"].value, len(seen)) == (first, 0.1, 1)
    control.value = {"method": None}
    assert control.value == {"method": None, "objective": "clean", "knobs": {}}
    with pytest.raises(ValueError, match="sphere has no knob 'bound'"):
        control.value = {"method": "sphere", "knobs": {"bound": 1.0}}


def test_a_choice_with_words_is_a_list_and_the_table_has_the_words():
    knob = METHODS["norm_decay_l1"].knobs["mean"]
    control = knob_control("mean", knob, True)
    assert control.options == (("mean, as printed", True), ("sum, as the authors ran it", False))
    assert knob_text(knob, control.value) == "mean, as printed"
    assert knob_text(METHODS["plain"].knobs["lr"], 0.05) == "0.05"
    assert knob_text(METHODS["convnorm"].knobs["batchnorm"], False) == "no"


def test_methods_are_listed_by_their_words_and_their_letters():
    control = MethodControl("first", None)
    labels = [label for label, _ in control._list.options]
    assert len(set(labels)) == len(METHODS) + 1
    for short, words in (("SN", "norm of the reshaped kernel divided out"), ("WS", "weight standardization")):
        assert f"{short}: {words}" in labels
    letters = [method.short for method in METHODS.values() if method.short]
    assert {"SN", "ONI", "OCNN", "WN", "WS", "BN", "GN"} <= set(letters)
    assert len(set(letters)) == len(letters)


def test_the_objective_of_a_slot_is_part_of_its_value():
    control = MethodControl("second", "plain", "free")
    seen = states(control)
    control._goal.value = "pgd"
    assert [state["objective"] for state in seen] == ["pgd"]
    control.value = {"method": "plain", "objective": "clean", "knobs": {}}
    assert (control.value["objective"], control._goal.value) == ("clean", "clean")
