"""Replace the convolutions of an existing network by other layers, keeping their weights."""

import copy
from collections.abc import Callable, Container, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn.utils import parametrize

from convkit.normalization.convnorm import ConvNorm2d
from convkit.normalization.layer_polar import LayerPolar2d
from convkit.operators.dtypes import default_dtype
from convkit.operators.evaluation import evaluation_copy
from convkit.operators.layers import TRANSPOSED

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
BATCHNORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


@dataclass(frozen=True)
class Conversion:
    """A converted copy of a network, and sentences about the layers that were swapped and those that were left.

    >>> Conversion(nn.ReLU(), swapped=("0: Conv2d to ConvNorm2d",), left=())
    1 swapped, 0 left
    0: Conv2d to ConvNorm2d
    """

    model: nn.Module
    swapped: tuple[str, ...]
    left: tuple[str, ...]

    def __repr__(self) -> str:
        return "\n".join([f"{len(self.swapped)} swapped, {len(self.left)} left", *self.swapped, *self.left])


def convert(model: nn.Module, factory: Callable[..., nn.Module], batchnorm: bool = False) -> Conversion:
    """Return a copy of ``model`` whose convolutions are replaced by those of a layer factory, weights kept.

    ``factory(c_in, c_out, kernel_size, stride, padding, dilation, groups, depth=...)`` makes each new layer, where
    ``depth`` is its number divided by the number of layers. Sizes are tuples of one number per axis, so that
    ``len(kernel_size)`` tells a factory whether ``Conv1d``, ``Conv2d`` or ``Conv3d`` is wanted; the factories of the
    methods in ``METHODS`` make all three, except those of ConvNorm, whose layers are for images. The old
    weight goes to the new layer's convolution (through ``right_inverse`` where it is parametrized), the old bias to its
    bias, or to the shift after it in the new layer. With ``batchnorm=True`` each BatchNorm that alone takes the output
    of a swapped layer is removed: its statistics and gains are lost. What is frozen, shared by two layers or watched by
    hooks stays so. ``model`` is not changed; the result lists what was swapped and, with the reason, what was left.

    Left are layers with other padding modes, subclasses, parametrized ones, transposed convolutions, and those that the
    factory cannot make: it raises an error, its layer has no convolution of the same kind and shape, or the new layer
    cannot take the old weight, as weight standardization cannot take rows of one number (the depthwise kernels of
    size 1) or of equal ones (a start at zero). Raises ``ValueError`` where nothing can be swapped, and with
    ``batchnorm=True`` for a network that ``torch.fx`` cannot trace.

    >>> def factory(c_in, c_out, kernel_size, stride, padding, dilation, groups, depth):
    ...     return ConvNorm2d(c_in, c_out, kernel_size, stride, padding, dilation, groups)
    >>> convert(nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU()), factory)
    1 swapped, 0 left
    0: Conv2d to ConvNorm2d
    """
    model = copy.deepcopy(model)
    kinds = (*CONVOLUTIONS, *TRANSPOSED, ConvNorm2d)
    found = {name: module for name, module in model.named_modules() if isinstance(module, kinds)}
    reasons = {name: _reason(layer) for name, layer in found.items()}
    wanted = [name for name in found if not reasons[name]]
    new: dict[nn.Module, nn.Module] = {}
    swapped: dict[str, str] = {}
    cause: Exception | None = None
    for number, name in enumerate(wanted, start=1):
        old: Any = found[name]
        try:
            new[old], words = _made(old, factory, number / len(wanted))
        except Exception as error:  # whatever a factory may raise for sizes that it was not made for
            cause, kind = error, "" if isinstance(error, ValueError) else f"{type(error).__name__}: "
            reasons[name] = f"the factory cannot make it: {kind}{str(error).partition(chr(10))[0]}"
        else:
            swapped[name] = f"{name}: {type(old).__name__} to {words}"
    if not swapped:
        few = [f"{name} ({reason})" for name, reason in reasons.items()][:3]
        more = [f"{len(reasons) - 3} more"] if len(reasons) > 3 else []
        raise ValueError(
            f"convert needs a network with convolutions that the factory can make anew, got {type(model).__name__} "
            f"with {', '.join(few + more) or 'none'}; swap those by hand"
        ) from cause
    for name, norm in (_batchnorms_behind(model, swapped) if batchnorm else {}).items():
        new[norm] = nn.Identity()
        swapped[name] = f"{name}: {type(norm).__name__} left out, with its statistics and gains"
    _tied(new)
    for module in list(model.modules()):
        for child, old in list(module._modules.items()):  # a layer used twice has two names
            if old in new:
                module.register_module(child, new[old])
    left = tuple(f"{name}: left, {reason}" for name, reason in reasons.items() if reason)
    return Conversion(new.get(model, model), tuple(swapped.values()), left)


# ---- private ---------------------------------------------------------------------------------------------------------
def _reason(layer: nn.Module) -> str:
    """Return why a layer is not swapped, and nothing for one that is."""
    if type(layer) not in CONVOLUTIONS:
        return f"it is a {type(layer).__name__}"
    if layer.padding_mode != "zeros":
        return f"its padding mode is {layer.padding_mode!r}"
    return ""


def _made(
    old: nn.Conv1d | nn.Conv2d | nn.Conv3d, factory: Callable[..., nn.Module], depth: float
) -> tuple[nn.Module, str]:
    """Return the factory's layer with the weight and the bias of the old one, and words for it."""
    geometry = (old.kernel_size, old.stride, old.padding, old.dilation, old.groups)
    with default_dtype(old.weight.dtype), torch.device("cpu"):
        layer = factory(old.in_channels, old.out_channels, *geometry, depth=depth).to(old.weight)
    layer.train(old.training)
    for kind in HOOKS:
        getattr(layer, kind).update(getattr(old, kind))
    layer._is_full_backward_hook = old._is_full_backward_hook
    parts = list(layer.modules())
    shape = old.weight.shape
    kinds = (type(old), ConvNorm2d, LayerPolar2d)
    place = next((i for i, m in enumerate(parts) if isinstance(m, kinds) and m.weight.shape == shape), None)
    if place is None:
        raise ValueError(
            f"it needs a {type(old).__name__} with a weight of shape {tuple(shape)}, got {type(layer).__name__} "
            "without one"
        )
    with torch.no_grad():
        if parametrize.is_parametrized(parts[place], "weight"):
            parts[place].weight = old.weight.detach().clone()
        else:
            parts[place].get_parameter("weight").copy_(old.weight)
        with evaluation_copy(parts[place]) as copied:  # a parametrization may step when it is read in training
            weight: Any = copied.weight
            if not (weight.is_meta or weight.isfinite().all()) and old.weight.isfinite().all():
                raise ValueError("its weight would not be finite, since the old one has rows of norm 0")
    for parameter in _of_weight(parts[place]).values():
        parameter.requires_grad_(old.weight.requires_grad)
    words = " and ".join(type(m).__name__.removeprefix("Parametrized") for m in parts if not list(m.children()))
    shifts = [shift for part in parts[place:] if (shift := _shift(part, old.out_channels)) is not None]
    with torch.no_grad():
        for shift in shifts[:1]:
            shift.copy_(torch.zeros_like(shift) if old.bias is None else old.bias)
            shift.requires_grad_(shift.requires_grad and (old.bias is None or old.bias.requires_grad))
    if old.bias is not None and not shifts:
        words += ", which has no bias: the old one is lost"
    return layer, words


def _of_weight(part: nn.Module) -> dict[str, nn.Parameter]:
    """Return the parameters of which a layer's weight is made, by name."""
    names = ("weight", "parametrizations.weight.")
    return {name: p for name, p in part.named_parameters() if name == names[0] or name.startswith(names[1])}


def _tied(layers: Mapping[nn.Module, nn.Module]) -> None:
    """Let new layers share the parameters of their weights where the old ones shared a weight."""
    first: dict[int, nn.Module] = {}
    for old, new in layers.items():
        weight = getattr(old, "weight", None)
        part = next((m for m in new.modules() if _of_weight(m)), None)
        if not isinstance(old, CONVOLUTIONS) or weight is None or part is None:
            continue
        other = first.setdefault(id(weight), part)
        for name, parameter in _of_weight(other).items():
            owner, _, last = name.rpartition(".")
            setattr(part.get_submodule(owner), last, parameter)


def _shift(module: nn.Module, channels: int) -> Tensor | None:
    for name in ("bias", "affine_bias"):
        shift = getattr(module, name, None)
        if isinstance(shift, Tensor) and shift.shape == (channels,):
            return shift
    return None


def _batchnorms_behind(model: nn.Module, names: Container[str]) -> dict[str, nn.Module]:
    """Return the BatchNorms, by name, that alone take the output of one of these layers."""
    tracer = fx.Tracer()
    try:
        graph = tracer.trace(model)
    except Exception as error:  # whatever a forward that depends on its numbers may raise
        raise ValueError(
            f"batchnorm=True needs a network that torch.fx can trace, got {type(model).__name__}, whose trace ends in: "
            f"{error}; convert it without, and replace the BatchNorms by hand"
        ) from error
    found = {}
    for node in graph.nodes:
        users = list(node.users)
        if node.op == "call_module" and node.target in names and len(users) == 1 and users[0].op == "call_module":
            norm = model.get_submodule(str(users[0].target))
            if isinstance(norm, BATCHNORMS):
                found[str(users[0].target)] = norm
    return found
