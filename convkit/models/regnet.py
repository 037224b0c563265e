"""RegNetX-200MF of Radosavovic et al. for small images."""

from typing import Unpack

from torch import nn

from convkit.models.layers import LayerFactory, plain_layer
from convkit.models.network import Assembly, Images, Network
from convkit.models.residual import add_blocks


def regnetx_200mf(
    layer: LayerFactory = plain_layer,
    **images: Unpack[Images],
) -> Network:
    """Return RegNetX-200MF for small images, with a 3 x 3 stem of 64 channels.

    Radosavovic et al. 2020; here the stages have strides 1, 1, 2 and 2, and groups of 8 channels.

    Args:
        layer: The layer factory that makes every convolution.
        images: What the network is built for; see ``Images``.

    Raises ``ValueError`` for numbers that are out of range.
    """
    net = Assembly(40, layer, **images)
    net.convolution("stem", 64)
    net.add("relu", nn.ReLU())
    stages = (24, 56, 152, 368), (1, 1, 4, 7), (1, 1, 2, 2)
    add_blocks(net, *stages, kernel_sizes=(1, 3, 1), strided=1, group_width=8)
    return net.finish(residual=True)
