"""Residual networks of He et al. for ImageNet, also adapted to small images, and SE-ResNet-18 of Hu et al."""

from typing import Literal, Unpack

from torch import nn

from convkit.checks import described
from convkit.models.layers import LayerFactory, plain_layer
from convkit.models.network import Assembly, Images, Network, scaled
from convkit.models.residual import add_blocks

LARGE_IMAGE = 64
POSTACTIVATED = (
    "Blocks are post-activated, as those of ResNet-18; Liang & Huang 2021 train the network with pre-activated ones, "
    "which norm_first=True gives."
)
Stem = Literal["small", "imagenet"]


def resnet18(
    layer: LayerFactory = plain_layer,
    width: float = 1.0,
    stem: Stem = "small",
    **images: Unpack[Images],
) -> Network:
    """Return ResNet-18 for small images: a 3 x 3 stem, no max pooling, 1 x 1 layers as shortcuts (option B).

    He et al. 2016. With ``stem="imagenet"`` it begins as published: 7 x 7 with stride 2, then 3 x 3 max pooling with
    stride 2.

    Args:
        layer: The layer factory that makes every convolution.
        width: Factor of all numbers of channels.
        stem: How it begins: ``"small"`` or ``"imagenet"``.
        images: What the network is built for; see ``Images``.

    Raises ``ValueError`` for numbers that are out of range.
    """
    net = Assembly(17, layer, **images)
    return _basic(net, width, stem, gated=False)


def senet18(
    layer: LayerFactory = plain_layer,
    width: float = 1.0,
    stem: Stem = "small",
    norm_first: bool = False,
    **images: Unpack[Images],
) -> Network:
    """Return ``resnet18`` with squeeze and excitation (reduction 16) in each block, by plain linear layers.

    Hu et al. 2018. With ``norm_first=True`` it is the pre-activated SENet-18 of Liang & Huang 2021, with 11,260,354
    parameters for BatchNorm and CIFAR-10: the convolutions of the blocks take ``relu(norm(...))`` and shortcuts have no
    normalization (see ``wrn28_10``), while the stem keeps its normalization behind it and the sum of the last block
    goes into the average as it is.

    Args:
        layer: The layer factory that makes every convolution.
        width: Factor of all numbers of channels.
        stem: How it begins, as in ``resnet18``.
        norm_first: Whether blocks are pre-activated, each normalization before its ReLU and its convolution.
        images: What the network is built for; see ``Images``.

    Raises ``ValueError`` for numbers that are out of range, and with ``norm_first`` for a layer factory of one part.
    """
    net = Assembly(17, layer, **images)
    if not norm_first:
        net.notes.append(POSTACTIVATED)
    return _basic(net, width, stem, gated=True, norm_first=norm_first)


def resnet50(
    layer: LayerFactory = plain_layer,
    width: float = 1.0,
    stem: Stem | None = None,
    **images: Unpack[Images],
) -> Network:
    """Return ResNet-50 with the strides in the 3 x 3 layers.

    He et al. 2016. From 64 x 64 pixels on it has the stem for ImageNet, below a 3 x 3 stem without max pooling.

    Args:
        layer: The layer factory that makes every convolution.
        width: Factor of all numbers of channels.
        stem: How it begins, as in ``resnet18``, whatever the size of the images is; ``None`` for that of their size.
        images: What the network is built for; see ``Images``.

    Raises ``ValueError`` for numbers that are out of range.
    """
    net = Assembly(49, layer, **images)
    if stem is None and net.image_size < LARGE_IMAGE:
        net.notes.append(
            f"Image size {net.image_size}: the stem is 3 x 3 with stride 1 and the max pooling is left out; "
            f"from {LARGE_IMAGE} x {LARGE_IMAGE} pixels up they are as published."
        )
    _begin(net, width, stem or ("imagenet" if net.image_size >= LARGE_IMAGE else "small"))
    widths = [scaled(c, width) for c in (64, 128, 256, 512)]
    add_blocks(net, widths, (3, 4, 6, 3), (1, 2, 2, 2), kernel_sizes=(1, 3, 1), strided=1, expansion=4)
    return net.finish(residual=True)


def _begin(net: Assembly, width: float, stem: str) -> None:
    """Append the first layer, its ReLU, and the max pooling of the stem for ImageNet."""
    if stem not in ("small", "imagenet"):
        raise ValueError(f"stem must be 'small' or 'imagenet', got {described(stem)}; the second is the published one")
    large = stem == "imagenet"
    net.convolution("stem", scaled(64, width), 7 if large else 3, stride=2 if large else 1)
    net.add("relu", nn.ReLU())
    if large:
        net.add("pool", nn.MaxPool2d(3, stride=2, padding=1), stride=2)


def _basic(net: Assembly, width: float, stem: str, gated: bool, norm_first: bool = False) -> Network:
    """Return a network of four stages of two blocks of two 3 x 3 layers each."""
    _begin(net, width, stem)
    widths, counts, strides = [scaled(c, width) for c in (64, 128, 256, 512)], (2, 2, 2, 2), (1, 2, 2, 2)
    add_blocks(net, widths, counts, strides, gated=gated, preactivated=norm_first, norm_first=norm_first)
    return net.finish(residual=True)
