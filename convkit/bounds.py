"""Upper bounds of the operator norm 2 that cost less than the norm; each says where it holds and when it is tight.

All are computed in float64 and rounded up, so that they stay bounds in the kernel's own dtype, however it is scaled.
"""

import itertools
import math
from dataclasses import replace

import torch
from torch import Tensor

from convkit.engine.blocks import Blocks, require_blocks
from convkit.engine.hermitian import matrix_norms
from convkit.engine.rounding import rounded_up, spectral_slack
from convkit.norms import operator_norm
from convkit.operators.dtypes import in_full_precision
from convkit.operators.geometry import Axis, axes_of, meeting_taps, pixels_at, sum_by_place, sum_meeting_taps
from convkit.operators.operator import ConvOperator
from convkit.operators.tables import on


@in_full_precision
def frobenius_bound(A: ConvOperator) -> Tensor:
    """Return the Frobenius norm of ``A.matrix()``, which is at least its norm 2; a scalar with gradient.

    Every geometry, without the matrix: each tap counts as often as it meets a pixel, and taps that read the same pixel
    are summed first. Equal to the norm 2 where the matrix has rank one. Equation 3 of Liang & Huang 2021,
    ``sqrt(h_out w_out sum |K|^2)``, is the same number where no tap falls on zero padding (and no two on one pixel),
    and larger elsewhere. The work grows with the kernel and hardly with the image.

    >>> A = ConvOperator(torch.tensor([[[1.0, 2.0, 1.0]]]), 2, padding_mode="zeros")
    >>> frobenius_bound(A).square().round(decimals=3)
    tensor(10.)
    """
    kernel, scale = _of_size_one(A.kernel)
    if A.padding_mode in ("reflect", "replicate"):
        entries: list[Tensor] = []
        for cases in itertools.product(*map(meeting_taps, axes_of(A))):
            matrices, times = zip(*cases, strict=True)
            entries.append(sum_meeting_taps(kernel, matrices).flatten() * math.sqrt(math.prod(times)))
        return rounded_up(torch.linalg.vector_norm(torch.cat(entries)) * scale, A, A.kernel.numel())
    times = torch.ones((), dtype=torch.float64, device="cpu")  # how often each tap meets a pixel
    for number, axis in enumerate(axes_of(A), start=2):
        pixels, inside = axis.reads()
        if axis.padding_mode == "circular":  # all taps alike: at every output
            kernel, _ = _sum_meeting_taps(kernel, number, pixels[0])
        times = times[..., None] * inside.sum(0)[: kernel.shape[number]]
    norm = torch.linalg.vector_norm(kernel * on(times.sqrt(), kernel))
    return rounded_up(norm * scale, A, A.kernel.numel())


@in_full_precision
def holder_bound(A: ConvOperator) -> Tensor:
    """Return ``sqrt(||A||_1 ||A||_inf)``, which is at least the norm 2 by Hölder's inequality; a scalar with gradient.

    Every geometry; 1 and inf are exact. Equal to the norm 2 where all taps have one sign, all rows of the matrix have
    the same sum, and all columns: for example one channel with circular padding at stride 1.

    >>> A = ConvOperator(torch.tensor([[[1.0, 2.0, 1.0]]]), 2, padding_mode="zeros")
    >>> holder_bound(A).round(decimals=3)
    tensor(3.)
    """
    B, scale = _in_units(A)
    square = operator_norm(B, 1) * operator_norm(B, math.inf)
    root = torch.where(square > 0, square, 1).sqrt() * (square > 0)  # a zero kernel has gradient 0, not NaN
    return rounded_up(root * scale, A, B.kernel.numel())


@in_full_precision
def torus_bound(A: ConvOperator) -> Tensor:
    """Return the norm 2 of the circular operator of which ``A`` is a piece, by Fourier; a scalar with gradient.

    Every geometry. Zero padding: the norm of ``A.torus()``, larger than that of ``A`` by a part of order ``1 / n^2``.
    Circular boundaries: the norm of the "same" relative on the same size, with stride 1 on an axis that the stride
    does not divide, times the root of how often padding beyond the span repeats an output. Padding that reflects or
    replicates: the norm of the torus of the padded image, times the root of how often it holds one pixel. Equal to the
    norm where ``operator_norm`` is exact, and as exact as it is.

    >>> A = ConvOperator(torch.tensor([[[1.0, 2.0, 1.0]]]), 2, padding_mode="zeros")
    >>> torus_bound(A).round(decimals=3)
    tensor(4.)
    """
    B, scale = _in_units(A)
    repeats = math.prod(map(_repeats, axes_of(B)))
    if B.padding_mode in ("reflect", "replicate"):
        sizes = tuple(n + sum(pads) for n, pads in zip(B.input_shape, B.pads, strict=True))
        B = replace(B, input_shape=sizes, padding=0, padding_mode="zeros")
    elif B.padding_mode == "circular" and not B.is_block_circulant:
        strides = tuple(s if n % s == 0 else 1 for n, s in zip(B.input_shape, B.stride, strict=True))
        B = replace(B, stride=strides, padding="same")
    return rounded_up(operator_norm(B.torus(), 2) * scale * math.sqrt(repeats), A, spectral_slack(B))


@in_full_precision
def flattened_norm(A: ConvOperator) -> Tensor:
    """Return the norm 2 of the kernel as a matrix ``(c_out, c_in k k)``, the largest over the groups.

    Not a norm of ``A``, but a lower bound of its norm 2 where some window lies in the image without meeting itself,
    since that window alone attains it; ``flattened_bound`` is an upper bound. It is what
    ``torch.nn.utils.spectral_norm`` divides by (Yoshida & Miyato 2017, Miyato et al. 2018).

    >>> A = ConvOperator(torch.tensor([[[1.0, 2.0, 1.0]]]), 2, padding_mode="zeros")
    >>> flattened_norm(A).square().round(decimals=3)
    tensor(6.)
    """
    return matrix_norms(A.kernel.unflatten(0, (A.groups, -1)).flatten(2)).amax()


@in_full_precision
def flattened_bound(A: ConvOperator) -> Tensor:
    """Return ``flattened_norm`` times the root of the largest number of windows that read one pixel.

    A scalar with gradient. Every geometry. At stride 1 the number is at most ``prod(k)``, whatever the dilation; at
    stride s at most ``prod(ceil(k gcd(s, dilation) / s))``. Equal to the norm where windows do not overlap and one of
    them lies inside the image. A circular kernel that is longer than the image is folded first. Yoshida & Miyato 2017;
    Tsuzuku et al. 2018.

    >>> A = ConvOperator(torch.tensor([[[1.0, 2.0, 1.0]]]), 2, padding_mode="zeros")
    >>> flattened_bound(A).square().round(decimals=3)
    tensor(12.)
    """
    return _matrix_bound(A, 0)


@in_full_precision
def reshaped_bound(A: ConvOperator) -> Tensor:
    """Return the least of the bounds from all ``2^d`` matrices ``(c_out k.., c_in k..)`` of a kernel.

    A scalar with gradient. Every geometry, 1-D to 3-D. Each axis of taps goes with the inputs, where it costs the root
    of how many windows read one pixel, or with the outputs, where it costs the root of how many pixels one window
    reads: at stride 1 at most ``sqrt(k)`` either way. In 2-D these are the four bounds of Singla & Feizi 2021. Never
    above ``flattened_bound``, which is one of them.

    >>> A = ConvOperator(torch.tensor([[[1.0, 2.0, 1.0]]]), 2, padding_mode="zeros")
    >>> reshaped_bound(A).square().round(decimals=3)
    tensor(12.)
    """
    return _matrix_bound(A, len(A.input_shape))


@in_full_precision
def gram_iteration_bound(A: ConvOperator, steps: int = 5) -> Tensor:
    """Return the largest ``||G||_F^(1 / 2^steps)``, where G is a block of ``A`` after ``steps`` times ``G <- G* G``.

    A scalar with gradient, for operators that the Fourier transform makes block-diagonal. The excess is at most the
    factor ``r^(1 / 2^(steps + 1))`` for blocks of rank r, and falls quadratically once the largest value stands out.
    Delattre et al. 2023, rescaled at each step so that nothing overflows. Raises ``ValueError`` for fewer than one
    step and ``NoFourierBlocks`` for other geometries: ``torus_bound`` holds for all of them.

    >>> A = ConvOperator(torch.tensor([[[1.0, 2.0, 1.0]]]), 4)
    >>> gram_iteration_bound(A).round(decimals=3)
    tensor(4.)
    """
    if steps < 1:
        raise ValueError(f"steps must be at least 1, got {steps}; step 1 is the Frobenius norm of the Gram blocks")
    require_blocks(A, "gram_iteration_bound")
    blocks = Blocks(replace(A, kernel=A.kernel.double()))
    chunks = blocks.frequencies.split(blocks.chunk)
    with torch.no_grad():
        values = torch.cat([_iterate_gram(blocks.at(some), steps) for some in chunks])
    index, group = divmod(int(values.argmax()), A.groups)
    if values[index, group] == 0:
        return A.kernel.sum() * 0
    largest = _iterate_gram(blocks.at(blocks.frequencies[index][None])[0, group], steps)
    return rounded_up(largest * blocks.scale, A, spectral_slack(A))


@in_full_precision
def grid_bound(A: ConvOperator, density: int = 16) -> Tensor:
    """Return a bound of the norm 2 on inputs of every size at once, from a grid of frequencies.

    A scalar with gradient. It holds for ``A`` and for the same kernel with zero padding, or circular "same", on every
    size (at stride s on every circular size that s divides, if it divides that of ``A``; elsewhere stride 1 is taken,
    of whose rows A has some). All these norms are at most the largest norm of ``sum_j K_j exp(i <j, t>)`` over all
    real t, which the grid finds up to the factor ``1 / cos(pi / (2 density))`` per axis: 0.5 % at 16 points for each
    tap after the first.

    Proof of the factor, one axis at a time: let D be the last tap and (u, v) the unit vectors of the largest norm m,
    reached at t0. Times ``exp(-i D t / 2)`` and a constant, ``u* sum_j K_j exp(i j t) v`` has a real part with
    frequencies between -D/2 and D/2 (whole in t, or in t/2 for odd D), never above m and equal to it at t0; by Riesz it
    stays above ``m cos(D (t - t0) / 2)`` up to its first zero, and a grid of N points has one within ``pi / N`` of t0.

    Raises ``ValueError`` for a density below 2.

    >>> A = ConvOperator(torch.tensor([[[1.0, 2.0, 1.0]]]), 2, padding_mode="zeros")
    >>> round(float(grid_bound(A)), 3)
    4.019
    """
    if density < 2:
        raise ValueError(f"density must be at least 2 points for each tap after the first, got {density}; 16 is usual")
    B, scale = _in_units(A)
    factor = 1.0
    sizes, strides = [], []
    for axis, span in zip(axes_of(B), B.span, strict=True):
        s = 1 if axis.padding_mode == "circular" and axis.size % axis.stride else axis.stride
        last = span // s  # in steps of the stride, whose phases are channels
        factor *= math.sqrt(_repeats(axis)) / math.cos(math.pi / (2 * density) if last else 0)
        sizes.append(s * max(1, density * last))
        strides.append(s)
    B = ConvOperator(B.kernel, tuple(sizes), tuple(strides), "same", B.dilation, B.groups)
    return rounded_up(operator_norm(B, 2) * scale * factor, A, spectral_slack(B))


# ---- private ---------------------------------------------------------------------------------------------------------
def _matrix_bound(A: ConvOperator, most: int) -> Tensor:
    """Return the least bound from the matrices of the kernel whose rows hold at most ``most`` axes of taps."""
    B, scale = _in_units(A)
    kernel = B.kernel.unflatten(0, (B.groups, -1))  # (groups, c_out, c_in, *taps)
    windows_per_pixel, pixels_per_window = {}, {}  # at most, by the kernel's axis
    for number, axis in enumerate(axes_of(B), start=3):
        pixels, inside = axis.reads()
        if axis.padding_mode == "circular":
            kernel, first = _sum_meeting_taps(kernel, number, pixels[0])
            pixels = (pixels[:, :1] - pixels[0, 0] + first) % axis.size
            inside = torch.ones_like(pixels, dtype=torch.bool)
        windows_per_pixel[number] = int(torch.bincount(pixels[inside], minlength=1).max())
        pixels_per_window[number] = int(inside.sum(1).max()) * _repeats(axis)
    movable = [axis for axis in windows_per_pixel if kernel.shape[axis] > 1]
    bounds = []
    for rows in itertools.chain.from_iterable(itertools.combinations(movable, number) for number in range(most + 1)):
        columns = [axis for axis in windows_per_pixel if axis not in rows]
        matrix = kernel.permute(0, 1, *rows, 2, *columns).flatten(len(rows) + 2).flatten(1, -2)
        square = math.prod(pixels_per_window[axis] for axis in rows)
        square *= math.prod(windows_per_pixel[axis] for axis in columns)
        bounds.append(matrix_norms(matrix).amax() * math.sqrt(square))
    return rounded_up(torch.stack(bounds).amin() * scale, A, 8 * sum(kernel.shape[1:3]) * math.prod(kernel.shape[3:]))


def _iterate_gram(blocks: Tensor, steps: int) -> Tensor:
    """Return ``||G||_F^(1 / 2^steps)`` for each block: ``(..., rows, columns)`` to ``(...)``."""
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


def _sum_meeting_taps(kernel: Tensor, dim: int, pixels: Tensor) -> tuple[Tensor, Tensor]:
    """Return the kernel with the taps of ``dim`` that read the same pixel summed, and the different pixels."""
    different, where = torch.unique(pixels, return_inverse=True)
    if len(different) == len(pixels):  # nothing meets: as it is
        return kernel, pixels
    return sum_by_place(kernel, dim, where, len(different)), different


def _repeats(axis: Axis) -> int:
    """Return how many outputs of an axis read one pixel through one tap at most: several where padding repeats it.

    Where padding reflects or replicates, it is how often the padded image holds a pixel, which is no less.
    """
    if axis.padding_mode == "zeros":
        return 1
    pixels = axis.reads()[0][:, 0]  # circular: all taps alike
    if axis.padding_mode != "circular":
        last = axis.stride * (axis.outputs - 1) + axis.dilation * (axis.taps - 1)
        pixels = pixels_at(torch.arange(last + 1, device="cpu") - axis.before, axis.size, axis.padding_mode)
    return int(torch.bincount(pixels).max())


def _in_units(A: ConvOperator) -> tuple[ConvOperator, Tensor]:
    """Return ``A`` in float64 divided by its largest entry, and that entry: squares neither overflow nor vanish."""
    kernel, scale = _of_size_one(A.kernel)
    return replace(A, kernel=kernel), scale


def _of_size_one(kernel: Tensor) -> tuple[Tensor, Tensor]:
    """Return the kernel in float64 divided by its largest entry, and that entry (1 for a kernel of zeros)."""
    scale = kernel.detach().double().abs().amax()
    scale = torch.where(scale > 0, scale, 1)
    return kernel.double() / scale, scale
