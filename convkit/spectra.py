"""Symbols and singular values of convolutions: exact by Fourier where they exist, matrix-free everywhere else."""

import math
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from convkit.engine.blocks import CHUNK, Gram, HalfSet, Taps, half_set, normalized, reduced_taps, require_blocks
from convkit.engine.hermitian import eigvalsh
from convkit.engine.lanczos import leading_values
from convkit.engine.workers import Run, workers
from convkit.operators.geometry import positive_ints
from convkit.operators.operator import ConvOperator

SMALL = 1e-4  # of the largest value: below, the square of a value has lost digits that float64 could keep


def symbol(A: ConvOperator) -> Tensor:
    """The blocks that the Fourier transform leaves of ``A``, shape ``(*frequencies, c_out, c_in * prod(stride))``.

    At stride 1: ``fftn(A x)[f] = symbol(A)[f] @ fftn(x)[f]``, phases included; the exponent is positive because the
    layer correlates. At stride s there are ``n / s`` frequencies an axis, and a block holds side by side the
    ``prod(s)`` blocks of the frequencies ``g + r n / s`` that subsampling folds onto g, divided by ``sqrt(prod(s))``;
    the identity then holds for orthonormal transforms. Groups add an axis before the matrix:
    ``(*frequencies, groups, c_out / groups, c_in * prod(stride) / groups)``. Complex.

    Exact. Raises ``ValueError`` where no such blocks exist. Theorem 6 of Sedghi et al. 2019, and aliasing.
    """
    require_blocks(A, "symbol")
    d, (c_out, c_in) = len(A.input_shape), A.kernel.shape[:2]
    coarse = [n // s for n, s in zip(A.input_shape, A.stride, strict=True)]
    transforms = torch.fft.fftn(A.kernel_on_torus(), dim=tuple(range(2, 2 + d))).conj()  # conj: the layer correlates
    # f = r * coarse + g on each axis: split it, then order the axes (g, group, c_out, r, c_in)
    split = [size for pair in zip(A.stride, coarse, strict=True) for size in pair]
    blocks = transforms.reshape(A.groups, c_out // A.groups, c_in, *split)
    blocks = blocks.permute(*range(4, 4 + 2 * d, 2), 0, 1, *range(3, 3 + 2 * d, 2), 2)
    blocks = blocks.reshape(*coarse, A.groups, c_out // A.groups, -1) / math.sqrt(math.prod(A.stride))
    return blocks if A.groups > 1 else blocks.squeeze(d)


def from_symbol(blocks: Tensor, stride: int | Sequence[int] = 1, groups: int = 1) -> ConvOperator:
    """The circular operator with these blocks, its kernel as large as the image: the inverse of ``symbol``.

    ``blocks`` has the shape that ``symbol`` gives for this stride and these groups. Exact; raises ``ValueError`` when
    the blocks at frequencies +f and -f are not conjugate, since then no real kernel has them.
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


def spectrum(A: ConvOperator) -> Tensor:
    """The singular values frequency by frequency, ``(*frequencies, min(c_out, c_in * prod(stride)))``, descending.

    Exact; raises as ``symbol`` does. Computed once for each pair of frequencies +f and -f, where the blocks of a real
    kernel are conjugate, on the smallest torus that has these blocks: from float64 Gram blocks, which are right to
    1e-12 of the largest value, values below 1e-4 of it again from the blocks themselves. With a gradient, from the
    blocks alone.
    """
    coarse = [n // s for n, s in zip(A.input_shape, A.stride, strict=True)]
    with workers(A.kernel.device) as run:
        values, half = _values(A, "spectrum", run)
        return values[half.where.to(values.device)].unflatten(0, coarse)


def singular_values(A: ConvOperator) -> Tensor:
    """All singular values of ``A.matrix()``, sorted, shape ``(min(rows, columns),)``.

    The union over frequencies of those of the blocks ``symbol(A)`` (Sedghi et al. 2019, Theorem 6). Exact as
    ``spectrum`` is; raises ``ValueError`` where no blocks exist. Differentiable where the values are distinct.
    """
    with workers(A.kernel.device) as run:
        values, half = _values(A, "singular_values", run)
        times = torch.bincount(half.where).repeat_interleave(values.shape[1]).to(values.device)
        values, order = values.flatten().sort(descending=True)
        return values.repeat_interleave(times[order])


def condition_number(A: ConvOperator) -> Tensor:
    """The largest over the smallest singular value of ``A.matrix()``, infinite where the smallest is 0; a scalar.

    NaN for the zero operator, as in ``torch.linalg.cond``. Exact to rounding; raises ``ValueError`` where
    ``singular_values`` does.
    """
    with workers(A.kernel.device) as run:
        values, _ = _values(A, "condition_number", run)
    return values[:, 0].amax() / values[:, -1].amin()


def channel_condition_numbers(A: ConvOperator) -> Tensor:
    """The condition number of each output channel's matrix (one channel's rows of ``A.matrix()``), shape ``(c_out,)``.

    The largest over the smallest, over the frequencies, of the norm of the channel's row in the block: at stride 1
    ``max_f / min_f`` of ``sqrt(sum_i |a_ki(f)|^2)``, what Figure 2 of Liu et al. 2021 averages. Infinite where the
    smallest is 0. Exact; raises ``ValueError`` as ``symbol`` does where no blocks exist.
    """
    require_blocks(A, "channel_condition_numbers")
    taps = reduced_taps(replace(A, kernel=A.kernel.double()))
    groups, _, rows, columns = taps.taps.shape
    chunk = max(1, CHUNK // (16 * groups * rows * columns))
    norms = [
        torch.linalg.vector_norm(taps.blocks(some), dim=-1).flatten(1)
        for some in half_set(taps.size).frequencies.split(chunk)
    ]
    largest, smallest = torch.cat(norms).amax(0), torch.cat(norms).amin(0)
    ratios = largest / torch.where(smallest > 0, smallest, 1)
    return torch.where(smallest > 0, ratios, math.inf).to(A.kernel.dtype)


def leading_singular_values(A: ConvOperator, k: int) -> Tensor:
    """The k largest singular values of ``A.matrix()``, sorted, shape ``(k,)``, for every geometry.

    Matrix-free: implicitly restarted Lanczos iteration (ARPACK, in float64) on A and its adjoint, and again beside
    what was found until nothing larger is left, since a Krylov space sees only one copy of a repeated value. Small
    operators are decomposed densely. Converged: each square is right to 1e-10 of the largest, in the kernel's dtype;
    ``RuntimeError`` otherwise. The first derivative is exact (that of ``u* A v`` with the singular vectors held fixed).
    Raises ``ValueError`` for k < 1 or more than there are.
    """
    rows, columns = math.prod(A.out_shape), math.prod(A.in_shape)
    if not 1 <= k <= min(rows, columns):
        raise ValueError(
            f"k must be between 1 and the {min(rows, columns)} singular values of {A}, got {k}; there are no others"
        )
    return leading_values(A, k)


def _values(A: ConvOperator, name: str, run: Run) -> tuple[Tensor, HalfSet]:
    """Singular values, descending, at each frequency of the half set: shape ``(F, values of a frequency)``."""
    require_blocks(A, name)
    taps = reduced_taps(A)
    half = half_set(taps.size, taps.frequencies)
    if torch.is_grad_enabled() and A.kernel.requires_grad:
        values = torch.linalg.svdvals(taps.blocks(half.frequencies))
    else:
        values = _values_from_gram(taps, half, run).to(A.kernel.dtype)
    return values.flatten(1).sort(descending=True).values, half  # the union over groups


def _values_from_gram(taps: Taps, half: HalfSet, run: Run) -> Tensor:
    taps, scale = normalized(taps)
    if len(half.frequencies) == 1:  # a kernel of size 1, or of a stride that it does not exceed: one decomposition
        return torch.linalg.svdvals(taps.blocks(half.frequencies).real.double()) * scale
    gram = Gram(taps)
    work = len(taps.taps) * gram.side**3  # for one frequency
    squares = taps.taps.new_zeros(len(half.frequencies), len(taps.taps), gram.side, dtype=torch.float64)

    def decompose(some: Tensor) -> None:
        real = bool(half.real[some[0]])  # all of them are, or none
        squares[some.to(squares.device)] = eigvalsh(gram.at(half.frequencies[some], real))

    for kind in (half.real, ~half.real):
        if kind.any():
            run(decompose, kind.nonzero().flatten(), gram.chunk, work * int(kind.sum()))
    values = squares.clamp_min(0).sqrt().flip(-1)

    def again(some: Tensor) -> None:
        values[some.to(values.device)] = torch.linalg.svdvals(taps.blocks(half.frequencies[some]))

    if taps.taps.dtype == torch.float64:  # squaring lost the digits of the small ones
        small = (values[..., -1] < SMALL * values.amax()).any(1).nonzero().flatten().cpu()
        if len(small):
            run(again, small, gram.chunk, work * len(small))
    return values * scale
