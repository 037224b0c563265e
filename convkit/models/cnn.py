"""Networks without shortcuts: the nine layers of Ikami et al. (section 4.1.1), and VGG in its CIFAR form."""

from collections.abc import Sequence

import torch
from torch import nn

from convkit.checks import sequence, whole
from convkit.models.layers import Layer, plain_layer
from convkit.models.network import Assembly, Network, scaled


def cnn9(
    layer: Layer = plain_layer,
    in_channels: int = 3,
    classes: int = 10,
    image_size: int = 32,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    dtype: torch.dtype = torch.float32,
    widths: Sequence[int] = (64, 128, 256),
) -> Network:
    """Three times three 3 x 3 convolutions with ReLU, average pooling between the threes, then the head."""
    widths = sequence("widths", widths)
    if len(widths) != 3:
        raise ValueError(f"widths needs the channels of three groups of layers, got {widths!r}; give three numbers")
    net = Assembly(9, layer, in_channels, image_size, mean, std, dtype)
    for group, width in enumerate(widths):
        if group:
            net.pool(f"pool{group}", nn.AvgPool2d)
        for i in range(3 * group + 1, 3 * group + 4):
            net.convolution(f"conv{i}", whole("each of widths", width, 1))
            net.add(f"relu{i}", nn.ReLU())
    return net.finish(classes)


def vgg11(
    layer: Layer = plain_layer,
    in_channels: int = 3,
    classes: int = 10,
    image_size: int = 32,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    dtype: torch.dtype = torch.float32,
    width: float = 1.0,
) -> Network:
    """The eight convolutions of VGG-11, max pooling after each group, and one linear layer as the head."""
    net = Assembly(8, layer, in_channels, image_size, mean, std, dtype)
    return _vgg(net, classes, width, (1, 1, 2, 2, 2))


def vgg16(
    layer: Layer = plain_layer,
    in_channels: int = 3,
    classes: int = 10,
    image_size: int = 32,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    dtype: torch.dtype = torch.float32,
    width: float = 1.0,
) -> Network:
    """The thirteen convolutions of VGG-16, max pooling after each group, and one linear layer as the head."""
    net = Assembly(13, layer, in_channels, image_size, mean, std, dtype)
    return _vgg(net, classes, width, (2, 2, 3, 3, 3))


def _vgg(net: Assembly, classes: int, width: float, counts: Sequence[int]) -> Network:
    for group, (channels, count) in enumerate(zip((64, 128, 256, 512, 512), counts, strict=True), start=1):
        for _ in range(count):
            net.convolution(f"conv{net.index + 1}", scaled(channels, width))
            net.add(f"relu{net.index}", nn.ReLU())
        net.pool(f"pool{group}", nn.MaxPool2d)
    return net.finish(classes)
