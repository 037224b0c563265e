"""The generator and the discriminator of SN-GAN: residual networks that make images, and that tell made from real."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from convkit.checks import whole
from convkit.models.layers import ConvAndNorm, LayerFactory, plain_layer
from convkit.models.network import Assembly, Network, Normalize

LATENT = 128


class Shape(NamedTuple):
    """What a pair for images of one size is made of: the number of halvings and of blocks, and the channels."""

    ups: int  # blocks of the generator, each of which doubles the size: from 4 pixels
    downs: Sequence[bool]  # one per block of the discriminator: whether it halves the size
    channels: tuple[int, int]  # of the generator and of the discriminator


SHAPES = {
    8: Shape(1, (True, False), (64, 32)),
    16: Shape(2, (True, True, False), (64, 32)),
    32: Shape(3, (True, True, False, False), (256, 128)),  # as published
}

batchnorm_first = ConvAndNorm(
    lambda *geometry: nn.Conv2d(*geometry[:-1]),
    lambda channels, place: nn.BatchNorm2d(channels),
)
"""The layer factory of the published generator: a convolution with bias, and a BatchNorm that precedes the next one."""


class ResampledBlock(nn.Module):
    """A pre-activated residual block that doubles or halves the image size, or keeps it.

    Doubling comes before the first convolution and before the shortcut's, halving (by the mean of 2 x 2 pixels) after
    the last and after the shortcut's. The first block of a discriminator sees images: it has no ReLU in front, and
    halves before its shortcut.

    Args:
        layers: Two convolutions.
        shortcut: The convolution of the shortcut; ``None`` for none.
        norms: What normalizes the input of each convolution; empty for nothing.
        resize: ``"up"``, ``"down"`` or ``""``.
        first: Whether it is the first block of a discriminator.
    """

    def __init__(
        self,
        layers: Sequence[nn.Module],
        shortcut: nn.Module | None,
        norms: Sequence[nn.Module] = (),
        resize: str = "",
        first: bool = False,
    ) -> None:
        super().__init__()
        self.conv1, self.conv2 = layers
        self.norm1, self.norm2 = norms or (nn.Identity(), nn.Identity())
        self.shortcut = nn.Identity() if shortcut is None else shortcut
        self.activation = nn.ReLU()
        self.up = nn.Upsample(scale_factor=2) if resize == "up" else nn.Identity()
        self.down = nn.AvgPool2d(2) if resize == "down" else nn.Identity()
        self.first = first

    def forward(self, x: Tensor) -> Tensor:
        """Return the output of the block, ``(batch, c_out, ...)``."""
        y = self.conv1(self.up(x if self.first else self.activation(self.norm1(x))))
        y = self.down(self.conv2(self.activation(self.norm2(y))))
        return y + (self.shortcut(self.down(x)) if self.first else self.down(self.shortcut(self.up(x))))


class SumOverPixels(nn.Module):
    """Sum each channel over all pixels."""

    def forward(self, x: Tensor) -> Tensor:
        """Return ``(batch, channels)`` from ``(batch, channels, height, width)``."""
        return x.sum((2, 3))


class FromTanh(nn.Module):
    """Map any numbers to images in [0, 1] by ``(tanh(x) + 1) / 2``."""

    def forward(self, x: Tensor) -> Tensor:
        """Return the images."""
        return (x.tanh() + 1) / 2


def sngan_generator(
    layer: LayerFactory = batchnorm_first,
    channels: int | None = None,
    latent: int = LATENT,
    in_channels: int = 3,
    image_size: int = 32,
    dtype: torch.dtype = torch.float32,
) -> Network:
    """Return the generator of Miyato et al. 2018 (Table 4): from ``(batch, latent)`` to images in [0, 1].

    A linear layer to 4 x 4 pixels, then blocks of two 3 x 3 convolutions that each double the size. The published one,
    for 32 x 32 pixels, has 256 channels and 4,276,739 parameters; those for 8 and 16 pixels have fewer blocks and 64
    channels.

    Args:
        layer: The layer factory, a ``ConvAndNorm`` since each normalization precedes its convolution.
        channels: Number of channels of every block; ``None`` for that of the size.
        latent: Length of z.
        in_channels, image_size: Those of the images that it makes: 8, 16 or 32 pixels.
        dtype: The dtype of the weights.

    Raises ``ValueError`` for another image size, and for numbers that are out of range.

    >>> sngan_generator(channels=4, latent=5, image_size=16)(torch.zeros(2, 5)).shape
    torch.Size([2, 3, 16, 16])
    """
    shape, latent = _shape_for(image_size), whole("latent", latent, 1)
    width = whole("channels", shape.channels[0] if channels is None else channels, 1)
    net = Assembly(2 * shape.ups + 1, layer, in_channels, 1, image_size, dtype=dtype)
    net.add("linear", nn.Linear(latent, 16 * width, dtype=dtype), width)
    net.add("pixels", nn.Unflatten(1, (width, 4, 4)))
    for number in range(1, shape.ups + 1):
        norms, layers = [], []
        for ends in (0, shape.ups):
            norms.append(net.norm(width, ends))
            layers.append(net.make(width, width, 3, blocks=ends, alone=True))
        shortcut = net.make(width, width, 1, alone=True, parallel=True)
        net.add(f"block{number}", ResampledBlock(layers, shortcut, norms, "up"))
    net.add("norm", net.norm(width))
    net.add("relu", nn.ReLU())
    net.add("last", net.make(width, in_channels, 3, alone=True))
    net.add("images", FromTanh())
    network = Network(net.steps)
    _draw_as_published(network)
    network.residual = True
    return network


def sngan_discriminator(
    layer: LayerFactory = plain_layer,
    channels: int | None = None,
    in_channels: int = 3,
    image_size: int = 32,
    dtype: torch.dtype = torch.float32,
) -> Network:
    """Return the discriminator of Miyato et al. 2018 (Table 4): from images in [0, 1] to one number, ``(batch, 1)``.

    Images are mapped to [-1, 1]; then follow blocks of two 3 x 3 convolutions, ReLU, the sum over all pixels and a
    linear layer. The published one, for 32 x 32 pixels, has 128 channels and 1,053,825 parameters; those for 8 and 16
    pixels have fewer blocks and 32 channels.

    Args:
        layer: The layer factory that makes every convolution; that of a method bounds or normalizes them.
        channels: Number of channels of every block; ``None`` for that of the size.
        in_channels, image_size: Those of the images: 8, 16 or 32 pixels.
        dtype: The dtype of the weights.

    Raises ``ValueError`` for another image size, and for numbers that are out of range.

    >>> sngan_discriminator(channels=4, in_channels=1, image_size=8)(torch.zeros(2, 1, 8, 8)).shape
    torch.Size([2, 1])
    """
    shape = _shape_for(image_size)
    width = whole("channels", shape.channels[1] if channels is None else channels, 1)
    net = Assembly(2 * len(shape.downs), layer, in_channels, 1, image_size, dtype=dtype)
    net.steps["normalize"] = Normalize([0.5] * in_channels, [0.5] * in_channels, dtype)
    for number, down in enumerate(shape.downs, start=1):
        c_in = net.channels
        layers = [net.make(c_in, width, 3), net.make(width, width, 3, blocks=len(shape.downs))]
        shortcut = net.make(c_in, width, 1, parallel=True) if down else None
        block = ResampledBlock(layers, shortcut, resize="down" if down else "", first=number == 1)
        net.add(f"block{number}", block, width)
    net.add("relu", nn.ReLU())
    net.add("sum", SumOverPixels())
    net.add("head", nn.Linear(width, 1, dtype=dtype))
    network = Network(net.steps)
    _draw_as_published(network)
    network.in_channels, network.smallest, network.residual = in_channels, 2 ** sum(shape.downs), True
    return network


def _shape_for(image_size: int) -> Shape:
    if image_size not in SHAPES:
        raise ValueError(
            f"there is a generator and a discriminator for images of {', '.join(map(str, SHAPES))} pixels, got "
            f"{image_size!r}; crop or resize the images"
        )
    return SHAPES[image_size]


def _draw_as_published(network: Network) -> None:
    """Draw the weights as Miyato et al. do, uniform by Glorot & Bengio: those of a block's two layers with gain sqrt 2.

    Weights that a method parametrizes keep its start, which does not matter to those that divide by a norm.
    """
    for name, module in network.named_modules():
        if isinstance(module, nn.Conv2d | nn.Linear) and not parametrize.is_parametrized(module):
            nn.init.xavier_uniform_(module.weight, math.sqrt(2) if ".conv" in name else 1.0)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
