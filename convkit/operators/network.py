"""The convolutions and linear maps of a network: input sizes and operators, by the name of the layer."""

import contextlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Literal

import torch
from torch import Tensor, nn

from convkit.checks import described, plain
from convkit.operators.calls import Missing, Recorder, Row
from convkit.operators.dtypes import HALF, as_input, check_loaded, widened
from convkit.operators.evaluation import apart, evaluation_copy
from convkit.operators.geometry import NoFourierBlocks, Size
from convkit.operators.operator import ConvOperator


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
    """Return the spatial input size of each layer that ``model(x)`` reaches and ``from_layer`` takes, by its name.

    Found by one forward pass of a copy in evaluation mode, without gradients; the model is left as it was. A linear
    layer on ``(batch, features)`` has size ``(1, 1)``, on ``(batch, positions, features)`` the size ``(positions,)``.
    Weights that are used in other ways have no place here: see ``conv_operators``. Raises ``ValueError`` for a model
    without such layers and for a convolution that is called on two sizes.

    >>> model = nn.Sequential(nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.Flatten(), nn.Linear(8 * 4 * 4, 10))
    >>> input_shapes(model, torch.zeros(1, 3, 8, 8))
    {'0': (8, 8), '2': (1, 1)}
    """
    shapes: dict[str, tuple[int, ...]] = {}
    rows, _, _ = _recorded(model, x)
    for row in rows.values():
        if row.operator is None and shapes.setdefault(row.layer, row.size) != row.size:
            raise ValueError(
                f"layer {row.layer!r} meets inputs of sizes {shapes[row.layer]} and {row.size}, and its norm depends "
                "on the size; make its operators one by one with ConvOperator.from_layer"
            )
    if not shapes:
        raise _nothing(model)
    return shapes


class Operators(dict[str, ConvOperator]):
    """Operators by name, and in ``missing`` the parts of the network that have none: ``(name, reason)``."""

    missing: list[Missing]


def conv_operators(model: nn.Module, x: Tensor, missing: Literal["raise", "note"] = "raise") -> Operators:
    """Return the operator of each convolution and linear map that ``model(x)`` computes, in the order of the run.

    A layer whose forward is torch's own, or that has a method ``operator``, is read by ``ConvOperator.from_layer``,
    with the weights of evaluation mode and with gradients. Elsewhere the calls that run are recorded: ``F.conv1d``,
    ``F.conv_transpose1d`` and so on (with an ``F.pad`` just before them), ``F.linear``, products such as ``x @ w`` with
    one matrix of weights, and attention. A recorded kernel that is a parameter or a part of one, such as the three of
    attention's ``in_proj_weight``, has its gradient; one that was computed during the run is a constant.

    The name is that of the innermost module, with ``#2`` for a second kernel in it, ``@HxW`` for a second size of the
    same convolution, and ``.q``, ``.k``, ``.v``, ``.out`` for attention. Weights in half precision are measured in
    float32. What ``torch.compile`` made of a network is read as it was written.

    Args:
        model: The network.
        x: A batch of inputs; floating-point ones are converted to the dtype of the weights.
        missing: What becomes of weights that run and that no operator describes (recurrent or quantized ones, those
            that are multiplied in another way): ``"raise"`` a ``ValueError`` that names the first, or ``"note"`` them
            in ``operators.missing``, where layers that ``model(x)`` does not reach stand, too.

    Raises ``ValueError`` for a model without convolutions and linear maps, and for weights that are not finite.

    >>> model = nn.Sequential(nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.Flatten(), nn.Linear(8 * 4 * 4, 10))
    >>> {name: A.out_shape for name, A in conv_operators(model, torch.zeros(1, 3, 8, 8)).items()}
    {'0': (8, 4, 4), '2': (10, 1, 1)}
    """
    operators, _ = read_network(model, x, missing)
    return operators


def read_network(model: nn.Module, x: Tensor, missing: str) -> tuple[Operators, dict[str, Row]]:
    """Return ``conv_operators(model, x, missing)`` and what each of them is, by the same names."""
    if missing not in ("raise", "note"):
        raise ValueError(f"missing must be 'raise' or 'note', got {missing!r}")
    rows, unread, idle = _recorded(model, x)
    operators = Operators()
    with evaluation_copy(model, parameter=widened) as copy:  # a weight may take a step when it is read
        for name, row in rows.items():
            if row.operator is not None:
                operators[name] = row.operator
                continue
            try:
                operators[name] = layer_operator(name, copy.get_submodule(row.layer), row.size)
            except ValueError as error:
                if missing == "raise" or "finite" in str(error):
                    raise
                unread.append(Missing(name, str(error)))
    if missing == "raise" and unread:
        name, reason = unread[0]
        raise ValueError(f"layer {name!r}: {reason}; missing='note' leaves it out and says so")
    operators.missing = unread + idle
    if not (operators or unread):
        raise _nothing(model)
    return operators, rows


# ---- private -------------------------------------------------------------------------------------------------------
def _recorded(model: nn.Module, x: Tensor) -> tuple[dict[str, Row], list[Missing], list[Missing]]:
    """Run a copy of the network once; return what it multiplies by its weights, and what else has weights.

    Of the latter first what ran, then what did not.
    """
    check_loaded(model)
    if not isinstance(x, Tensor):
        raise TypeError(
            f"needed a batch of inputs as one tensor, got {described(x)}; wrap a network of several inputs in a module "
            "that takes one and knows the others"
        )
    half, graph = any(p.dtype in HALF for p in model.parameters()), torch.is_grad_enabled()
    with torch.inference_mode(False), torch.no_grad():
        if half:
            with contextlib.suppress(RuntimeError):  # a step converts the data to half precision
                return _run(model, x, widened, graph)
        return _run(model, x, lambda p: p, graph)


def _run(
    model: nn.Module, x: Tensor, converted: Callable[[Tensor], Tensor], graph: bool
) -> tuple[dict[str, Row], list[Missing], list[Missing]]:
    live: dict[int, Tensor] = {}

    def parameter(p: Tensor) -> Tensor:
        own = apart(converted(p))
        live[own.data_ptr()] = p
        return own

    with evaluation_copy(model, x, parameter) as copy:
        for module in copy.modules():
            for name, buffer in module._buffers.items():
                if buffer is not None and buffer.dtype in HALF:
                    module._buffers[name] = converted(buffer)
        batch = as_input(copy, x).clone()  # a first step may be in place
        recorder = Recorder(copy, batch, live, graph)
        with recorder.watching():
            copy(batch)
        return recorder.rows, *recorder.left_over()


def _nothing(model: nn.Module) -> ValueError:
    return ValueError(
        f"needed a model with convolutions or linear layers, got {type(model).__name__} without any; give its layers a "
        "method operator(input_shape)"
    )
