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
    and ``relu(x)`` to one with weights, as published. Its layers are convolutions with a normalization behind them, as
    layer factories make them, or, as published, convolutions alone with ``norms`` before the ReLUs:
    ``conv_1(relu(norm_1(x)))``, and so on.

    Args:
        layers: The convolutions.
        shortcut: The module on the other branch, such as ``nn.Identity()``.
        gate: A module applied to the result of the convolutions; ``None`` for none.
        preactivated: Whether the block is pre-activated.
        norms: What normalizes the input of each convolution of a pre-activated block; empty for nothing.
    """

    def __init__(
        self,
        layers: Sequence[nn.Module],
        shortcut: nn.Module,
        gate: nn.Module | None = None,
        preactivated: bool = False,
        norms: Sequence[nn.Module] = (),
    ) -> None:
        super().__init__()
        self.names = [f"conv{i}" for i in range(1, len(layers) + 1)]
        for name, layer in zip(self.names, layers, strict=True):
            self.add_module(name, layer)
        for i, norm in enumerate(norms, start=1):
            self.add_module(f"norm{i}", norm)
        self.gate = nn.Identity() if gate is None else gate
        self.shortcut = shortcut
        self.activation = nn.ReLU()
        self.preactivated = preactivated
        self.weightless = isinstance(shortcut, nn.Identity | PaddedShortcut)

    def forward(self, x: Tensor) -> Tensor:
        """Return the output of the block, ``(batch, c_out, ...)``."""
        y = start = self._activated(x, 0) if self.preactivated else x
        for i, name in enumerate(self.names):
            y = self.get_submodule(name)(self._activated(y, i) if i else y)
        total = self.gate(y) + self.shortcut(x if self.weightless else start)
        return total if self.preactivated else self.activation(total)

    def _activated(self, y: Tensor, i: int) -> Tensor:
        """Return what goes into the convolution of this index."""
        norm = getattr(self, f"norm{i + 1}", None)
        return self.activation(y if norm is None else norm(y))


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
    norm_first: bool = False,
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
        norm_first: Whether each normalization of a pre-activated block precedes its ReLU and its convolution, and
            shortcuts have none, as published.
    """
    number, blocks = 0, sum(counts)
    for width, count, first_stride in zip(widths, counts, strides, strict=True):
        for stride in (first_stride, *[1] * (count - 1)):
            number += 1
            c_in, c_out = net.channels, width * expansion
            channels = [c_in, *[width] * (len(kernel_sizes) - 1), c_out]
            layers, norms = [], []
            for i, k in enumerate(kernel_sizes):
                groups = channels[i] // group_width if group_width and k > 1 else 1
                ends = blocks if i == len(kernel_sizes) - 1 else 0
                if norm_first:
                    norms.append(net.norm(channels[i], ends))
                shape = channels[i], channels[i + 1], k, stride if i == strided else 1, groups
                layers.append(net.make(*shape, blocks=ends, alone=norm_first))
            shortcut: nn.Module = nn.Identity()
            if (stride, c_in) != (1, c_out) and padded:
                shortcut = PaddedShortcut(stride, c_out - c_in)
            elif (stride, c_in) != (1, c_out):
                shortcut = net.make(c_in, c_out, 1, stride, alone=norm_first, parallel=True)
            gate = SqueezeExcitation(c_out, dtype=net.dtype) if gated else None
            net.add(f"block{number}", Residual(layers, shortcut, gate, preactivated, norms), c_out, stride)
