"""Residual networks made for CIFAR: ResNet-32 and -110 of He et al., wide ones of Zagoruyko and Komodakis."""

from collections.abc import Sequence

import torch
from torch import nn

from convkit.checks import whole
from convkit.models.layers import Layer, plain_layer
from convkit.models.network import Assembly, Network, scaled
from convkit.models.residual import add_blocks

PREACTIVATED = (
    "Pre-activated blocks keep each normalization behind its convolution, as the layer factory makes them: the sum of "
    "a block goes through a ReLU into the next one, and into the head, without a normalization of its own."
)


def resnet32(
    layer: Layer = plain_layer,
    in_channels: int = 3,
    classes: int = 10,
    image_size: int = 32,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    dtype: torch.dtype = torch.float32,
    width: float = 1.0,
    preactivation: bool = False,
) -> Network:
    """ResNet-32 with 16, 32 and 64 channels, times ``width``, and shortcuts without weights (option A).

    Sedghi et al. (section 4.2) train a 32-layer residual network of 2.4M parameters; neither its width nor its kind
    of block is in the paper. With batch normalization a uniform ``width=2.25`` (36, 72 and 144 channels) has 2.34M
    and ``width=2.28`` (36, 73 and 146) 2.40M, with ``preactivation`` or without.
    """
    net = Assembly(31, layer, in_channels, image_size, mean, std, dtype)
    return _cifar(net, classes, width, preactivation, blocks=5)


def resnet110(
    layer: Layer = plain_layer,
    in_channels: int = 3,
    classes: int = 10,
    image_size: int = 32,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    dtype: torch.dtype = torch.float32,
    width: float = 1.0,
    preactivation: bool = False,
) -> Network:
    """ResNet-110: as ``resnet32``, with 18 blocks in place of 5 in each of three stages."""
    net = Assembly(109, layer, in_channels, image_size, mean, std, dtype)
    return _cifar(net, classes, width, preactivation, blocks=18)


def wrn28_10(
    layer: Layer = plain_layer,
    in_channels: int = 3,
    classes: int = 10,
    image_size: int = 32,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    dtype: torch.dtype = torch.float32,
    widening: int = 10,
    depth: int = 28,
) -> Network:
    """A wide residual network, pre-activated, without dropout; ``depth`` is 4 more than a multiple of 6.

    As published, the stem keeps its 16 channels and shortcuts where the shape changes are 1 x 1 convolutions; here
    these come from the layer factory as all others do, with a normalization if it gives one.
    """
    blocks, rest = divmod(whole("depth", depth, 10) - 4, 6)
    if rest:
        raise ValueError(f"depth must be 4 more than a multiple of 6, got {depth}; use {6 * blocks + 4}")
    widening = whole("widening", widening, 1)
    net = Assembly(6 * blocks + 1, layer, in_channels, image_size, mean, std, dtype)
    net.notes.append(PREACTIVATED)
    net.convolution("stem", 16)
    widths = [c * widening for c in (16, 32, 64)]
    add_blocks(net, widths, (blocks,) * 3, (1, 2, 2), preactivated=True)
    net.add("relu", nn.ReLU())
    return net.finish(classes, residual=True)


def _cifar(net: Assembly, classes: int, width: float, preactivation: bool, blocks: int) -> Network:
    net.convolution("stem", scaled(16, width))
    if preactivation:
        net.notes.append(PREACTIVATED)
    else:
        net.add("relu", nn.ReLU())
    widths = [scaled(c, width) for c in (16, 32, 64)]
    add_blocks(net, widths, (blocks,) * 3, (1, 2, 2), padded=True, preactivated=preactivation)
    if preactivation:
        net.add("relu", nn.ReLU())
    return net.finish(classes, residual=True)
