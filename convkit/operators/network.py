"""The convolution and linear layers of a network: input sizes and operators, by the layer's name."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from convkit.checks import plain
from convkit.operators.evaluation import apart, evaluation_copy
from convkit.operators.geometry import NoFourierBlocks, Size
from convkit.operators.operator import LAYERS, TRANSPOSED, ConvOperator, has_operator


def named_layers(kind: str, model: nn.Module, names: Iterable[str]) -> dict[str, nn.Module]:
    """Return the layers with these names; raise ``ValueError`` for no names and for names that the model lacks."""
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


def layer_operator(name: str, layer: nn.Module, shape: Size) -> ConvOperator:
    """Return ``ConvOperator.from_layer(layer, shape)``; its errors name the layer."""
    with naming(name):
        return ConvOperator.from_layer(layer, shape)


@contextmanager
def naming(name: str) -> Iterator[None]:
    """Context manager in which a ``TypeError`` or ``ValueError`` becomes a ``ValueError`` that names the layer.

    ``NoFourierBlocks`` stays what it is.
    """
    try:
        yield
    except (TypeError, ValueError) as error:
        kind = NoFourierBlocks if isinstance(error, NoFourierBlocks) else ValueError
        raise kind(f"layer {name!r}: {error}") from error


def input_shapes(model: nn.Module, x: Tensor) -> dict[str, tuple[int, ...]]:
    """Return the spatial input size of each convolution and linear layer that ``model(x)`` reaches, by its name.

    Found by one forward pass of a copy in evaluation mode, without gradients; the model is left as it was. A linear
    layer on ``(batch, features)`` has size ``(1, 1)``, on ``(batch, positions, features)`` the size ``(positions,)``.
    Raises ``ValueError`` for a model without such layers and for a layer that is called on two sizes.

    >>> model = nn.Sequential(nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.Flatten(), nn.Linear(8 * 4 * 4, 10))
    >>> input_shapes(model, torch.zeros(1, 3, 8, 8))
    {'0': (8, 8), '2': (1, 1)}
    """
    if not any(_layers(model)):
        raise ValueError(
            f"needed a model with convolutions or linear layers, got {type(model).__name__} without any; give its "
            "layers a method operator(input_shape)"
        )
    shapes: dict[str, tuple[int, ...]] = {}

    def watched(name: str, layer: Any) -> Callable[..., Any]:
        forward = layer.forward

        def watching(*args: Any, **kwargs: Any) -> Any:
            seen = tuple((args[0] if args else next(iter(kwargs.values()))).shape)
            if isinstance(layer, nn.Linear):
                size = seen[1:-1] or (1, 1)
            else:  # a convolution takes inputs without a batch, too
                size = seen[2:] if has_operator(layer) else seen[2 - layer.weight.ndim :]
            if shapes.setdefault(name, size) != size:
                raise ValueError(
                    f"layer {name!r} meets inputs of sizes {shapes[name]} and {size}, and its norm depends on the "
                    "size; make its operators one by one with ConvOperator.from_layer"
                )
            return forward(*args, **kwargs)

        return watching

    with evaluation_copy(model, x, apart) as copy, torch.no_grad():
        for name, layer in _layers(copy):
            layer.forward = watched(name, layer)
        copy(x.clone())  # a first step may be in place
        for _, layer in _layers(copy):
            del layer.forward  # it knows the layer, which would wait for the garbage collector with its weight
    return shapes


def conv_operators(model: nn.Module, x: Tensor) -> dict[str, ConvOperator]:
    """Return the operator of each convolution and linear layer that ``model(x)`` reaches, by the layer's name.

    The weights are those of evaluation mode, with gradients. Raises ``ValueError`` for a model without such layers,
    and with the layer's name for a layer that is called on two sizes or has no operator (transposed, reflect,
    replicate).

    >>> model = nn.Sequential(nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.Flatten(), nn.Linear(8 * 4 * 4, 10))
    >>> {name: A.out_shape for name, A in conv_operators(model, torch.zeros(1, 3, 8, 8)).items()}
    {'0': (8, 4, 4), '2': (10, 1, 1)}
    """
    shapes, operators = input_shapes(model, x), {}
    with evaluation_copy(model) as copy:  # a parametrized weight may take a step when it is read in training mode
        for name, shape in shapes.items():
            operators[name] = layer_operator(name, copy.get_submodule(name), shape)
    return operators


def _layers(model: nn.Module) -> Iterator[tuple[str, Any]]:
    inside = None  # the layer that speaks for all that it is made of
    for name, module in model.named_modules():
        if inside is not None and name.startswith(inside):
            continue
        speaks = has_operator(module)
        if speaks:
            inside = f"{name}." if name else ""
        if speaks or isinstance(module, LAYERS + TRANSPOSED):
            yield name, module
