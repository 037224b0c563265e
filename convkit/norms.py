"""Operator norms of convolutions: largest column sum, singular value and row sum, without the matrix."""

import math
from dataclasses import replace

import torch
from torch import Tensor

from convkit.operators import ConvOperator
from convkit.spectra import leading_singular_values, spectrum


def operator_norm(A: ConvOperator, ord: float) -> Tensor:
    """``torch.linalg.matrix_norm(A.matrix(), ord)`` for ``ord`` 1, 2 or inf, a scalar with gradient.

    1 and inf are exact for every geometry: with ``|K|`` as kernel, ``||A||_inf = max A(1)`` and
    ``||A||_1 = max A*(1)``, where taps that meet on one pixel of a circular image are summed before the absolute
    value; Theorem 1 of Liang & Huang 2021 is the case of Conv2d under its Assumption 1. 2 is exact where the Fourier
    transform gives blocks (Theorem 6 of Sedghi et al. 2019), elsewhere converged as in ``leading_singular_values``.
    Raises ``ValueError`` for another ``ord``.
    """
    if ord == 2:
        return spectrum(A).amax() if A.is_block_circulant else leading_singular_values(A, 1)[0]
    if ord not in (1, math.inf):
        raise ValueError(f"ord must be 1, 2 or torch.inf, got {ord!r}; for others take matrix_norm of A.matrix()")
    A = _without_meeting_taps(A)
    taps = A.kernel.abs()
    if ord == math.inf:  # every input is 1, so the channels that an output reads can be summed first
        sums = replace(A, kernel=taps.sum(1, keepdim=True), groups=1)
        return sums(sums.kernel.new_ones(1, *sums.in_shape)).amax()
    sums = replace(A, kernel=taps.unflatten(0, (A.groups, -1)).sum(1).flatten(0, 1)[None], groups=1)
    return sums.adjoint(sums.kernel.new_ones(1, *sums.out_shape)).amax()


def power_iteration(A: ConvOperator, steps: int = 50, generator: torch.Generator | None = None) -> Tensor:
    """An estimate from below of the operator norm 2: ``|A v|`` after some steps of ``v <- A* A v`` on a random start.

    For every geometry. Never above the norm except by rounding; how far below is not known. The graph is kept, so the
    derivative is that of the estimate. Virmaux & Scaman 2018. Raises ``ValueError`` for fewer than one step.
    """
    if steps < 1:
        raise ValueError(f"steps must be at least 1, got {steps}; 50 is usual")
    device = generator.device if generator is not None else A.kernel.device
    v = torch.randn(1, *A.in_shape, generator=generator, dtype=A.kernel.dtype, device=device).to(A.kernel.device)
    tiny = torch.finfo(v.dtype).tiny
    for _ in range(steps):
        v = A.adjoint(A(v / v.norm().clamp_min(tiny)))
    return A(v / v.norm().clamp_min(tiny)).norm()


def _without_meeting_taps(A: ConvOperator) -> ConvOperator:
    """The same circular map with a kernel whose taps all read different pixels."""
    axes = zip(A.input_shape, A.dilation, A.kernel.shape[2:], strict=True)
    if A.padding_mode == "zeros" or all(k <= n // math.gcd(n, d) for n, d, k in axes):
        return A
    pads = tuple((0, (outputs - 1) * s) for outputs, s in zip(A.out_shape[1:], A.stride, strict=True))
    return replace(A, kernel=A.kernel_on_torus(), dilation=1, padding=pads)
