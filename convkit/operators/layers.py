"""Which layers say by their weight alone what they do: torch's own, and those with a method ``operator``."""

import inspect
from typing import TYPE_CHECKING, Protocol, TypeGuard, runtime_checkable

from torch import nn

from convkit.operators.geometry import Size

if TYPE_CHECKING:
    from convkit.operators.operator import ConvOperator

LAYERS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)
TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
OLD_HOOKS = {  # torch's hooks that compute a weight before each forward pass, and what to use today
    "WeightNorm": "parametrizations.weight_norm",
    "SpectralNorm": "parametrizations.spectral_norm",
    "BasePruningMethod": "prune.remove(layer, 'weight'), which keeps the pruned weight",
}


@runtime_checkable
class HasOperator(Protocol):
    """A layer that is more than a plain convolution and returns its own ``ConvOperator`` for each input size.

    Every function that measures layers asks for it, so that a norm is the norm of what the layer does.
    """

    def operator(self, input_shape: Size) -> "ConvOperator":
        """Return the operator of the layer on inputs of the spatial size ``input_shape``, without its bias."""
        ...


def has_operator(layer: object) -> TypeGuard[HasOperator]:
    """Return whether a layer has a method ``operator``; a submodule or a value of that name does not count."""
    method = getattr(layer, "operator", None)  # isinstance does not see what a compiled module passes on
    return callable(method) and not isinstance(method, nn.Module)


def why_unreadable(layer: object) -> str | None:
    """Return why ``ConvOperator.from_layer`` cannot say what a layer does, with advice; ``None`` where it can."""
    kind = type(layer).__name__
    if has_operator(layer):
        return None
    if not isinstance(layer, LAYERS + TRANSPOSED):
        return (
            "from_layer needs Conv1d, Conv2d, Conv3d, their transposed kinds, Linear or a layer with a method "
            f"operator(input_shape), got {kind}; give the layer such a method"
        )
    if not any(type(layer).forward is known.forward for known in LAYERS + TRANSPOSED):
        return (
            f"from_layer needs a layer that its weight describes, got {kind}, which has a forward of its own; "
            "give it a method operator(input_shape) that returns the ConvOperator of what it does"
        )
    classes = {base.__name__ for hook in layer._forward_pre_hooks.values() for base in inspect.getmro(type(hook))}
    for hook in OLD_HOOKS.keys() & classes:
        return (
            f"from_layer needs a weight that is a parameter or a parametrization, got {kind} with torch's old hook "
            f"{hook}, which leaves the weight of the last forward pass; use torch.nn.utils.{OLD_HOOKS[hook]}"
        )
    return None
