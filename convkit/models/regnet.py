"""RegNetX-200MF of Radosavovic et al. in its CIFAR form."""

from collections.abc import Sequence

import torch
from torch import nn

from convkit.models.layers import Layer, plain_layer
from convkit.models.network import Assembly, Network
from convkit.models.residual import add_blocks


def regnetx_200mf(
    layer: Layer = plain_layer,
    in_channels: int = 3,
    classes: int = 10,
    image_size: int = 32,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    dtype: torch.dtype = torch.float32,
) -> Network:
    """RegNetX-200MF for small images: a 3 x 3 stem of 64 channels, stages of strides 1, 1, 2 and 2, groups of 8."""
    net = Assembly(40, layer, in_channels, image_size, mean, std, dtype)
    net.convolution("stem", 64)
    net.add("relu", nn.ReLU())
    stages = (24, 56, 152, 368), (1, 1, 4, 7), (1, 1, 2, 2)
    add_blocks(net, *stages, kernel_sizes=(1, 3, 1), strided=1, group_width=8)
    return net.finish(classes, residual=True)
