"""Geometries to test on: hypothesis draws them from everything that a ConvOperator can be."""

from dataclasses import dataclass, replace
from typing import Any

import torch
from hypothesis import strategies as st
from torch import Tensor

from convkit.operators.operator import ConvOperator

MODES = ("circular", "zeros", "reflect", "replicate")
LARGEST = {1: 9, 2: 6, 3: 4}  # pixels an axis, by the number of axes: the dense matrix stays below 200 x 200


def normal(*shape: int, device: torch.device | str, dtype: torch.dtype = torch.float64, seed: int = 0) -> Tensor:
    """Standard normal numbers, the same on every device: drawn on the CPU."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64).to(device, dtype)


@dataclass(frozen=True)
class Geometry:
    """Everything but the numbers of a ConvOperator, printed in full when a test fails."""

    kernel_shape: tuple[int, ...]  # (c_out, c_in // groups, *kernel_size)
    input_shape: tuple[int, ...]
    stride: tuple[int, ...] | int = 1
    padding: Any = "same"
    dilation: tuple[int, ...] | int = 1
    groups: int = 1
    padding_mode: str = "circular"
    transposed: bool = False

    def operator(self, device: torch.device | str, dtype: torch.dtype = torch.float64, seed: int = 0) -> ConvOperator:
        """The operator of this geometry whose kernel is normal noise."""
        return self.with_kernel(normal(*self.kernel_shape, device=device, dtype=dtype, seed=seed))

    def with_kernel(self, kernel: Tensor) -> ConvOperator:
        """The operator of this geometry with this kernel."""
        numbers = self.stride, self.padding, self.dilation, self.groups, self.padding_mode, self.transposed
        return ConvOperator(kernel, self.input_shape, *numbers)


def inputs(A: ConvOperator, batch: int = 3, seed: int = 1) -> Tensor:
    """A batch of noise that A takes."""
    return normal(batch, *A.in_shape, device=A.kernel.device, dtype=A.kernel.dtype, seed=seed)


def outputs(A: ConvOperator, batch: int = 3, seed: int = 2) -> Tensor:
    """A batch of noise that the adjoint of A takes."""
    return normal(batch, *A.out_shape, device=A.kernel.device, dtype=A.kernel.dtype, seed=seed)


def scaled(A: ConvOperator, factor: float) -> ConvOperator:
    """The same geometry, the kernel times a number."""
    return replace(A, kernel=factor * A.kernel)


# Every axis differs from every other, so that a transposed index shows. By name: which of the tests' ids it gets.
CIRCULAR = {
    "2-D": Geometry((3, 2, 3, 2), (4, 5)),
    "2-D strided": Geometry((3, 2, 2, 3), (6, 4), stride=(3, 2)),
    "2-D grouped, dilated": Geometry((4, 1, 2, 3), (3, 5), dilation=(2, 3), groups=2),
    "1-D, kernel longer than the image": Geometry((2, 3, 7), (4,), stride=2),
    "3-D": Geometry((2, 1, 2, 1, 3), (2, 3, 4), stride=(1, 3, 2)),
    "all padding before": Geometry((2, 3, 3, 2), (5, 4), padding=((2, 0), (1, 0))),
    "patches": Geometry((5, 2, 2, 3), (4, 6), stride=(2, 3), padding="valid", padding_mode="zeros"),
    "2-D transposed": Geometry((4, 1, 2, 3), (6, 4), stride=(3, 2), groups=2, transposed=True),
}
OTHERS = {
    "2-D zeros": Geometry((3, 2, 3, 2), (4, 5), padding_mode="zeros"),
    "2-D zeros, strided": Geometry((2, 3, 3, 2), (5, 6), stride=(2, 3), padding=(2, 1), padding_mode="zeros"),
    "2-D zeros, grouped": Geometry((4, 1, 2, 3), (3, 5), padding=((0, 2), (1, 0)), groups=2, padding_mode="zeros"),
    "1-D, padding beyond the span": Geometry((2, 3, 2), (4,), padding=3, dilation=2, padding_mode="zeros"),
    "3-D valid": Geometry((2, 2, 2, 1, 3), (3, 2, 4), padding="valid", padding_mode="zeros"),
    "stride does not divide": Geometry((3, 2, 3, 2), (5, 4), stride=(2, 3)),
    "circular, padding not the span": Geometry((2, 3, 5, 2), (3, 4), padding=(1, 2)),
    "2-D reflecting": Geometry((3, 2, 3, 2), (4, 5), padding=((2, 1), (0, 1)), padding_mode="reflect"),
    "1-D reflecting twice": Geometry((4, 1, 3), (3,), stride=2, padding=4, groups=2, padding_mode="reflect"),
    "2-D replicating": Geometry((2, 3, 2, 3), (5, 3), stride=(1, 2), padding=2, dilation=2, padding_mode="replicate"),
    "2-D zeros, transposed": Geometry((3, 2, 3, 2), (5, 6), 2, (1, 0), padding_mode="zeros", transposed=True),
}
EVERYTHING = CIRCULAR | OTHERS


@st.composite
def geometries(draw: st.DrawFn, padding_modes: tuple[str, ...] = MODES, groups: int = 3) -> Geometry:
    """Any geometry: 1-D to 3-D, sizes from 1, any padding; kernels fit, and may be longer than the image."""
    spatial = draw(st.integers(1, 3))

    def axes(low: int, high: int) -> tuple[int, ...]:
        return tuple(draw(st.integers(low, high)) for _ in range(spatial))

    input_shape, stride, dilation = axes(1, LARGEST[spatial]), axes(1, 3), axes(1, 3)
    pairs = tuple((before, after) for before, after in zip(axes(0, 3), axes(0, 3), strict=True))
    padding = draw(st.sampled_from(["same", "valid", pairs[0][0], tuple(before for before, _ in pairs), pairs]))
    kernel_size = []
    for n, d, both in zip(input_shape, dilation, _pairs(padding, spatial), strict=True):
        fits = 4 if both is None else (n + sum(both) - 1) // d + 1
        kernel_size.append(draw(st.integers(1, min(4, fits))))
    number = draw(st.integers(1, groups))
    channels = number * draw(st.integers(1, 4 - number)), draw(st.integers(1, 3))
    mode = draw(st.sampled_from(padding_modes))
    return Geometry(
        (*channels, *kernel_size), input_shape, stride, padding, dilation, number, mode, draw(st.booleans())
    )


@st.composite
def exact_geometries(draw: st.DrawFn, max_stride: int = 3) -> Geometry:
    """Any geometry that the Fourier transform makes block-diagonal: circular with padding of the span in all."""
    spatial = draw(st.integers(1, 3))
    stride = tuple(draw(st.integers(1, max_stride)) for _ in range(spatial))
    input_shape = tuple(s * draw(st.integers(1, max(1, LARGEST[spatial] // s))) for s in stride)
    dilation = tuple(draw(st.integers(1, 3)) for _ in range(spatial))
    kernel_size = tuple(draw(st.integers(1, 4)) for _ in range(spatial))
    groups = draw(st.integers(1, 3))
    channels = groups * draw(st.integers(1, 4 - groups)), draw(st.integers(1, 3))
    spans = [d * (k - 1) for d, k in zip(dilation, kernel_size, strict=True)]
    before = [draw(st.integers(0, span)) for span in spans]
    pairs = tuple((b, span - b) for b, span in zip(before, spans, strict=True))
    padding = draw(st.sampled_from(["same", pairs]))
    return Geometry(
        (*channels, *kernel_size), input_shape, stride, padding, dilation, groups, transposed=draw(st.booleans())
    )


@st.composite
def patch_geometries(draw: st.DrawFn) -> Geometry:
    """Windows that neither overlap nor cross the boundary: exact, too, whatever the boundary."""
    spatial = draw(st.integers(1, 3))
    stride = tuple(draw(st.integers(1, 4 if spatial < 3 else 2)) for _ in range(spatial))
    input_shape = tuple(s * draw(st.integers(1, 3)) for s in stride)
    kernel_size = tuple(draw(st.integers(1, s)) for s in stride)
    groups = draw(st.integers(1, 2))
    channels = groups * draw(st.integers(1, 2)), draw(st.integers(1, 3))
    mode = draw(st.sampled_from(["circular", "zeros"]))
    return Geometry((*channels, *kernel_size), input_shape, stride, "valid", 1, groups, mode)


def _pairs(padding: Any, spatial: int) -> list[tuple[int, int] | None]:
    if padding == "same":
        return [None] * spatial
    if padding == "valid":
        return [(0, 0)] * spatial
    if isinstance(padding, int):
        return [(padding, padding)] * spatial
    return [pair if isinstance(pair, tuple) else (pair, pair) for pair in padding]
