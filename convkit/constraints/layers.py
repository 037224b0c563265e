"""The layers of a model by the names of its input shapes."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn

from convkit.checks import plain
from convkit.operators import ConvOperator


def named_layers(kind: str, model: nn.Module, names: Iterable[str]) -> dict[str, nn.Module]:
    """The layers with these names; ``ValueError`` for none and for a name that the model does not have."""
    modules = dict(model.named_modules(remove_duplicate=False))
    layers = {}
    for name in map(plain, names):  # they go into the hook's state
        if name not in modules:
            raise ValueError(
                f"{kind} needs names of layers of the model, got {name!r}, which {type(model).__name__} does not have; "
                "take shapes from input_shapes(model, x)"
            )
        layers[name] = modules[name]
    if not layers:
        raise ValueError(f"{kind} needs at least one layer, got none; take shapes from input_shapes(model, x)")
    return layers


def layer_operator(name: str, layer: nn.Module, shape: Any) -> ConvOperator:
    """``ConvOperator.from_layer``, whose errors then name the layer."""
    with naming(name):
        return ConvOperator.from_layer(layer, shape)


@contextmanager
def naming(name: str) -> Iterator[None]:
    """Errors of what is done inside name the layer."""
    try:
        yield
    except (TypeError, ValueError) as error:
        raise type(error)(f"layer {name!r}: {error}") from error
