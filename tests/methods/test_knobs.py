"""Knobs that may change while a network trains have an effect; those that shaped it are read from its layers."""

import copy

import pytest
import torch
from torch import nn

from convkit.constraints.handle import Handle
from convkit.data import digits, subset
from convkit.methods.build import network
from convkit.methods.method import Knob, Method
from convkit.methods.registry import METHODS
from convkit.training.loop import fit
from tests.helpers.refusals import refused
from tests.helpers.unchanged import unchanged

pytestmark = pytest.mark.slow

DATA = subset(digits(), 60)
WIDTHS = {"widths": (4, 6, 8)}
MOVED = {  # another place for each knob that may change on the way
    **{"lr": 0.03, "weight_decay": 0.3, "momentum": 0.1, "sigma": 1.5, "radius": 3.0, "bound": 0.2, "beta": 2.0},
    **{"factor": 0.5, "tilt": 2.0},
}


class Shrink(Handle):
    """After each step every weight of a convolution is multiplied by ``factor``."""

    kind, live = "shrink", ("factor",)

    def __init__(self, optimizer, weights, factor):
        self.factor, self._weights = factor, weights
        super().__init__(optimizer, weights, weights)

    def _apply(self, args, kwargs):
        for weight in self._weights.values():
            weight.mul_(self.factor)


class Tilt(nn.Module):
    def __init__(self):
        super().__init__()
        self.tilt = 1.0

    def forward(self, x):
        return x * self.tilt


def own_layer(knobs):
    def layer(c_in, c_out, kernel_size, stride=1, padding=0, dilation=1, groups=1, depth=1.0):
        return nn.Sequential(nn.Conv2d(c_in, c_out, kernel_size, stride, padding, dilation, groups), Tilt())

    return layer


def shrink(optimizer, model, shapes, knobs):
    weights = {name: m.weight for name, m in model.named_modules() if isinstance(m, nn.Conv2d)}
    return Shrink(optimizer, weights, knobs["factor"])


def tilt(model, knobs):
    for module in model.modules():
        if isinstance(module, Tilt):
            module.tilt = knobs["tilt"]


OWN = Method(
    "own",
    "shrinks and tilts",
    "this test",
    own_layer,
    {
        **{name: METHODS["plain"].knobs[name] for name in ("lr", "weight_decay", "momentum")},
        **{"factor": Knob(0.9, "factor"), "tilt": Knob(1.0, "tilt")},
    },
    layers=(Tilt,),
    constrain=shrink,
    steer=tilt,
)
ALL = {**METHODS, "own": OWN}
LIVE = [(name, knob) for name, method in ALL.items() for knob, what in method.knobs.items() if what.live]


@pytest.fixture(autouse=True)
def registered(monkeypatch):
    monkeypatch.setattr(METHODS, "_entries", dict(METHODS._entries))
    METHODS.register("own", OWN)


def made(name, **knobs):
    return network("cnn9", DATA, name, knobs=knobs, **WIDTHS)


def weights_after(model, name, moved):
    fixed = {"every": 1} if "every" in METHODS[name].knobs else {}
    knobs = dict(fixed)
    for record in fit(model, DATA, name, steps=3, batch_size=20, schedule="constant", knobs=knobs):
        knobs |= moved if record.step == 1 else {}
    return torch.cat([p.detach().flatten() for p in model.parameters()])


@pytest.fixture(scope="module")
def unmoved():
    return {}


@pytest.mark.parametrize("name, knob", LIVE)
def test_every_knob_that_may_change_while_a_network_trains_changes_it(name, knob, unmoved):
    start = made(name, **({"groups": 2} if "groups" in METHODS[name].knobs else {}))
    if name not in unmoved:
        unmoved[name] = weights_after(copy.deepcopy(start), name, {})
    assert not torch.equal(weights_after(start, name, {knob: MOVED[knob]}), unmoved[name])


# ---- a network shows its method ------------------------------------------------------------------------------------
WRAPS = {
    "itself": lambda net: net,
    "in a Sequential": lambda net: nn.Sequential(net),
    "its steps in a Sequential": lambda net: nn.Sequential(*net.children()),
    "a copy": copy.deepcopy,
}
ALIKE = [  # methods whose networks have the same kinds of layers: they differ in what acts on them
    {"plain", "muon", "conv_muon"},
    {"weight_decay", "batchnorm", "ocnn", "norm_clip", "reshaped_clip", "norm_decay_l1", "norm_decay_linf"},
    {"sphere", "sphere_without_noise", "sphere_only", "centre_only"},
    {"convnorm", "convnorm+batchnorm"},
]


@pytest.mark.parametrize("name", [name for name in METHODS if name != "groupnorm"])
def test_a_network_is_known_by_its_layers_however_it_is_wrapped(name):
    net = made(name, **({"groups": 2} if "groups" in METHODS[name].knobs else {}))
    fits = next((kind for kind in ALIKE if name in kind), {name})
    for wrap in WRAPS.values():
        wrapped = wrap(net)
        next(fit(wrapped, DATA, name, steps=1, batch_size=20))
        with unchanged(wrapped):
            for other in {"plain", "sphere", "batchnorm", "oni", "convnorm", "own"} - fits:
                words = f"{other} needs a network with .* make it by network"
                if (name, other) == ("batchnorm", "sphere"):
                    words = "sphere needs a network with NoisyAffine, got one without .* and with BatchNorm"
                refused(words, fit, wrapped, DATA, other, steps=1, batch_size=20)


@pytest.mark.parametrize(
    "name, knobs",
    [
        ("groupnorm", {"groups": 2}),
        ("sphere", {"sigma": 0.75}),
        ("convnorm", {"affine": False, "through": True, "batchnorm": True}),
        ("oni", {"batchnorm": True}),
        ("spectral_norm", {"batchnorm": False}),
    ],
)
def test_knobs_that_shaped_a_network_are_read_from_its_layers(name, knobs):
    fitted = {}

    def constrain(optimizer, model, shapes, settings):
        fitted.update(settings)

    method = METHODS[name]
    spy = Method(**{**vars(method), "constrain": constrain})
    next(fit(nn.Sequential(made(name, **knobs)), DATA, spy, steps=1, batch_size=20))
    assert {knob: fitted[knob] for knob in knobs} == knobs
