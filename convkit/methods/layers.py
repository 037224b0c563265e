"""The layers of the methods: what the knobs of each make of a convolution, and how a network shows them."""

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from torch import nn
from torch.nn.utils import parametrize

from convkit.methods.method import Layer, Shapes
from convkit.normalization.convnorm import ConvNorm2d
from convkit.normalization.noisy_affine import NoisyAffine2d
from convkit.normalization.weights import NewtonOrthogonal, OperatorNorm, WeightStandardization

Found = TypeVar("Found", bound=nn.Module)


# ---- layers --------------------------------------------------------------------------------------------------------
def _conv(bias: bool, *args: Any) -> nn.Conv2d:
    c_in, c_out, kernel_size, stride, padding, dilation, groups = args
    return nn.Conv2d(c_in, c_out, kernel_size, stride, padding, dilation, groups, bias=bias)


def _behind(norm: str, channels: int, knobs: Mapping[str, Any]) -> list[nn.Module]:
    """The normalization of activations behind a convolution: a list of one module, or none."""
    if norm == "batch":
        return [nn.BatchNorm2d(channels)]
    if norm == "group":
        if channels % knobs["groups"]:
            raise ValueError(
                f"GroupNorm needs groups that divide the channels, got {knobs['groups']} groups and {channels} "
                "channels; set the knob groups to a divisor of all widths"
            )
        return [nn.GroupNorm(knobs["groups"], channels)]
    return []


def layers(norm: str = "", change: Callable[[nn.Conv2d, Mapping[str, Any]], Any] | None = None) -> Any:
    """A maker of layer factories: a convolution, its weight parametrized by ``change``, then a normalization."""

    def with_knobs(knobs: Mapping[str, Any]) -> Layer:
        behind = "batch" if knobs.get("batchnorm") else norm

        def layer(c_in, c_out, kernel_size, stride=1, padding=0, dilation=1, groups=1, depth=1.0) -> nn.Module:
            conv = _conv(not behind, c_in, c_out, kernel_size, stride, padding, dilation, groups)
            if change is not None:
                change(conv, knobs)
            return nn.Sequential(conv, *_behind(behind, c_out, knobs))

        return layer

    return with_knobs


def sphere_layers(knobs: Mapping[str, Any]) -> Layer:
    def layer(c_in, c_out, kernel_size, stride=1, padding=0, dilation=1, groups=1, depth=1.0) -> nn.Module:
        conv = _conv(False, c_in, c_out, kernel_size, stride, padding, dilation, groups)
        share = 1.0 if knobs["noise"] == "constant" else depth
        return nn.Sequential(conv, NoisyAffine2d(c_out, knobs["sigma"], share))

    return layer


def noise_by_depth(model: nn.Module, shapes: Shapes, knobs: Mapping[str, Any]) -> None:
    """W's noise grows with depth in residual networks alone (eq. 8); in others it is the same everywhere."""
    if knobs["noise"] == "as in W" and not getattr(model, "residual", False):
        for layer in model.modules():
            if isinstance(layer, NoisyAffine2d):
                layer.depth = 1.0


def convnorm_layers(knobs: Mapping[str, Any]) -> Layer:
    def layer(c_in, c_out, kernel_size, stride=1, padding=0, dilation=1, groups=1, depth=1.0) -> nn.Module:
        options = {"affine": knobs["affine"], "gain": knobs["gain"], "through": knobs["through"]}
        conv = ConvNorm2d(c_in, c_out, kernel_size, stride, padding, dilation, groups, **options)
        return nn.Sequential(conv, *_behind("batch" if knobs["batchnorm"] else "", c_out, knobs))

    return layer


def standardized(conv: nn.Conv2d, knobs: Mapping[str, Any]) -> None:
    parametrize.register_parametrization(conv, "weight", WeightStandardization())


def newton(conv: nn.Conv2d, knobs: Mapping[str, Any]) -> None:
    parametrize.register_parametrization(conv, "weight", NewtonOrthogonal(groups=conv.groups))


def bounded(model: nn.Module, shapes: Shapes, knobs: Mapping[str, Any]) -> None:
    """The true operator norm of every convolution, which needs the size of its input."""
    for name, shape in shapes.items():
        layer = model.get_submodule(name)
        if isinstance(layer, nn.Conv2d):
            geometry: Any = (layer.stride, layer.padding, layer.dilation, layer.groups, layer.padding_mode)
            parametrize.register_parametrization(layer, "weight", OperatorNorm(shape, *geometry))


# ---- what a finished network shows ---------------------------------------------------------------------------------
def _first(model: nn.Module, kind: type[Found]) -> Found | None:
    return next((module for module in model.modules() if isinstance(module, kind)), None)


def read_groups(model: nn.Module) -> dict[str, Any]:
    norm = _first(model, nn.GroupNorm)
    return {"groups": norm.num_groups} if norm else {}


def read_noise(model: nn.Module) -> dict[str, Any]:
    layer = _first(model, NoisyAffine2d)
    return {"sigma": layer.sigma} if layer else {}


def read_convnorm(model: nn.Module) -> dict[str, Any]:
    layer = _first(model, ConvNorm2d)
    return {"affine": layer.affine_weight is not None, "through": layer.through} if layer else {}


def set_noise(model: nn.Module, knobs: Mapping[str, Any]) -> None:
    for layer in model.modules():
        if isinstance(layer, NoisyAffine2d):
            layer.sigma = knobs["sigma"]
