"""The definition and the papers' own listings, written anew from the formulas: slow, plain, to compare with."""

import itertools

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Pairs = tuple[tuple[int, int], ...]


# ---- the definition ------------------------------------------------------------------------------------------------
def mirrored(i: int, n: int) -> int:
    """The pixel seen at place i, one step after the other: beyond an end the way goes back."""
    while not 0 <= i < n:
        i = 0 if n == 1 else -i if i < 0 else 2 * (n - 1) - i
    return i


BEYOND = {  # which of n pixels lies at place i
    "zeros": lambda i, n: i if 0 <= i < n else None,
    "circular": lambda i, n: i % n,
    "reflect": mirrored,
    "replicate": lambda i, n: min(max(i, 0), n - 1),
}


def same_pads(kernel_size: tuple[int, ...], dilation: tuple[int, ...]) -> Pairs:
    """What torch calls "same": the distance from first to last tap, the shorter half before the image."""
    spans = [d * (k - 1) for k, d in zip(kernel_size, dilation, strict=True)]
    return tuple((int(np.floor(span / 2)), int(np.ceil(span / 2))) for span in spans)


def dense_matrix(
    kernel: Array,
    input_shape: tuple[int, ...],
    stride: tuple[int, ...],
    pads: Pairs,
    dilation: tuple[int, ...],
    groups: int,
    padding_mode: str,
) -> Array:
    """The matrix of a convolution entry by entry: with tap j, output t reads pixel ``stride t + dilation j - before``.

    ``kernel`` has torch's shape ``(c_out, c_in // groups, *kernel_size)``. Pixels outside the image are zero, or pixels
    of the image: repeated, mirrored, or the nearest one.
    """
    c_out, width, *kernel_size = kernel.shape
    out_shape = [
        len(range(0, n + sum(both) - d * (k - 1), s))  # the starting points from which the window still fits
        for n, both, d, k, s in zip(input_shape, pads, dilation, kernel_size, stride, strict=True)
    ]
    M = np.zeros((c_out, *out_shape, groups * width, *input_shape))
    for t, j in itertools.product(np.ndindex(*out_shape), np.ndindex(*kernel_size)):
        pixel = [s * a + d * b - p[0] for s, a, d, b, p in zip(stride, t, dilation, j, pads, strict=True)]
        pixel = [BEYOND[padding_mode](i, n) for i, n in zip(pixel, input_shape, strict=True)]
        if None in pixel:
            continue
        for o in range(c_out):
            first = o // (c_out // groups) * width  # the first input channel of this output's group
            for i in range(width):
                M[(o, *t, first + i, *pixel)] += kernel[(o, i, *j)]
    return M.reshape(c_out * int(np.prod(out_shape)), -1)


# ---- S: Sedghi, Gupta, Long 2019 -----------------------------------------------------------------------------------
def sedghi_singular_values(kernel: Array, input_shape: tuple[int, int]) -> Array:
    """The two lines of the paper's first page. ``kernel`` has the paper's shape ``(k, k, c, d)``; result (n, n, m)."""
    transforms = np.fft.fft2(kernel, input_shape, axes=[0, 1])
    return np.linalg.svd(transforms, compute_uv=False)


def circ(a: Array) -> Array:
    """S's circ(a): the first row is a, each next row is the row above shifted right by one."""
    rows = [a]
    for _ in range(len(a) - 1):
        above = rows[-1]
        rows.append(np.array([above[-1], *above[:-1]]))
    return np.array(rows)


def doubly_block_circulant(K: Array) -> Array:
    """Eq. 1: the block circulant matrix of the blocks circ(K[0]), circ(K[1]), ..., itself with the first row first."""
    n = len(K)
    return np.block([[circ(K[(column - row) % n]) for column in range(n)] for row in range(n)])


# ---- L: Liang, Huang 2021 ------------------------------------------------------------------------------------------
def assumption_1(input_shape: tuple[int, ...], kernel_size: tuple[int, ...], stride, padding) -> bool:
    """With c the smallest positive integers such that c s >= p: k + c s - p <= n on both axes."""
    c = [next(c for c in itertools.count(1) if c * s >= p) for s, p in zip(stride, padding, strict=True)]
    return all(k + c * s - p <= n for n, k, s, p, c in zip(input_shape, kernel_size, stride, padding, c, strict=True))


def theorem_1(kernel: Array, input_shape: tuple[int, int], stride, padding) -> tuple[float, float]:
    """Eqs. 1 and 2: the l1 and the l-infinity norm of a zero-padded Conv2d, by the index sets of Lemma 1."""
    taps = list(np.ndindex(*kernel.shape[2:]))
    (h, w), (s1, s2), (p1, p2), (k1, k2) = input_shape, stride, padding, kernel.shape[2:]

    def index_set(a: int, b: int) -> frozenset[tuple[int, ...]]:
        return frozenset(
            (c, d)
            for c, d in taps
            if (a - c) % s1 == 0
            and (b - d) % s2 == 0
            and 0 <= c - a <= h + 2 * p1 - k1
            and 0 <= d - b <= w + 2 * p2 - k2
        )

    S = {index_set(a, b) for a, b in taps}
    size = np.abs(kernel)
    l1 = max(sum(size[:, j, k, t].sum() for k, t in A) for j in range(kernel.shape[1]) for A in S)
    return float(l1), float(size.sum(axis=(1, 2, 3)).max())


def theorem_1_bound(kernel: Array, out_shape: tuple[int, int]) -> float:
    """Eq. 3: an upper bound of the operator norm 2, the Frobenius norm of a matrix without a boundary."""
    return float(np.sqrt(np.prod(out_shape) * (kernel**2).sum()))
