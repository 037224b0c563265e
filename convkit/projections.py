"""Projections of convolutions: on the operator-norm ball, on kernels of a size, and on both at once."""

import math
from dataclasses import replace

import torch
from torch import Tensor

from convkit.engine.blocks import Gram, HalfSet, Taps, half_set, normalized, reduced_taps, require_blocks
from convkit.engine.hermitian import eigh
from convkit.engine.workers import workers
from convkit.norms import operator_norm
from convkit.operators.operator import ConvOperator
from convkit.spectra import from_symbol, symbol


def clip_singular_values(A: ConvOperator, bound: float) -> ConvOperator:
    """The projection of ``A.matrix()`` on the ball of matrices whose operator norm is at most ``bound``.

    Singular values above ``bound`` become ``bound``, the vectors stay (Sedghi et al. 2019, Proposition 9): a
    convolution again, with a kernel as large as the image. Exact, up to rounding in the kernel's precision. Raises
    ``ValueError`` for ``bound <= 0`` and where ``symbol`` does. The derivative is right where the values are distinct.
    """
    _check(A, bound, 1, "clip_singular_values")
    blocks = symbol(A)
    if math.prod(A.stride) > 1:  # the aliases in the block at -f stand in another order than those at f
        return from_symbol(blocks - _excess(blocks, bound), A.stride, A.groups)
    half = half_set(A.input_shape)
    flat = blocks.flatten(0, len(A.input_shape) - 1)
    excess = _excess(flat[half.chosen.to(flat.device)], bound)[half.where.to(flat.device)]
    mirrored = (half.chosen[half.where] != torch.arange(len(half.where))).to(flat.device)
    excess = torch.where(mirrored.view(-1, *[1] * (excess.ndim - 1)), excess.conj(), excess)
    return from_symbol(blocks - excess.view_as(blocks), groups=A.groups)


def clip_and_crop(A: ConvOperator, bound: float) -> ConvOperator:
    """One round of Sedghi et al. 2019, section 3: clip the singular values, then crop to the kernel's own size.

    The nearest kernel of A's size to ``clip_singular_values(A, bound)``. Cropping puts the norm above ``bound``
    again: by a percent where the bound is near the norm, by a third and more where it is far below. Errors as there.
    """
    _check(A, bound, 1, "clip_and_crop")
    return _round(A, bound)


def alternating_projections(A: ConvOperator, bound: float, rounds: int = 30) -> ConvOperator:
    """A kernel of A's own size with operator norm at most ``bound``, by clipping and cropping in turns.

    The limit lies in both sets (Cheney & Goldstein 1959) and need not be the point nearest to A: ``dykstra`` finds
    that. After the last round the kernel is scaled, so that the bound holds on return. Raises ``ValueError`` for
    ``bound <= 0``, for fewer than one round and where no blocks exist.
    """
    _check(A, bound, rounds, "alternating_projections")
    for _ in range(rounds):
        B = _round(A, bound)
        if B is A:
            return A
        A = B
    return _scaled(A, bound)


def dykstra(A: ConvOperator, bound: float, rounds: int = 30) -> ConvOperator:
    """The kernel of A's own size with operator norm at most ``bound`` that is nearest to A, approached in rounds.

    Dykstra's algorithm (Boyle & Dykstra 1986) in its dual form: with p collecting what clipping took away, ``x = A -
    crop(p)`` and ``p <- excess(x + p)``. The latter is a gradient step on the dual problem, so it is accelerated
    (FISTA, restarted where it overshoots). Scaled at the end, so that the bound holds on return. Errors as in
    ``alternating_projections``.
    """
    _check(A, bound, rounds, "dykstra")
    taps, half = _taps(A)
    kernel = A.kernel
    p = q = torch.zeros_like(taps.blocks(half.frequencies))
    momentum = 1.0
    for _ in range(rounds):
        B = replace(A, kernel=kernel - _cropped(taps, q, half))
        new = _excess(reduced_taps(B).blocks(half.frequencies) + q, bound)
        step, weights = new - p, half.times.to(q.device).view(-1, *[1] * (q.ndim - 1))
        if (((q - new) * weights).conj() * step).sum().real > 0:
            momentum, q = 1.0, new  # restart
        else:
            faster = (1 + math.sqrt(1 + 4 * momentum**2)) / 2
            q = new + (momentum - 1) / faster * step
            momentum = faster
        p = new
    return _scaled(replace(A, kernel=kernel - _cropped(taps, p, half)), bound)


def clip_reshaped_kernel(A: ConvOperator, bound: float) -> ConvOperator:
    """The kernel whose reshaped matrix ``(c_out, c_in * kernel_size)`` is projected on the ball of radius ``bound``.

    What Sedghi et al. 2019, section 4.4, compare with (after Yoshida & Miyato 2017): it bounds the operator norm only
    by ``sqrt(prod(kernel_size)) * bound``. Every geometry; group by group. Raises ``ValueError`` for ``bound <= 0``.
    """
    _check_bound(bound, 1, "clip_reshaped_kernel")
    matrices = A.kernel.unflatten(0, (A.groups, -1)).flatten(2)
    U, S, Vh = torch.linalg.svd(matrices, full_matrices=False)
    return replace(A, kernel=((U * S.clamp(max=bound)[:, None, :]) @ Vh).view_as(A.kernel))


def project_centered_sphere(weight: Tensor, radius: float) -> Tensor:
    """The nearest weight whose rows, one an output channel, have mean 0 and norm ``radius``; of the weight's shape.

    A row is all that leads to one output: every input channel and tap. Centering and scaling in turn is the projection
    on both sets at once, since scaling keeps the mean 0 (Ikami et al., eq. 11). Exact to rounding. Raises
    ``ValueError`` for ``radius <= 0`` and for rows that centering leaves nothing of: of one entry, constant, not
    finite.
    """
    if not (radius > 0 and math.isfinite(radius)):
        raise ValueError(f"project_centered_sphere needs a positive radius, got {radius}; 2**0.5 is the paper's")
    if not isinstance(weight, Tensor) or weight.ndim < 2:
        shape = tuple(weight.shape) if isinstance(weight, Tensor) else type(weight).__name__
        raise ValueError(f"needed a weight (c_out, ...) of at least 2 axes, got {shape}; a bias has no rows")
    rows, fine = _constrained_rows(weight.flatten(1), radius)
    if not fine.all():
        row = int((~fine).nonzero()[0, 0])
        low, high = float(weight[row].min()), float(weight[row].max())
        raise ValueError(
            f"rows must be finite and, once centered, not 0, got row {row} of {weight.shape[1:].numel()} entries from "
            f"{low:.3g} to {high:.3g}; draw the weight anew, and leave rows of one entry alone"
        )
    return rows.view(weight.shape)


def _constrained_rows(rows: Tensor, radius: float | None, center: bool = True) -> tuple[Tensor, Tensor]:
    """Rows centered and scaled to ``radius`` (``None``: any), and which rows allow it, shape ``(rows, 1)``.

    Those that are finite and, to be scaled, still above rounding once centered.
    """
    info = torch.finfo(rows.dtype)
    largest = torch.linalg.vector_norm(rows, math.inf, dim=1, keepdim=True)
    # in units of the largest entry, squares neither overflow nor vanish
    units = rows / largest.clamp_min(info.tiny) if radius is not None else rows
    if center:
        units = units - units.mean(1, keepdim=True)
        units = units - units.mean(1, keepdim=True)  # a mean large beside the rest leaves its rounding behind
    if radius is None:
        return units, units.isfinite().all(1, keepdim=True)
    norms = torch.linalg.vector_norm(units, dim=1, keepdim=True)
    rounding = 8 * info.eps * math.sqrt(rows.shape[1])
    fine = norms.isfinite() & (norms > rounding) & (largest > info.tiny / info.eps)
    return units / norms * radius, fine


def _round(A: ConvOperator, bound: float) -> ConvOperator:
    with workers(A.kernel.device) as run:
        taps, half = _taps(A)
        gram, scale = None, 1.0
        if not (torch.is_grad_enabled() and A.kernel.requires_grad):
            taps, scale = normalized(taps)
            gram = Gram(taps, dtype=A.kernel.dtype)

        def correction(some: Tensor) -> Tensor:
            frequencies = half.frequencies[some]
            excess = _excess(taps.blocks(frequencies), bound / scale, None if gram is None else gram.at(frequencies))
            return taps.from_blocks(excess, frequencies, half.times[some])

        everything = torch.arange(len(half.frequencies))
        if gram is None:
            corrections = correction(everything)
        else:
            work = len(taps.taps) * len(everything) * gram.side**3
            corrections = torch.stack(run(correction, everything, gram.chunk, work)).sum(0)
        if not corrections.any():
            return A
        return replace(A, kernel=A.kernel - scale * taps.to_kernel(corrections))


def _taps(A: ConvOperator) -> tuple[Taps, HalfSet]:
    taps = reduced_taps(A)
    return taps, half_set(taps.size)


def _cropped(taps: Taps, blocks: Tensor, half: HalfSet) -> Tensor:
    return taps.to_kernel(taps.from_blocks(blocks, half.frequencies, half.times))


def _excess(blocks: Tensor, bound: float, gram: Tensor | None = None) -> Tensor:
    """``U max(S - bound, 0) V*`` of each block ``U S V*``; blocks below the bound are not decomposed.

    ``gram`` holds ``B B*`` of each block, or ``B* B`` where that is smaller; it is computed where it is not given.
    It serves only to find the share of each block that is above, which has no unit.
    """
    wide = blocks.shape[-2] <= blocks.shape[-1]
    if gram is None:  # of blocks in units near the bound, whose squares neither overflow nor vanish
        bound, exponent = math.frexp(bound)
        units = blocks * 2.0**-exponent
        gram = units @ units.mH if wide else units.mH @ units
    with torch.no_grad():  # which blocks offend: those for which bound^2 - B B* has no Cholesky factor
        identity = torch.eye(gram.shape[-1], dtype=gram.dtype, device=gram.device)
        offends = torch.linalg.cholesky_ex(bound**2 * identity - gram).info != 0
    if not offends.any():
        return torch.zeros_like(blocks)
    some = blocks[offends]
    squares, U = eigh(gram[offends])
    above = int((squares > bound**2).sum(-1).max())  # only these columns have a share
    squares, U = squares[..., squares.shape[-1] - above :], U[..., U.shape[-1] - above :]
    kept = (1 - bound / squares.clamp_min(bound**2).sqrt()).to(U.dtype)[..., None, :]
    excess = (U * kept) @ (U.mH @ some) if wide else (some @ U * kept) @ U.mH
    return torch.zeros_like(blocks).index_put((offends,), excess)


def _scaled(A: ConvOperator, bound: float) -> ConvOperator:
    """``A``, scaled down where its norm is above the bound; by four roundings more, so that rounding is below, too."""
    norm = operator_norm(A, 2)
    factor = bound / norm * (1 - 4 * torch.finfo(norm.dtype).eps)
    return replace(A, kernel=A.kernel * factor.clamp(max=1))


def _check(A: ConvOperator, bound: float, rounds: int, name: str) -> None:
    _check_bound(bound, rounds, name)
    require_blocks(A, name)


def _check_bound(bound: float, rounds: int, name: str) -> None:
    if not (bound > 0 and math.isfinite(bound)):
        raise ValueError(f"{name} needs a positive bound, got {bound}; the ball of radius 0 holds only the zero kernel")
    if rounds < 1:
        raise ValueError(f"{name} needs at least one round, got rounds={rounds}")
