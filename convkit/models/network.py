"""`Network` and `Assembly`: a sequence of named steps for images in [0, 1], and the builder that puts it together."""

import inspect
import math
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any, TypedDict

import torch
from torch import Tensor, nn

from convkit.checks import described, number, plain, positive, whole
from convkit.models.layers import ConvAndNorm, LayerFactory, Place
from convkit.operators.dtypes import default_dtype, floating

SMALLEST_IMAGE = 8


class Normalize(nn.Module):
    """Compute ``(x - mean) / std`` per channel, as a part of the network, so that attacks see images in [0, 1].

    Args:
        mean, std: One number per channel.
        dtype: The dtype of both.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Sequence[float], std: Sequence[float], dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean, dtype=dtype)[:, None, None])
        self.register_buffer("std", torch.tensor(std, dtype=dtype)[:, None, None])

    def forward(self, x: Tensor) -> Tensor:
        """Return ``(x - mean) / std``."""
        return (x - self.mean) / self.std


class Network(nn.Sequential):
    """A sequence of named steps from images ``(batch, in_channels, n, n)`` in [0, 1] to ``(batch, classes)``.

    Images of another size than the one it was built for are accepted as long as they are large enough to be pooled.

    Attributes:
        in_channels: Number of channels of the images; ``None`` for a slice of a network, which takes any input.
        smallest: The smallest height and width in pixels.
        residual: Whether the network has residual blocks.
        notes: Sentences that say where the network differs from the published one.
    """

    def __init__(self, *steps: nn.Module | OrderedDict[str, nn.Module]) -> None:
        # slices of a network are networks, too: they are made by this line alone
        super().__init__(*steps)  # pyright: ignore[reportCallIssue, reportArgumentType]
        self.in_channels: int | None = None
        self.smallest = 1
        self.residual = False
        self.notes: list[str] = []

    def forward(self, input: Tensor) -> Tensor:
        """Return the logits; raise ``ValueError`` for a batch of another shape."""
        if isinstance(input, Tensor) and self.in_channels is not None:  # torch.fx traces with something else
            shape = tuple(input.shape)
            if len(shape) != 4 or shape[1] != self.in_channels or min(shape[2:]) < self.smallest:
                raise ValueError(
                    f"needed a batch of images (batch, {self.in_channels}, height, width) of at least "
                    f"{self.smallest} x {self.smallest} pixels, got shape {shape}; build the network with the "
                    "in_channels and the image_size of the data"
                )
        return super().forward(input)


class Images(TypedDict, total=False):
    """What a network is built for: keyword arguments of every function in ``MODELS``, none of which is required.

    Args:
        in_channels: Number of channels of the images; 3 unless given.
        classes: Number of classes; 10 unless given.
        image_size: Height (= width) of the images in pixels; 32 unless given.
        mean, std: One number per channel: the first step is ``(x - mean) / std``; ``None`` for neither.
        dtype: The dtype of the weights; float32 unless given.
    """

    in_channels: int
    classes: int
    image_size: int
    mean: Sequence[float] | None
    std: Sequence[float] | None
    dtype: torch.dtype


class Assembly:
    """A builder of networks, step by step, that keeps track of channels, image size and depth.

    Every layer is made in ``dtype``, also by a layer factory that knows nothing of dtypes.

    Args:
        layers: Number L of convolutions between the input and the head; the l-th gets ``depth=l / L``.
        layer: The layer factory that makes every convolution.
        in_channels, classes, image_size, mean, std, dtype: See ``Images``.

    Raises ``ValueError`` for numbers that are out of range and for only one of ``mean`` and ``std``.
    """

    def __init__(
        self,
        layers: int,
        layer: LayerFactory,
        in_channels: int = 3,
        classes: int = 10,
        image_size: int = 32,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        self.dtype = floating(dtype)
        self.in_channels = self.channels = whole("in_channels", in_channels, 1)
        self.classes = whole("classes", classes, 1)
        self.image_size = self.size = whole("image_size", image_size, SMALLEST_IMAGE)
        self.layers, self.layer, self.index = layers, layer, 0
        self.smallest = 1
        self.steps: OrderedDict[str, nn.Module] = OrderedDict()
        self.notes: list[str] = []
        if mean is not None or std is not None:
            self.steps["normalize"] = Normalize(*_checked_statistics(mean, std, self.in_channels), dtype)

    def make(
        self,
        c_in: int,
        c_out: int,
        kernel_size: int,
        stride: int = 1,
        groups: int = 1,
        padding: int | None = None,
        blocks: int = 0,
        alone: bool = False,
        parallel: bool = False,
    ) -> nn.Module:
        """Return the next convolution on the way to the head.

        Args:
            c_in, c_out, kernel_size, stride, groups: As in ``nn.Conv2d``.
            padding: ``None`` for one with which stride 1 keeps the size.
            blocks: Number of residual blocks of the network, for the last convolution of one; 0 for any other.
            alone: Whether it comes without the normalization of its outputs; see ``norm``.
            parallel: Whether it lies beside the last one made, at the same depth, as a shortcut does.
        """
        self.index += not parallel
        padding, depth = kernel_size // 2 if padding is None else padding, self.index / self.layers
        with default_dtype(self.dtype):
            if alone:
                place = Place(depth, blocks)
                return self._parts().conv(c_in, c_out, kernel_size, stride, padding, 1, groups, place)
            told: dict[str, Any] = {"last_of_block": True, "blocks": blocks} if blocks else {}
            told = {name: value for name, value in told.items() if name in _arguments(self.layer)}
            return self.layer(
                c_in, c_out, kernel_size, stride=stride, padding=padding, groups=groups, depth=depth, **told
            )

    def norm(self, channels: int, blocks: int = 0) -> nn.Module:
        """Return the normalization that precedes the next convolution, or the identity where the factory has none.

        It counts as a layer of the depth of the last convolution made, whose outputs it normalizes. Raises
        ``ValueError`` for a layer factory whose convolution and normalization cannot be had one by one.

        Args:
            channels: Number of channels.
            blocks: Number of residual blocks of the network, for the last normalization of one; 0 for any other.
        """
        with default_dtype(self.dtype):
            norm = self._parts().norm(channels, Place(self.index / self.layers, blocks, before=True))
        return nn.Identity() if norm is None else norm

    def _parts(self) -> ConvAndNorm:
        if not isinstance(self.layer, ConvAndNorm):
            raise ValueError(
                "a normalization before its convolution needs a layer factory that makes one without the other, got "
                f"{described(self.layer)}; use batchnorm_layer, a method of METHODS, or ConvAndNorm(conv, norm)"
            )
        return self.layer

    def convolution(self, name: str, c_out: int, kernel_size: int = 3, stride: int = 1) -> None:
        """Append the next convolution as a step of this name, without an activation."""
        self.add(name, self.make(self.channels, c_out, kernel_size, stride), c_out, stride)

    def add(self, name: str, step: nn.Module, channels: int | None = None, stride: int = 1) -> None:
        """Append a step.

        Args:
            name: The name of the step.
            step: The module.
            channels: Number of channels of its output; ``None`` if it does not change them.
            stride: Factor by which the step reduces height and width, rounded up.
        """
        self.steps[name] = step
        self.channels = channels or self.channels
        self.size = math.ceil(self.size / stride)

    def pool(self, name: str, kind: type[nn.AvgPool2d] | type[nn.MaxPool2d]) -> None:
        """Append 2 x 2 pooling, or a note where the image has become too small for it."""
        if self.size < 2:
            self.notes.append(f"Image size {self.image_size}: {name} is left out, since it would meet a single pixel.")
            return
        self.steps[name] = kind(2)
        self.size //= 2
        self.smallest *= 2

    def finish(self, residual: bool = False, pixels: int = 1, hidden: Sequence[int] = ()) -> Network:
        """Append the average over all pixels and a linear layer, and return the network.

        Args:
            residual: Whether the network has residual blocks.
            pixels: The average leaves so many pixels on each axis.
            hidden: Numbers of units of linear layers before the last one, each behind dropout and before a ReLU.

        Raises ``RuntimeError`` if another number of convolutions than ``layers`` was made.
        """
        if self.index != self.layers:
            raise RuntimeError(f"needed {self.layers} layers, got {self.index}; correct the number of layers")
        self.steps["average"] = nn.AdaptiveAvgPool2d(pixels)
        self.steps["flatten"] = nn.Flatten()
        features = self.channels * pixels**2
        for place, units in enumerate(hidden, start=1):
            self.steps[f"dropout{place}"] = nn.Dropout(0.5)
            self.steps[f"linear{place}"] = nn.Linear(features, units, dtype=self.dtype)
            self.steps[f"unit{place}"] = nn.ReLU()
            features = units
        self.steps["head"] = nn.Linear(features, self.classes, dtype=self.dtype)
        network = Network(self.steps)
        network.in_channels, network.smallest = self.in_channels, self.smallest
        network.residual, network.notes = residual, self.notes
        return network


def scaled(channels: int, width: float) -> int:
    """Return ``channels * width``, rounded, at least 1."""
    return max(1, round(channels * positive("width", width, "; 1 is the published network")))


def _arguments(layer: LayerFactory) -> set[str]:
    """Return the names of a factory's arguments; none where Python cannot tell."""
    try:
        return {*inspect.signature(layer).parameters}
    except (TypeError, ValueError):
        return set()


def _checked_statistics(
    mean: Sequence[float] | None, std: Sequence[float] | None, channels: int
) -> tuple[list[float], list[float]]:
    """Return mean and std as lists of one number per channel; raise ``ValueError`` for anything else."""
    if mean is None or std is None:
        raise ValueError("mean and std go together, got one of them; give both, or none for images as they are")
    means, stds = (
        torch.as_tensor(plain(values), dtype=torch.float64, device="cpu").flatten().tolist() for values in (mean, std)
    )
    if len(means) != channels or len(stds) != channels:
        raise ValueError(
            f"mean and std need one number for each of {channels} channels, got {len(means)} and {len(stds)}; "
            "give the statistics of the data that the network will see"
        )
    advice = "; measure it on other images"
    return [number("mean", m, advice=advice) for m in means], [positive("std", s, advice) for s in stds]
