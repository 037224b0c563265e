"""The largest singular values of an operator of any geometry, by Lanczos iteration without its matrix."""

import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial

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
CHECKED = 4  # steps after which the residual is estimated
ROUGH, ROUGH_STEPS, ROUGH_BYTES = 1e-7, 200, 2**28  # of the steps in float32 that go before: residual, number, basis
AGAIN = 0.1  # of an eigenvalue: a shorter new direction is made orthogonal twice
ONCE = (
    "the iterated singular values have a first derivative only, got a second one; use singular_values(A) of a circular "
    "operator, or svdvals of A.matrix(), which have more"
)
BREAKDOWN = 1e-13  # of the largest eigenvalue: a shorter new direction is rounding
Product = Callable[[Tensor], Tensor]


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


def leading_right_vectors(
    A: ConvOperator, k: int, residual: float = RESIDUALS[torch.float64], start: Tensor | None = None
) -> Tensor:
    """Return orthonormal right singular vectors of the k largest singular values of ``A``, ``(k, *in_shape)``.

    ``A`` must be float64. ``start`` is a vector to begin with. Raises ``RuntimeError`` where ``leading_eigenvectors``
    does.
    """
    scale = A.kernel.abs().amax()
    A = replace(A, kernel=A.kernel / torch.where(scale > 0, scale, 1))  # squares neither overflow nor vanish
    rough = None if A.kernel.is_cuda else partial(_product, replace(A, kernel=A.kernel.float()))
    start = random_row(math.prod(A.in_shape), A.kernel) if start is None else start.view(1, -1).to(A.kernel)
    try:
        rows = leading_eigenvectors(partial(_product, A), start, k, residual, rough)
    except RuntimeError as error:
        raise RuntimeError(f"the leading singular values of {A} did not converge: {error}") from None
    return rows.unflatten(1, A.in_shape)


def leading_eigenvectors(
    product: Product, start: Tensor, k: int, residual: float, rough: Product | None = None, most: int = 0
) -> Tensor:
    """Return orthonormal eigenvectors of the k largest eigenvalues of a matrix, as rows.

    ``product`` multiplies a row ``(1, columns)`` by the matrix, real, symmetric and not negative, in float64, and
    ``rough`` in float32: on a CPU that finds the row from which to begin for one eigenvector. Lanczos iteration with
    thick restarts (Wu & Simon 2000) until the residuals are below ``residual`` times the largest eigenvalue, which
    bounds the error of the eigenvalues. A Krylov space sees only one copy of a repeated value: for k > 1 it goes on
    from another random direction until none brings a larger value. The host reads numbers from a GPU once a restart.
    Raises ``RuntimeError`` where ``most`` restarts (by default ``MOST``) are not enough.
    """
    most = most or MOST
    if rough is not None and k == 1 and not start.is_cuda:
        start = rough_eigenvector(rough, start.float()).double()
    columns, generator = start.shape[1], torch.Generator().manual_seed(1)
    beside = KEPT[k > 1]
    basis = start.new_zeros(min(columns, k + beside + STEPS[k > 1]) + 1, columns)
    basis[0] = start[0] / start.norm()
    kept, known, reached = torch.zeros(0, dtype=torch.float64, device="cpu"), None, 0.0  # kept: the first rows' values
    for restart in range(1, most + 1):
        projected, lengths = _extended(product, basis, kept, residual if k == 1 else 0)
        full = len(lengths)  # so many rows of the basis are right
        values, vectors = (part.flip(-1) for part in torch.linalg.eigh(projected))
        residuals = lengths[-1] * vectors[-1].abs() if full < columns else torch.zeros(full, device="cpu")
        reached = float(residuals[:k].max() / values[0].clamp_min(torch.finfo(values.dtype).tiny))
        settled = reached <= residual and full >= k
        if settled and known is not None and full > k:  # the largest value beside those known, roughly
            settled = float(residuals[k]) <= 1e-6 * float(values[0])
        if settled and (k == 1 or full == columns or (known is not None and _unchanged(values[:k], known))):
            return vectors[:, :k].mT.to(basis) @ basis[:full]
        fresh = settled or reached <= BREAKDOWN  # no direction leads on
        known = values[:k] if settled else known
        number, onward = min(k if settled else k + beside, full - (not fresh)), basis[full].clone()
        ritz = vectors[:, :number].mT.to(basis) @ basis[:full]
        if fresh:
            onward = torch.randn(columns, generator=generator, dtype=torch.float64, device="cpu").to(basis)
        if restart % PATIENCE == 0 and restart <= GROWTH * PATIENCE:  # values that lie together take a longer one
            basis = basis.new_zeros(min(columns, 2 * (len(basis) - 1)) + 1, columns)
        basis[: number + 1] = torch.linalg.qr(torch.cat([ritz, onward[None]]).mT)[0].mT  # rounding must not add up
        kept = values[:number]
    raise RuntimeError(
        f"after {most} restarts the residual is {reached:.1e} of the largest square; ask for fewer values, or "
        "decompose A.matrix()"
    )


def rough_eigenvector(product: Product, start: Tensor) -> Tensor:
    """Return the eigenvector of the largest eigenvalue, ``(1, columns)``, roughly, by Lanczos steps in float32.

    New directions are made orthogonal to the last two and the first alone: the largest Ritz value does not need more,
    and most time would go there. On the CPU.
    """
    columns = start.shape[1]
    steps = max(2, min(ROUGH_STEPS, columns, ROUGH_BYTES // (4 * columns)))
    basis, numbers = start.new_zeros(steps + 1, columns), torch.zeros(steps, 2, dtype=torch.float64, device="cpu")
    basis[0], vectors = start[0] / start.norm(), torch.ones(1, 1, dtype=torch.float64, device="cpu")
    for row in range(steps):
        w = product(basis[row][None])[0]
        if row:
            w = w.sub_(basis[row - 1], alpha=float(numbers[row - 1, 1]))
        along = float(w @ basis[row])
        w = w.sub_(basis[row], alpha=along)
        w = w.sub_(basis[0], alpha=float(w @ basis[0]))  # which may be near the eigenvector, and would come back
        length = float(w.norm())
        numbers[row, 0], numbers[row, 1] = along, length
        basis[row + 1] = w / max(length, torch.finfo(w.dtype).tiny)
        if (row + 1) % (2 * CHECKED) == 0 or row + 1 == steps or length <= ROUGH * along:
            off = torch.diag(numbers[:row, 1], 1)
            values, vectors = torch.linalg.eigh(torch.diag(numbers[: row + 1, 0]) + off + off.mT)
            if length * abs(float(vectors[-1, -1])) <= ROUGH * float(values[-1]):
                break
    return vectors[:, -1:].mT.to(basis) @ basis[: len(vectors)]


def random_row(columns: int, like: Tensor) -> Tensor:
    """Return the same random row ``(1, columns)`` at each call, of the dtype and device of ``like``."""
    generator = torch.Generator().manual_seed(0)
    return torch.randn(1, columns, generator=generator, dtype=torch.float64, device="cpu").to(like)


# ---- private ---------------------------------------------------------------------------------------------------------
def _product(A: ConvOperator, rows: Tensor) -> Tensor:
    return A.adjoint(A(rows.view(-1, *A.in_shape))).flatten(1)


def _extended(product: Product, basis: Tensor, kept: Tensor, enough: float) -> tuple[Tensor, Tensor]:
    """Fill the basis after the Ritz vectors kept; return the matrix on it and the lengths of the new directions.

    Both end where the next direction is only rounding, or, on a CPU, where the residual is at most ``enough``.
    """
    steps, first = len(basis) - 1, len(kept)
    every = 3 if steps <= STEPS[0] + KEPT[0] + 1 else 1  # in a long basis errors grow further, by up to half each row
    products = basis.new_zeros(steps, steps + 1)  # of each row by the matrix on the basis: with rows so far, its rest
    last = steps
    for row in range(first, steps):
        so_far = basis[: row + 1]
        w = product(basis[row][None])[0]
        products[row, : row + 1] = so_far @ w
        w = w - products[row, : row + 1] @ so_far
        length = w.norm()
        if row % every == 0 or basis.is_cuda or length <= AGAIN * products[row, row]:  # on a GPU a question costs more
            w = w - (so_far @ w) @ so_far
            length = w.norm()
        products[row, steps] = length
        basis[row + 1] = w / length.clamp_min(torch.finfo(w.dtype).tiny)
        if basis.is_cuda:
            continue
        if length <= BREAKDOWN * products[row, row]:
            break
        if enough and (row + 1 - first) % CHECKED == 0:
            values, vectors = torch.linalg.eigh(_symmetric(products[: row + 1], kept))
            if length * vectors[-1, -1].abs() <= enough * values[-1]:
                last = row + 1
                break
    products = products[:last].cpu()  # the only wait
    projected, lengths = _symmetric(products, kept), products[:, steps]
    short = (lengths[first:] <= BREAKDOWN * projected.diagonal().max()).nonzero()
    full = first + int(short[0]) + 1 if len(short) else last
    return projected[:full, :full], lengths[:full]


def _symmetric(products: Tensor, kept: Tensor) -> Tensor:
    """Return the matrix of which ``products`` holds the lower part, beyond the diagonal ``kept``."""
    lower = products[:, : len(products)]
    whole = lower + lower.tril(-1).mT
    whole.diagonal()[: len(kept)] = kept
    return whole


def _unchanged(values: Tensor, before: Tensor) -> bool:
    return bool((values - before <= 1e-10 * values[0]).all())
