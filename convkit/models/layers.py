"""Layer factories: what the networks are built from, a convolution together with its normalization."""

from collections import OrderedDict
from collections.abc import Callable

from torch import nn

# layer(c_in, c_out, kernel_size, stride=1, padding=0, dilation=1, groups=1, depth=1.0) -> nn.Module, no activation
# inside. depth is l / L for the l-th of L convolutions on the way from the input to the head.
Layer = Callable[..., nn.Module]


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
    """A convolution with bias and no normalization."""
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
    """A convolution without bias, then batch normalization."""
    conv = nn.Conv2d(c_in, c_out, kernel_size, stride, padding, dilation, groups, bias=False)
    return nn.Sequential(OrderedDict(conv=conv, norm=nn.BatchNorm2d(c_out)))
