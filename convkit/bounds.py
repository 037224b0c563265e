"""Upper bounds of the operator norm 2 that cost less than the norm; each says where it holds and when it is tight.

All are computed in float64 and rounded up, so that they stay bounds in the kernel's own dtype, however it is scaled.
"""

import itertools
import math
from dataclasses import replace

import torch
from torch import Tensor

from convkit.engine.blocks import CHUNK, half_set, reduced_taps
from convkit.norms import operator_norm
from convkit.operators.operator import ConvOperator

EPS = torch.finfo(torch.float64).eps


def frobenius_bound(A: ConvOperator) -> Tensor:
    """The Frobenius norm of ``A.matrix()``, which is at least its norm 2; a scalar with gradient.

    Every geometry, without the matrix: each tap counts as often as it meets a pixel, and taps that meet on one pixel of
    a circle are summed first. Equal to the norm 2 where the matrix has rank one. Equation 3 of Liang & Huang 2021,
    ``sqrt(h_out w_out sum |K|^2)``, is the same number where no tap falls on zero padding (and no two on one pixel),
    and larger elsewhere. The work grows with the kernel and hardly with the image.
    """
    kernel, scale = _of_size_one(A.kernel)
    times = torch.ones((), dtype=torch.float64)  # how often each tap meets a pixel
    for axis in range(len(A.input_shape)):
        pixels, inside = _reads(A, axis)
        if A.padding_mode == "circular":  # all taps alike: at every output
            kernel, _ = _without_meetings(kernel, axis + 2, pixels[0])
        times = times[..., None] * inside.sum(0)[: kernel.shape[axis + 2]]
    norm = torch.linalg.vector_norm(kernel * times.sqrt().to(kernel.device))
    return _rounded_up(norm * scale, A, A.kernel.numel())


def holder_bound(A: ConvOperator) -> Tensor:
    """``sqrt(||A||_1 ||A||_inf)``, which is at least the norm 2 by Hölder's inequality; a scalar with gradient.

    Every geometry; 1 and inf are exact. Equal to the norm 2 for non-negative taps on a circle.
    """
    B, scale = _normalized(A)
    square = operator_norm(B, 1) * operator_norm(B, math.inf)
    root = torch.where(square > 0, square, 1).sqrt() * (square > 0)  # a zero kernel has gradient 0, not NaN
    return _rounded_up(root * scale, A, B.kernel.numel())


def torus_bound(A: ConvOperator) -> Tensor:
    """The norm 2 of the circular operator of which ``A`` is a piece, by Fourier; a scalar with gradient.

    Every geometry. Zero padding: the norm of ``A.torus()``, larger than that of ``A`` by a part of order ``1 / n^2``.
    Circular boundaries: the norm of the "same" relative on the same size, with stride 1 on an axis that the stride
    does not divide, times the root of how often padding beyond the span repeats an output. Equal to the norm where
    ``operator_norm`` is exact, and as exact as it is.
    """
    B, scale = _normalized(A)
    repeats = math.prod(_repeats(B, axis) for axis in range(len(B.input_shape)))
    if B.padding_mode == "circular" and not B.is_block_circulant:
        strides = tuple(s if n % s == 0 else 1 for n, s in zip(B.input_shape, B.stride, strict=True))
        B = replace(B, stride=strides, padding="same")
    return _rounded_up(operator_norm(B.torus(), 2) * scale * math.sqrt(repeats), A, _spectral_slack(B))


def flattened_norm(A: ConvOperator) -> Tensor:
    """The norm 2 of the kernel as a matrix ``(c_out, c_in k k)``, the largest over the groups: not a norm of ``A``.

    From below where some window lies in the image without meeting itself, since that window alone attains it;
    ``flattened_bound`` is the bound from above. It is what ``torch.nn.utils.spectral_norm`` divides by (Yoshida &
    Miyato 2017, Miyato et al. 2018).
    """
    return torch.linalg.matrix_norm(A.kernel.unflatten(0, (A.groups, -1)).flatten(2), 2).amax()


def flattened_bound(A: ConvOperator) -> Tensor:
    """``flattened_norm`` times the root of the largest number of windows that read one pixel; a scalar with gradient.

    Every geometry. At stride 1 the number is at most ``prod(k)``, whatever the dilation; at stride s at most
    ``prod(ceil(k gcd(s, dilation) / s))``. Equal to the norm where windows do not overlap. A circular kernel that is
    longer than the image is folded first. Yoshida & Miyato 2017; Tsuzuku et al. 2018.
    """
    return _reshaped(A, rows_too=False)


def reshaped_bound(A: ConvOperator) -> Tensor:
    """The least of the bounds from all ``2^d`` matrices ``(c_out k.., c_in k..)`` of a kernel; a scalar with gradient.

    Every geometry, 1-D to 3-D. Each axis of taps goes with the inputs, where it costs the root of how many windows
    read one pixel, or with the outputs, where it costs the root of how many pixels one window reads: at stride 1 at
    most ``sqrt(k)`` either way. In 2-D these are the four bounds of Singla & Feizi 2021. Never above
    ``flattened_bound``, which is one of them.
    """
    return _reshaped(A, rows_too=True)


def gram_iteration_bound(A: ConvOperator, steps: int = 5) -> Tensor:
    """The largest ``||G||_F^(1 / 2^steps)``, G the matrix that ``steps`` times ``G <- G* G`` makes of a block of ``A``.

    For operators that the Fourier transform makes block-diagonal; a scalar with gradient. The excess is at most the
    factor ``r^(1 / 2^(steps + 1))`` for blocks of rank r, and falls quadratically once the largest value stands out.
    Delattre et al. 2023, rescaled at each step so that nothing overflows. Raises ``ValueError`` for fewer than one
    step and for other geometries, of which the zero-padded ones have an ``A.torus()``.
    """
    if steps < 1:
        raise ValueError(f"steps must be at least 1, got {steps}; step 1 is the Frobenius norm of the Gram blocks")
    if not A.is_block_circulant:
        raise ValueError(
            f"gram_iteration_bound needs circular 'same' padding and a stride that divides the size, got {A}; for zero "
            "padding give it A.torus(), whose norm bounds that of A, or take torus_bound(A), which holds everywhere"
        )
    B, scale = _normalized(A)
    taps = reduced_taps(B)
    groups, _, rows, columns = taps.taps.shape
    frequencies = half_set(taps.size).frequencies
    chunk = max(1, CHUNK // (16 * groups * rows * columns))
    with torch.no_grad():
        values = torch.cat([_iterate_gram(taps.blocks(some), steps) for some in frequencies.split(chunk)])
    where, group = divmod(int(values.argmax()), groups)
    if values[where, group] == 0:
        return A.kernel.sum() * 0
    largest = _iterate_gram(taps.blocks(frequencies[where : where + 1])[0, group], steps)
    return _rounded_up(largest * scale, A, _spectral_slack(B))


def grid_bound(A: ConvOperator, density: int = 16) -> Tensor:
    """A bound of the norm 2 on inputs of every size at once, from a grid of frequencies; a scalar with gradient.

    It holds for ``A`` and for the same kernel with zero padding, or circular "same", on every size (at stride s on
    every circular size that s divides, if it divides that of ``A``; elsewhere stride 1 is taken, of whose rows A has
    some). All these norms are at most the largest norm of ``sum_j K_j exp(i <j, t>)`` over all real t, which the grid
    finds up to the factor ``1 / cos(pi / (2 density))`` an axis: 0.5 % at 16 points for each tap after the first.

    Proof of the factor, one axis at a time: let D be the last tap and (u, v) the unit vectors of the largest norm m,
    reached at t0. Times ``exp(-i D t / 2)`` and a constant, ``u* sum_j K_j exp(i j t) v`` has a real part with
    frequencies between -D/2 and D/2 (whole in t, or in t/2 for odd D), never above m and equal to it at t0; by Riesz it
    stays above ``m cos(D (t - t0) / 2)`` up to its first zero, and a grid of N points has one within ``pi / N`` of t0.

    Raises ``ValueError`` for a density below 2.
    """
    if density < 2:
        raise ValueError(f"density must be at least 2 points for each tap after the first, got {density}; 16 is usual")
    B, scale = _normalized(A)
    factor = 1.0
    sizes, strides = [], []
    for axis, (n, s, span) in enumerate(zip(B.input_shape, B.stride, B.span, strict=True)):
        s = s if B.padding_mode == "zeros" or n % s == 0 else 1
        last = span // s  # in steps of the stride, whose phases are channels
        factor *= math.sqrt(_repeats(B, axis)) / math.cos(math.pi / (2 * density) if last else 0)
        sizes.append(s * max(1, density * last))
        strides.append(s)
    B = ConvOperator(B.kernel, tuple(sizes), tuple(strides), "same", B.dilation, B.groups)
    return _rounded_up(operator_norm(B, 2) * scale * factor, A, _spectral_slack(B))


# ---- private ---------------------------------------------------------------------------------------------------------
def _reshaped(A: ConvOperator, rows_too: bool) -> Tensor:
    B, scale = _normalized(A)
    kernel = B.kernel.unflatten(0, (B.groups, -1))  # (groups, c_out, c_in, *taps)
    with_inputs, with_outputs = [], []  # the price of an axis on either side of the matrix, squared
    for axis, n in enumerate(B.input_shape):
        pixels, inside = _reads(B, axis)
        if B.padding_mode == "circular":  # taps that meet on a pixel are one tap
            kernel, first = _without_meetings(kernel, axis + 3, pixels[0])
            pixels = (pixels[:, :1] - pixels[0, 0] + first) % n
            inside = torch.ones_like(pixels, dtype=torch.bool)
        with_inputs.append(int(torch.bincount(pixels[inside], minlength=1).max()))
        with_outputs.append(int(inside.sum(1).max()) * _repeats(B, axis))
    choices = [(False, True) if rows_too and k > 1 else (False,) for k in kernel.shape[3:]]
    bounds = []
    for as_rows in itertools.product(*choices):
        rows = [1, *(axis for axis, row in enumerate(as_rows, start=3) if row)]
        columns = [2, *(axis for axis, row in enumerate(as_rows, start=3) if not row)]
        matrix = kernel.permute(0, *rows, *columns).flatten(len(rows) + 1).flatten(1, -2)
        times = math.prod(o if row else i for row, i, o in zip(as_rows, with_inputs, with_outputs, strict=True))
        bounds.append(torch.linalg.matrix_norm(matrix, 2).amax() * math.sqrt(times))
    return _rounded_up(torch.stack(bounds).amin() * scale, A, 8 * sum(kernel.shape[1:3]) * math.prod(kernel.shape[3:]))


def _iterate_gram(blocks: Tensor, steps: int) -> Tensor:
    """``||G||_F^(1 / 2^steps)`` for each block, ``(..., rows, columns)`` to ``(...)``."""
    gram = blocks @ blocks.mH if blocks.shape[-2] <= blocks.shape[-1] else blocks.mH @ blocks
    log = gram.real.new_zeros(gram.shape[:-2])
    for step in range(1, steps):
        size = torch.linalg.matrix_norm(gram)
        size = torch.where(size > 0, size, 1)
        gram = gram / size[..., None, None]
        gram = gram @ gram
        log = log + size.log() * 2.0**-step
    size = torch.linalg.matrix_norm(gram)
    return torch.where(size > 0, log + torch.where(size > 0, size, 1).log() * 2.0**-steps, -math.inf).exp()


def _reads(A: ConvOperator, axis: int) -> tuple[Tensor, Tensor]:
    """The pixel that each output reads through each tap on one axis, ``(outputs, taps)``, and whether there is one."""
    n, outputs, (before, _) = A.input_shape[axis], A.out_shape[axis + 1], A.pads[axis]
    pixels = torch.arange(outputs)[:, None] * A.stride[axis] + torch.arange(A.kernel.shape[axis + 2]) * A.dilation[axis]
    pixels = pixels - before
    if A.padding_mode == "circular":
        return pixels % n, torch.ones_like(pixels, dtype=torch.bool)
    return pixels, (pixels >= 0) & (pixels < n)


def _without_meetings(kernel: Tensor, dim: int, pixels: Tensor) -> tuple[Tensor, Tensor]:
    """The kernel with those taps of ``dim`` summed that read the same of these pixels, and the pixels it reads then."""
    different, where = torch.unique(pixels, return_inverse=True)
    if len(different) == len(pixels):  # nothing meets: as it is
        return kernel, pixels
    shape = (*kernel.shape[:dim], len(different), *kernel.shape[dim + 1 :])
    return kernel.new_zeros(shape).index_add(dim, where.to(kernel.device), kernel), different


def _repeats(A: ConvOperator, axis: int) -> int:
    """How many outputs at most are the same on one axis: more than one where circular padding exceeds the span."""
    if A.padding_mode == "zeros":
        return 1
    return int(torch.bincount(_reads(A, axis)[0][:, 0]).max())


def _normalized(A: ConvOperator) -> tuple[ConvOperator, Tensor]:
    """``A`` in float64 divided by its largest entry, and that entry: squares neither overflow nor vanish."""
    kernel, scale = _of_size_one(A.kernel)
    return replace(A, kernel=kernel), scale


def _of_size_one(kernel: Tensor) -> tuple[Tensor, Tensor]:
    """The kernel in float64 divided by its largest entry, and that entry (1 for a kernel of zeros)."""
    scale = kernel.detach().double().abs().amax()
    scale = torch.where(scale > 0, scale, 1)
    return kernel.double() / scale, scale


def _spectral_slack(A: ConvOperator) -> float:
    """Rounding errors, in units of EPS, of a norm found from blocks: of forming them, and of their Gram matrices.

    Relative to the largest block: t taps are summed, whose norms add up to at most sqrt(t side) times its norm, and
    the product of Gram matrices of Frobenius norm 1, whose norm is at least 1 / sqrt(side), is off by side.
    """
    taps, side = (
        math.prod(A.kernel.shape[2:]),
        min(A.kernel.shape[0] // A.groups, A.kernel.shape[1] * math.prod(A.stride)),
    )
    return 8 * (taps * math.sqrt(taps * side) + side**2)


def _rounded_up(value: Tensor, A: ConvOperator, slack: float) -> Tensor:
    """A float64 value in the kernel's dtype, larger by ``slack`` units of EPS and the rounding of that dtype."""
    dtype = A.kernel.dtype
    return (value * (1 + (slack + 64) * EPS + torch.finfo(dtype).eps)).to(dtype)
