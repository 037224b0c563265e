"""The largest singular values of an operator of any geometry, by Lanczos iteration without its matrix."""

import math
from dataclasses import replace

import numpy as np
import torch
from scipy.sparse.linalg import ArpackError, LinearOperator, eigsh
from torch import Tensor

from convkit.operators.operator import ConvOperator

DENSE_LIMIT = 64  # matrices with fewer rows or columns are decomposed as they are


def leading_values(A: ConvOperator, k: int) -> Tensor:
    """Return the k largest singular values of ``A``, descending, with a first derivative.

    Operators with few rows or columns are decomposed as dense matrices.
    """
    if min(math.prod(A.out_shape), math.prod(A.in_shape)) <= max(DENSE_LIMIT, 4 * k):
        return torch.linalg.svdvals(A.matrix())[:k]
    B = replace(A, kernel=A.kernel.detach().double())
    V = leading_right_vectors(B, k)
    u = B(V)
    u = u / u.flatten(1).norm(dim=1).clamp_min(torch.finfo(u.dtype).tiny).view(-1, *[1] * len(A.in_shape))
    values = (u.to(A.kernel.dtype) * A(V.to(A.kernel.dtype))).flatten(1).sum(1)
    return values.sort(descending=True).values


def leading_right_vectors(A: ConvOperator, k: int) -> Tensor:
    """Return orthonormal right singular vectors of the k largest singular values of ``A``, ``(k, *in_shape)``.

    ``A`` must be float64. Implicitly restarted Lanczos iteration (ARPACK), repeated on the complement of the vectors
    found so far until it finds no larger value, since a Krylov space sees only one copy of a repeated value. Raises
    ``RuntimeError`` where it does not converge.
    """
    columns = math.prod(A.in_shape)

    def gram(x: np.ndarray) -> np.ndarray:
        """Return ``A* A x`` for each column of x."""
        batch = torch.as_tensor(x.T.copy(), device=A.kernel.device).reshape(-1, *A.in_shape)
        return A.adjoint(A(batch)).flatten(1).T.cpu().numpy().reshape(x.shape)

    rng = np.random.default_rng(0)
    start = rng.standard_normal(columns)
    scale = start @ gram(start) / (start @ start)
    found = np.zeros((columns, 0))
    squares = np.zeros(0)
    while scale > 0:
        wanted = 1 if len(squares) else k

        def deflated(x: np.ndarray, found: np.ndarray = found) -> np.ndarray:
            """Apply the Gram operator on the complement of ``found``, plus 1 so that ARPACK can tell zeros."""
            x = x.ravel()
            y = gram(x - found @ (found.T @ x)) / scale
            return x + y - found @ (found.T @ y)

        try:
            operator = LinearOperator((columns, columns), matvec=deflated, dtype=np.float64)  # pyright: ignore[reportCallIssue]
            # a new start each time: the last one holds nothing of the copies that it has not shown
            _, vectors = eigsh(operator, wanted, which="LA", v0=rng.standard_normal(columns))
        except ArpackError as error:
            raise RuntimeError(f"the leading singular values of {A} did not converge: {error}") from error
        basis, _ = np.linalg.qr(np.hstack([found, vectors]))
        _, rotation = np.linalg.eigh(basis.T @ gram(basis))  # Rayleigh-Ritz
        basis = basis @ rotation[:, ::-1]
        ritz = np.einsum("ij,ij->j", basis, gram(basis))
        done = len(squares) > 0 and (ritz[:k] - squares[:k]).max() <= 1e-10 * squares[0]
        found, squares = basis, ritz
        if done:
            break
    if scale <= 0:  # the zero operator
        return torch.eye(k, columns, dtype=A.kernel.dtype, device=A.kernel.device).reshape(k, *A.in_shape)
    residual = np.linalg.norm(gram(found[:, :k]) - found[:, :k] * squares[:k], axis=0).max()
    if residual > 1e-8 * squares[0]:
        raise RuntimeError(f"the leading singular values of {A} did not converge: residual {residual / squares[0]:.1e}")
    return torch.as_tensor(found[:, :k].T.copy(), device=A.kernel.device).reshape(k, *A.in_shape)
