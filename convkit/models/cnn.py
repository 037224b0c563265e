"""Networks without shortcuts: nine layers of Ikami et al. (section 4.1.1), VGG for small images, and AlexNet."""

from collections.abc import Sequence
from typing import Unpack

from torch import nn

from convkit.checks import sequence, whole
from convkit.models.layers import LayerFactory, plain_layer
from convkit.models.network import Assembly, Images, Network, scaled

LARGE_IMAGE = 64


def cnn9(
    layer: LayerFactory = plain_layer,
    widths: Sequence[int] = (64, 128, 256),
    **images: Unpack[Images],
) -> Network:
    """Return a network of nine 3 x 3 convolutions with ReLU in three groups, with average pooling between the groups.

    Section 4.1.1 of Ikami et al. 2021.

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


def alexnet(
    layer: LayerFactory = plain_layer,
    width: float = 1.0,
    **images: Unpack[Images],
) -> Network:
    """Return AlexNet in one tower: five convolutions, overlapping max pooling, dropout, three linear layers.

    The network of Krizhevsky 2014 ("One weird trick"), in torchvision's form: the two towers and the local response
    normalization of 2012 are gone, the channels are 64, 192, 384, 256 and 256. From 64 x 64 pixels on the first layer
    is 11 x 11 with stride 4, below 3 x 3 with stride 1.

    Args:
        layer: The layer factory that makes every convolution.
        width: Factor of all numbers of channels and of the units of the linear layers.
        images: What the network is built for; see ``Images``.

    Raises ``ValueError`` for numbers that are out of range.
    """
    net = Assembly(5, layer, **images)
    large = net.image_size >= LARGE_IMAGE
    if not large:
        net.notes.append(
            f"Image size {net.image_size}: the first layer is 3 x 3 with stride 1; from {LARGE_IMAGE} x {LARGE_IMAGE} "
            "pixels up it is as published."
        )
    pools = 0
    for number, (channels, kernel_size) in enumerate(((64, 11), (192, 5), (384, 3), (256, 3), (256, 3)), start=1):
        c_out = scaled(channels, width)
        if number == 1 and large:
            net.add("conv1", net.make(net.channels, c_out, 11, stride=4, padding=2), c_out)
            net.size = (net.size - 7) // 4 + 1
        else:
            net.convolution(f"conv{number}", c_out, 3 if number == 1 else kernel_size)
        net.add(f"relu{number}", nn.ReLU())
        if number not in (1, 2, 5):
            continue
        if net.size < 3:
            net.notes.append(f"Image size {net.image_size}: the pooling after conv{number} is left out.")
            continue
        pools += 1
        net.add(f"pool{pools}", nn.MaxPool2d(3, stride=2))
        net.size = (net.size - 3) // 2 + 1
    net.smallest = 2 ** (pools + 1) - 1  # which the poolings leave one pixel of
    if large:
        net.smallest = 4 * (net.smallest - 1) + 7
    units = scaled(4096, width)
    return net.finish(pixels=6 if large else min(6, net.size), hidden=(units, units))


def _vgg(net: Assembly, width: float, counts: Sequence[int]) -> Network:
    """Return the network with ``counts`` convolutions in its five groups."""
    for group, (channels, count) in enumerate(zip((64, 128, 256, 512, 512), counts, strict=True), start=1):
        for _ in range(count):
            net.convolution(f"conv{net.index + 1}", scaled(channels, width))
            net.add(f"relu{net.index}", nn.ReLU())
        net.pool(f"pool{group}", nn.MaxPool2d)
    return net.finish()
