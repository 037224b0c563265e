"""Polar factors of convolutions, and steps of operator norm 1 made from them."""

import math
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from convkit.checks import whole
from convkit.engine.blocks import Blocks, require_blocks
from convkit.engine.derivatives import once
from convkit.engine.hermitian import svd, svdvals
from convkit.engine.workers import thread_pool
from convkit.norms import operator_norm
from convkit.operators.dtypes import differentiated, in_full_precision
from convkit.operators.operator import ConvOperator
from convkit.operators.tables import on
from convkit.projections.clipping import _excess

ONCE = "the polar factor has a first derivative only, got a second one; take the penalty of a norm instead"
RANK = 1e-10  # of a block's largest singular value: below, a value counts as 0
RELAXED = 1.6  # over-relaxation, which saves a third of the rounds
CHECKED = 10  # rounds between two looks at slope, gap and penalty
UNEVEN = 2.0  # ratio of the residuals at which the penalty changes


@in_full_precision
def polar(A: ConvOperator) -> ConvOperator:
    """Return the operator nearest to ``A`` whose singular values are all 1: ``U V*`` for ``A.matrix() = U S V*``.

    A convolution again, with a kernel as large as the image: every value of Proposition 9 of Sedghi et al. 2019 set to
    1. Where the rows of the matrix C are independent it is ``(C C^T)^(-1/2) C``, the normalization of the whole layer
    in place of one channel at a time (Liu et al. 2021, section 5 (ii)). Exact up to rounding in the kernel's precision.
    Where ``A`` has singular values of 0, several operators are equally near, and one of them is returned, the same at
    each call. The first derivative is exact.

    Raises ``NoFourierBlocks`` where ``symbol(A)`` does, and ``ValueError`` where a derivative is asked for and
    singular values are 0, since it is infinite there.

    >>> A = ConvOperator(torch.tensor([[[1.0, 4.0, 1.0]]]), 4)
    >>> polar(A).kernel.round(decimals=3).abs()
    tensor([[[0., 1., 0., 0.]]])
    """
    require_blocks(A, "polar")
    if A.transposed:
        return polar(A.T).T
    B = _whole_image(A)
    return replace(B, kernel=_cropped_factor(B))


@in_full_precision
def polar_step(A: ConvOperator) -> ConvOperator:
    """Return ``polar(A)``, cropped to the taps of ``A`` and scaled to operator norm 1, each group by itself.

    For a gradient ``A`` a step of known size in the operator norm, which turns all singular directions about alike: the
    step of Muon (Jordan et al. 2024), for the convolution in place of its flattened kernel. A kernel of size 1 gives
    the polar factor of its matrix. Cropping leaves singular values between 0 and 1; ``steepest(A)`` tells how much
    steeper a step with these taps can be. Differentiable like ``polar(A)``. Raises ``NoFourierBlocks`` where
    ``symbol(A)`` does, and ``ValueError`` where the polar factor is 0 on the taps.

    >>> A = ConvOperator(torch.tensor([[[1.0, 2.0, 1.0]]]), 4)
    >>> operator_norm(polar_step(A), 2).round(decimals=3)
    tensor(1.)
    """
    require_blocks(A, "polar_step")
    if A.transposed:
        return polar_step(A.T).T
    kernel = _cropped_factor(A)
    norms = torch.stack([operator_norm(replace(A, kernel=part, groups=1), 2) for part in kernel.chunk(A.groups)])
    if not norms.any():
        raise ValueError("polar_step needs a kernel whose polar factor is not 0 on its taps, got one that is")
    return replace(A, kernel=_by_group(kernel, norms))


class Steepest(NamedTuple):
    """The steepest direction for a gradient G among the operators of norm 1 with its taps, as found by ``steepest``.

    Attributes:
        direction: The direction D.
        slope: The inner product ``<D, G>`` of the two matrices: the descent per step of size 1.
        gap: By how much another direction can be steeper at most, as a part of ``slope``.

    >>> A = ConvOperator(torch.tensor([[[0.0, 2.0, 0.0]]]), 4)
    >>> round(steepest(A).slope, 3)
    8.0
    """

    direction: ConvOperator
    slope: float
    gap: float


@in_full_precision
@torch.no_grad()
def steepest(A: ConvOperator, rounds: int = 100) -> Steepest:
    """Return the direction of operator norm 1, with the taps of ``A``, whose inner product with ``A`` is largest.

    The steepest descent for a gradient ``A`` per unit of operator norm. Without the restriction to the taps it would
    be ``polar(A)``, and the slope the sum of the singular values of ``A``. With it, the problem is convex and has no
    formula: ``rounds`` of the alternating direction method of multipliers crop and clip in turns (Boyd et al. 2011).
    The multiplier gives an operator that agrees with ``A`` on the taps; the sum of its singular values is at least
    every ``<D, A>``, which makes ``gap`` a certificate. No derivative. Raises ``NoFourierBlocks`` where ``symbol(A)``
    does, and ``ValueError`` for fewer than one round and for a kernel of zeros.

    >>> result = steepest(ConvOperator(torch.tensor([[[1.0, 2.0, 1.0]]]), 8))
    >>> operator_norm(result.direction, 2).round(decimals=3), result.gap < 1e-3
    (tensor(1.), True)
    """
    rounds = whole("steepest's rounds", rounds, 1, advice="; 100 are usual")
    require_blocks(A, "steepest")
    if A.transposed:
        direction, slope, gap = steepest(A.T, rounds)
        return Steepest(direction.T, slope, gap)
    B = replace(A, kernel=A.kernel.double())
    blocks = Blocks(B)
    gradient, weights = blocks.at(blocks.frequencies), on(blocks.times, blocks.taps).double()
    total = float(weights @ _sums(gradient))
    if total == 0:
        raise ValueError("steepest needs a gradient other than 0, got a kernel of zeros; every direction is as steep")
    unit = total / float(weights.sum()) / min(gradient.shape[-2:]) / gradient.shape[1]  # the mean singular value
    best, upper = Steepest(A, -math.inf, math.inf), math.inf
    clipped = multiplier = torch.zeros_like(gradient)

    def cropped(values: Tensor) -> tuple[ConvOperator, Tensor]:
        near = replace(B, kernel=blocks.to_kernel(blocks.to_taps(values)))  # in units of the scale
        return near, Blocks(near, blocks.scale).at(blocks.frequencies)

    for number in range(1, rounds + 1):
        near, here = cropped(clipped - multiplier + gradient / unit)
        ahead = RELAXED * here + (1 - RELAXED) * clipped
        before, clipped = clipped, ahead + multiplier - _excess(ahead + multiplier, 1.0)
        multiplier = multiplier + ahead - clipped
        if number % CHECKED and number < rounds:
            continue
        norm = operator_norm(near, 2)
        slope = float(weights @ (here.conj() * gradient).real.sum((1, 2, 3)) * blocks.scale / norm)
        _, rest = cropped(gradient - unit * multiplier)
        upper = min(upper, float(weights @ _sums(unit * multiplier + rest)))
        if slope > best.slope:
            best = Steepest(replace(near, kernel=near.kernel / norm), slope, 0.0)
        # the penalty follows the slower of the two: the steps that still differ, or the multiplier that still moves
        apart, moved = (here - clipped).norm() / here.norm(), (clipped - before).norm() / multiplier.norm()
        factor = 2.0 if apart > UNEVEN * moved else 0.5 if moved > UNEVEN * apart else 1.0
        unit, multiplier = unit * factor, multiplier / factor
    direction = replace(A, kernel=best.direction.kernel.to(A.kernel.dtype))
    return Steepest(direction, best.slope * blocks.scale, max(0.0, upper / best.slope - 1))


# ---- private -------------------------------------------------------------------------------------------------------
def _by_group(kernel: Tensor, norms: Tensor) -> Tensor:
    """Return a kernel whose groups are divided by numbers ``(groups,)``; a group of norm 0 stays as it is."""
    return (kernel.unflatten(0, (len(norms), -1)) / (norms + (norms == 0)).view(-1, *[1] * kernel.ndim)).flatten(0, 1)


def _whole_image(A: ConvOperator) -> ConvOperator:
    """Return the same operator with a kernel as large as the image, circular and "same"."""
    sizes = A.input_shape
    kernel = A.kernel_on_image().roll([(n - 1) // 2 for n in sizes], tuple(range(2, 2 + len(sizes))))
    return ConvOperator(kernel, sizes, A.stride, groups=A.groups)


def _cropped_factor(A: ConvOperator) -> Tensor:
    """Return the kernel with the taps of ``A`` that is nearest to the polar factor of ``A``."""
    blocks = Blocks(replace(A, kernel=A.kernel.double()))
    everything = torch.arange(len(blocks.frequencies), device="cpu")
    if differentiated(blocks.taps):
        taps = blocks.to_taps(_factors(blocks, everything))
    else:
        with thread_pool(A.kernel.device) as map_pieces:
            operations = 20 * len(everything) * A.groups * min(blocks.taps.shape[2:]) ** 3
            parts = map_pieces(
                lambda some: blocks.to_taps(_factors(blocks, some), some), everything, blocks.chunk, operations
            )
            taps = torch.stack(parts).sum(0)
    return (blocks.to_kernel(taps) / blocks.scale).to(A.kernel.dtype)


def _factors(blocks: Blocks, some: Tensor) -> Tensor:
    """Return the polar factors of the blocks at the frequencies with these numbers, ``(F, groups, rows, columns)``."""
    matrices = blocks.at(blocks.frequencies[some])
    if matrices.shape[-2] > matrices.shape[-1]:
        matrices = matrices.mH
    derived = differentiated(matrices)
    factors, U, S, Vh = _Factor.apply(once(matrices, ONCE) if derived else matrices)  # pyright: ignore
    zero = RANK * S[..., :1] >= S
    if zero.any():
        if derived:
            raise ValueError(
                "the derivative of the polar factor needs singular values above 0, got a block of lower rank; add a "
                "small multiple of the identity to the kernel"
            )
        # the missing part: the factor of a fixed kernel between the two null spaces, real like every kernel
        generator = torch.Generator().manual_seed(0)
        taps = torch.randn(blocks.taps.shape, generator=generator, dtype=torch.float64, device="cpu").to(blocks.taps)
        other = blocks.with_taps(taps).at(blocks.frequencies[some])
        other = other.mH if other.shape[-2] > other.shape[-1] else other
        U, Vh = U * ~zero[..., None, :], Vh * ~zero[..., :, None]
        other = other - U @ (U.mH @ other)
        other = other - (other @ Vh.mH) @ Vh
        P, _, Qh = svd(other)
        missing = zero.flip(-1)  # as many of the largest
        factors = U @ Vh + (P * missing[..., None, :]) @ Qh
    return factors.mH if blocks.taps.shape[2] > blocks.taps.shape[3] else factors


class _Factor(torch.autograd.Function):
    """``U V*`` of each wide matrix ``U S V*``, and U, S, V*, which have no derivative.

    The differential of the factor is ``U ((X - X*) / (s_i + s_j)) V* + U S^-1 U* dM (1 - V V*)`` with ``X = U* dM V``
    (Higham 2008, section 8). As a linear map of dM it is its own adjoint, so it serves both modes.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(matrices: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        U, S, Vh = svd(matrices)
        factor = U @ Vh
        if factor.is_cuda:  # the vectors of small values are not quite orthogonal there
            for _ in range(2):
                factor = 1.5 * factor - 0.5 * (factor @ factor.mH) @ factor
        return factor, U, S, Vh

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor], output: tuple[Tensor, Tensor, Tensor, Tensor]) -> None:
        ctx.mark_non_differentiable(*output[1:])
        ctx.save_for_backward(*output[1:])
        ctx.save_for_forward(*output[1:])

    @staticmethod
    def backward(ctx: Any, grad: Tensor, *_: object) -> Tensor:
        U, S, Vh = ctx.saved_tensors
        left = U.mH @ grad
        inside = left @ Vh.mH
        turned = (inside - inside.mH) / (S[..., :, None] + S[..., None, :])
        return U @ (turned @ Vh + (left - inside @ Vh) / S[..., :, None])

    @staticmethod
    def jvp(ctx: Any, tangent: Tensor) -> tuple[Tensor, None, None, None]:
        return _Factor.backward(ctx, tangent), None, None, None


def _sums(blocks: Tensor) -> Tensor:
    """Return the sum of the singular values of the blocks at each frequency."""
    return svdvals(blocks).sum((1, 2))
