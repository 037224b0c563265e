"""The one skeleton of all residual networks: a block of layers, what stands beside it, and stages of blocks."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from convkit.models.network import Assembly


class Residual(nn.Module):
    """``shortcut(x) + conv_k(relu(... conv_1(x)))``, with a ReLU after the sum or, pre-activated, before ``conv_1``.

    A pre-activated block gives ``x`` itself to a shortcut without weights and ``relu(x)`` to one with weights, as the
    published ones do. A layer of the factory holds its normalization behind its convolution, so the normalization of
    a pre-activated block stands behind its convolutions, too, not before them.
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
        self.preactivated = preactivated
        self.weightless = isinstance(shortcut, nn.Identity | PaddedShortcut)

    def forward(self, x: Tensor) -> Tensor:
        start = F.relu(x) if self.preactivated else x
        y = start
        for i, name in enumerate(self.names):
            y = self.get_submodule(name)(F.relu(y) if i else y)
        total = self.gate(y) + self.shortcut(x if self.weightless else start)
        return total if self.preactivated else F.relu(total)


class PaddedShortcut(nn.Module):
    """He et al.'s option A, a shortcut without weights: every ``stride``-th pixel, then channels of zeros."""

    def __init__(self, stride: int, channels: int) -> None:
        super().__init__()
        self.stride = stride
        self.channels = channels  # that are added

    def forward(self, x: Tensor) -> Tensor:
        return F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, 0, self.channels))


class SqueezeExcitation(nn.Module):
    """Each channel times a number in (0, 1) that two linear layers find from the averages of all channels."""

    def __init__(self, channels: int, reduction: int = 16, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.squeeze = nn.Linear(channels, max(1, channels // reduction), dtype=dtype)
        self.excite = nn.Linear(max(1, channels // reduction), channels, dtype=dtype)

    def forward(self, x: Tensor) -> Tensor:
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
    """Adds stages of blocks ``block1``, ``block2``, ...: ``counts[i]`` blocks of ``widths[i]`` channels inside.

    The first block of a stage takes its stride, in the layer number ``strided``; ``expansion`` times the width leaves
    a block. 3 x 3 layers have groups of ``group_width`` channels. Where the shape changes, the shortcut is a 1 x 1
    layer of the factory, at the depth of the block's last layer; with ``padded=True`` it has no weights.
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
                shortcut = PaddedShortcut(stride, c_out - c_in) if padded else net.beside(c_in, c_out, 1, stride)
            gate = SqueezeExcitation(c_out, dtype=net.dtype) if gated else None
            net.add(f"block{number}", Residual(layers, shortcut, gate, preactivated), c_out, stride)
