"""The layer factories of the methods, and the functions that read a method's knobs from a network's layers."""

from collections.abc import Callable
from typing import Any, TypeVar

from torch import Tensor, nn
from torch.nn.utils import parametrize

from convkit.methods.method import KnobValue, MakeLayer, Settings, Shapes
from convkit.models.layers import LayerFactory
from convkit.normalization.convnorm import ConvNorm2d
from convkit.normalization.noisy_affine import NoisyAffine2d
from convkit.normalization.operator_norm import OperatorNorm
from convkit.normalization.weights import NewtonOrthogonal, WeightStandardization
from convkit.operators.network import naming

Found = TypeVar("Found", bound=nn.Module)
Convolution = nn.Conv1d | nn.Conv2d | nn.Conv3d
CONVOLUTIONS: dict[int, Any] = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
BATCHNORMS: dict[int, Any] = {1: nn.BatchNorm1d, 2: nn.BatchNorm2d, 3: nn.BatchNorm3d}


# pyright: reportMissingParameterType=false
# the inner functions have the parameters of a layer factory


# ---- layers --------------------------------------------------------------------------------------------------------
def _conv(bias: bool, *args: Any) -> Any:
    """Return a convolution of as many axes as its kernel size names, of two where that is one number."""
    c_in, c_out, kernel_size, stride, padding, dilation, groups = args
    return CONVOLUTIONS[_axes(kernel_size)](c_in, c_out, kernel_size, stride, padding, dilation, groups, bias=bias)


def _axes(kernel_size: Any) -> int:
    return len(kernel_size) if isinstance(kernel_size, tuple) else 2


def _activation_norm(norm: str, channels: int, knobs: Settings, axes: int = 2) -> list[nn.Module]:
    """Return the normalization of a convolution's outputs: a list of one module, or an empty one."""
    if norm == "batch":
        return [BATCHNORMS[axes](channels)]
    if norm == "group":
        groups = int(knobs["groups"])
        if channels % groups:
            raise ValueError(
                f"GroupNorm needs groups that divide the channels, got {groups} groups and {channels} "
                "channels; set the knob groups to a divisor of all widths"
            )
        return [nn.GroupNorm(groups, channels)]
    return []


def layers(norm: str = "", change: Callable[[Convolution, Settings], object] | None = None) -> MakeLayer:
    """Return a maker of layer factories: a convolution, then a normalization of its outputs.

    Args:
        norm: ``"batch"``, ``"group"`` or ``""`` for none; the knob ``batchnorm``, where it is True, wins.
        change: Is called with each new convolution and the knobs, for instance to parametrize its weight.
    """

    def with_knobs(knobs: Settings) -> LayerFactory:
        behind = "batch" if knobs.get("batchnorm") else norm

        def layer(c_in, c_out, kernel_size, stride=1, padding=0, dilation=1, groups=1, depth=1.0) -> nn.Module:
            conv = _conv(not behind, c_in, c_out, kernel_size, stride, padding, dilation, groups)
            if change is not None:
                change(conv, knobs)
            return nn.Sequential(conv, *_activation_norm(behind, c_out, knobs, _axes(kernel_size)))

        return layer

    return with_knobs


def sphere_layers(knobs: Settings) -> LayerFactory:
    """Return the layer factory of Ikami et al. 2022: a convolution without bias, then ``NoisyAffine2d``."""

    def layer(c_in, c_out, kernel_size, stride=1, padding=0, dilation=1, groups=1, depth=1.0) -> nn.Module:
        if _axes(kernel_size) != 2:
            raise ValueError(f"NoisyAffine2d needs a convolution of 2 axes, got one of {_axes(kernel_size)}")
        conv = _conv(False, c_in, c_out, kernel_size, stride, padding, dilation, groups)
        share = 1.0 if knobs["noise"] == "constant" else depth
        return nn.Sequential(conv, NoisyAffine2d(c_out, float(knobs["sigma"]), share))

    return layer


def noise_by_depth(model: nn.Module, shapes: Shapes, x: Tensor, knobs: Settings) -> None:
    """Give the noise the same size in all layers of a network without residual blocks.

    With ``noise="as in W"`` it grows with depth in residual networks alone (eq. 8 of Ikami et al. 2022).
    """
    if knobs["noise"] == "as in W" and not getattr(model, "residual", False):
        for layer in model.modules():
            if isinstance(layer, NoisyAffine2d):
                layer.depth = 1.0


def convnorm_layers(knobs: Settings) -> LayerFactory:
    """Return the layer factory of Liu et al. 2021: ``ConvNorm2d``, then BatchNorm if the knob ``batchnorm`` is True."""
    affine, gain, through = bool(knobs["affine"]), float(knobs["gain"]), bool(knobs["through"])

    def layer(c_in, c_out, kernel_size, stride=1, padding=0, dilation=1, groups=1, depth=1.0) -> nn.Module:
        conv = ConvNorm2d(
            c_in, c_out, kernel_size, stride, padding, dilation, groups, affine=affine, gain=gain, through=through
        )
        return nn.Sequential(conv, *_activation_norm("batch" if knobs["batchnorm"] else "", c_out, knobs))

    return layer


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
    """Return the knob ``sigma`` of a network with ``NoisyAffine2d``."""
    layer = _first(model, NoisyAffine2d)
    return {"sigma": layer.sigma} if layer else {}


def read_convnorm(model: nn.Module) -> dict[str, KnobValue]:
    """Return the knobs ``affine`` and ``through`` of a network with ``ConvNorm2d``."""
    layer = _first(model, ConvNorm2d)
    return {"affine": layer.affine_weight is not None, "through": layer.through} if layer else {}


def set_noise(model: nn.Module, knobs: Settings) -> None:
    """Set the noise of every ``NoisyAffine2d`` to the knob ``sigma``."""
    sigma = float(knobs["sigma"])
    for layer in model.modules():
        if isinstance(layer, NoisyAffine2d):
            layer.sigma = sigma
