"""The frame of every network: named steps in a row, inputs in [0, 1], and the assembly that counts its layers."""

import math
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from convkit.checks import number, plain, positive, whole
from convkit.models.layers import Layer
from convkit.operators.dtypes import floating, made_in

SMALLEST_IMAGE = 8


class Normalize(nn.Module):
    """``(x - mean) / std`` channel by channel: part of the network, so that attacks see images in [0, 1]."""

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Sequence[float], std: Sequence[float], dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean, dtype=dtype)[:, None, None])
        self.register_buffer("std", torch.tensor(std, dtype=dtype)[:, None, None])

    def forward(self, x: Tensor) -> Tensor:
        return (x - self.mean) / self.std


class Network(nn.Sequential):
    """Named steps, one after the other, from images ``(batch, in_channels, n, n)`` in [0, 1] to ``(batch, classes)``.

    ``notes`` says, in sentences, where the network differs from the published one; ``residual`` says whether blocks
    add to what they are given. Larger and smaller images than ``image_size`` are taken while the poolings fit.
    """

    def __init__(self, *steps: Any) -> None:
        super().__init__(*steps)  # slices of a network are networks, too: they are made by this line alone
        self.in_channels: int | None = None
        self.smallest = 1
        self.residual = False
        self.notes: list[str] = []

    def forward(self, input: Tensor) -> Tensor:
        if isinstance(input, Tensor) and self.in_channels is not None:  # torch.fx traces with something else
            shape = tuple(input.shape)
            if len(shape) != 4 or shape[1] != self.in_channels or min(shape[2:]) < self.smallest:
                raise ValueError(
                    f"needed a batch of images (batch, {self.in_channels}, height, width) of at least "
                    f"{self.smallest} x {self.smallest} pixels, got shape {shape}; build the network with the "
                    "in_channels and the image_size of the data"
                )
        return super().forward(input)


class Assembly:
    """Puts a network together step by step: knows the channels and the image size so far, and the depth l / L.

    Every layer is made in ``dtype``, also by a factory that names none.
    """

    def __init__(
        self,
        layers: int,
        layer: Layer,
        in_channels: int,
        image_size: int,
        mean: Sequence[float] | None,
        std: Sequence[float] | None,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        self.dtype = floating(dtype)
        self.in_channels = self.channels = whole("in_channels", in_channels, 1)
        self.image_size = self.size = whole("image_size", image_size, SMALLEST_IMAGE)
        self.layers, self.layer, self.index = layers, layer, 0
        self.smallest = 1
        self.steps: OrderedDict[str, nn.Module] = OrderedDict()
        self.notes: list[str] = []
        if mean is not None or std is not None:
            self.steps["normalize"] = Normalize(*_checked_statistics(mean, std, self.in_channels), dtype)

    def make(self, c_in: int, c_out: int, kernel_size: int, stride: int = 1, groups: int = 1) -> nn.Module:
        """The next convolution on the way to the head, padded to keep the image size at stride 1."""
        self.index += 1
        return self.beside(c_in, c_out, kernel_size, stride, groups)

    def beside(self, c_in: int, c_out: int, kernel_size: int, stride: int = 1, groups: int = 1) -> nn.Module:
        """A convolution beside the one made last, at the same depth: a shortcut."""
        padding, depth = kernel_size // 2, self.index / self.layers
        with made_in(self.dtype):
            return self.layer(c_in, c_out, kernel_size, stride=stride, padding=padding, groups=groups, depth=depth)

    def convolution(self, name: str, c_out: int, kernel_size: int = 3, stride: int = 1) -> None:
        """Adds a convolution, without an activation."""
        self.add(name, self.make(self.channels, c_out, kernel_size, stride), c_out, stride)

    def add(self, name: str, step: nn.Module, channels: int | None = None, stride: int = 1) -> None:
        """Adds a step that gives so many channels and takes every ``stride``-th pixel, the first among them."""
        self.steps[name] = step
        self.channels = channels or self.channels
        self.size = math.ceil(self.size / stride)

    def pool(self, name: str, kind: type[nn.AvgPool2d] | type[nn.MaxPool2d]) -> None:
        """Adds a pooling of 2 x 2 pixels, or a note where the image has become too small for it."""
        if self.size < 2:
            self.notes.append(f"Image size {self.image_size}: {name} is left out, since it would meet a single pixel.")
            return
        self.steps[name] = kind(2)
        self.size //= 2
        self.smallest *= 2

    def finish(self, classes: int, residual: bool = False) -> Network:
        """The network, closed by the average over all pixels and a linear layer without normalization."""
        if self.index != self.layers:
            raise RuntimeError(f"needed {self.layers} layers, got {self.index}; correct the number of layers")
        self.steps["average"] = nn.AdaptiveAvgPool2d(1)
        self.steps["flatten"] = nn.Flatten()
        self.steps["head"] = nn.Linear(self.channels, whole("classes", classes, 1), dtype=self.dtype)
        network = Network(self.steps)
        network.in_channels, network.smallest = self.in_channels, self.smallest
        network.residual, network.notes = residual, self.notes
        return network


def scaled(channels: int, width: float) -> int:
    """So many times the channels, rounded; at least one."""
    return max(1, round(channels * positive("width", width, "; 1 is the published network")))


def _checked_statistics(mean: Any, std: Any, channels: int) -> tuple[list[float], list[float]]:
    if mean is None or std is None:
        raise ValueError("mean and std go together, got one of them; give both, or none for images as they are")
    mean, std = (
        torch.as_tensor(plain(values), dtype=torch.float64, device="cpu").flatten().tolist() for values in (mean, std)
    )
    if len(mean) != channels or len(std) != channels:
        raise ValueError(
            f"mean and std need one number for each of {channels} channels, got {len(mean)} and {len(std)}; "
            "give the statistics of the data that the network will see"
        )
    advice = "; measure it on other images"
    return [number("mean", m, advice=advice) for m in mean], [positive("std", s, advice) for s in std]
