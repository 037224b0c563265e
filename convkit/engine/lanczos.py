"""The largest singular values of an operator of any geometry, by Lanczos iteration without its matrix."""

import math
from dataclasses import replace

import torch
from torch import Tensor

from convkit.engine.derivatives import once
from convkit.engine.hermitian import svdvals
from convkit.operators.dtypes import differentiated
from convkit.operators.operator import ConvOperator

DENSE_LIMIT = 64  # matrices with fewer rows or columns are decomposed as they are
STEPS, KEPT = (22, 60), (8, 16)  # between restarts, and Ritz vectors kept beside those wanted: for one, for several
MOST, PATIENCE, GROWTH = 500, 10, 3  # restarts; after so many a basis twice as long, so many times
RESIDUALS = {torch.float32: 1e-7, torch.float64: 2e-10}  # of A*A, relative to its largest eigenvalue, by kernel's dtype
AGAIN = 0.1  # of an eigenvalue: a shorter new direction is made orthogonal twice
ONCE = (
    "the iterated singular values have a first derivative only, got a second one; use singular_values(A) of a circular "
    "operator, or svdvals of A.matrix(), which have more"
)
BREAKDOWN = 1e-13  # of the largest eigenvalue: a shorter new direction is rounding


def leading_values(A: ConvOperator, k: int) -> Tensor:
    """Return the k largest singular values of ``A``, descending, with a first derivative.

    Operators with few rows or columns are decomposed as dense matrices.
    """
    if min(math.prod(A.out_shape), math.prod(A.in_shape)) <= max(DENSE_LIMIT, 4 * k):
        return svdvals(A.matrix())[:k]
    B = replace(A, kernel=A.kernel.detach().double())
    V = leading_right_vectors(B, k, RESIDUALS[A.kernel.dtype])
    u = B(V)
    norms = u.flatten(1).norm(dim=1)
    values = norms.to(A.kernel.dtype)
    if differentiated(A.kernel):  # exact in float64, with the gradient of u* A v
        A = replace(A, kernel=once(A.kernel, ONCE))
        u = u / norms.clamp_min(torch.finfo(u.dtype).tiny).view(-1, *[1] * len(A.in_shape))
        products = (u.to(A.kernel.dtype) * A(V.to(A.kernel.dtype))).flatten(1).sum(1)
        values = products + (values - products).detach()
    return values.sort(descending=True).values


def leading_right_vectors(A: ConvOperator, k: int, residual: float = RESIDUALS[torch.float64]) -> Tensor:
    """Return orthonormal right singular vectors of the k largest singular values of ``A``, ``(k, *in_shape)``.

    ``A`` must be float64. Lanczos iteration with thick restarts (Wu & Simon 2000) until the residuals of ``A* A`` are
    below ``residual`` times its largest eigenvalue, which bounds the error of the squares. A Krylov space sees only
    one copy of a repeated value: for k > 1 it goes on from another random direction until none brings a larger value.
    The host reads numbers from a GPU once a restart. Raises ``RuntimeError`` where it does not converge.
    """
    scale = A.kernel.abs().amax()
    A = replace(A, kernel=A.kernel / torch.where(scale > 0, scale, 1))  # squares neither overflow nor vanish
    columns, generator = math.prod(A.in_shape), torch.Generator().manual_seed(0)
    beside = KEPT[k > 1]
    steps = min(columns, k + beside + STEPS[k > 1])
    basis = A.kernel.new_zeros(steps + 1, columns)
    start = torch.randn(columns, generator=generator, dtype=torch.float64, device="cpu").to(basis)
    basis[0] = start / start.norm()
    kept = torch.zeros(0, dtype=torch.float64, device="cpu")  # values of the first rows of the basis
    known, reached = None, 0.0
    for restart in range(1, MOST + 1):
        projected, lengths = _extended(A, basis, kept)
        full = len(lengths)  # so many rows of the basis are right
        values, vectors = (part.flip(-1) for part in torch.linalg.eigh(projected))
        residuals = lengths[-1] * vectors[-1].abs() if full < columns else torch.zeros(full, device="cpu")
        reached = float(residuals[:k].max() / values[0].clamp_min(torch.finfo(values.dtype).tiny))
        settled = reached <= residual and full >= k
        if settled and known is not None and full > k:  # the largest value beside those known, roughly
            settled = float(residuals[k]) <= 1e-6 * float(values[0])
        if settled and (k == 1 or full == columns or (known is not None and _unchanged(values[:k], known))):
            return (vectors[:, :k].mT.to(basis) @ basis[:full]).view(k, *A.in_shape)
        fresh = settled or reached <= BREAKDOWN  # no direction leads on
        known = values[:k] if settled else known
        number, onward = min(k if settled else k + beside, full - (not fresh)), basis[full].clone()
        ritz = vectors[:, :number].mT.to(basis) @ basis[:full]
        onward = (
            torch.randn(columns, generator=generator, dtype=torch.float64, device="cpu").to(basis) if fresh else onward
        )
        if restart % PATIENCE == 0 and restart <= GROWTH * PATIENCE:  # values that lie together take a longer one
            basis = basis.new_zeros(min(columns, 2 * (len(basis) - 1)) + 1, columns)
        basis[: number + 1] = torch.linalg.qr(torch.cat([ritz, onward[None]]).mT)[0].mT  # rounding must not add up
        kept = values[:number]
    raise RuntimeError(
        f"the leading singular values of {A} did not converge: after {MOST} restarts the residual is {reached:.1e} of "
        "the largest square; ask for fewer values, or decompose A.matrix()"
    )


def _extended(A: ConvOperator, basis: Tensor, kept: Tensor) -> tuple[Tensor, Tensor]:
    """Fill the basis after the Ritz vectors kept; return ``A* A`` on it and the lengths of the new directions.

    Both end where the next direction is only rounding.
    """
    steps, first = len(basis) - 1, len(kept)
    every = 3 if steps <= STEPS[0] + KEPT[0] + 1 else 1  # in a long basis errors grow further, by up to half each row
    products = basis.new_zeros(steps, steps + 1)  # of each row of A*A on the basis: with the rows so far, its rest
    for row in range(first, steps):
        so_far = basis[: row + 1]
        w = A.adjoint(A(basis[row].view(1, *A.in_shape))).reshape(-1)
        products[row, : row + 1] = so_far @ w
        w = w - products[row, : row + 1] @ so_far
        length = w.norm()
        if row % every == 0 or basis.is_cuda or length <= AGAIN * products[row, row]:  # on a GPU a question costs more
            w = w - (so_far @ w) @ so_far
            length = w.norm()
        products[row, steps] = length
        basis[row + 1] = w / length.clamp_min(torch.finfo(w.dtype).tiny)
        if not basis.is_cuda and length <= BREAKDOWN * products[row, row]:
            break
    products = products.cpu()  # the only wait
    lengths, lower = products[:, steps], products[:, :steps]
    projected = lower + lower.tril(-1).mT
    projected.diagonal()[:first] = kept
    short = (lengths[first:] <= BREAKDOWN * projected.diagonal().max()).nonzero()
    full = first + int(short[0]) + 1 if len(short) else steps
    return projected[:full, :full], lengths[:full]


def _unchanged(values: Tensor, before: Tensor) -> bool:
    return bool((values - before <= 1e-10 * values[0]).all())
