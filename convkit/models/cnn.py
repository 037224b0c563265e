"""Networks without shortcuts: the nine-layer network of Ikami et al. (section 4.1.1), and VGG for small images."""

from collections.abc import Sequence
from typing import Unpack

from torch import nn

from convkit.checks import sequence, whole
from convkit.models.layers import LayerFactory, plain_layer
from convkit.models.network import Assembly, Images, Network, scaled


def cnn9(
    layer: LayerFactory = plain_layer,
    widths: Sequence[int] = (64, 128, 256),
    **images: Unpack[Images],
) -> Network:
    """Return a network of nine 3 x 3 convolutions with ReLU in three groups, with average pooling between the groups.

    Section 4.1.1 of Ikami et al. 2022.

    Args:
        layer: The layer factory that makes every convolution.
        widths: Number of channels in each of the three groups.
        images: What the network is built for; see ``Images``.

    Raises ``ValueError`` for other than three widths and for numbers that are out of range.
    """
    widths = sequence("widths", widths)
    if len(widths) != 3:
        raise ValueError(f"widths needs the channels of three groups of layers, got {widths!r}; give three numbers")
    net = Assembly(9, layer, **images)
    for group, width in enumerate(widths):
        if group:
            net.pool(f"pool{group}", nn.AvgPool2d)
        for i in range(3 * group + 1, 3 * group + 4):
            net.convolution(f"conv{i}", whole("each of widths", width, 1))
            net.add(f"relu{i}", nn.ReLU())
    return net.finish()


def vgg11(
    layer: LayerFactory = plain_layer,
    width: float = 1.0,
    **images: Unpack[Images],
) -> Network:
    """Return VGG-11 for small images: eight 3 x 3 convolutions, max pooling after each group, one linear layer.

    Simonyan & Zisserman 2015.

    Args:
        layer: The layer factory that makes every convolution.
        width: Factor of all numbers of channels.
        images: What the network is built for; see ``Images``.

    Raises ``ValueError`` for numbers that are out of range.
    """
    net = Assembly(8, layer, **images)
    return _vgg(net, width, (1, 1, 2, 2, 2))


def vgg16(
    layer: LayerFactory = plain_layer,
    width: float = 1.0,
    **images: Unpack[Images],
) -> Network:
    """Return VGG-16 for small images: thirteen 3 x 3 convolutions, max pooling after each group, one linear layer.

    Simonyan & Zisserman 2015.

    Args:
        layer: The layer factory that makes every convolution.
        width: Factor of all numbers of channels.
        images: What the network is built for; see ``Images``.

    Raises ``ValueError`` for numbers that are out of range.
    """
    net = Assembly(13, layer, **images)
    return _vgg(net, width, (2, 2, 3, 3, 3))


def _vgg(net: Assembly, width: float, counts: Sequence[int]) -> Network:
    """Return the network with ``counts`` convolutions in its five groups."""
    for group, (channels, count) in enumerate(zip((64, 128, 256, 512, 512), counts, strict=True), start=1):
        for _ in range(count):
            net.convolution(f"conv{net.index + 1}", scaled(channels, width))
            net.add(f"relu{net.index}", nn.ReLU())
        net.pool(f"pool{group}", nn.MaxPool2d)
    return net.finish()
