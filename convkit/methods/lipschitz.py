"""The method `lipschitz`: a network whose Lipschitz constant is bounded by a knob, whatever its weights."""

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from convkit.audit.product.bound import product_bound
from convkit.methods.layers import Convolution
from convkit.methods.method import KnobValue, Settings, Shapes
from convkit.normalization.operator_norm import OperatorNorm

ROUNDING = 1e-5  # relative: what float32 may add to the product of all norms


class NetworkBound(OperatorNorm):
    """Scale the weight of a network's last layer so that the Lipschitz constant of the network is at most ``total``.

    Args:
        geometry: The arguments of ``OperatorNorm``.
        rest: An upper bound of the network's constant while the norm of this weight is 1.
        total: The bound of the network.

    >>> NetworkBound((1,), rest=4.0, total=2.0)(torch.tensor([[3.0, 0.0], [0.0, 1.0]])).round(decimals=3)
    tensor([[0.5000, 0.0000],
            [0.0000, 0.1670]])
    """

    def __init__(self, geometry: tuple[Any, ...], rest: float, total: float) -> None:
        super().__init__(*geometry)
        self.rest, self.total = rest, total

    def forward(self, weight: Tensor) -> Tensor:
        """Return the weight scaled to the operator norm ``total / rest``."""
        return self.total / self.rest * super().forward(weight)

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, rest={self.rest:g}, total={self.total:g}"


def bound_network(model: nn.Module, shapes: Shapes, x: Tensor, knobs: Settings) -> None:
    """Parametrize all weights so that ``product_bound(model, x)`` is the knob ``bound`` at most, whatever they are.

    Each is divided by its operator norm, on the torus for zero padding. What the steps between the layers contribute
    (the images' deviation, pooling, the sums of residual blocks: 2 each) does not depend on the weights; the last layer
    makes up for it. So in a residual network, too, the sums are averages but for one factor.

    Raises ``ValueError`` for a network with other weights, or with steps that have no bound, such as gates.
    """
    layers = {name: model.get_submodule(name) for name in shapes}
    held = {id(p) for m in layers.values() if isinstance(m, nn.Conv2d | nn.Linear) for p in m.parameters()}
    for name, module in model.named_modules():
        own = [*module.parameters(recurse=False)]
        if any(id(p) not in held for p in own) or getattr(module, "running_var", None) is not None:
            raise ValueError(
                f"lipschitz bounds the weights of Conv2d and Linear layers, got {type(module).__name__} at "
                f"{name or 'the top'}; leave it out of the network"
            )
    for name, layer in layers.items():
        parametrize.register_parametrization(layer, "weight", OperatorNorm(*_geometry(layer, shapes[name])))
    rest = (1 + ROUNDING) * product_bound(model, x, torus=True)
    last: Any = layers[list(shapes)[-1]]
    own = NetworkBound(_geometry(last, shapes[list(shapes)[-1]]), rest, float(knobs["bound"]))
    last.parametrizations.weight[0] = own.to(last.parametrizations.weight.original.device)
    reached = product_bound(model, x, torus=True)
    if not math.isclose(reached, own.total, rel_tol=1e-3):
        raise ValueError(
            f"lipschitz needs a network that ends with a layer to scale its logits by, got {type(last).__name__} "
            f"{list(shapes)[-1]!r}, which leaves the bound at {reached:.3g} in place of {own.total:.3g}; add a linear "
            "layer behind it"
        )


def start_orthogonal(conv: Convolution, knobs: Settings) -> None:
    """Start a convolution as an orthogonal matrix whose every output is taken at one tap, drawn at random; no bias.

    All singular values are 1 then (around the torus, at stride 1), where torch's own start, divided by its norm, loses
    half of a signal in each layer.
    """
    weight = torch.zeros_like(conv.weight).flatten(2)
    matrix = torch.cat([nn.init.orthogonal_(rows[..., 0].clone()) for rows in weight.chunk(conv.groups)])
    taps = torch.randint(weight.shape[2], (len(weight),), device=weight.device)
    weight[torch.arange(len(weight), device=weight.device), :, taps] = matrix
    with torch.no_grad():
        conv.weight.copy_(weight.view_as(conv.weight))
        if conv.bias is not None:
            conv.bias.zero_()


def read_bound(model: nn.Module) -> dict[str, KnobValue]:
    """Return the knob ``bound`` of a network, read from its last layer."""
    found = next((module for module in model.modules() if isinstance(module, NetworkBound)), None)
    return {"bound": found.total} if found else {}


def set_bound(model: nn.Module, knobs: Settings) -> None:
    """Write the knob ``bound`` into the last layer of a network."""
    for module in model.modules():
        if isinstance(module, NetworkBound):
            module.total = float(knobs["bound"])


def _geometry(layer: Any, shape: tuple[int, ...]) -> tuple[Any, ...]:
    if isinstance(layer, nn.Linear):
        return (1,)
    return (shape, layer.stride, layer.padding, layer.dilation, layer.groups, layer.padding_mode)
