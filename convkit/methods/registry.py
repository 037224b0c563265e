"""`METHODS`: the registry of the training methods that the kit compares."""

import math
from typing import Any

from torch import nn
from torch.nn.utils import parametrizations

from convkit.checks import Registry
from convkit.methods.hooks import after_each_clip, clip, clip_reshaped, decay, sphere
from convkit.methods.layers import (
    convnorm_layers,
    divide_by_operator_norm,
    layers,
    noise_by_depth,
    orthogonalize,
    read_convnorm,
    read_groups,
    read_noise,
    set_noise,
    sphere_layers,
    standardize,
)
from convkit.methods.lipschitz import NetworkBound, bound_network, read_bound, set_bound, start_orthogonal
from convkit.methods.method import Knob, KnobValue, MakeLayer, Method
from convkit.methods.steps import muon, polar_layers
from convkit.models.activations import MaxMin
from convkit.normalization.convnorm import ConvNorm2d
from convkit.normalization.layer_polar import LayerPolar2d
from convkit.normalization.noisy_affine import NoisyAffine
from convkit.normalization.operator_norm import OperatorNorm
from convkit.normalization.weights import NewtonOrthogonal, WeightStandardization
from convkit.penalties import orthogonality

BatchNorm = nn.modules.batchnorm._BatchNorm
WeightNorm, SpectralNorm = parametrizations._WeightNorm, parametrizations._SpectralNorm  # pyright: ignore


# ---- knobs ---------------------------------------------------------------------------------------------------------
def _knobs(lr: float = 0.1, weight_decay: float = 0.0, /, **own: Knob) -> dict[str, Knob]:
    return {
        "lr": Knob(lr, "learning rate", 1e-6, 10),
        "weight_decay": Knob(weight_decay, "weight decay", 0, 1),
        "momentum": Knob(0.9, "momentum", 0, 0.999),
        **own,
    }


def _with_batchnorm(on: bool) -> Knob:
    return Knob(on, "BatchNorm behind each convolution", choices=(True, False), live=False)


def _residual_start(value: str) -> Knob:
    return Knob(value, "last gain of a block at the start", choices=("zero", "blocks", "one"), live=False)


MOMENTUM = Knob(0.95, "momentum", 0, 0.999)
GROUPS = Knob(16, "groups of channels", 1, 4096, live=False)
SIGMA = Knob(0.2, "noise σ", 0, 5)
NOISE = Knob("as in W", "noise over depth", choices=("as in W", "constant", "linear"), live=False)
RADIUS = Knob(2**0.5, "norm of a row", 1e-3, 1e3)
BOUND = Knob(1.0, "bound of the norm", 1e-3, 1e3)
EVERY = Knob(100, "steps between two clips", 1, 10**9, live=False)
_CONVNORM = {
    "affine": Knob(True, "learned affine kernel", choices=(True, False), live=False),
    "through": Knob(False, "gradient through the normalization", choices=(True, False), live=False),
}
_ONE = {"residual_start": _residual_start("one")}
_CHOOSE = {"batchnorm": _with_batchnorm(True), **_ONE}
_DECAY = {
    "beta": Knob(1e-3, "strength β", 0, 10),
    "smoothing": Knob(0.5, "smoothing of the norm's gradient", 0, 0.999, live=False),
    "mean": Knob(
        False,
        "over the layers",
        choices=(True, False),
        live=False,
        options=("mean, as printed", "sum, as the authors ran it"),
    ),
    **_CHOOSE,
}
_SPHERE = {"noise": NOISE, "residual_start": _residual_start("zero")}
_BATCH = {"layers": (BatchNorm,)}
_CHOICE = {"optional": {"batchnorm": BatchNorm}}
_GROUP = {"layers": (nn.GroupNorm,), "read": read_groups}
_NOISE = {"layers": (NoisyAffine,), "read": read_noise, "steer": set_noise, "finish": noise_by_depth}
_FRAMES = {"layers": (ConvNorm2d,), "read": read_convnorm, **_CHOICE}
_CLIP = {**_CHOICE, "unsettles": after_each_clip}

METHODS: Registry[Method] = Registry("METHODS")
"""The training methods by name. Letters name the papers: C is Liu et al. 2021, L Liang & Huang 2021, S Sedghi et al.
2019, W Ikami et al. 2021.

What defines a method has the value of its paper: W's radius and 16 groups, a clip every 100 steps as in S, L's
smoothing. Learning rates, weight decay and strengths are the kit's own, chosen for small networks on small data; weight
decay is 0 except in ``weight_decay``. The papers used other values, which can be given as ``knobs``:

- C: learning rate 0.1 (ONI: 0.01) and weight decay 1e-4 in all methods; here ConvNorm without BatchNorm has 0.02;
- W: 0.1 and 1e-3 for the nine layers, 0.2 and 1e-3 for ResNet-110, 0.2 and 5e-3 for WRN-28-10;
- L: 0.01, with weight decay, or the strength of norm decay, of 1e-5, 1e-4, 1e-3 or 1e-2;
- OCNN in the code of C's authors: strength 1e-3, on eleven layers that the code names; here 0.1, on all of them.

C and W leave open how the gains of their layers start. In residual networks the kit starts the last gain of each block
as the knob ``residual_start`` says, which is our variant: at 0 (``"zero"``), 1 / sqrt(number of blocks) (``"blocks"``)
or 1 (``"one"``), times ``gain`` for ConvNorm. The default is ``"zero"`` where no BatchNorm bounds the sum of the
blocks, since with 1 the first steps of ResNet-110 and the like already lose the network, and ``"one"`` elsewhere. The
knob acts in ``network`` alone, on networks of ``MODELS`` whose layers have a gain (ConvNorm has none with neither
affine nor BatchNorm); ``fit`` does not read it from the layers.
"""


def _method(name: str, words: str, source: str, layer: MakeLayer, knobs: dict[str, Knob], **parts: Any) -> None:
    METHODS.register(name, Method(name, words, source, layer, knobs, **parts))


_method("plain", "no normalization", "", layers(), _knobs())
_method("weight_decay", "BatchNorm and weight decay", "L", layers("batch"), _knobs(0.1, 1e-3, **_ONE), **_BATCH)
_method("batchnorm", "BatchNorm", "Ioffe & Szegedy 2015", layers("batch"), _knobs(**_ONE), **_BATCH, short="BN")
_method("groupnorm", "GroupNorm", "Wu & He 2018", layers("group"), _knobs(groups=GROUPS, **_ONE), **_GROUP, short="GN")
_method(
    "weight_standardization",
    "weight standardization",
    "Qiao et al. 2019",
    layers("", standardize),
    _knobs(),
    layers=(WeightStandardization,),
    short="WS",
)
_method(
    "weight_standardization+batchnorm",
    "weight standardization and BatchNorm",
    "Qiao et al. 2019",
    layers("batch", standardize),
    _knobs(**_ONE),
    layers=(WeightStandardization, BatchNorm),
    short="WS+BN",
)
_method(
    "weight_standardization+groupnorm",
    "weight standardization and GroupNorm",
    "Qiao et al. 2019",
    layers("group", standardize),
    _knobs(groups=GROUPS, **_ONE),
    **_GROUP | {"layers": (WeightStandardization, nn.GroupNorm)},
    short="WS+GN",
)
_method(
    "weight_norm",
    "weight norm",
    "Salimans & Kingma 2016",
    layers("", lambda conv, _: parametrizations.weight_norm(conv)),
    _knobs(batchnorm=_with_batchnorm(False)),
    layers=(WeightNorm,),
    **_CHOICE,
    short="WN",
)
_method(
    "spectral_norm",
    "norm of the reshaped kernel divided out",
    "Miyato et al. 2018",
    layers("", lambda conv, _: parametrizations.spectral_norm(conv)),
    _knobs(**_CHOOSE),
    layers=(SpectralNorm,),
    **_CHOICE,
    short="SN",
)
_method(
    "operator_norm",
    "operator norm divided out",
    "the true norm in place of the reshaped kernel's",
    layers(),
    _knobs(**_CHOOSE),
    layers=(OperatorNorm,),
    finish=divide_by_operator_norm,
    **_CHOICE,
)
_method(
    "lipschitz",
    "Lipschitz constant bounded: true norms divided out, MaxMin",
    "Tsuzuku et al. 2018; Anil et al. 2019",
    layers("", start_orthogonal),
    _knobs(0.02, bound=Knob(5.0, "bound of the network", 1e-3, 1e3)),
    layers=(OperatorNorm, NetworkBound),
    activation=MaxMin,
    read=read_bound,
    steer=set_bound,
    finish=bound_network,
)
_method(
    "oni",
    "orthogonal rows by Newton's iteration",
    "Huang et al. 2020",
    layers("", orthogonalize),
    _knobs(0.01, batchnorm=_with_batchnorm(False)),
    layers=(NewtonOrthogonal,),
    **_CHOICE,
    short="ONI",
)
_method(
    "ocnn",
    "penalty for rows that are not orthogonal",
    "Wang et al. 2020",
    layers(),
    _knobs(beta=Knob(0.1, "strength of the penalty", 0, 1e3), **_CHOOSE),
    penalty=lambda model, shapes, knobs: float(knobs["beta"]) * orthogonality(model),
    **_CHOICE,
    short="OCNN",
)
_method(
    "convnorm",
    "ConvNorm",
    "C",
    convnorm_layers,
    _knobs(0.02, gain=Knob(2**0.5, "gain at the start", 1e-3, 1e3, live=False), **_CONVNORM)
    | {"batchnorm": _with_batchnorm(False), "residual_start": _residual_start("zero")},
    **_FRAMES,
)
_method(
    "convnorm+batchnorm",
    "ConvNorm and BatchNorm",
    "C",
    convnorm_layers,
    _knobs(gain=Knob(1.0, "gain at the start", 1e-3, 1e3, live=False), **_CONVNORM, **_CHOOSE),
    **_FRAMES,
)
_method(
    "sphere",
    "centered sphere with noise",
    "W",
    sphere_layers,
    _knobs(radius=RADIUS, sigma=SIGMA, **_SPHERE),
    constrain=sphere(True, True),
    **_NOISE,
)
_method(
    "sphere_without_noise",
    "centered sphere",
    "W",
    sphere_layers,
    _knobs(radius=RADIUS, sigma=Knob(0.0, "noise σ", 0, 5), **_SPHERE),
    constrain=sphere(True, True),
    **_NOISE,
)
_method(
    "sphere_only",
    "sphere, not centered",
    "W",
    sphere_layers,
    _knobs(radius=RADIUS, sigma=SIGMA, **_SPHERE),
    constrain=sphere(False, True),
    **_NOISE,
)
_method(
    "centre_only",
    "centered, any norm",
    "W",
    sphere_layers,
    _knobs(sigma=SIGMA, **_SPHERE),
    constrain=sphere(True, False),
    **_NOISE,
)
_method(
    "norm_clip",
    "BatchNorm, operator norm clipped",
    "S",
    layers(),
    _knobs(bound=BOUND, every=EVERY, rounds=Knob(1, "rounds of clip and crop", 1, 100, live=False), **_CHOOSE),
    constrain=clip,
    **_CLIP,
)
_method(
    "reshaped_clip",
    "BatchNorm, reshaped kernel clipped",
    "S",
    layers(),
    _knobs(bound=BOUND, every=EVERY, **_CHOOSE),
    constrain=clip_reshaped,
    **_CLIP,
)
_method("norm_decay_l1", "BatchNorm, l1 norm decay", "L", layers(), _knobs(**_DECAY), constrain=decay(1), **_CHOICE)
_method(
    "norm_decay_linf",
    "BatchNorm, l∞ norm decay",
    "L",
    layers(),
    _knobs(**_DECAY),
    constrain=decay(math.inf),
    **_CHOICE,
)


_method(
    "muon",
    "Muon on the flattened kernels",
    "Jordan et al. 2024",
    layers(),
    _knobs(0.05, batchnorm=_with_batchnorm(False)) | {"momentum": MOMENTUM},
    optimizer=muon(flattened=True),
    **_CHOICE,
)
_method(
    "conv_muon",
    "Muon in the true operator norm",
    "",
    layers(),
    _knobs(0.15, batchnorm=_with_batchnorm(False)) | {"momentum": MOMENTUM},
    optimizer=muon(flattened=False),
    **_CHOICE,
)
_method(
    "layer_polar",
    "polar factor of the whole layer",
    "C, section 5",
    polar_layers,
    _knobs(0.05, batchnorm=_with_batchnorm(False)),
    layers=(LayerPolar2d,),
    **_CHOICE,
)


def get_method(name: str | Method) -> Method:
    """Return the method of this name, or the method itself.

    Raises ``UnknownNameError``, a ``ValueError`` that holds the nearest names, for an unknown name.
    """
    return name if isinstance(name, Method) else METHODS[name]


def read_knobs(model: nn.Module, method: Method) -> dict[str, KnobValue]:
    """Return the knobs that shaped a network of this method, read from its layers.

    Raises ``ValueError`` for a network that lacks layers of the method or has those of another method.
    """
    kinds = {kind for one in (method, *METHODS.values()) for kind in (*one.layers, *one.optional.values())}
    found = {kind for kind in kinds if any(isinstance(module, kind) for module in model.modules())}
    needed, allowed = set(method.layers), {*method.layers, *method.optional.values()}
    if not needed <= found <= allowed:
        lacking = ", ".join(sorted(_word(kind) for kind in needed - found))
        foreign = ", ".join(sorted(_word(kind) for kind in found - allowed))
        got = " and ".join([*([f"without {lacking}"] if lacking else []), *([f"with {foreign}"] if foreign else [])])
        raise ValueError(
            f"{method.name} needs a network with {', '.join(map(_word, method.layers)) or 'no normalization'}, got one "
            f"{got}; make it by network(model, data, {method.name!r})"
        )
    chosen = {name: kind in found for name, kind in method.optional.items()}
    return {**chosen, **(method.read(model) if method.read else {})}


def _word(kind: type[nn.Module]) -> str:
    """Return the name of a class of layers as an error shows it."""
    return kind.__name__.strip("_")
