"""Symbols and singular values of convolutions: exact by Fourier where they exist, matrix-free everywhere else."""

import math
from collections.abc import Sequence
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from convkit.engine.blocks import Blocks, require_blocks
from convkit.engine.hermitian import svdvals
from convkit.engine.lanczos import leading_values
from convkit.engine.values import block_values
from convkit.operators.dtypes import in_full_precision
from convkit.operators.geometry import positive_ints
from convkit.operators.operator import ConvOperator
from convkit.operators.tables import on

LARGE_KERNEL = 2**22  # numbers of a kernel whose channels are taken in parts, so that blocks of all need no memory


@in_full_precision
def symbol(A: ConvOperator) -> Tensor:
    """Return the Fourier blocks of ``A``, complex, shape ``(*frequencies, c_out, c_in * prod(stride))``.

    At stride 1: ``fftn(A x)[f] = symbol(A)[f] @ fftn(x)[f]``, phases included; the exponent is positive because the
    layer correlates. At stride s there are ``n / s`` frequencies per axis, and a block holds side by side the
    ``prod(s)`` blocks of the frequencies ``g + r n / s`` that subsampling folds onto g, divided by ``sqrt(prod(s))``;
    the identity then holds for orthonormal transforms. Groups add an axis before the matrix:
    ``(*frequencies, groups, c_out / groups, c_in * prod(stride) / groups)``. The blocks of ``A.T`` are the conjugate
    transposes of those of ``A``.

    Exact. Raises ``NoFourierBlocks`` unless the boundary is circular with "same" padding (or the windows neither
    overlap nor cross it) and the stride divides the size. Theorem 6 of Sedghi et al. 2019, and aliasing.

    >>> A = ConvOperator(torch.tensor([[[1.0, 2.0, 1.0]]]), 4)
    >>> symbol(A).real.flatten()
    tensor([4., 2., 0., 2.])
    """
    require_blocks(A, "symbol")
    d, (c_out, c_in) = len(A.input_shape), A.kernel.shape[:2]
    coarse = [n // s for n, s in zip(A.input_shape, A.stride, strict=True)]
    transforms = torch.fft.fftn(A.kernel_on_image(), dim=tuple(range(2, 2 + d))).conj()  # conj: the layer correlates
    # f = r * coarse + g on each axis: split it, then order the axes (g, group, c_out, r, c_in)
    split = [size for pair in zip(A.stride, coarse, strict=True) for size in pair]
    blocks = transforms.reshape(A.groups, c_out // A.groups, c_in, *split)
    blocks = blocks.permute(*range(4, 4 + 2 * d, 2), 0, 1, *range(3, 3 + 2 * d, 2), 2)
    blocks = blocks.reshape(*coarse, A.groups, c_out // A.groups, -1) / math.sqrt(math.prod(A.stride))
    blocks = blocks.mH if A.transposed else blocks
    return blocks if A.groups > 1 else blocks.squeeze(d)


def from_symbol(blocks: Tensor, stride: int | Sequence[int] = 1, groups: int = 1) -> ConvOperator:
    """Return the circular operator with these blocks, its kernel as large as the image: the inverse of ``symbol``.

    ``blocks`` has the shape that ``symbol`` gives for this stride and these groups. Exact. Raises ``ValueError`` when
    the blocks at frequencies +f and -f are not conjugate, since then no real kernel has them.

    >>> A = ConvOperator(torch.tensor([[[1.0, 2.0, 1.0]]]), 4)
    >>> from_symbol(symbol(A)).kernel
    tensor([[[1., 2., 1., 0.]]])
    """
    if not isinstance(blocks, Tensor):
        raise TypeError(f"from_symbol needs a tensor of blocks, got {type(blocks).__name__}; use symbol(A)")
    (groups,) = positive_ints(groups, 1, "groups")
    d = blocks.ndim - 2 - (groups > 1)
    if not 1 <= d <= 3 or not blocks.is_complex():
        raise ValueError(
            "from_symbol needs complex blocks of shape (*frequencies, c_out, c_in * prod(stride)), with an axis for "
            f"groups > 1 before the matrix, got {tuple(blocks.shape)} {blocks.dtype} and groups={groups}; "
            "start from those of symbol(A)"
        )
    strides = positive_ints(stride, d, "stride")
    coarse, (rows, columns) = blocks.shape[:d], blocks.shape[-2:]
    if columns % math.prod(strides) or (groups > 1 and blocks.shape[d] != groups):
        raise ValueError(
            f"from_symbol needs blocks whose columns are a multiple of prod(stride) = {math.prod(strides)} and an axis "
            f"of {groups} groups, got {tuple(blocks.shape)}; give the stride and groups of the operator they came from"
        )
    blocks = (blocks * math.sqrt(math.prod(strides))).reshape(*coarse, groups, rows, *strides, -1)
    split = [axis for i in range(d) for axis in (d + 2 + i, i)]  # (r, g) on each axis
    size = tuple(n * s for n, s in zip(coarse, strides, strict=True))
    transforms = blocks.permute(d, d + 1, 2 * d + 2, *split).reshape(groups * rows, -1, *size)
    taps = torch.fft.ifftn(transforms.conj(), dim=tuple(range(2, 2 + d)))
    scale = torch.finfo(taps.dtype).eps ** 0.5 * taps.detach().abs().max()
    if taps.detach().imag.abs().max() > scale:
        raise ValueError(
            f"from_symbol needs conjugate blocks at +f and -f, as every real kernel has, got an imaginary part of "
            f"{taps.detach().imag.abs().max():.1e} in the kernel; change both blocks of a pair alike"
        )
    # "same" puts tap j at pixel j - (n - 1) // 2
    kernel = taps.real.roll([(n - 1) // 2 for n in size], tuple(range(2, 2 + d)))
    return ConvOperator(kernel, size, strides, groups=groups)


@in_full_precision
def spectrum(A: ConvOperator) -> Tensor:
    """Return the singular values of each block, ``(*frequencies, min(c_out, c_in * prod(stride)))``, descending.

    Exact. Computed once for each pair of frequencies +f and -f, where the blocks of a real kernel are conjugate, on
    one period, after which they repeat: from float64 Gram blocks, which are right to 1e-12 of the largest value,
    values below 1e-4 of it again from the blocks themselves. With a gradient, from the blocks alone. Raises
    ``NoFourierBlocks`` where ``symbol(A)`` does.

    >>> A = ConvOperator(torch.tensor([[[1.0, 2.0, 1.0]]]), 4)
    >>> spectrum(A).flatten().round(decimals=4)
    tensor([4., 2., 0., 2.])
    """
    values, blocks = _values(A, "spectrum")
    return values[on(blocks.index, values)].unflatten(0, blocks.grid)


@in_full_precision
def singular_values(A: ConvOperator) -> Tensor:
    """Return all singular values of ``A.matrix()``, sorted, shape ``(min(rows, columns),)``.

    The union over frequencies of those of the blocks ``symbol(A)`` (Sedghi et al. 2019, Theorem 6), as exact as
    ``spectrum(A)``. Differentiable where the values are distinct. Raises ``NoFourierBlocks`` where ``symbol(A)`` does.

    >>> A = ConvOperator(torch.tensor([[[1.0, 2.0, 1.0]]]), 4)
    >>> singular_values(A).round(decimals=4)
    tensor([4., 2., 2., 0.])
    """
    values, blocks = _values(A, "singular_values")
    times = on(blocks.times.repeat_interleave(values.shape[1]), values)
    total = int(blocks.times.sum()) * values.shape[1]
    values, order = values.flatten().sort(descending=True)
    return values.repeat_interleave(times[order], output_size=total)


@in_full_precision
def condition_number(A: ConvOperator) -> Tensor:
    """Return the largest over the smallest singular value of ``A.matrix()``, infinite where the smallest is 0.

    NaN for the zero operator, as in ``torch.linalg.cond``. Exact to rounding. Raises ``NoFourierBlocks`` where
    ``symbol(A)`` does.

    >>> A = ConvOperator(torch.tensor([[[1.0, 4.0, 1.0]]]), 4)
    >>> condition_number(A).round(decimals=4)
    tensor(3.)
    """
    values, _ = _values(A, "condition_number")
    return values[:, 0].amax() / values[:, -1].amin()


@in_full_precision
def channel_condition_numbers(A: ConvOperator) -> Tensor:
    """Return the condition number of each output channel's matrix (its rows of ``A.matrix()``), shape ``(c_out,)``.

    The largest over the smallest, over the frequencies, of the norm of the channel's row in the block: at stride 1
    ``max_f / min_f`` of ``sqrt(sum_i |a_ki(f)|^2)``, what Figure 2 of Liu et al. 2021 averages; of a transposed
    operator with a stride, whose channel has several rows, of their singular values. Infinite where the smallest is 0.
    Exact. Raises ``NoFourierBlocks`` where ``symbol(A)`` does.

    >>> A = ConvOperator(torch.tensor([[[1.0, 4.0, 1.0]], [[0.0, 5.0, 0.0]]]), 4)
    >>> channel_condition_numbers(A).round(decimals=4)
    tensor([3., 1.])
    """
    require_blocks(A, "channel_condition_numbers")
    rows = len(A.kernel)
    if not A.transposed and A.groups == 1 < rows and A.kernel.numel() > LARGE_KERNEL:  # channels do not meet
        parts = A.kernel.split(max(1, rows * LARGE_KERNEL // A.kernel.numel()))
        return torch.cat([channel_condition_numbers(replace(A, kernel=part)) for part in parts])
    blocks = Blocks(replace(A, kernel=A.kernel.double()))
    chunks = blocks.frequencies.split(blocks.chunk)
    if A.transposed:
        values = torch.cat([_channel_values(blocks.at(some), blocks.phases, math.prod(A.stride)) for some in chunks])
        largest, smallest = values[..., 0].amax(0), values[..., -1].amin(0)
    else:
        norms = torch.cat([torch.linalg.vector_norm(blocks.at(some), dim=-1).flatten(1) for some in chunks])
        largest, smallest = norms.amax(0), norms.amin(0)
    ratios = largest / torch.where(smallest > 0, smallest, 1)
    return torch.where(smallest > 0, ratios, math.inf).to(A.kernel.dtype)


@in_full_precision
def leading_singular_values(A: ConvOperator, k: int) -> Tensor:
    """Return the k largest singular values of ``A.matrix()``, sorted, shape ``(k,)``, for every geometry.

    Matrix-free: Lanczos iteration with thick restarts (Wu & Simon 2000) on A and its adjoint, in float64 on the
    kernel's device. A Krylov space sees only one copy of a repeated value, so for k > 1 it goes on from other random
    directions until none brings a larger value. Small operators are decomposed densely. Each square is right to 2e-10
    of the largest (a float32 kernel: 1e-7). The first derivative is exact (that of ``u* A v`` with the singular vectors
    held fixed). Raises ``RuntimeError`` where the iteration does not converge and ``ValueError`` for k < 1 or more
    than there are.

    >>> A = ConvOperator(torch.tensor([[[1.0, 2.0, 1.0]]]), 2, padding_mode="zeros")
    >>> leading_singular_values(A, 2).round(decimals=4)
    tensor([3., 1.])
    """
    rows, columns = math.prod(A.out_shape), math.prod(A.in_shape)
    if not 1 <= k <= min(rows, columns):
        raise ValueError(
            f"k must be between 1 and the {min(rows, columns)} singular values of {A}, got {k}; there are no others"
        )
    return leading_values(A, k)


# ---- private ---------------------------------------------------------------------------------------------------------
def _channel_values(blocks: Tensor, phases: int, stride: int) -> Tensor:
    """Return the singular values of the columns that belong to each input channel: ``(F, channels, values)``."""
    channels = blocks.unflatten(-1, (-1, phases)).movedim(-2, 2)  # (F, groups, channels, rows, phases)
    values = svdvals(channels).flatten(1, 2)
    rows = blocks.shape[1] * blocks.shape[2]
    return F.pad(values, (0, min(stride, rows) - values.shape[-1]))  # the rows of other groups are 0


def _values(A: ConvOperator, name: str) -> tuple[Tensor, Blocks]:
    """Return ``block_values(A)`` in the kernel's dtype; raise ``NoFourierBlocks`` where there are none."""
    require_blocks(A, name)
    values, blocks = block_values(A)
    return values.to(A.kernel.dtype), blocks
