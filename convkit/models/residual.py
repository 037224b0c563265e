"""Residual blocks, shortcuts and stages shared by all residual networks."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from convkit.models.network import Assembly


class Residual(nn.Module):
    """A residual block, ``shortcut(x) + conv_k(relu(... conv_1(x)))``, then a ReLU.

    All its ReLUs are one module, ``activation``.

    A pre-activated block has its ReLU before ``conv_1`` instead, and gives ``x`` itself to a shortcut without weights
    and ``relu(x)`` to one with weights, as published. The layer factory puts a normalization after its convolution, so
    a pre-activated block, too, normalizes after its convolutions, not before them.

    Args:
        layers: The convolutions.
        shortcut: The module on the other branch, such as ``nn.Identity()``.
        gate: A module applied to the result of the convolutions; ``None`` for none.
        preactivated: Whether the block is pre-activated.
    """

    def __init__(
        self,
        layers: Sequence[nn.Module],
        shortcut: nn.Module,
        gate: nn.Module | None = None,
        preactivated: bool = False,
    ) -> None:
        super().__init__()
        self.names = [f"conv{i}" for i in range(1, len(layers) + 1)]
        for name, layer in zip(self.names, layers, strict=True):
            self.add_module(name, layer)
        self.gate = nn.Identity() if gate is None else gate
        self.shortcut = shortcut
        self.activation = nn.ReLU()
        self.preactivated = preactivated
        self.weightless = isinstance(shortcut, nn.Identity | PaddedShortcut)

    def forward(self, x: Tensor) -> Tensor:
        """Return the output of the block, ``(batch, c_out, ...)``."""
        start = self.activation(x) if self.preactivated else x
        y = start
        for i, name in enumerate(self.names):
            y = self.get_submodule(name)(self.activation(y) if i else y)
        total = self.gate(y) + self.shortcut(x if self.weightless else start)
        return total if self.preactivated else self.activation(total)


class PaddedShortcut(nn.Module):
    """The shortcut without weights, option A of He et al. 2016: every ``stride``-th pixel, zeros as channels.

    Args:
        stride: The stride of the block.
        channels: Number of channels of zeros that are appended.
    """

    def __init__(self, stride: int, channels: int) -> None:
        super().__init__()
        self.stride = stride
        self.channels = channels

    def forward(self, x: Tensor) -> Tensor:
        """Return every ``stride``-th pixel of ``x``, with channels of zeros appended."""
        return F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, 0, self.channels))


class SqueezeExcitation(nn.Module):
    """Multiply each channel by a number in (0, 1), computed by two linear layers from all channel means.

    Hu et al. 2018.

    Args:
        channels: Number of channels.
        reduction: The first linear layer has ``channels // reduction`` outputs, at least 1.
        dtype: The dtype of the weights.
    """

    def __init__(self, channels: int, reduction: int = 16, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.squeeze = nn.Linear(channels, max(1, channels // reduction), dtype=dtype)
        self.excite = nn.Linear(max(1, channels // reduction), channels, dtype=dtype)

    def forward(self, x: Tensor) -> Tensor:
        """Return ``x`` with each channel scaled."""
        weights = self.excite(F.relu(self.squeeze(x.mean((2, 3))))).sigmoid()
        return x * weights[:, :, None, None]


def add_blocks(
    net: Assembly,
    widths: Sequence[int],
    counts: Sequence[int],
    strides: Sequence[int],
    kernel_sizes: Sequence[int] = (3, 3),
    strided: int = 0,
    expansion: int = 1,
    group_width: int | None = None,
    padded: bool = False,
    gated: bool = False,
    preactivated: bool = False,
) -> None:
    """Append stages of residual blocks named ``block1``, ``block2``, ....

    Where a block changes the shape, its shortcut is a 1 x 1 layer of the factory at the depth of the block's last
    layer.

    Args:
        net: The network under construction.
        widths: Number of channels inside of the blocks of each stage.
        counts: Number of blocks of each stage.
        strides: Stride of the first block of each stage.
        kernel_sizes: The kernel sizes of a block's layers.
        strided: Index of the layer of a block that has the stride.
        expansion: A block returns so many times its width in channels.
        group_width: Number of channels per group in layers larger than 1 x 1; ``None`` for a single group.
        padded: Whether shortcuts have no weights (``PaddedShortcut``).
        gated: Whether blocks end with ``SqueezeExcitation``.
        preactivated: Whether blocks are pre-activated.
    """
    number = 0
    for width, count, first_stride in zip(widths, counts, strides, strict=True):
        for stride in (first_stride, *[1] * (count - 1)):
            number += 1
            c_in, c_out = net.channels, width * expansion
            channels = [c_in, *[width] * (len(kernel_sizes) - 1), c_out]
            layers = []
            for i, k in enumerate(kernel_sizes):
                groups = channels[i] // group_width if group_width and k > 1 else 1
                layers.append(net.make(channels[i], channels[i + 1], k, stride if i == strided else 1, groups))
            shortcut: nn.Module = nn.Identity()
            if (stride, c_in) != (1, c_out):
                shortcut = PaddedShortcut(stride, c_out - c_in) if padded else net.make_parallel(c_in, c_out, 1, stride)
            gate = SqueezeExcitation(c_out, dtype=net.dtype) if gated else None
            net.add(f"block{number}", Residual(layers, shortcut, gate, preactivated), c_out, stride)
