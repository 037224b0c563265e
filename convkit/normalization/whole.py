"""The convolution of ConvNorm2d and its derivatives on a GPU: few operators, each on whole tensors.

Where a GPU is faster than its host starts operators, their number is what counts. So a step here is one product of
matrices, which takes each tensor with the axes in the order in which they lie in memory: nothing is copied. Transforms
are real tensors of shape ``(frequencies, 3, batch, channels)``: minus the imaginary part, the real part, the imaginary
part. The first two are i times the last two, so that a product with complex matrices takes two real products.
"""

from typing import Any

import torch
from torch import Tensor

from convkit.normalization.torus import SCALE, WEIGHT, TorusConvolution, X, Y, angles, cached_tables, traced

CHANNELS = 3  # the axis of the channels in a transform
CHUNK = 2**29  # bytes of the symbol at a time: what a GPU can spare
TIMES_I, PARTS = slice(0, 2), slice(1, 3)


def few_operators(x: Tensor) -> bool:
    """Return whether to compute by few operators on whole tensors, instead of by pieces that fit into a cache.

    So it is on a GPU, and where a compiler or ``torch.jit`` traces: exported graphs cannot have ``out=`` and gradients.
    """
    return x.is_cuda or torch.compiler.is_compiling() or traced()


def derivatives(
    geometry: TorusConvolution,
    groups: int,
    by: tuple[int, ...],
    x: Tensor,
    weight: Tensor,
    scale: Tensor,
    y: Any,
    blocks: tuple[Tensor, ...],
) -> tuple[dict[int, Tensor], tuple[Tensor, ...]]:
    """Return the derivatives of ``<y, outputs>`` by these factors, and the transform of x where it is needed."""
    found, size = {}, scale[:, None, None]
    if not blocks and by != (X,):
        blocks = (_transform(x, *_input_tables(geometry, x.device, x.dtype)[:2]),)
    grad: Any = None if by == (Y,) else _transform(y, *_output_tables(geometry, y.device, y.dtype)[:2])
    outputs: Any = _product(geometry, weight, blocks[0], groups) if SCALE in by or Y in by else None
    if SCALE in by:
        found[SCALE] = (grad[:, PARTS] * outputs).sum((1, 2))
    if Y in by:
        found[Y] = _images(outputs.mul_(size), *_output_tables(geometry, x.device, x.dtype)[2:])
    if X in by or WEIGHT in by:
        grad = grad.mul_(size)
    if X in by:
        product = _product(geometry, weight, grad, groups, adjoint=True)
        found[X] = _images(product, *_input_tables(geometry, y.device, y.dtype)[2:])
    if WEIGHT in by:
        found[WEIGHT] = _weight_gradient(geometry, weight, grad, blocks[0], groups)
    return found, blocks


# ---- transforms ------------------------------------------------------------------------------------------------------
def _transform(x: Tensor, columns: Tensor, rows: Tensor) -> Tensor:
    """Return the transform of images: ``columns`` along their second axis, then ``rows`` along their first."""
    batch, channels, h, w = x.shape
    half = len(columns) // 2
    x = torch.bmm(columns.expand(h, -1, -1), x.permute(2, 3, 0, 1).reshape(h, w, batch * channels))
    x = x.view(2 * h, half, batch * channels).transpose(0, 1)
    return torch.bmm(rows.expand(half, -1, -1), x).view(half * (len(rows) // 3), 3, batch, channels)


def _images(parts: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Return images of real and imaginary parts: ``rows`` along the first axis, then ``columns`` along the second."""
    (_, _, batch, channels), half = parts.shape, columns.shape[1] // 2
    h, w, across = len(rows) // 2, len(columns), batch * channels
    # in place with beta=0: the products are written in the order in which the next one, or the layer's caller, reads
    x = parts.new_empty(2 * h, half, across).transpose(0, 1)
    x = x.baddbmm_(rows.expand(half, -1, -1), parts.reshape(half, rows.shape[1], across), beta=0)
    x = x.transpose(0, 1).reshape(h, 2 * half, across)
    y = parts.new_empty(across, h, w).permute(1, 2, 0).baddbmm_(columns.expand(h, -1, -1), x, beta=0)
    return y.permute(2, 0, 1).reshape(batch, channels, h, w)


@cached_tables
def _input_tables(geometry: TorusConvolution, device: torch.device, dtype: torch.dtype) -> list[Tensor]:
    """Return the matrices of ``_transform``, then those of its adjoint by ``_images``, for the images x."""
    pixels = [torch.arange(size, device="cpu") for size in geometry.input_shape]
    return _tables(geometry, pixels, [torch.ones(len(each), 1, device="cpu") for each in pixels], device, dtype)


@cached_tables
def _output_tables(geometry: TorusConvolution, device: torch.device, dtype: torch.dtype) -> list[Tensor]:
    """Return the matrices of the adjoint by ``_transform``, then those of ``_images``, for the outputs."""
    pixels, wanted = zip(*(geometry.output_pixels(axis) for axis in (0, 1)), strict=True)
    columns = torch.arange(geometry.half, device="cpu")
    times = 2 - (2 * columns % geometry.torus[1] == 0).double()  # f stands for -f, too
    weights = [touches[:, None].double() / n for touches, n in zip(wanted, geometry.torus, strict=True)]
    return _tables(geometry, pixels, [weights[0], weights[1] * times], device, dtype)


def _tables(
    geometry: TorusConvolution, pixels: Any, weights: list[Tensor], device: torch.device, dtype: torch.dtype
) -> list[Tensor]:
    """Return matrices of a transform of weighted pixels and of its adjoint; axes of real and imaginary parts inside."""
    row, column = (angles(n, each).T for n, each in zip(geometry.torus, pixels, strict=True))
    column = column[:, : geometry.half]
    columns = torch.cat([column.cos() * weights[1], -column.sin() * weights[1]], 1).T
    cos, sin = (wave * weights[0] for wave in (row.cos(), row.sin()))
    real, imaginary = torch.stack([cos.T, sin.T], 2).flatten(1), torch.stack([-sin.T, cos.T], 2).flatten(1)
    rows = torch.stack([-imaginary, real, imaginary], 1).flatten(0, 1)
    back = torch.stack([real, imaginary], 1).flatten(0, 1).T
    return [matrix.contiguous().to(device, dtype) for matrix in (columns, rows, back, columns.T)]


# ---- products at each frequency --------------------------------------------------------------------------------------
def _product(geometry: TorusConvolution, weight: Tensor, planes: Tensor, groups: int, adjoint: bool = False) -> Tensor:
    """Return real and imaginary part of a transform times the symbol, or times its conjugate for the adjoint."""
    parts = []
    for some in _chunks(geometry, weight):
        waves = _waves(geometry, adjoint, weight.device, weight.dtype)[:, some].flatten(0, 1)
        symbol = (waves @ weight.flatten(2).flatten(0, 1).T).view(2, -1, len(weight) // groups, weight.shape[1])
        real, imaginary = symbol if adjoint else symbol.mT
        part = torch.bmm(_joined(planes[some, PARTS], groups), real)
        part.baddbmm_(_joined(planes[some, TIMES_I], groups), imaginary)
        part = part.view(len(part) // groups, groups, 2, planes.shape[2], part.shape[2])
        parts.append(part.permute(0, 2, 3, 1, 4).flatten(3))
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def _weight_gradient(geometry: TorusConvolution, weight: Tensor, grad: Tensor, planes: Tensor, groups: int) -> Tensor:
    """Return the adjoint of the symbol on the product of a gradient with the conjugate transform of x."""
    parts = []
    for some in _chunks(geometry, weight):
        x = _joined(planes[some, PARTS], groups)
        product = weight.new_empty(2, len(x), len(weight) // groups, weight.shape[1])
        for each, part in zip((PARTS, TIMES_I), product, strict=True):
            part.baddbmm_(_joined(grad[some, each], groups).mT, x, beta=0)
        waves = _waves(geometry, True, weight.device, weight.dtype)[:, some].flatten(0, 1)
        parts.append(product.view(len(waves), weight[..., 0, 0].numel()).T @ waves)
    return sum(parts[1:], parts[0]).view_as(weight)


@cached_tables
def _waves(geometry: TorusConvolution, conjugate: bool, device: torch.device, dtype: torch.dtype) -> Tensor:
    """Return the matrix from taps to the symbol, or to its conjugate: ``(2, frequencies, taps)``."""
    cos, sin = geometry.phases(torch.empty(0, dtype=dtype, device="cpu"))
    return torch.stack([cos, -sin if conjugate else sin]).to(device)


def _chunks(geometry: TorusConvolution, weight: Tensor) -> list[slice]:
    """Return the frequencies in as few pieces as memory allows."""
    count = geometry.half * geometry.torus[0]
    step = max(1, CHUNK // (2 * weight.element_size() * weight[..., 0, 0].numel()))
    return [slice(start, min(start + step, count)) for start in range(0, count, step)]


def _joined(planes: Tensor, groups: int) -> Tensor:
    """Return two planes as matrices, ``(frequencies * groups, 2 * batch, channels / groups)``."""
    frequencies, two, batch, channels = planes.shape
    apart = planes.unflatten(3, (groups, channels // groups)).permute(0, 3, 1, 2, 4)
    return apart.reshape(frequencies * groups, two * batch, channels // groups)
