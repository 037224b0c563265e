"""Activations that keep the norm of every gradient: `GroupSort` and `MaxMin`; and how a network gets others."""

from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Tensor, nn

from convkit.checks import whole

Model = TypeVar("Model", bound=nn.Module)
MakeActivation = Callable[[], nn.Module]


class GroupSort(nn.Module):
    """Sort the channels in groups of ``size`` neighbors, the largest first.

    From ``(batch, channels, ...)`` to the same shape, where ``channels`` is a multiple of ``size``; features
    ``(batch, features)`` count as channels. A permutation of the numbers at each position, so that the norms of outputs
    and of gradients are those of the inputs: exactly 1-Lipschitz in every p-norm, unlike ReLU, which also loses what is
    negative (Anil, Lucas & Grosse 2019). Raises ``ValueError`` for channels that ``size`` does not divide.

    >>> GroupSort(3)(torch.tensor([[1.0, 5.0, 2.0, -1.0, -2.0, 0.0]]))
    tensor([[ 5.,  2.,  1.,  0., -1., -2.]])
    """

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = whole("size", size, 2, advice="; 2 is MaxMin")

    def forward(self, x: Tensor) -> Tensor:
        """Return ``x`` with sorted groups of channels."""
        return self.grouped(x).sort(2, descending=True).values.flatten(1, 2)

    def grouped(self, x: Tensor) -> Tensor:
        """Return ``x`` as ``(batch, groups, size, ...)``; raise ``ValueError`` where that is impossible."""
        if x.ndim < 2 or x.shape[1] % self.size:
            raise ValueError(
                f"{type(self).__name__} needs channels (batch, channels, ...) that its size {self.size} divides, got "
                f"shape {tuple(x.shape)}; change the width of the layer before it"
            )
        return x.unflatten(1, (-1, self.size))

    def extra_repr(self) -> str:
        return f"size={self.size}"


class MaxMin(GroupSort):
    """Replace each pair of neighboring channels by their maximum and their minimum: ``GroupSort(2)``.

    Anil, Lucas & Grosse 2019. Raises ``ValueError`` for an odd number of channels.

    >>> MaxMin()(torch.tensor([[1.0, 5.0, 0.0, -2.0]]))
    tensor([[ 5.,  1.,  0., -2.]])
    """

    def __init__(self) -> None:
        super().__init__(2)

    def forward(self, x: Tensor) -> Tensor:
        """Return the maximum and the minimum of each pair of channels."""
        first, second = self.grouped(x).unbind(2)
        return torch.stack((torch.maximum(first, second), torch.minimum(first, second)), 2).flatten(1, 2)

    def extra_repr(self) -> str:
        return ""


def with_activation(model: Model, make: MakeActivation) -> Model:
    """Replace every ``nn.ReLU`` of a network, in place, by what ``make`` returns, and return the network.

    A ReLU that is used twice stays one module, and calls such as ``F.relu`` stay as they are.
    """
    if type(model) is nn.ReLU:
        return make()  # pyright: ignore[reportReturnType]
    new: dict[nn.Module, nn.Module] = {}
    for module in list(model.modules()):
        for name, child in list(module._modules.items()):
            if type(child) is nn.ReLU:
                if child not in new:
                    new[child] = make().train(child.training)
                module.register_module(name, new[child])
    return model
