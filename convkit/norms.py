"""Operator norms of convolutions: largest column sum, singular value and row sum, without the matrix."""

import itertools
import math

import torch
from torch import Tensor

from convkit.checks import positive
from convkit.engine.blocks import Blocks, require_blocks
from convkit.engine.hermitian import positive_definite
from convkit.engine.lanczos import leading_values
from convkit.engine.largest import largest_singular_value
from convkit.operators.dtypes import in_full_precision
from convkit.operators.geometry import Axis, axes_of, meeting_taps, sum_meeting_taps
from convkit.operators.operator import ConvOperator
from convkit.operators.tables import kept, on


@in_full_precision
def operator_norm(A: ConvOperator, ord: float) -> Tensor:
    """Return ``torch.linalg.matrix_norm(A.matrix(), ord)`` for ``ord`` 1, 2 or inf, a scalar with gradient.

    1 and inf are exact for every geometry: with ``|K|`` as kernel, ``||A||_inf = max A(1)`` and
    ``||A||_1 = max A*(1)``, where taps that read the same pixel (on a small circular image, or where padding reflects
    or replicates) are summed before the absolute value. Each axis has few different cases of taps that meet the image.
    Theorem 1 of Liang & Huang 2021 is the case of Conv2d under its Assumption 1.

    2 is exact to rounding where the Fourier transform gives blocks (Theorem 6 of Sedghi et al. 2019): every block is
    either proved to be smaller than another one, by its Frobenius norm or a Cholesky factorization, or compared with
    the others in float64. The norm of a block of more than 512 rows and columns is iterated; up to 2048 a Cholesky
    factorization then proves it to 1e-7 (a float64 kernel: 2e-10) of itself, above it is converged only. Elsewhere 2 is
    converged as in ``leading_singular_values``. Raises ``ValueError`` for another ``ord``.

    >>> A = ConvOperator(torch.tensor([[[1.0, -2.0]]]), 5)
    >>> [round(float(operator_norm(A, ord)), 3) for ord in (1, 2, torch.inf)]
    [3.0, 2.87, 3.0]
    """
    if ord == 2:
        return largest_singular_value(A) if A.is_block_circulant else leading_values(A, 1)[0]
    if ord not in (1, math.inf):
        raise ValueError(f"ord must be 1, 2 or torch.inf, got {ord!r}; for others take matrix_norm of A.matrix()")
    if A.transposed:
        A, ord = A.T, 1 if ord == math.inf else math.inf
    if _taps_meet(A):
        return _with_meeting_taps(A, ord)
    sums = _channel_sums(A.kernel.abs(), A.groups, ord)
    for axis in axes_of(A):
        cases = (_taps_per_output if ord == math.inf else _taps_per_pixel)(axis, sums.dtype)
        sums = sums.movedim(1, -1) @ on(cases, sums)  # the next axis of taps moves to place 1
    return sums.amax()


@in_full_precision
def power_iteration(A: ConvOperator, steps: int = 50, generator: torch.Generator | None = None) -> Tensor:
    """Return an estimate from below of the norm 2: ``|A v|`` after some steps of ``v <- A* A v`` on a random start.

    For every geometry. Never above the norm except by rounding; how far below is not known. The graph is kept, so the
    derivative is that of the estimate. Virmaux & Scaman 2018. Raises ``ValueError`` for fewer than one step.

    >>> A = ConvOperator(torch.tensor([[[1.0, 2.0, 1.0]]]), 4)
    >>> power_iteration(A, 100).round(decimals=4)
    tensor(4.)
    """
    if steps < 1:
        raise ValueError(f"steps must be at least 1, got {steps}; 50 is usual")
    device = generator.device if generator is not None else A.kernel.device
    v = torch.randn(1, *A.in_shape, generator=generator, dtype=A.kernel.dtype, device=device).to(A.kernel.device)
    tiny = torch.finfo(v.dtype).tiny
    for _ in range(steps):
        v = A.adjoint(A(v / v.norm().clamp_min(tiny)))
    return A(v / v.norm().clamp_min(tiny)).norm()


@in_full_precision
def certify(A: ConvOperator, bound: float) -> bool:
    """Return whether the operator norm 2 is proved to be below ``bound``: a Cholesky factor at every frequency.

    ``bound^2 - B(f) B(f)*`` has one exactly when all singular values of the block are below ``bound``. All is computed
    in float64, and ``bound^2`` is first lowered by more than rounding can have added to the blocks' products and to
    the factorization, about 1e-12 of it for small kernels and 1e-9 for 512 channels. ``True`` is a proof; ``False``
    says that the norm is above the bound or too near to it. Raises ``ValueError`` for ``bound <= 0`` and
    ``NoFourierBlocks`` where ``symbol(A)`` does (use ``A.torus()``, which bounds a zero-padded operator).

    >>> A = ConvOperator(torch.tensor([[[1.0, 2.0, 1.0]]]), 4)
    >>> certify(A, 4.001), certify(A, 3.999)
    (True, False)
    """
    positive("certify's bound", bound, "; 1.0001 * operator_norm(A, 2) is a tight one")
    require_blocks(A, "certify")
    blocks = Blocks(A)
    gram, bound = blocks.gram(), bound / blocks.scale
    _, t, rows, columns = blocks.taps.shape
    # the blocks' products: sums of at most 8 (t^2 + rows + columns) terms of size |B(f)|^2 <= (sum of taps' norms)^2;
    # the factorization: backward error below 8 r (r + 1) roundings of the level (its trace has r terms)
    largest = blocks.taps.detach().double().flatten(2).norm(dim=2).sum(1).amax()
    roundings = 8 * (t * t + rows + columns) * largest**2 + 8 * gram.side * (gram.side + 1) * bound**2
    level = bound**2 - torch.finfo(torch.float64).eps * roundings
    level = level * torch.eye(gram.side, dtype=torch.float64, device=gram.device)
    chunks = blocks.frequencies.split(gram.chunk)
    return all(positive_definite((level - gram.at(some)).flatten(0, 1)).all() for some in chunks)


# ---- private ---------------------------------------------------------------------------------------------------------
@kept(1024)
def _taps_per_output(axis: Axis, dtype: torch.dtype) -> Tensor:
    """Return which taps an output reads inside the image, the different cases along an axis: ``(taps, cases)``."""
    return torch.unique(axis.reads()[1].long(), dim=0).T.to(dtype).contiguous()


@kept(1024)
def _taps_per_pixel(axis: Axis, dtype: torch.dtype) -> Tensor:
    """Return how often each tap meets a pixel, the different cases along an axis: ``(taps, cases)``."""
    pixels, inside = axis.reads()
    times = torch.zeros(axis.size, axis.taps, dtype=torch.long, device="cpu")
    return (
        torch.unique(times.scatter_add(0, pixels.clamp(0, axis.size - 1), inside.long()), dim=0)
        .T.to(dtype)
        .contiguous()
    )


def _channel_sums(taps: Tensor, groups: int, ord: float) -> Tensor:
    """Return the sums over all channels that an output reads (inf), or over all outputs that read a channel (1)."""
    return taps.sum(1) if ord == math.inf else taps.unflatten(0, (groups, -1)).sum(1).flatten(0, 1)


def _taps_meet(A: ConvOperator) -> bool:
    """Return whether several taps of one window may read the same pixel."""
    if A.padding_mode == "circular":
        axes = zip(A.input_shape, A.dilation, A.kernel.shape[2:], strict=True)
        return any(k > n // math.gcd(n, d) for n, d, k in axes)
    return A.padding_mode != "zeros" and any(map(any, A.pads))


_cases = kept(1024)(meeting_taps)


def _with_meeting_taps(A: ConvOperator, ord: float) -> Tensor:
    """Return the largest row sum (column sum) of absolute values, case by case of the taps that meet on each axis."""
    sums: list[Tensor] = []
    for cases in itertools.product(*(_cases(axis, ord == 1) for axis in axes_of(A))):
        entries = sum_meeting_taps(A.kernel, [matrix for matrix, _ in cases])
        sums.append(_channel_sums(entries.abs().flatten(2).sum(2), A.groups, ord).amax())
    return torch.stack(sums).amax()
