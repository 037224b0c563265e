"""The layer factories of the methods, and the functions that read a method's knobs from a network's layers."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any, TypeVar

from torch import Tensor, nn
from torch.nn.utils import parametrize

from convkit.methods.method import KnobValue, MakeLayer, Settings, Shapes
from convkit.models.layers import ConvAndNorm, LayerFactory, Place
from convkit.normalization.convnorm import ConvNorm2d
from convkit.normalization.noisy_affine import NoisyAffine
from convkit.normalization.operator_norm import OperatorNorm
from convkit.normalization.weights import NewtonOrthogonal, WeightStandardization
from convkit.operators.network import naming

Found = TypeVar("Found", bound=nn.Module)
Convolution = nn.Conv1d | nn.Conv2d | nn.Conv3d
CONVOLUTIONS: dict[int, Any] = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
BATCHNORMS: dict[int, Any] = {1: nn.BatchNorm1d, 2: nn.BatchNorm2d, 3: nn.BatchNorm3d}


# ---- layers --------------------------------------------------------------------------------------------------------
def _conv(bias: bool, geometry: Any, place: Place) -> Any:
    """Return a convolution of as many axes as its place has."""
    c_in, c_out, kernel_size, stride, padding, dilation, groups = geometry
    return CONVOLUTIONS[place.axes](c_in, c_out, kernel_size, stride, padding, dilation, groups, bias=bias)


def _gain_at_start(knobs: Settings, place: Place) -> float:
    """Return the factor of a layer's gain at the start: that of ``residual_start`` where it ends a residual block.

    Raises ``ValueError`` for 0 in front of a ReLU, which would have no gradient there: the block would stay at zero.
    """
    start = knobs.get("residual_start", "one")
    if not place.blocks or start == "one":
        return 1.0
    if start == "zero" and place.before:
        raise ValueError(
            "residual_start='zero' needs networks whose blocks end with a normalization, got one with norm_first=True: "
            "in front of a ReLU a gain of zero has no gradient; use 'blocks' or 'one'"
        )
    return 0.0 if start == "zero" else place.blocks**-0.5


def _started(norm: Any, knobs: Settings, place: Place) -> nn.Module:
    """Return the normalization after its gains, 1 so far, have been set to those of the start."""
    nn.init.constant_(norm.weight, _gain_at_start(knobs, place))
    return norm


def _activation_norm(norm: str, channels: int, knobs: Settings, place: Place) -> nn.Module | None:
    """Return the normalization of a convolution's outputs, or ``None`` for none."""
    if norm == "batch":
        return _started(BATCHNORMS[place.axes](channels), knobs, place)
    if norm == "group":
        groups = int(knobs["groups"])
        if channels % groups:
            raise ValueError(
                f"GroupNorm needs groups that divide the channels, got {groups} groups and {channels} "
                "channels; set the knob groups to a divisor of all widths"
            )
        return _started(nn.GroupNorm(groups, channels), knobs, place)
    return None


def layers(norm: str = "", change: Callable[[Convolution, Settings], object] | None = None) -> MakeLayer:
    """Return a maker of layer factories: a convolution, then a normalization of its outputs.

    Args:
        norm: ``"batch"``, ``"group"`` or ``""`` for none; the knob ``batchnorm``, where it is True, wins.
        change: Is called with each new convolution and the knobs, for instance to parametrize its weight.
    """

    def with_knobs(knobs: Settings) -> LayerFactory:
        behind = "batch" if knobs.get("batchnorm") else norm
        if not behind and knobs.get("residual_start", "one") != "one":
            raise ValueError(
                f"residual_start={knobs['residual_start']!r} needs layers with a gain, got layers without a "
                "normalization; use batchnorm=True, or residual_start='one'"
            )

        def conv(*geometry: Any) -> nn.Module:
            *sizes, place = geometry
            made = _conv(not behind, sizes, place)
            if change is not None:
                change(made, knobs)
            return made

        return ConvAndNorm(conv, lambda channels, place: _activation_norm(behind, channels, knobs, place))

    return with_knobs


def sphere_layers(knobs: Settings) -> LayerFactory:
    """Return the layer factory of Ikami et al. 2021: a convolution without bias, then ``NoisyAffine``.

    The paper leaves the start of the gain open. Here the last gain of each residual block starts at 0, or as the knob
    ``residual_start`` says (our variant): with 1, a sum of many blocks is lost in its first steps.
    """

    def conv(*geometry: Any) -> nn.Module:
        *sizes, place = geometry
        return _conv(False, sizes, place)

    def norm(channels: int, place: Place) -> nn.Module:
        share = 1.0 if knobs["noise"] == "constant" else place.depth
        return _started(NoisyAffine(channels, float(knobs["sigma"]), share), knobs, place)

    return ConvAndNorm(conv, norm)


def noise_by_depth(model: nn.Module, shapes: Shapes, x: Tensor, knobs: Settings) -> None:
    """Give the noise the same size in all layers of a network without residual blocks.

    With ``noise="as in W"`` it grows with depth in residual networks alone (eq. 8 of Ikami et al. 2021).
    """
    if knobs["noise"] == "as in W" and not getattr(model, "residual", False):
        for layer in model.modules():
            if isinstance(layer, NoisyAffine):
                layer.depth = 1.0


def convnorm_layers(knobs: Settings) -> LayerFactory:
    """Return the layer factory of Liu et al. 2021: ``ConvNorm2d``, then BatchNorm if the knob ``batchnorm`` is True.

    The paper leaves the start of the affine open. Here it is ``gain`` times the identity, and in the last layer of a
    residual block the last gain, that of BatchNorm or of the affine, is multiplied as the knob ``residual_start`` says
    (our variant): without BatchNorm, a sum of many blocks is lost in its first steps otherwise.
    """
    affine, gain, through = bool(knobs["affine"]), float(knobs["gain"]), bool(knobs["through"])
    behind = "batch" if knobs["batchnorm"] else ""

    def conv(*geometry: Any) -> nn.Module:
        *sizes, place = geometry
        start = gain if behind else gain * _gain_at_start(knobs, replace(place, before=False))
        return ConvNorm2d(*sizes, affine=affine, gain=start, through=through)

    return ConvAndNorm(conv, lambda channels, place: _activation_norm(behind, channels, knobs, place))


def standardize(conv: Convolution, knobs: Settings) -> None:
    """Parametrize a convolution by weight standardization."""
    parametrize.register_parametrization(conv, "weight", WeightStandardization())


def orthogonalize(conv: Convolution, knobs: Settings) -> None:
    """Parametrize a convolution by orthogonal kernel rows, computed by Newton's iteration."""
    parametrize.register_parametrization(conv, "weight", NewtonOrthogonal(groups=conv.groups))


def divide_by_operator_norm(model: nn.Module, shapes: Shapes, x: Tensor, knobs: Settings) -> None:
    """Parametrize every convolution by its kernel over its operator norm, which depends on the size of its input."""
    for name, shape in shapes.items():
        layer = model.get_submodule(name)
        if isinstance(layer, Convolution):
            geometry: Any = (layer.stride, layer.padding, layer.dilation, layer.groups, layer.padding_mode)
            with naming(name):
                parametrize.register_parametrization(layer, "weight", OperatorNorm(shape, *geometry))


# ---- knobs read from a network -------------------------------------------------------------------------------------
def _first(model: nn.Module, kind: type[Found]) -> Found | None:
    return next((module for module in model.modules() if isinstance(module, kind)), None)


def read_groups(model: nn.Module) -> dict[str, KnobValue]:
    """Return the knob ``groups`` of a network with GroupNorm."""
    norm = _first(model, nn.GroupNorm)
    return {"groups": norm.num_groups} if norm else {}


def read_noise(model: nn.Module) -> dict[str, KnobValue]:
    """Return the knob ``sigma`` of a network with ``NoisyAffine``."""
    layer = _first(model, NoisyAffine)
    return {"sigma": layer.sigma} if layer else {}


def read_convnorm(model: nn.Module) -> dict[str, KnobValue]:
    """Return the knobs ``affine`` and ``through`` of a network with ``ConvNorm2d``."""
    layer = _first(model, ConvNorm2d)
    return {"affine": layer.affine_weight is not None, "through": layer.through} if layer else {}


def set_noise(model: nn.Module, knobs: Settings) -> None:
    """Set the noise of every ``NoisyAffine`` to the knob ``sigma``."""
    sigma = float(knobs["sigma"])
    for layer in model.modules():
        if isinstance(layer, NoisyAffine):
            layer.sigma = sigma
