"""Projections of convolutions: on the operator-norm ball, on kernels of a size, and on both at once."""

import math
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from convkit.checks import positive, whole
from convkit.engine.blocks import Blocks, half_set, require_blocks
from convkit.engine.derivatives import once
from convkit.engine.hermitian import eigh
from convkit.engine.rows import constrained_rows
from convkit.engine.workers import thread_pool
from convkit.norms import operator_norm
from convkit.operators.dtypes import differentiated, in_full_precision
from convkit.operators.operator import ConvOperator
from convkit.operators.tables import on
from convkit.spectra import from_symbol, symbol

ONCE = "clips of singular values have a first derivative only, got a second one; take the penalty of a norm instead"


@in_full_precision
def clip_singular_values(A: ConvOperator, bound: float) -> ConvOperator:
    """Return the projection of ``A.matrix()`` on the ball of matrices whose operator norm is at most ``bound``.

    Singular values above ``bound`` become ``bound``, the vectors stay (Sedghi et al. 2019, Proposition 9): a
    convolution again, with a kernel as large as the image. Exact, up to rounding in the kernel's precision. The
    derivative is right where the values are distinct. Raises ``ValueError`` for ``bound <= 0`` and ``NoFourierBlocks``
    where ``symbol(A)`` does.

    >>> A = ConvOperator(torch.tensor([[[1.0, 2.0, 1.0]]]), 4)
    >>> symbol(clip_singular_values(A, 3.0)).real.flatten().round(decimals=3)
    tensor([3., 2., 0., 2.])
    """
    _check(A, bound, 1, "clip_singular_values")
    if A.transposed:
        return clip_singular_values(A.T, bound).T
    blocks = symbol(A)
    if math.prod(A.stride) > 1:  # the aliases in the block at -f stand in another order than those at f
        excess = _excess(blocks, bound)
    else:
        half = on(half_set(A.input_shape, A.input_shape).frequencies, blocks)
        here, opposite = tuple(half.T), tuple(-half.T)
        some = _excess(blocks[here], bound)
        excess = torch.zeros_like(blocks).index_put(opposite, some.conj()).index_put(here, some)
    return from_symbol(blocks - excess, A.stride, A.groups)


@in_full_precision
def clip_and_crop(A: ConvOperator, bound: float) -> ConvOperator:
    """Return ``A`` after one round of Sedghi et al. 2019, section 3: clip the singular values, then crop the kernel.

    The nearest kernel of A's size to ``clip_singular_values(A, bound)``. Cropping puts the norm above ``bound``
    again: by a percent where the bound is near the norm, by a third and more where it is far below. Raises
    ``ValueError`` for ``bound <= 0`` and ``NoFourierBlocks`` where ``symbol(A)`` does.

    >>> A = ConvOperator(torch.tensor([[[1.0, 2.0, 1.0]]]), 4)
    >>> clip_and_crop(A, 3.0).kernel
    tensor([[[0.7500, 1.7500, 0.7500]]])
    """
    _check(A, bound, 1, "clip_and_crop")
    if A.transposed:
        return clip_and_crop(A.T, bound).T
    return _clip_and_crop(A, bound)


@in_full_precision
def alternating_projections(A: ConvOperator, bound: float, rounds: int = 30) -> ConvOperator:
    """Return a kernel of A's own size with operator norm at most ``bound``, by clipping and cropping in turns.

    The limit lies in both sets (Cheney & Goldstein 1959) and need not be the point nearest to A: ``dykstra`` finds
    that. After the last round the kernel is scaled, so that the bound holds on return. Raises ``ValueError`` for
    ``bound <= 0`` and for fewer than one round, and ``NoFourierBlocks`` where ``symbol(A)`` does.

    >>> A = ConvOperator(torch.tensor([[[1.0, 2.0, 1.0]]]), 4)
    >>> operator_norm(alternating_projections(A, 3.0), 2).round(decimals=3)
    tensor(3.)
    """
    _check(A, bound, rounds, "alternating_projections")
    if A.transposed:
        return alternating_projections(A.T, bound, rounds).T
    for _ in range(rounds):
        B = _clip_and_crop(A, bound)
        if B is A:
            return A
        A = B
    return _scaled(A, bound)


@in_full_precision
def dykstra(A: ConvOperator, bound: float, rounds: int = 30) -> ConvOperator:
    """Return the kernel of A's own size with operator norm at most ``bound`` nearest to A, approached in rounds.

    Dykstra's algorithm (Boyle & Dykstra 1986) in its dual form: with p collecting what clipping took away, ``x = A -
    crop(p)`` and ``p <- _excess(x + p)``. The latter is a gradient step on the dual problem, so it is accelerated
    (FISTA, restarted where it overshoots). Scaled at the end, so that the bound holds on return. Raises ``ValueError``
    for ``bound <= 0`` and for fewer than one round, and ``NoFourierBlocks`` where ``symbol(A)`` does.

    >>> A = ConvOperator(torch.tensor([[[1.0, 2.0, 1.0]]]), 4)
    >>> dykstra(A, 3.0).kernel.round(decimals=3)
    tensor([[[0.6670, 1.6670, 0.6670]]])
    """
    _check(A, bound, rounds, "dykstra")
    if A.transposed:
        return dykstra(A.T, bound, rounds).T
    blocks = Blocks(A)
    times = on(blocks.times, A.kernel).view(-1, 1, 1, 1)

    def without(p: Tensor) -> ConvOperator:
        return replace(A, kernel=A.kernel - blocks.to_kernel(blocks.to_taps(p)))

    p = q = torch.zeros_like(blocks.at(blocks.frequencies))
    momentum = 1.0
    for _ in range(rounds):
        x = Blocks(without(q), blocks.scale)
        new = _excess(x.at(x.frequencies) + q, bound / blocks.scale)
        step = new - p
        if (((q - new) * times).conj() * step).sum().real > 0:
            momentum, q = 1.0, new  # restart
        else:
            faster = (1 + math.sqrt(1 + 4 * momentum**2)) / 2
            q = new + (momentum - 1) / faster * step
            momentum = faster
        p = new
    return _scaled(without(p), bound)


@in_full_precision
def clip_reshaped_kernel(A: ConvOperator, bound: float) -> ConvOperator:
    """Return the kernel with its reshaped matrix ``(c_out, c_in * kernel_size)`` projected on the ball of ``bound``.

    What Sedghi et al. 2019, section 4.4, compare with (after Yoshida & Miyato 2017): it bounds the operator norm only
    by ``sqrt(prod(kernel_size)) * bound``. Every geometry; group by group. Raises ``ValueError`` for ``bound <= 0``.

    >>> A = ConvOperator(torch.tensor([[[3.0, 0.0, 4.0]]]), 4)
    >>> clip_reshaped_kernel(A, 1.0).kernel.round(decimals=3)
    tensor([[[0.6000, 0.0000, 0.8000]]])
    """
    _check_bound(bound, 1, "clip_reshaped_kernel")
    matrices = A.kernel.unflatten(0, (A.groups, -1)).flatten(2)
    matrices = matrices.double() if matrices.is_cuda else matrices  # there float32 may keep few digits
    if differentiated(matrices):
        return replace(A, kernel=(matrices - _excess(matrices, bound)).view_as(A.kernel).to(A.kernel))
    U, S, Vh = torch.linalg.svd(matrices, full_matrices=False)
    return replace(A, kernel=((U * S.clamp(max=bound)[:, None, :]) @ Vh).view_as(A.kernel).to(A.kernel))


def project_centered_sphere(weight: Tensor, radius: float) -> Tensor:
    """Return the nearest weight whose rows have mean 0 and norm ``radius``.

    A row is all that leads to one output channel: every input channel and tap. Centering and then scaling is the
    projection on both sets at once, since scaling keeps the mean 0 (Ikami et al., eq. 11). Exact to rounding. Raises
    ``ValueError`` for ``radius <= 0`` and for rows that are zero once centered (constant, or of one entry) or not
    finite.

    >>> project_centered_sphere(torch.tensor([[1.0, 2.0, 3.0]]), radius=2**0.5).round(decimals=3)
    tensor([[-1.,  0.,  1.]])
    """
    positive("project_centered_sphere's radius", radius, "; 2**0.5 is the paper's")
    if not isinstance(weight, Tensor) or weight.ndim < 2:
        shape = tuple(weight.shape) if isinstance(weight, Tensor) else type(weight).__name__
        raise ValueError(f"needed a weight (c_out, ...) of at least 2 axes, got {shape}; a bias has no rows")
    rows, fine = constrained_rows(weight.flatten(1), radius)
    if not fine.all():
        row = int((~fine).nonzero()[0, 0])
        low, high = float(weight[row].min()), float(weight[row].max())
        raise ValueError(
            f"rows must be finite and, once centered, not 0, got row {row} of {weight.shape[1:].numel()} entries from "
            f"{low:.3g} to {high:.3g}; draw the weight anew, and leave rows of one entry alone"
        )
    return rows.view(weight.shape)


def _clip_and_crop(A: ConvOperator, bound: float) -> ConvOperator:
    """Return ``clip_and_crop(A, bound)``, or ``A`` itself where no singular value is above the bound."""
    blocks = Blocks(A)
    bound = bound / blocks.scale
    if differentiated(blocks.taps):
        correction = blocks.to_taps(_excess(blocks.at(blocks.frequencies), bound))
    else:
        gram, everything = blocks.gram(dtype=blocks.taps.dtype), torch.arange(len(blocks.frequencies), device="cpu")

        def correct(some: Tensor) -> Tensor:
            frequencies = blocks.frequencies[some]
            return blocks.to_taps(_excess(blocks.at(frequencies), bound, gram.at(frequencies)), some)

        with thread_pool(A.kernel.device) as map_pieces:
            operations = len(everything) * A.groups * gram.side**3
            correction = torch.stack(map_pieces(correct, everything, gram.chunk, operations)).sum(0)
    if not correction.any():
        return A
    return replace(A, kernel=A.kernel - blocks.to_kernel(correction))


def _excess(blocks: Tensor, bound: float, gram: Tensor | None = None) -> Tensor:
    """Return ``U max(S - bound, 0) V*`` for each block ``U S V*``; blocks below the bound are not decomposed.

    ``gram`` holds ``B B*`` of each block, or ``B* B`` where that is smaller; it is computed where it is not given. It
    serves only to find the share of each block that is above, which has no unit.
    """
    wide = blocks.shape[-2] <= blocks.shape[-1]
    if gram is None:  # of blocks in units near the bound, whose squares neither overflow nor vanish
        bound, exponent = math.frexp(bound)
        units = blocks * 2.0**-exponent
        gram = units @ units.mH if wide else units.mH @ units
    with torch.no_grad():  # which blocks offend: those for which bound^2 - B B* has no Cholesky factor
        identity = torch.eye(gram.shape[-1], dtype=gram.dtype, device=gram.device)
        offends = (torch.linalg.cholesky_ex(bound**2 * identity - gram).info != 0).nonzero(as_tuple=True)
    if len(offends[0]) == 0:
        return torch.zeros_like(blocks)
    some = blocks[offends]
    if differentiated(gram):
        share = _Share.apply(once(gram, ONCE)[offends], bound)[0]  # pyright: ignore
        return torch.zeros_like(blocks).index_put(offends, share @ some if wide else some @ share)  # pyright: ignore
    squares, U = eigh(gram[offends])
    above = int((squares > bound**2).sum(-1).max())  # only these columns have a share
    squares, U = squares[..., squares.shape[-1] - above :], U[..., U.shape[-1] - above :]
    kept = (1 - bound / squares.clamp_min(bound**2).sqrt()).to(U.dtype)[..., None, :]
    excess = (U * kept) @ (U.mH @ some) if wide else (some @ U * kept) @ U.mH
    return torch.zeros_like(blocks).index_put(offends, excess)


class _Share(torch.autograd.Function):
    """``f(G)`` for ``f(s) = max(1 - bound / sqrt(s), 0)``: what clipping takes away of a matrix with Gram matrix G.

    The derivative is that of Daleckii & Krein: differences of f divided by those of the eigenvalues, and where two are
    the same the derivative of f. So it is right, and finite, where singular values repeat.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(gram: Tensor, bound: float) -> tuple[Tensor, Tensor, Tensor]:
        squares, U = eigh(gram.detach())
        kept = squares.clamp_min(bound**2)
        f = 1 - bound / kept.sqrt()
        slope = torch.where(squares > bound**2, bound / (2 * kept**1.5), 0)
        apart = squares[..., :, None] - squares[..., None, :]
        near = apart.abs() <= torch.finfo(squares.dtype).eps ** 0.5 * kept[..., -1:, None]
        means = (slope[..., :, None] + slope[..., None, :]) / 2
        ratios = torch.where(near, means, (f[..., :, None] - f[..., None, :]) / torch.where(near, 1, apart))
        return (U * f.to(U.dtype)[..., None, :]) @ U.mH, U, ratios.to(U.dtype)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, float], output: tuple[Tensor, Tensor, Tensor]) -> None:
        ctx.mark_non_differentiable(*output[1:])
        ctx.save_for_backward(*output[1:])
        ctx.save_for_forward(*output[1:])

    @staticmethod
    def backward(ctx: Any, grad: Tensor, *_: object) -> tuple[Tensor, None]:
        U, ratios = ctx.saved_tensors
        return U @ (ratios * (U.mH @ grad @ U)) @ U.mH, None

    @staticmethod
    def jvp(ctx: Any, tangent: Tensor, _: None) -> tuple[Tensor, None, None]:
        return _Share.backward(ctx, tangent)[0], None, None


def _scaled(A: ConvOperator, bound: float) -> ConvOperator:
    """Return ``A`` scaled down to the bound where its norm is above it, and by four roundings more."""
    norm = operator_norm(A, 2)
    factor = bound / norm.clamp_min(bound / 2) * (1 - 4 * torch.finfo(norm.dtype).eps)  # a norm of 0 has a factor, too
    return replace(A, kernel=A.kernel * factor.clamp(max=1))


def _check(A: ConvOperator, bound: float, rounds: int, name: str) -> None:
    """Raise ``ValueError`` for a bad bound or number of rounds, and ``NoFourierBlocks`` where ``A`` has no blocks."""
    _check_bound(bound, rounds, name)
    require_blocks(A, name)


def _check_bound(bound: float, rounds: int, name: str) -> None:
    """Raise ``ValueError`` for a bound that is not positive and finite, and for fewer than one round."""
    positive(f"{name}'s bound", bound, "; the ball of radius 0 holds only the zero kernel")
    whole(f"{name}'s rounds", rounds, 1, advice="; 30 are usual")
