"""Residual networks for CIFAR: ResNet-32 and ResNet-110 of He et al., wide ones of Zagoruyko and Komodakis."""

from typing import Unpack

from torch import nn

from convkit.checks import whole
from convkit.models.layers import LayerFactory, plain_layer
from convkit.models.network import Assembly, Images, Network, scaled
from convkit.models.residual import add_blocks

PREACTIVATED = (
    "Pre-activated blocks keep each normalization behind its convolution, as the layer factory makes them: the sum of "
    "a block goes through a ReLU into the next one, and into the head, without a normalization of its own; "
    "norm_first=True is the published order."
)


def resnet32(
    layer: LayerFactory = plain_layer,
    width: float = 1.0,
    preactivation: bool = False,
    norm_first: bool = False,
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
        norm_first: Whether blocks are pre-activated as published (He et al. 2016, "Identity mappings"), each
            normalization before its ReLU and its convolution; see ``wrn28_10``.
        images: What the network is built for; see ``Images``.

    Raises ``ValueError`` for numbers that are out of range, and with ``norm_first`` for a layer factory of one part.
    """
    net = Assembly(31, layer, **images)
    return _cifar(net, width, preactivation, norm_first, blocks=5)


def resnet110(
    layer: LayerFactory = plain_layer,
    width: float = 1.0,
    preactivation: bool = False,
    norm_first: bool = False,
    **images: Unpack[Images],
) -> Network:
    """Return ResNet-110 for small images: ``resnet32`` with 18 blocks instead of 5 in each of its three stages.

    He et al. 2016.

    Args:
        layer: The layer factory that makes every convolution.
        width: Factor of all numbers of channels.
        preactivation: Whether a ReLU precedes the first convolution of a block instead of following its sum.
        norm_first: Whether blocks are pre-activated as published (He et al. 2016, "Identity mappings"), each
            normalization before its ReLU and its convolution; see ``wrn28_10``.
        images: What the network is built for; see ``Images``.

    Raises ``ValueError`` for numbers that are out of range, and with ``norm_first`` for a layer factory of one part.
    """
    net = Assembly(109, layer, **images)
    return _cifar(net, width, preactivation, norm_first, blocks=18)


def wrn28_10(
    layer: LayerFactory = plain_layer,
    widening: int = 10,
    depth: int = 28,
    norm_first: bool = False,
    **images: Unpack[Images],
) -> Network:
    """Return a wide residual network with pre-activated blocks, without dropout.

    Zagoruyko & Komodakis 2016. As published, the stem keeps its 16 channels, and shortcuts are 1 x 1 convolutions where
    the shape changes; here the layer factory makes them, too, with a normalization if it adds one.

    With ``norm_first=True`` the order is the published one, too, with 36,479,194 parameters for BatchNorm and CIFAR-10:
    each convolution of a block takes ``relu(norm(...))``, where the first normalization acts on the sum of all blocks
    before; stem and shortcuts have none, and a last one precedes the head. A normalization between two convolutions
    counts as a layer of the depth of the first one. So the noise of Ikami et al. 2021 acts on the sum of the blocks.

    Args:
        layer: The layer factory that makes every convolution.
        widening: Factor of the channels 16, 32 and 64 of the stages.
        depth: Number of layers, 4 more than a multiple of 6.
        norm_first: Whether each normalization precedes its ReLU and its convolution, as published. The layer factory
            must make both parts one by one, as ``batchnorm_layer`` and those of the methods do (``ConvAndNorm``).
        images: What the network is built for; see ``Images``.

    Raises ``ValueError`` for another depth, for numbers that are out of range, and with ``norm_first`` for a layer
    factory of one part.

    >>> from convkit.models.layers import batchnorm_layer
    >>> block = wrn28_10(batchnorm_layer, widening=1, depth=10, norm_first=True).block2
    >>> [name for name, _ in block.named_children()]
    ['conv1', 'conv2', 'norm1', 'norm2', 'gate', 'shortcut', 'activation']
    """
    blocks, rest = divmod(whole("depth", depth, 10) - 4, 6)
    if rest:
        raise ValueError(f"depth must be 4 more than a multiple of 6, got {depth}; use {6 * blocks + 4}")
    widening = whole("widening", widening, 1)
    net = Assembly(6 * blocks + 1, layer, **images)
    widths = [c * widening for c in (16, 32, 64)]
    return _stages(net, 16, widths, blocks, preactivated=True, norm_first=norm_first)


def _cifar(net: Assembly, width: float, preactivation: bool, norm_first: bool, blocks: int) -> Network:
    """Return the network of three stages of ``blocks`` blocks each, with shortcuts without weights."""
    widths = [scaled(c, width) for c in (16, 32, 64)]
    return _stages(net, widths[0], widths, blocks, preactivation or norm_first, norm_first, padded=True)


def _stages(
    net: Assembly,
    stem: int,
    widths: list[int],
    blocks: int,
    preactivated: bool,
    norm_first: bool,
    padded: bool = False,
) -> Network:
    """Append the stem and three stages of ``blocks`` blocks each, and return the network."""
    if norm_first:
        net.add("stem", net.make(net.channels, stem, 3, alone=True), stem)
    else:
        net.convolution("stem", stem)
    if preactivated and not norm_first:
        net.notes.append(PREACTIVATED)
    if not preactivated:
        net.add("relu", nn.ReLU())
    add_blocks(net, widths, (blocks,) * 3, (1, 2, 2), padded=padded, preactivated=preactivated, norm_first=norm_first)
    if norm_first:
        net.add("norm", net.norm(net.channels))
    if preactivated:
        net.add("relu", nn.ReLU())
    return net.finish(residual=True)
