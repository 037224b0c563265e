"""Every panel: its first state is drawn, every control moves it, Reset goes back, the default dtype does not matter."""

import functools
import sys
from contextlib import contextmanager

import pytest
import torch
from torch import nn

from convkit.data import digits, subset
from convkit.widgets import attacks, bet
from convkit.widgets import panel as module
from convkit.widgets.attacks import AttackPanel
from convkit.widgets.boundaries import BoundaryPanel
from convkit.widgets.bounds import BoundsPanel
from convkit.widgets.claims import ClaimsPanel
from convkit.widgets.controls import NumberGrid
from convkit.widgets.fourier import FourierPanel
from convkit.widgets.matrices import MatrixPanel
from convkit.widgets.spectra import SpectraPanel
from convkit.widgets.training.panel import TrainingPanel
from tests import RESULTS
from tests.helpers.panels import drawn, kinds, press
from tests.helpers.training_panels import DATA, SMALL


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(module, "png_bytes", drawn)
    monkeypatch.setattr(bet, "SECONDS", 1e-9)
    monkeypatch.setattr(attacks, "MOST_STEPS", 16)
    monkeypatch.setattr(attacks, "TESTED", 10)
    monkeypatch.setattr(attacks, "panel_data", lambda *_: OTHERS)
    monkeypatch.setattr(attacks, "two_networks", lambda *_: dict(zip(("one", "two"), NETWORKS, strict=True)))


def own(dtype, seed=0):
    """A network of the reader; it is made in the default dtype."""
    torch.manual_seed(seed)
    layers = [nn.Conv2d(1, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(), nn.Flatten(), nn.Linear(6 * 64, 10)]
    nn.init.normal_(layers[1].weight)
    return nn.Sequential(*layers).to(dtype)


IMAGES, X = subset(digits(), 200, test_count=20), torch.zeros(1, 1, 8, 8)
OTHERS = subset(digits(), 200, seed=1, test_count=20)
NETWORKS = own(torch.float32), own(torch.float32, 1).eval()
PANELS = {kind.__name__: kind for kind in kinds()} | {
    "ClaimsPanel": lambda: ClaimsPanel(RESULTS / "papers"),
    "AttackPanel": lambda: AttackPanel(dict(zip(("one", "two"), NETWORKS, strict=True)), IMAGES),
    "SpectraPanel of networks": lambda: SpectraPanel(NETWORKS[0], X, NETWORKS[1]),
}
BROKEN = ("BoundaryPanel", "ClippingPanel")  # their first state breaks a bound
SAME_PICTURE = {"ConvNormPanel": {"floor"}, "FourierPanel": {"crop"}, "SpectraPanel": {"folded"}}  # idle at first
SAME_PICTURE["GanPanel"] = {"method", "judge steps", "judge rate", "maker rate"}  # until it trains
SAME_PICTURE["ClaimsPanel"] = {"paper"}  # the claims of the first paper fill the first page
SAME_WORDS = {
    "BoundaryPanel": {"groups"},
    "CloudPanel": {"turn", "tilt"},
    "FourierPanel": {"k", "seed"},
    "GanPanel": {"z"},
    "MatrixPanel": {"kernel"},
    "SpectraPanel": {"view", "folded", "log"},
    "SpectraPanel of networks": {"view", "log"},
    "SpherePanel": {"turn", "tilt"},
    "SphereStepAnimation": {"turn", "tilt"},
}


def other_places(control):
    """Values that a reader can give to a control."""
    now = control.value
    if isinstance(control, NumberGrid):
        return [tuple(tuple(tap - 1.5 for tap in row) for row in now)]
    if isinstance(now, bool):
        return [not now]
    if hasattr(control, "options"):
        options = [option[1] if isinstance(option, tuple) else option for option in control.options]
        return [option for option in dict.fromkeys((*options[:4], options[-1])) if option != now]
    return [end for end in (control.max, control.min) if end != now][:1] if hasattr(control, "max") else []


def seen(make):
    """What a panel shows: at first, after each move of a control by hand from the first state, and after Reset."""
    panel = make()
    states = {"first": (panel.words, panel.words.alert, panel.png, panel.values)}
    for name in panel.values:
        for value in other_places(panel.control(name)):
            panel.reset()
            panel.control(name).value = value
            states[name, value] = panel.words, panel.words.alert, panel.png, panel.values
    press(panel, "Reset")
    return states | {"reset": (panel.words, panel.words.alert, panel.png, panel.values)}


as_usual = functools.cache(lambda name: seen(PANELS[name]))


@pytest.mark.slow
@pytest.mark.parametrize("name", PANELS)
def test_the_first_state_is_drawn_every_control_moves_it_and_reset_goes_back(name):
    states = dict(as_usual(name))
    first = words, alert, picture, values = states.pop("first")
    assert states.pop("reset") == first
    assert words
    assert len(picture) > 1000
    assert alert == (name in BROKEN)
    assert {control for control, _ in states} == values.keys()
    assert not any("bug in the panel" in state[0] for state in states.values())
    assert {control for (control, _), state in states.items() if state[2] == picture} == SAME_PICTURE.get(name, set())
    others = {control for (control, _), state in states.items() if state[0] != words}
    assert values.keys() - others == SAME_WORDS.get(name, set())


SIGNS = {"padding": "circular", "n": 2, "k": 4, "dilation": 2, "kernel": "chessboard of signs"}
BAD = {
    "fit into the image, got 3 taps with dilation 4 on 3": (BoundaryPanel, {"boundary": "no padding", "dilation": 4}),
    "got one of 10 × 10 pixels on 8 × 8": (BoundsPanel, {"padding": "no padding", "dilation": 3, "k": 4}),
    "all taps cancel on this image": (BoundsPanel, SIGNS),
    "a whole 5 × 5 window must fit": (FourierPanel, {"n": 3, "k": 5, "border": "none, only whole windows"}),
    "between -1e+06 and 1e+06": (MatrixPanel, {"kernel": ((1e7, 0, 0), (0, 0, 0), (0, 0, 0))}),
}


@pytest.mark.parametrize("sentence", BAD)
def test_bad_input_is_a_sentence_and_the_picture_stays(sentence):
    kind, values = BAD[sentence]
    panel = kind()
    before = panel.png, panel.words
    panel.set(**values)
    assert panel.words.alert
    assert sentence in panel.words
    assert panel.png == before[0]
    press(panel, "Reset")
    assert (panel.png, panel.words) == before


# ---- torch's default dtype -------------------------------------------------------------------------------------------
def forget():
    """Empty all caches of the kit."""
    for name, loaded in list(sys.modules.items()):
        if name.startswith("convkit."):
            for value in vars(loaded).values():
                getattr(value, "cache_clear", lambda: None)()


@contextmanager
def float64_by_default():
    """A process in which torch's default dtype is float64 and nothing has been computed yet."""
    before = torch.get_default_dtype()
    forget()
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(before)
        forget()


@pytest.mark.slow
@pytest.mark.parametrize("name", PANELS)
def test_a_panel_shows_the_same_under_both_defaults(name):
    usual = as_usual(name)
    with float64_by_default():
        other = seen(PANELS[name])
    assert other == usual


def test_every_panel_is_looked_at():
    assert len(list(kinds())) == 23


def test_a_reader_whose_default_is_float64_can_show_networks_of_both_dtypes():
    with float64_by_default():
        for dtype in (torch.float32, torch.float64):
            network = own(dtype)
            panel = AttackPanel({"own": network}, subset(digits(), 200, test_count=20))
            panel.set(attack="FGSM")
            assert "own: " in panel.words
            assert not panel.words.alert
            assert "norms from" in SpectraPanel(network, torch.zeros(1, 1, 8, 8)).words


def test_training():
    def trained():
        panel = TrainingPanel(("batchnorm", "convnorm"), DATA, **SMALL)
        shown = [panel.words, panel.png]
        press(panel, "Start")
        weights = [run.model.state_dict() for run in panel.runs]
        assert {weight.dtype for run in panel.runs for weight in run.model.parameters()} == {torch.float32}
        return [*shown, panel.words, panel.png, panel.history], weights

    single = trained()
    with float64_by_default():
        double = trained()
    assert single[0] == double[0]
    torch.testing.assert_close(single[1], double[1], rtol=0, atol=0)
