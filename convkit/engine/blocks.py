"""The blocks of a block-circulant convolution at any frequencies, on the smallest torus that has its spectrum."""

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from convkit.operators.operator import ConvOperator

MOST_TAPS = 256  # with more, the list of lags is longer than the kernel is worth
CHUNK = 2**26  # bytes of Gram blocks held at a time


@dataclass(frozen=True, eq=False)
class Taps:
    """A stride-1 convolution on a torus as a list of taps: ``B(f) = sum_t taps[t] exp(2 pi i <f, offsets[t] / size>)``.

    ``taps`` has shape ``(groups, t, rows, columns)`` and is a rearrangement of the live kernel, ``offsets`` has shape
    ``(t, axes)`` on the torus ``size``. Strides became channels (polyphase), and an axis whose offsets have a common
    divisor with the size shrank by it: dilation, and kernels of size 1, whose torus is one pixel.
    """

    taps: Tensor
    offsets: Tensor
    size: tuple[int, ...]
    frequencies: tuple[int, ...]  # of the operator: multiples of ``size``, with copies of the same blocks
    split: tuple[int, ...]  # (offsets, stride) of each axis: how the kernel's axes were cut
    places: tuple[Tensor, ...]  # on each axis, where tap j of the kernel went: offset * stride + phase

    def phases(self, frequencies: Tensor) -> Tensor:
        """Angles ``2 pi <f, offset / size>`` in float64, shape ``(frequencies, t)``, for frequencies ``(F, axes)``."""
        return _angles(frequencies, self.offsets, self.size)

    def blocks(self, frequencies: Tensor) -> Tensor:
        """``B(f)`` for each row of ``frequencies``, shape ``(F, groups, rows, columns)``; has the kernel's gradient."""
        angles = self.phases(frequencies).to(self.taps.device, self.taps.dtype)
        flat = self.taps.movedim(1, 0).flatten(1)  # (t, groups * rows * columns)
        real, imaginary = angles.cos() @ flat, angles.sin() @ flat
        return torch.complex(real, imaginary).unflatten(1, (self.taps.shape[0], *self.taps.shape[2:]))

    def from_blocks(self, blocks: Tensor, frequencies: Tensor, times: Tensor) -> Tensor:
        """The taps of the nearest kernel of this support, ``(groups, t, rows, columns)``: the inverse of ``blocks``.

        ``times`` says how often each frequency counts: 2 where it stands for -f, too.
        """
        weights = times.double()[:, None] / math.prod(self.size)
        angles = self.phases(frequencies)
        cos, sin = ((weights * wave).to(self.taps.device, self.taps.dtype) for wave in (angles.cos(), angles.sin()))
        flat = blocks.flatten(1)
        taps = cos.T @ flat.real + sin.T @ flat.imag
        return taps.unflatten(1, (self.taps.shape[0], *self.taps.shape[2:])).movedim(0, 1)

    def to_kernel(self, taps: Tensor) -> Tensor:
        """Taps in the kernel's shape again: undoes ``reduced_taps``; taps that meet on a pixel share alike."""
        d, (groups, _, rows, columns) = len(self.size), taps.shape
        lengths, strides = self.split[::2], self.split[1::2]
        kernel = taps.reshape(groups, *lengths, rows, columns // math.prod(strides), *strides)
        kernel = kernel.permute(0, 1 + d, 2 + d, *(axis for i in range(d) for axis in (1 + i, 3 + d + i)))
        kernel = kernel.reshape(groups * rows, -1, *(o * s for o, s in zip(lengths, strides, strict=True)))
        for axis, places in enumerate(self.places, start=2):
            sharing = torch.bincount(places)[places].view(-1, *[1] * (d + 1 - axis))
            kernel = kernel.index_select(axis, places.to(kernel.device)) / sharing.to(kernel)
        return kernel


def require_blocks(A: ConvOperator, name: str) -> None:
    """Raise ``ValueError``, naming the ways out, unless the Fourier transform makes ``A`` block-diagonal."""
    if A.is_block_circulant:
        return
    if A.padding_mode == "zeros":
        raise ValueError(
            f"{name} needs circular 'same' padding, got zero padding {A.pads}, whose matrix no Fourier transform makes "
            "block-diagonal; use A.matrix() for the exact operator, leading_singular_values(A, k) for its largest "
            "values, A.torus() for upper bounds of all of them, or A.circular() for its circular relative"
        )
    if any(n % s for n, s in zip(A.input_shape, A.stride, strict=True)):
        raise ValueError(
            f"{name} needs a stride that divides the size, got stride {A.stride} on {A.input_shape}, where no shift "
            "keeps the rows; use A.matrix() for the exact operator, leading_singular_values(A, k) for its largest "
            "values, or stride 1 for upper bounds of all of them"
        )
    raise ValueError(
        f"{name} needs circular padding of {A.span} in all ('same'), got {A.pads}; use A.matrix() for the exact "
        "operator, leading_singular_values(A, k) for its largest values, or A.circular() for its circular relative"
    )


def normalized(taps: Taps) -> tuple[Taps, float]:
    """The taps, detached, divided by a power of two that makes the largest about 1; and that number.

    Gram blocks hold squares, which overflow or vanish for kernels of extreme scale. A power of two costs no digit.
    """
    largest = float(taps.taps.detach().abs().amax())
    scale = 2.0 ** (math.frexp(largest)[1] - 1) if largest > 0 else 1.0  # at most 2^1023, a float64
    return replace(taps, taps=taps.taps.detach() / scale), scale


def reduced_taps(A: ConvOperator) -> Taps:
    """The taps of ``A`` on the smallest torus whose blocks, repeated, have the singular values of ``symbol(A)``.

    The blocks equal those of ``symbol`` up to unitary factors. ``A`` must be block circulant.
    """
    kernel, c_out = A.kernel, A.kernel.shape[0]
    offsets, places, sizes, coarse = [], [], [], []
    for axis, n in enumerate(A.input_shape, start=2):
        s = A.stride[axis - 2]
        pixels = torch.arange(kernel.shape[axis]) * A.dilation[axis - 2] % n  # a shift of all taps is a unit factor
        distinct, where = torch.unique(pixels // s, return_inverse=True)
        places.append(where * s + pixels % s)  # taps that meet are summed
        shape = (*kernel.shape[:axis], len(distinct) * s, *kernel.shape[axis + 1 :])
        kernel = kernel.new_zeros(shape).index_add(axis, places[-1].to(kernel.device), kernel)
        divisor = math.gcd(n // s, *(distinct - distinct[0]).tolist())
        offsets.append((distinct - distinct[0]) // divisor)
        sizes.append(n // s // divisor)
        coarse.append(n // s)
    d = len(sizes)
    split = tuple(size for o, s in zip(offsets, A.stride, strict=True) for size in (len(o), s))
    taps = kernel.reshape(A.groups, c_out // A.groups, kernel.shape[1], *split)
    taps = taps.permute(0, *range(3, 3 + 2 * d, 2), 1, 2, *range(4, 4 + 2 * d, 2))
    taps = taps.reshape(A.groups, -1, c_out // A.groups, kernel.shape[1] * math.prod(A.stride))
    offset = torch.cartesian_prod(*offsets).reshape(-1, d)
    return Taps(taps, offset, tuple(sizes), tuple(coarse), split, tuple(places))


@dataclass(frozen=True, eq=False)
class HalfSet:
    """One frequency of each pair {f, -f} of a torus, where the blocks of a real kernel are conjugate."""

    frequencies: Tensor  # (F, axes)
    chosen: Tensor  # (F,) the same as flat indices
    real: Tensor  # (F,) bool: f = -f, the block is real
    where: Tensor  # for each frequency of the whole grid, flat: its place in the list

    @property
    def times(self) -> Tensor:
        """How many frequencies of the torus each one stands for: 1 where f = -f, else 2."""
        return 2 - self.real.long()


@functools.lru_cache(maxsize=64)
@torch.inference_mode(False)  # tables made there could not be used in training
def half_set(size: tuple[int, ...], repeated: tuple[int, ...] | None = None) -> HalfSet:
    """The canonical half of the frequencies of a torus; ``where`` on a grid of ``repeated`` copies of it."""
    numbers = torch.arange(math.prod(size)).reshape(*size)
    axes = tuple(range(len(size)))
    opposite = numbers.flip(axes).roll([1] * len(axes), axes)
    chosen, where = torch.unique(torch.minimum(numbers, opposite).flatten(), return_inverse=True)
    where = where.reshape(*size)
    if repeated is not None:
        where = where.tile([whole // part for whole, part in zip(repeated, size, strict=True)])
    frequencies = torch.stack(torch.unravel_index(chosen, tuple(size)), dim=1)
    return HalfSet(frequencies, chosen, (opposite == numbers).flatten()[chosen], where.flatten())


class Gram:
    """The Gram blocks ``B(f) B(f)^H`` (or ``B^H B`` where that is smaller) of detached taps, in float64 by default.

    Built from the autocorrelation of the taps, ``G(f) = sum_l H_l exp(i <l, f>)``, wherever that takes fewer
    operations than the blocks themselves.
    """

    def __init__(self, taps: Taps, frequencies: int | None = None, dtype: torch.dtype = torch.float64) -> None:
        kernel = taps.taps.detach().to(dtype)
        self.wide = kernel.shape[2] <= kernel.shape[3]
        self._taps = replace(taps, taps=kernel)
        kernel = kernel if self.wide else kernel.mT
        groups, t, r, c = kernel.shape
        frequencies = frequencies or math.prod(taps.size) // 2 + 1  # that will be asked for
        self._sums = None
        lags, where, flipped = _half_lags(taps.offsets[:MOST_TAPS], taps.size)
        by_lags, by_blocks = t * t * r * c + 4 * len(lags) * r * frequencies, 4 * (t + 2 * r) * c * frequencies
        if t <= MOST_TAPS and by_lags < by_blocks:
            sums = kernel.new_zeros(len(lags), groups, r, r)
            for a in range(t):
                products = (
                    kernel[:, a:].flatten(1, 2) @ kernel[:, a].mT
                )  # K_b K_a^T for b >= a, lag offset_b - offset_a
                products = products.unflatten(1, (t - a, r)).movedim(1, 0)
                turn = flipped[a, a:]
                if turn.any():  # only on a torus that the lags go round
                    products = torch.where(turn.to(kernel.device)[:, None, None, None], products.mT, products)
                products[0] *= 0.5
                sums.index_add_(0, where[a, a:].to(kernel.device), products)
            odd = sums - sums.mT if self.wide else sums.mT - sums  # the taps were transposed, not their phases turned
            self._sums = ((sums + sums.mT).flatten(1), odd.flatten(1))
            self._lags = lags
        self.side, self.dtype, self.device = r, dtype, kernel.device
        self.chunk = max(1, int(CHUNK // (16 * groups * r * r)))  # frequencies at a time

    def at(self, frequencies: Tensor, real: bool = False) -> Tensor:
        """The Gram blocks at these frequencies, shape ``(F, groups, side, side)``; real ones where f = -f."""
        groups = self._taps.taps.shape[0]
        if self._sums is None:
            blocks = self._taps.blocks(frequencies)
            blocks = blocks.real if real else blocks
            return blocks @ blocks.mH if self.wide else blocks.mH @ blocks
        even, odd = self._sums
        angles = _angles(frequencies, self._lags, self._taps.size).to(even)
        shape = (len(frequencies), groups, self.side, self.side)
        if real:
            return (angles.cos() @ even).view(shape)
        return torch.complex(angles.cos() @ even, angles.sin() @ odd).view(shape)

    def bounds(self, frequencies: Tensor) -> Tensor:
        """Upper bounds of the largest eigenvalues, shape ``(F, groups)``, without a block: their Frobenius norms.

        The squared norm is a quadratic form of the phases, of inner products between lags; infinite where the blocks
        are not built from lags.
        """
        groups = self._taps.taps.shape[0]
        if self._sums is None:
            return self._taps.taps.new_full((len(frequencies), groups), math.inf)
        angles = _angles(frequencies, self._lags, self._taps.size).to(self._taps.taps.device)
        squares = angles.new_zeros(())
        for waves, sums in zip((angles.cos(), angles.sin()), self._sums, strict=True):
            by_group = sums.unflatten(1, (groups, -1)).movedim(1, 0).double()
            squares = squares + (waves @ (by_group @ by_group.mT) * waves).sum(2)  # (groups, F)
        return squares.clamp_min(0).sqrt().T.to(self._taps.taps)


def _angles(frequencies: Tensor, offsets: Tensor, size: Sequence[int]) -> Tensor:
    # whole numbers are reduced first, so that the angles are right to the last bit even on large tori
    turns = torch.zeros(len(frequencies), len(offsets), dtype=torch.float64)
    for axis, n in enumerate(size):
        turns += (frequencies[:, axis, None] * offsets[None, :, axis] % n).double() / n
    return 2 * math.pi * turns


def _half_lags(offsets: Tensor, size: Sequence[int]) -> tuple[Tensor, Tensor, Tensor]:
    """One of each pair of lags {l, -l} between taps; for taps (a, b) the place of b - a in it, and whether it is -l."""
    steps = torch.tensor(size)
    place = torch.tensor([math.prod(size[axis + 1 :]) for axis in range(len(size))])
    lags = (offsets[None, :] - offsets[:, None]) % steps
    flat, opposite = (lags * place).sum(-1), (-lags % steps * place).sum(-1)
    chosen, where = torch.unique(torch.minimum(flat, opposite), return_inverse=True)
    return torch.stack(torch.unravel_index(chosen, tuple(size)), dim=1), where, opposite < flat
