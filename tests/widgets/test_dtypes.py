"""Panels state their dtype: words, values, pictures and training are the same whatever torch's default one is."""

import importlib
import pkgutil
import sys
from contextlib import contextmanager

import pytest
import torch

pytest.importorskip("ipywidgets")

import ipywidgets
from torch import nn

from convkit import widgets
from convkit.data import digits, subset
from convkit.widgets import attacks
from convkit.widgets import panel as module
from convkit.widgets.attacks import AttackPanel, two_networks
from convkit.widgets.controls import NumberGrid
from convkit.widgets.panel import Panel
from convkit.widgets.spectra import SpectraPanel
from convkit.widgets.training.panel import TrainingPanel
from convkit.widgets.training.runner import LivePanel
from tests.helpers.training_panels import DATA, SMALL, curves, press

for found in pkgutil.iter_modules(widgets.__path__, "convkit.widgets."):
    importlib.import_module(found.name)
OF_THE_READER = (AttackPanel, SpectraPanel, TrainingPanel)  # these take networks: tests of their own, below


def kinds(panel=Panel):
    """All panels of the kit."""
    for kind in panel.__subclasses__():
        if kind.__module__.startswith("convkit"):
            yield from kinds(kind)
            if "draw" in vars(kind):
                yield kind


@contextmanager
def default(dtype):
    """A process in which torch's default dtype is another one and nothing has been computed yet."""
    for name, loaded in list(sys.modules.items()):
        if name.startswith("convkit."):
            for value in vars(loaded).values():
                getattr(value, "cache_clear", lambda: None)()
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def other_places(control):
    """Values that a reader can give to a control."""
    now = control.value
    if isinstance(control, NumberGrid):
        return [[[tap - 1.5 for tap in row] for row in now]]
    if isinstance(now, bool):
        return [not now]
    if hasattr(control, "options"):
        options = [option[1] if isinstance(option, tuple) else option for option in control.options]
        return [option for option in (*options[:4], options[-1]) if option != now]
    return [control.max] if hasattr(control, "max") else []


def seen(make, dtype):
    """What a panel shows at first and after each move of a control, each from the first state."""
    with default(dtype):
        panel = make()
        shown = [(panel.words, panel.words.alert, panel.png, panel.values)]
        for name, control in panel._controls.items():
            for value in other_places(control):
                panel.reset()
                panel.set(**{name: value})
                shown.append((panel.words, panel.words.alert, panel.png, panel.values))
    return shown


def assert_same(make):
    single, double = seen(make, torch.float32), seen(make, torch.float64)
    for one, two in zip(single, double, strict=True):
        assert one[0] == two[0]
        assert one == two
    assert not any("bug in the panel" in words for words, *_ in single)


# ---- panels ----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("kind", [kind for kind in kinds() if not issubclass(kind, OF_THE_READER)])
def test_a_panel_shows_the_same_under_both_defaults(kind):
    assert_same(kind)


def test_the_check_sees_a_panel_that_depends_on_it():
    class Careless(Panel):
        def controls(self):
            return {"third": ipywidgets.Checkbox(description="a third")}

        def draw(self, figure, third):
            return f"{float(torch.tensor(1.0) / 3)}" if third else "nothing yet"

    with pytest.raises(AssertionError, match=r"0\.3333"):
        assert_same(Careless)


def test_every_panel_is_looked_at():
    names = {kind.__name__ for kind in kinds()} | {kind.__name__ for kind in kinds(LivePanel)}
    assert {"DepthPanel", "MatrixPanel", "FourierPanel", "BoundaryPanel", "BoundsPanel", "ClippingPanel"} <= names
    assert {"ConvNormPanel", "SpherePanel", "DecayPanel", "AttackPanel", "SpectraPanel"} <= names


# ---- panels with networks --------------------------------------------------------------------------------------------
def own(dtype=None):
    """A network of the reader, made in the default dtype unless one is stated."""
    torch.manual_seed(0)
    layers = [nn.Conv2d(1, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(), nn.Flatten(), nn.Linear(6 * 64, 10)]
    return nn.Sequential(*layers).to(dtype)


def test_an_attack_on_networks_of_float32(monkeypatch):
    monkeypatch.setattr(attacks, "MOST_STEPS", 16)
    monkeypatch.setattr(attacks, "TESTED", 10)
    networks = {"one": own(torch.float32), "two": own(torch.float32).eval()}
    assert_same(lambda: AttackPanel(networks, subset(digits(), 200, test_count=20)))


@pytest.mark.slow
def test_the_networks_that_the_attack_panel_trains():
    weights = []
    for dtype in (torch.float32, torch.float64):
        with default(dtype):
            weights.append({name: model.state_dict() for name, model in two_networks().items()})
    for name, state in weights[0].items():
        torch.testing.assert_close(weights[1][name], state, rtol=0, atol=0)


def test_spectra_of_the_kits_own_layers_and_of_networks_of_float32():
    assert_same(SpectraPanel)
    networks = own(torch.float32), own(torch.float32)
    assert_same(lambda: SpectraPanel(networks[0], torch.zeros(1, 1, 8, 8), networks[1]))


def test_a_reader_whose_default_is_float64_can_show_networks_of_both_dtypes():
    with default(torch.float64):
        for dtype in (torch.float32, torch.float64):
            network = own(dtype)
            panel = AttackPanel({"own": network}, subset(digits(), 200, test_count=20))
            panel.set(attack="FGSM")
            assert "own: " in panel.words
            assert not panel.words.alert
            assert "norms from" in SpectraPanel(network, torch.zeros(1, 1, 8, 8)).words


def test_training(monkeypatch):
    monkeypatch.setattr(module, "png_bytes", curves)

    def trained(dtype):
        with default(dtype):
            panel = TrainingPanel(("batchnorm", "convnorm"), DATA, **SMALL)
            shown = [panel.words, panel.png]
            press(panel, "Start")
            for run in panel.runs:
                assert {weight.dtype for weight in run.model.parameters()} == {torch.float32}
            weights = [run.model.state_dict() for run in panel.runs]
            return [*shown, panel.words, panel.png, panel.history], weights

    single, double = trained(torch.float32), trained(torch.float64)
    assert single[0] == double[0]
    torch.testing.assert_close(single[1], double[1], rtol=0, atol=0)
