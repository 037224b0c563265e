"""The Fourier blocks of a block-circulant convolution, and their Gram matrices, at any frequency."""

import copy
import functools
import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from convkit.operators.geometry import NoFourierBlocks, sum_by_place
from convkit.operators.operator import ConvOperator
from convkit.operators.tables import kept, on

MOST_TAPS = 256  # with more, the list of lags is longer than the kernel is worth
CHUNK = 2**26  # bytes of blocks held at a time
MOST_ON_GPU = 2**32  # bytes of blocks held at a time on a GPU, where a piece has to keep many cores busy


def require_blocks(A: ConvOperator, name: str) -> None:
    """Raise ``NoFourierBlocks``, naming the ways out, unless the Fourier transform makes ``A`` block-diagonal."""
    if A.is_block_circulant:
        return
    if A.padding_mode == "zeros":
        raise NoFourierBlocks(
            f"{name} needs circular 'same' padding, got zero padding {A.pads}, whose matrix no Fourier transform makes "
            "block-diagonal; use A.matrix() for the exact operator, leading_singular_values(A, k) for its largest "
            "values, A.torus() for upper bounds of all of them, or A.circular() for its circular relative"
        )
    if A.padding_mode != "circular":
        raise NoFourierBlocks(
            f"{name} needs circular 'same' padding, got {A.padding_mode!r} padding {A.pads}, whose matrix no Fourier "
            "transform makes block-diagonal; use A.matrix() for the exact operator, leading_singular_values(A, k) for "
            "its largest values, torus_bound(A) for an upper bound, or A.circular() for its circular relative"
        )
    if any(n % s for n, s in zip(A.input_shape, A.stride, strict=True)):
        raise NoFourierBlocks(
            f"{name} needs a stride that divides the size, got stride {A.stride} on {A.input_shape}, where no shift "
            "keeps the rows; use A.matrix() for the exact operator, leading_singular_values(A, k) for its largest "
            "values, or stride 1 for upper bounds of all of them"
        )
    raise NoFourierBlocks(
        f"{name} needs circular padding of {A.span} in all ('same'), got {A.pads}; use A.matrix() for the exact "
        "operator, leading_singular_values(A, k) for its largest values, or A.circular() for its circular relative"
    )


class Blocks:
    """The Fourier blocks ``B(f)`` of a block-circulant operator, all in units of ``scale``.

    ``B(f) = sum_t taps[t] exp(2 pi i <f, offsets[t] / period>)`` has the singular values of the block of ``symbol(A)``
    at f, divided by ``scale``; where gradients are recorded, it has the gradient of the kernel. A stride turns pixels
    into channels. An axis on which all offsets share a divisor with the size (dilation, kernels of size 1) shrinks by
    it, since its blocks repeat after ``period`` frequencies.

    Attributes:
        taps: The kernel, rearranged: ``(groups, t, rows, columns)``. On an NVIDIA GPU in float64, since products in
            float32 may keep ten bits there (TF32).
        offsets: The place of each tap, modulo ``period``: ``(t, axes)``.
        period: Number of frequencies on each axis after which the blocks repeat.
        grid: Number of frequencies of ``symbol(A)`` on each axis, a multiple of ``period``.
        frequencies: One of each pair ``{f, -f}`` in a period, whose blocks are conjugate: ``(F, axes)``.
        times: How many frequencies of the grid each of them stands for: ``(F,)``.
        self_conjugate: Whether ``f = -f``, so that the block is real: ``(F,)``.
        index: For each frequency of the grid, flattened, the one that stands for it: ``(prod(grid),)``.
        dtype: That of the kernel.
        phases: How many pixels of a period of the stride some tap reads; the columns of the others, which are 0, are
            left out of the blocks.
        scale: A power of two, which costs no digit: the largest tap is then about 1, and squares neither overflow nor
            vanish. Given as an argument, it is used as it is.
    """

    def __init__(self, A: ConvOperator, scale: float | None = None) -> None:
        kernel, offsets, phases, self._places = A.kernel, [], [], []
        self.period: tuple[int, ...] = ()
        self.grid = tuple(n // s for n, s in zip(A.input_shape, A.stride, strict=True))
        for axis, (n, s) in enumerate(zip(A.input_shape, A.stride, strict=True), start=2):
            taps = torch.arange(kernel.shape[axis], device="cpu")
            pixels = taps * A.dilation[axis - 2] % n  # a shift of all taps is a unit factor
            offset, where = torch.unique(pixels // s, return_inverse=True)
            phase, which = torch.unique(pixels % s, return_inverse=True)  # a stride may step over the others
            phases.append(len(phase))
            self._places.append(where * len(phase) + which)
            kernel = sum_by_place(kernel, axis, self._places[-1], len(offset) * len(phase))
            divisor = math.gcd(n // s, *(offset - offset[0]).tolist())
            offsets.append((offset - offset[0]) // divisor)
            self.period += (n // s // divisor,)
        d, rows = len(A.stride), kernel.shape[0] // A.groups
        self.phases = math.prod(phases)
        self._cut = [size for o, p in zip(offsets, phases, strict=True) for size in (len(o), p)]  # of each axis
        taps = kernel.reshape(A.groups, rows, -1, *self._cut)
        taps = taps.permute(0, *range(3, 3 + 2 * d, 2), 1, 2, *range(4, 4 + 2 * d, 2))
        taps = taps.reshape(A.groups, math.prod(map(len, offsets)), rows, -1)
        taps = taps.double() if taps.device.type == "cuda" else taps
        self.dtype = A.kernel.dtype
        if scale is None:
            largest = float(taps.detach().abs().amax())
            scale = 2.0 ** (math.frexp(largest)[1] - 1) if largest > 0 else 1.0  # at most 2^1023, a float64
        self.taps, self.scale = taps if scale == 1 else taps / scale, scale
        self.offsets = torch.cartesian_prod(*offsets).reshape(-1, d)
        self.frequencies, self.times, self.self_conjugate, self.index = half_set(self.period, self.grid)

    @property
    def chunk(self) -> int:
        """Number of frequencies whose blocks may be held at a time."""
        groups, _, rows, columns = self.taps.shape
        return pieces(self.taps.device, 16 * groups * rows * columns)

    def at(self, frequencies: Tensor) -> Tensor:
        """Return ``B(f)`` for each row f of ``frequencies``: ``(F, groups, rows, columns)``, complex."""
        phases = on(angles(frequencies, self.offsets, self.period), self.taps).to(self.taps.dtype)
        flat = self.taps.movedim(1, 0).flatten(1)  # (t, groups * rows * columns)
        real, imaginary = phases.cos() @ flat, phases.sin() @ flat
        return torch.complex(real, imaginary).unflatten(1, (self.taps.shape[0], *self.taps.shape[2:]))

    def at_zero(self) -> Tensor:
        """Return ``B(0)``, which is real: ``(groups, rows, columns)``."""
        return self.taps.sum(1) if self.taps.shape[1] > 1 else self.taps[:, 0]

    def gram(self, expected: int | None = None, dtype: torch.dtype = torch.float64) -> "Gram":
        """Return the Gram blocks, of which about ``expected`` will be asked for (by default one per frequency)."""
        return Gram(self, expected or len(self.frequencies), dtype)

    def group(self, number: int) -> "Blocks":
        """Return the blocks of one group of channels alone, in the same units."""
        return self.with_taps(self.taps[number : number + 1])

    def with_taps(self, taps: Tensor) -> "Blocks":
        """Return the blocks of other taps at the same places."""
        blocks = copy.copy(self)
        blocks.taps = taps
        return blocks

    def to_taps(self, values: Tensor, indices: Tensor | slice = slice(None)) -> Tensor:
        """Return the taps whose blocks are nearest to ``values``, which are blocks at ``frequencies[indices]``.

        At all frequencies this is the inverse of ``at``; the taps for parts of them add up to it.
        """
        weights = on(self.times[indices].double()[:, None] / math.prod(self.grid), self.taps)
        phases = on(angles(self.frequencies[indices], self.offsets, self.period), self.taps)
        cos, sin = ((weights * wave).to(self.taps.dtype) for wave in (phases.cos(), phases.sin()))
        flat = values.flatten(1)
        taps = cos.T @ flat.real + sin.T @ flat.imag
        return taps.unflatten(1, (self.taps.shape[0], *self.taps.shape[2:])).movedim(0, 1)

    def to_kernel(self, taps: Tensor) -> Tensor:
        """Return taps in the kernel's shape, no longer in units of ``scale``; a sum of several entries is shared."""
        d, (groups, _, rows, _) = len(self.period), taps.shape
        lengths, phases = self._cut[::2], self._cut[1::2]
        kernel = taps.reshape(groups, *lengths, rows, -1, *phases)
        kernel = kernel.permute(0, 1 + d, 2 + d, *(axis for i in range(d) for axis in (1 + i, 3 + d + i)))
        kernel = kernel.reshape(groups * rows, -1, *(o * p for o, p in zip(lengths, phases, strict=True)))
        for axis, places in enumerate(self._places, start=2):
            shares = torch.bincount(places)[places].view(-1, *[1] * (d + 1 - axis))
            kernel = kernel.index_select(axis, on(places, kernel)) / on(shares, kernel).to(kernel.dtype)
        return self.scale * kernel.to(self.dtype)


def pieces(device: torch.device, size: int) -> int:
    """Return how many blocks of ``size`` bytes to hold at a time: on a GPU as many as an eighth of its free memory."""
    if device.type != "cuda":
        return max(1, CHUNK // size)
    free = torch.cuda.mem_get_info(device)[0] + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return max(1, min(MOST_ON_GPU, free // 8) // size)


class HalfSet(NamedTuple):
    """One frequency of each pair ``{f, -f}``; ``Blocks`` describes the fields."""

    frequencies: Tensor
    times: Tensor
    self_conjugate: Tensor
    index: Tensor


@kept(64)
def half_set(period: tuple[int, ...], grid: tuple[int, ...]) -> HalfSet:
    """Return half of the frequencies of a period, which stand for those of a grid of copies of it."""
    numbers = torch.arange(math.prod(period), device="cpu").reshape(period)
    axes = tuple(range(len(period)))
    opposite = numbers.flip(axes).roll([1] * len(axes), axes)
    chosen, index = torch.unique(torch.minimum(numbers, opposite).flatten(), return_inverse=True)
    index = index.reshape(period).tile([whole // part for whole, part in zip(grid, period, strict=True)]).flatten()
    frequencies = torch.stack(torch.unravel_index(chosen, period), dim=1)
    return HalfSet(frequencies, torch.bincount(index), (opposite == numbers).flatten()[chosen], index)


class Gram:
    """The Gram blocks ``B(f) B(f)^H`` (or ``B^H B`` where that is smaller), detached, in units of ``scale^2``.

    Computed from the autocorrelation of the taps, ``G(f) = sum_l H_l exp(2 pi i <f, l / period>)`` over the lags l
    between two taps, wherever that takes fewer operations than the blocks themselves. They have ``side`` rows, and
    ``chunk`` is the number of frequencies whose Gram blocks may be held at a time.
    """

    def __init__(self, blocks: Blocks, expected: int, dtype: torch.dtype) -> None:
        kernel = blocks.taps.detach().to(dtype)
        self._blocks, self._period = blocks.with_taps(kernel), blocks.period
        self._wide = kernel.shape[2] <= kernel.shape[3]
        kernel = kernel if self._wide else kernel.mT
        groups, t, r, c = kernel.shape
        self.side, self.dtype, self.device = r, dtype, kernel.device
        self.chunk = pieces(self.device, 16 * groups * r * r)
        self._lags, index, opposite = _half_lags(blocks.offsets[:MOST_TAPS], blocks.period)
        by_lags, by_blocks = t * t * r * c + 4 * len(self._lags) * r * expected, 4 * (t + 2 * r) * c * expected
        self._sums = None
        self._kept: dict[tuple[int, ...], Tensor] = {}  # blocks that took products of large matrices
        if t <= MOST_TAPS and by_lags < by_blocks:
            sums = kernel.new_zeros(len(self._lags), groups, r, r)
            for a in range(t):  # the products K_b K_a^T for b >= a belong to the lags offset_b - offset_a
                products = (kernel[:, a:].flatten(1, 2) @ kernel[:, a].mT).unflatten(1, (t - a, r)).movedim(1, 0)
                if opposite[a, a:].any():  # only where a lag reaches half the size of an axis
                    mirrored = on(opposite, kernel)[a, a:, None, None, None]
                    products = torch.where(mirrored, products.mT, products)
                products[0] *= 0.5
                sums.index_add_(0, on(index, kernel)[a, a:], products)
            odd = sums - sums.mT if self._wide else sums.mT - sums  # the taps were transposed, not their phases turned
            self._sums = ((sums + sums.mT).flatten(1), odd.flatten(1))

    def at(self, frequencies: Tensor, real: bool = False) -> Tensor:
        """Return the Gram blocks at these frequencies, ``(F, groups, side, side)``; ``real`` ones if all ``f = -f``."""
        if self._sums is None:
            return self._products(self._blocks.at(frequencies).real) if real else self._looked_up(frequencies)
        even, odd = self._sums
        phases = on(angles(frequencies, self._lags, self._period), even).to(even.dtype)
        shape = (len(frequencies), len(self._blocks.taps), self.side, self.side)
        if real:
            return (phases.cos() @ even).view(shape)
        return torch.complex(phases.cos() @ even, phases.sin() @ odd).view(shape)

    def _products(self, blocks: Tensor) -> Tensor:
        return blocks @ blocks.mH if self._wide else blocks.mH @ blocks

    def _looked_up(self, frequencies: Tensor) -> Tensor:
        """Return the Gram blocks at these frequencies, and keep as many as fit into a chunk: others may ask again."""
        names = [tuple(f) for f in frequencies.tolist()]
        new = [place for place, name in enumerate(names) if name not in self._kept]
        if not names or len(self._kept) + len(new) > self.chunk or self.device.type != "cpu":
            return self._products(self._blocks.at(frequencies))
        if new:
            found = self._products(self._blocks.at(frequencies[new]))
            self._kept |= zip((names[place] for place in new), found, strict=True)
        return torch.stack([self._kept[name] for name in names])

    def bounds(self, frequencies: Tensor) -> Tensor:
        """Return upper bounds of the largest eigenvalues, ``(F, groups)``: the Frobenius norms, without any block.

        The squared norm is a quadratic form of the phases. Infinite where the blocks are not computed from lags.
        """
        taps = self._blocks.taps
        if self._sums is None:
            return taps.new_full((len(frequencies), len(taps)), math.inf)
        phases = on(angles(frequencies, self._lags, self._period), taps)
        (even, odd), cos, sin = self._inner_products, phases.cos(), phases.sin()
        squares = (cos @ even * cos + sin @ odd * sin).sum(2)  # (groups, F)
        return squares.clamp_min(0).sqrt().T.to(taps)

    @functools.cached_property
    def _inner_products(self) -> list[Tensor]:
        """Return the inner products between the sums of two lags, even and odd, ``(groups, lags, lags)`` each."""
        by_group = (s.unflatten(1, (len(self._blocks.taps), -1)).movedim(1, 0).double() for s in self._sums or ())
        return [sums @ sums.mT for sums in by_group]


def angles(frequencies: Tensor, pixels: Tensor, sizes: Sequence[int]) -> Tensor:
    """Return ``2 pi <f, p / sizes>`` for all pairs of rows f and p, ``(frequencies, pixels)``, in float64."""
    # whole numbers are reduced first, so that the angles are right to the last bit even for large sizes
    turns = torch.zeros(len(frequencies), len(pixels), dtype=torch.float64, device="cpu")
    for axis, n in enumerate(sizes):
        turns += (frequencies[:, axis, None] * pixels[None, :, axis] % n).double() / n
    return 2 * math.pi * turns


def _half_lags(offsets: Tensor, sizes: Sequence[int]) -> tuple[Tensor, Tensor, Tensor]:
    """Return one of each pair ``{l, -l}`` of lags between taps, which of them is b - a up to its sign, and the sign.

    The second and third have an entry for each pair (a, b) of taps: an index, and whether the lag is -l.
    """
    steps = torch.tensor(sizes, device="cpu")
    place = torch.tensor([math.prod(sizes[axis + 1 :]) for axis in range(len(sizes))], device="cpu")
    lags = (offsets[None, :] - offsets[:, None]) % steps
    flat, opposite = (lags * place).sum(-1), (-lags % steps * place).sum(-1)
    chosen, index = torch.unique(torch.minimum(flat, opposite), return_inverse=True)
    return torch.stack(torch.unravel_index(chosen, tuple(sizes)), dim=1), index, opposite < flat
