"""Symbols and singular values of convolutions: exact by Fourier where they exist, matrix-free everywhere else."""

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from scipy.sparse.linalg import ArpackError, LinearOperator, eigsh
from torch import Tensor

from convkit.geometry import positive_ints
from convkit.operators import ConvOperator

DENSE_LIMIT = 64  # matrices with fewer rows or columns are decomposed as they are


def symbol(A: ConvOperator) -> Tensor:
    """The blocks that the Fourier transform leaves of ``A``, shape ``(*frequencies, c_out, c_in * prod(stride))``.

    At stride 1: ``fftn(A x)[f] = symbol(A)[f] @ fftn(x)[f]``, phases included; the exponent is positive because the
    layer correlates. At stride s there are ``n / s`` frequencies an axis, and a block holds side by side the
    ``prod(s)`` blocks of the frequencies ``g + r n / s`` that subsampling folds onto g, divided by ``sqrt(prod(s))``;
    the identity then holds for orthonormal transforms. Groups add an axis before the matrix:
    ``(*frequencies, groups, c_out / groups, c_in * prod(stride) / groups)``. Complex.

    Exact. Raises ``ValueError`` where no such blocks exist. Theorem 6 of Sedghi et al. 2019, and aliasing.
    """
    _require_blocks(A, "symbol")
    d, (c_out, c_in) = len(A.input_shape), A.kernel.shape[:2]
    coarse = [n // s for n, s in zip(A.input_shape, A.stride, strict=True)]
    transforms = torch.fft.fftn(A.kernel_on_torus(), dim=tuple(range(2, 2 + d))).conj()  # conj: the layer correlates
    # f = r * coarse + g on each axis: split it, then order the axes (g, group, c_out, r, c_in)
    split = [size for pair in zip(A.stride, coarse, strict=True) for size in pair]
    blocks = transforms.reshape(A.groups, c_out // A.groups, c_in, *split)
    blocks = blocks.permute(*range(4, 4 + 2 * d, 2), 0, 1, *range(3, 3 + 2 * d, 2), 2)
    blocks = blocks.reshape(*coarse, A.groups, c_out // A.groups, -1) / math.sqrt(math.prod(A.stride))
    return blocks if A.groups > 1 else blocks.squeeze(d)


def from_symbol(blocks: Tensor, stride: int | Sequence[int] = 1, groups: int = 1) -> ConvOperator:
    """The circular operator with these blocks, its kernel as large as the image: the inverse of ``symbol``.

    ``blocks`` has the shape that ``symbol`` gives for this stride and these groups. Exact; raises ``ValueError`` when
    the blocks at frequencies +f and -f are not conjugate, since then no real kernel has them.
    """
    if not isinstance(blocks, Tensor):
        raise TypeError(f"from_symbol needs a tensor of blocks, got {type(blocks).__name__}; use symbol(A)")
    (groups,) = positive_ints(groups, 1, "groups")
    d = blocks.ndim - 2 - (groups > 1)
    if not 1 <= d <= 3 or not blocks.is_complex():
        raise ValueError(
            "from_symbol needs complex blocks of shape (*frequencies, c_out, c_in * prod(stride)), with an axis for "
            f"groups > 1 before the matrix, got {tuple(blocks.shape)} {blocks.dtype} and groups={groups}; "
            "start from those of symbol(A)"
        )
    strides = positive_ints(stride, d, "stride")
    coarse, (rows, columns) = blocks.shape[:d], blocks.shape[-2:]
    if columns % math.prod(strides) or (groups > 1 and blocks.shape[d] != groups):
        raise ValueError(
            f"from_symbol needs blocks whose columns are a multiple of prod(stride) = {math.prod(strides)} and an axis "
            f"of {groups} groups, got {tuple(blocks.shape)}; give the stride and groups of the operator they came from"
        )
    blocks = (blocks * math.sqrt(math.prod(strides))).reshape(*coarse, groups, rows, *strides, -1)
    split = [axis for i in range(d) for axis in (d + 2 + i, i)]  # (r, g) on each axis
    size = tuple(n * s for n, s in zip(coarse, strides, strict=True))
    transforms = blocks.permute(d, d + 1, 2 * d + 2, *split).reshape(groups * rows, -1, *size)
    taps = torch.fft.ifftn(transforms.conj(), dim=tuple(range(2, 2 + d)))
    scale = torch.finfo(taps.dtype).eps ** 0.5 * taps.detach().abs().max()
    if taps.detach().imag.abs().max() > scale:
        raise ValueError(
            f"from_symbol needs conjugate blocks at +f and -f, as every real kernel has, got an imaginary part of "
            f"{taps.detach().imag.abs().max():.1e} in the kernel; change both blocks of a pair alike"
        )
    # "same" puts tap j at pixel j - (n - 1) // 2
    kernel = taps.real.roll([(n - 1) // 2 for n in size], tuple(range(2, 2 + d)))
    return ConvOperator(kernel, size, strides, groups=groups)


def spectrum(A: ConvOperator) -> Tensor:
    """The singular values frequency by frequency, ``(*frequencies, min(c_out, c_in * prod(stride)))``, descending.

    A real kernel has conjugate blocks at +f and -f, so one of the two is decomposed. Exact; raises as ``symbol`` does.
    """
    blocks, d = symbol(A), len(A.input_shape)
    frequencies = blocks.shape[:d]
    one_of_two, where = _half(frequencies)
    values = torch.linalg.svdvals(blocks.flatten(0, d - 1)[one_of_two.to(blocks.device)])
    values = values.flatten(1).sort(descending=True).values  # the union over groups
    return values[where.to(blocks.device)].unflatten(0, frequencies)


def singular_values(A: ConvOperator) -> Tensor:
    """All singular values of ``A.matrix()``, sorted, shape ``(min(rows, columns),)``.

    The union over frequencies of those of the blocks ``symbol(A)`` (Sedghi et al. 2019, Theorem 6). Exact; raises
    ``ValueError`` where no blocks exist. Differentiable where the values are distinct.
    """
    return spectrum(A).flatten().sort(descending=True).values


def condition_number(A: ConvOperator) -> Tensor:
    """The largest over the smallest singular value of ``A.matrix()``, infinite where the smallest is 0; a scalar.

    NaN for the zero operator, as in ``torch.linalg.cond``. Exact to rounding; raises ``ValueError`` where
    ``singular_values`` does.
    """
    values = singular_values(A)
    return values[0] / values[-1]


def leading_singular_values(A: ConvOperator, k: int) -> Tensor:
    """The k largest singular values of ``A.matrix()``, sorted, shape ``(k,)``, for every geometry.

    Matrix-free: implicitly restarted Lanczos iteration (ARPACK, in float64) on A and its adjoint, and again beside
    what was found until nothing larger is left, since a Krylov space sees only one copy of a repeated value. Small
    operators are decomposed densely. Converged: each square is right to 1e-10 of the largest, in the kernel's dtype;
    ``RuntimeError`` otherwise. The first derivative is exact (that of ``u* A v`` with the singular vectors held fixed).
    Raises ``ValueError`` for k < 1 or more than there are.
    """
    rows, columns = math.prod(A.out_shape), math.prod(A.in_shape)
    if not 1 <= k <= min(rows, columns):
        raise ValueError(
            f"k must be between 1 and the {min(rows, columns)} singular values of {A}, got {k}; there are no others"
        )
    if min(rows, columns) <= max(DENSE_LIMIT, 4 * k):
        return torch.linalg.svdvals(A.matrix())[:k]
    B = replace(A, kernel=A.kernel.detach().double())
    V = _leading_right_vectors(B, k)
    u = B(V)
    u = u / u.flatten(1).norm(dim=1).clamp_min(torch.finfo(u.dtype).tiny).view(-1, *[1] * len(A.in_shape))
    values = (u.to(A.kernel.dtype) * A(V.to(A.kernel.dtype))).flatten(1).sum(1)
    return values.sort(descending=True).values


def _require_blocks(A: ConvOperator, name: str) -> None:
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


def _half(frequencies: Sequence[int]) -> tuple[Tensor, Tensor]:
    """One of each pair {f, -f} as flat indices; and for each frequency its pair's place in that list."""
    numbers = torch.arange(math.prod(frequencies)).reshape(*frequencies)
    axes = tuple(range(len(frequencies)))
    opposite = numbers.flip(axes).roll([1] * len(axes), axes)
    return torch.unique(torch.minimum(numbers, opposite).flatten(), return_inverse=True)


def _leading_right_vectors(A: ConvOperator, k: int) -> Tensor:
    """Orthonormal right singular vectors of the k largest singular values, shape ``(k, *in_shape)``."""
    columns = math.prod(A.in_shape)

    def gram(x: np.ndarray) -> np.ndarray:
        batch = torch.as_tensor(x.T.copy(), device=A.kernel.device).reshape(-1, *A.in_shape)
        return A.adjoint(A(batch)).flatten(1).T.cpu().numpy().reshape(x.shape)

    rng = np.random.default_rng(0)
    start = rng.standard_normal(columns)
    scale = start @ gram(start) / (start @ start)
    found = np.zeros((columns, 0))
    squares = np.zeros(0)
    while scale > 0 and (wanted := 1 if len(squares) else k):

        def rest(x: np.ndarray, found: np.ndarray = found) -> np.ndarray:
            """The Gram operator beside what was found, plus the identity so that ARPACK can tell its zeros."""
            x = x.ravel()
            y = gram(x - found @ (found.T @ x)) / scale
            return x + y - found @ (found.T @ y)

        try:
            operator = LinearOperator((columns, columns), matvec=rest, dtype=np.float64)  # pyright: ignore[reportCallIssue]
            # a new start each time: the last one holds nothing of the copies that it has not shown
            _, vectors = eigsh(operator, wanted, which="LA", v0=rng.standard_normal(columns))
        except ArpackError as error:
            raise RuntimeError(f"the leading singular values of {A} did not converge: {error}") from error
        more, _ = np.linalg.qr(np.hstack([found, vectors]))
        _, rotation = np.linalg.eigh(more.T @ gram(more))  # Rayleigh-Ritz
        more = more @ rotation[:, ::-1]
        ritz = np.einsum("ij,ij->j", more, gram(more))
        done = len(squares) > 0 and (ritz[:k] - squares[:k]).max() <= 1e-10 * squares[0]
        found, squares = more, ritz
        if done:
            break
    if scale <= 0:  # the zero operator
        return torch.eye(k, columns, dtype=A.kernel.dtype, device=A.kernel.device).reshape(k, *A.in_shape)
    residual = np.linalg.norm(gram(found[:, :k]) - found[:, :k] * squares[:k], axis=0).max()
    if residual > 1e-8 * squares[0]:
        raise RuntimeError(f"the leading singular values of {A} did not converge: residual {residual / squares[0]:.1e}")
    return torch.as_tensor(found[:, :k].T.copy(), device=A.kernel.device).reshape(k, *A.in_shape)
