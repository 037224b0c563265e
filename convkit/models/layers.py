"""Layer factories: functions that make a convolution together with its normalization."""

from collections import OrderedDict
from typing import Protocol

from torch import nn


class LayerFactory(Protocol):
    """The signature of a layer factory, from which every network of the kit is built.

    Args:
        c_in, c_out: Number of input and of output channels.
        kernel_size, stride, padding, dilation, groups: As in ``nn.Conv2d``, one number for both axes.
        depth: ``l / L`` for the l-th of the L convolutions between the input and the head.

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


def batchnorm_layer(
    c_in: int,
    c_out: int,
    kernel_size: int,
    stride: int = 1,
    padding: int = 0,
    dilation: int = 1,
    groups: int = 1,
    depth: float = 1.0,
) -> nn.Module:
    """Return a convolution without bias, then BatchNorm; for the arguments see ``LayerFactory``."""
    conv = nn.Conv2d(c_in, c_out, kernel_size, stride, padding, dilation, groups, bias=False)
    return nn.Sequential(OrderedDict(conv=conv, norm=nn.BatchNorm2d(c_out)))
