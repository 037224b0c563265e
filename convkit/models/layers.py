"""Layer factories: functions that make a convolution together with its normalization."""

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from torch import nn


class LayerFactory(Protocol):
    """The signature of a layer factory, from which every network of the kit is built.

    Args:
        c_in, c_out: Number of input and of output channels.
        kernel_size, stride, padding, dilation, groups: As in ``nn.Conv2d``, one number for both axes.
        depth: ``l / L`` for the l-th of the L convolutions between the input and the head.

    A factory may have two more arguments, which the networks give to those that name them, and only for the last
    convolution of a residual block: ``last_of_block=True``, and ``blocks``, the number of residual blocks of the
    network.

    Returns:
        A module without an activation, from ``(batch, c_in, height, width)`` to ``(batch, c_out, ...)``.
    """

    def __call__(
        self,
        c_in: int,
        c_out: int,
        kernel_size: int,
        stride: int = 1,
        padding: int = 0,
        dilation: int = 1,
        groups: int = 1,
        depth: float = 1.0,
    ) -> nn.Module: ...


@dataclass(frozen=True)
class Place:
    """Where a convolution or a normalization stands in a network.

    Args:
        depth: ``l / L`` for the l-th of the L convolutions between the input and the head.
        blocks: The number of residual blocks of the network, for the last layer of one; 0 for all other layers.
        axes: The number of axes of the images.
        before: Whether the normalization precedes its convolution, with a ReLU between them.
    """

    depth: float = 1.0
    blocks: int = 0
    axes: int = 2
    before: bool = False


# the arguments of ``nn.Conv2d`` from c_in to groups, in their order, and the place
MakeConvolution = Callable[..., nn.Module]
MakeNorm = Callable[[int, Place], nn.Module | None]  # of so many channels at a place; ``None`` for none


@dataclass(frozen=True)
class ConvAndNorm:
    """A layer factory of two parts: a convolution, and the normalization of its outputs.

    Called as a ``LayerFactory`` it returns both in a Sequential. Networks with ``norm_first=True`` take the parts one
    by one, since they normalize the input of each convolution.

    Args:
        conv: Returns the convolution, from the arguments of ``nn.Conv2d`` from ``c_in`` to ``groups`` and a ``Place``.
        norm: Returns the normalization of a number of channels at a ``Place``, or ``None`` for none.
        names: The names of both in the Sequential.

    >>> def conv(c_in, c_out, kernel_size, stride, padding, dilation, groups, place):
    ...     return nn.Conv2d(c_in, c_out, kernel_size, stride, padding, dilation, groups, bias=False)
    >>> layer = ConvAndNorm(conv, lambda channels, place: nn.InstanceNorm2d(channels), names=("conv", "norm"))
    >>> [(name, type(part).__name__) for name, part in layer(3, 8, 3, padding=1).named_children()]
    [('conv', 'Conv2d'), ('norm', 'InstanceNorm2d')]
    """

    conv: MakeConvolution
    norm: MakeNorm
    names: tuple[str, str] = ("0", "1")

    def __call__(
        self,
        c_in: int,
        c_out: int,
        kernel_size: int,
        stride: int = 1,
        padding: int = 0,
        dilation: int = 1,
        groups: int = 1,
        depth: float = 1.0,
        last_of_block: bool = False,
        blocks: int = 1,
    ) -> nn.Module:
        """Return the convolution, then the normalization of its outputs; for the arguments see ``LayerFactory``."""
        axes = len(kernel_size) if isinstance(kernel_size, tuple) else 2  # ``convert`` gives a number for each axis
        place = Place(depth, blocks if last_of_block else 0, axes)
        conv = self.conv(c_in, c_out, kernel_size, stride, padding, dilation, groups, place)
        parts = zip(self.names, (conv, self.norm(c_out, place)), strict=True)
        return nn.Sequential(OrderedDict((name, part) for name, part in parts if part is not None))


def plain_layer(
    c_in: int,
    c_out: int,
    kernel_size: int,
    stride: int = 1,
    padding: int = 0,
    dilation: int = 1,
    groups: int = 1,
    depth: float = 1.0,
) -> nn.Module:
    """Return a convolution with bias and without normalization; for the arguments see ``LayerFactory``."""
    return nn.Conv2d(c_in, c_out, kernel_size, stride, padding, dilation, groups)


batchnorm_layer = ConvAndNorm(
    lambda *geometry: nn.Conv2d(*geometry[:-1], bias=False),
    lambda channels, place: nn.BatchNorm2d(channels),
    names=("conv", "norm"),
)
"""The layer factory of a convolution without bias, then BatchNorm."""
