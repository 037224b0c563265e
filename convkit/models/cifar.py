"""Residual networks for CIFAR: ResNet-32 and ResNet-110 of He et al., wide ones of Zagoruyko and Komodakis."""

from typing import Unpack

from torch import nn

from convkit.checks import whole
from convkit.models.layers import LayerFactory, plain_layer
from convkit.models.network import Assembly, Images, Network, scaled
from convkit.models.residual import add_blocks

PREACTIVATED = (
    "Pre-activated blocks keep each normalization behind its convolution, as the layer factory makes them: the sum of "
    "a block goes through a ReLU into the next one, and into the head, without a normalization of its own."
)


def resnet32(
    layer: LayerFactory = plain_layer,
    width: float = 1.0,
    preactivation: bool = False,
    **images: Unpack[Images],
) -> Network:
    """Return ResNet-32 for small images, with 16, 32 and 64 channels and shortcuts without weights (option A).

    He et al. 2016. Sedghi et al. 2019 (section 4.2) train a 32-layer residual network of 2.4M parameters; neither its
    width nor its kind of block is in the paper. With batch normalization a uniform ``width=2.25`` (36, 72 and 144
    channels) has 2.34M and ``width=2.28`` (36, 73 and 146) 2.40M, with ``preactivation`` or without.

    Args:
        layer: The layer factory that makes every convolution.
        width: Factor of all numbers of channels.
        preactivation: Whether a ReLU precedes the first convolution of a block instead of following its sum.
        images: What the network is built for; see ``Images``.

    Raises ``ValueError`` for numbers that are out of range.
    """
    net = Assembly(31, layer, **images)
    return _cifar(net, width, preactivation, blocks=5)


def resnet110(
    layer: LayerFactory = plain_layer,
    width: float = 1.0,
    preactivation: bool = False,
    **images: Unpack[Images],
) -> Network:
    """Return ResNet-110 for small images: ``resnet32`` with 18 blocks instead of 5 in each of its three stages.

    He et al. 2016.

    Args:
        layer: The layer factory that makes every convolution.
        width: Factor of all numbers of channels.
        preactivation: Whether a ReLU precedes the first convolution of a block instead of following its sum.
        images: What the network is built for; see ``Images``.

    Raises ``ValueError`` for numbers that are out of range.
    """
    net = Assembly(109, layer, **images)
    return _cifar(net, width, preactivation, blocks=18)


def wrn28_10(
    layer: LayerFactory = plain_layer,
    widening: int = 10,
    depth: int = 28,
    **images: Unpack[Images],
) -> Network:
    """Return a wide residual network with pre-activated blocks, without dropout.

    Zagoruyko & Komodakis 2016. As published, the stem keeps its 16 channels, and shortcuts are 1 x 1 convolutions where
    the shape changes; here the layer factory makes them, too, with a normalization if it adds one.

    Args:
        layer: The layer factory that makes every convolution.
        widening: Factor of the channels 16, 32 and 64 of the stages.
        depth: Number of layers, 4 more than a multiple of 6.
        images: What the network is built for; see ``Images``.

    Raises ``ValueError`` for another depth and for numbers that are out of range.
    """
    blocks, rest = divmod(whole("depth", depth, 10) - 4, 6)
    if rest:
        raise ValueError(f"depth must be 4 more than a multiple of 6, got {depth}; use {6 * blocks + 4}")
    widening = whole("widening", widening, 1)
    net = Assembly(6 * blocks + 1, layer, **images)
    net.notes.append(PREACTIVATED)
    net.convolution("stem", 16)
    widths = [c * widening for c in (16, 32, 64)]
    add_blocks(net, widths, (blocks,) * 3, (1, 2, 2), preactivated=True)
    net.add("relu", nn.ReLU())
    return net.finish(residual=True)


def _cifar(net: Assembly, width: float, preactivation: bool, blocks: int) -> Network:
    """Return the network of three stages of ``blocks`` blocks each."""
    net.convolution("stem", scaled(16, width))
    if preactivation:
        net.notes.append(PREACTIVATED)
    else:
        net.add("relu", nn.ReLU())
    widths = [scaled(c, width) for c in (16, 32, 64)]
    add_blocks(net, widths, (blocks,) * 3, (1, 2, 2), padded=True, preactivated=preactivation)
    if preactivation:
        net.add("relu", nn.ReLU())
    return net.finish(residual=True)
