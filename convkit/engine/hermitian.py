"""Decompositions of many matrices at once, by the fastest backend for the device and the size."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from torch import Tensor

from convkit.engine import cusolver
from convkit.engine.derivatives import once
from convkit.operators.dtypes import differentiated

FACTOR_SIDE = 100  # above, products of halves are faster than LAPACK's factorizations of one matrix after the other
TORCH_SIDE = 48  # below, torch's LAPACK calls cost less than NumPy's
ONCE = "singular values have a first derivative only on a GPU, got a second one; move the kernel to the CPU"
CUDA_SIDE = 32  # above, torch decomposes matrices on a GPU one after the other
FEW = 2, 6  # matrices that are faster together, up to 128 x 128 and above, as measured on an H200


def eigvalsh(matrices: Tensor) -> Tensor:
    """Return the eigenvalues of Hermitian matrices ``(..., n, n)``, ascending, as ``torch.linalg.eigvalsh`` does."""
    if matrices.device.type == "cuda" and not matrices.requires_grad:
        return _on_gpu(matrices, vectors=False)[0]
    if matrices.device.type != "cpu" or matrices.shape[-1] < TORCH_SIDE:
        return torch.linalg.eigvalsh(matrices)
    return torch.from_numpy(np.linalg.eigvalsh(matrices.numpy()))


def eigh(matrices: Tensor) -> tuple[Tensor, Tensor]:
    """Return the eigenvalues, ascending, and the eigenvectors of Hermitian matrices, as ``torch.linalg.eigh`` does."""
    if matrices.device.type == "cuda" and not matrices.requires_grad:
        return _on_gpu(matrices, vectors=True)
    double = matrices.dtype in (torch.float64, torch.complex128)
    if matrices.requires_grad or matrices.device.type != "cpu" or matrices.shape[-1] < TORCH_SIDE or not double:
        try:
            return torch.linalg.eigh(matrices)
        except RuntimeError:  # LinAlgError: LAPACK's float32 gives up on some matrices of low rank
            if double or matrices.requires_grad or matrices.device.type != "cpu":
                raise
            values, vectors = eigh(matrices.to(torch.complex128 if matrices.is_complex() else torch.float64))
            return values.float(), vectors.to(matrices.dtype)
    values, vectors = np.linalg.eigh(matrices.numpy())
    return torch.from_numpy(values), torch.from_numpy(vectors)


def svdvals(matrices: Tensor) -> Tensor:
    """Return the singular values of matrices ``(..., r, c)``, descending, as ``torch.linalg.svdvals`` does.

    On a GPU from the eigenvalues ``+-s`` of ``[[0, M], [M*, 0]]`` in float64, with a first derivative only: there
    torch decomposes one matrix after the other, and stops at a tolerance of its own.
    """
    if matrices.device.type != "cuda":
        return torch.linalg.svdvals(matrices)
    return _SingularValues.apply(once(matrices, ONCE), differentiated(matrices))  # pyright: ignore[reportReturnType]


def svd(matrices: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return U, S, V* of matrices ``(..., r, c)`` with ``r <= c``, as ``torch.linalg.svd(full_matrices=False)`` does.

    Without a derivative. On a GPU from the eigenvectors ``(u, v)`` of ``[[0, M], [M*, 0]]`` in float64; the vectors of
    a value of 0 are not singular vectors there.
    """
    if matrices.device.type != "cuda":
        return torch.linalg.svd(matrices, full_matrices=False)
    values, U, V = _pairs(matrices, vectors=True)
    return U, values, V.mH


def matrix_norms(matrices: Tensor) -> Tensor:
    """Return the largest singular value of each matrix ``(..., r, c)``: on a GPU in float64, by ``svdvals``."""
    return svdvals(matrices)[..., 0] if matrices.device.type == "cuda" else torch.linalg.matrix_norm(matrices, 2)


def positive_definite(matrices: Tensor) -> Tensor:
    """Return whether each Hermitian matrix ``(n, side, side)`` has a Cholesky factor in its own precision: ``(n,)``."""
    side = matrices.shape[-1]
    if matrices.device.type != "cpu" or side < FACTOR_SIDE:
        return torch.linalg.cholesky_ex(matrices).info == 0
    half = side // 2
    factor, info = torch.linalg.cholesky_ex(matrices[:, :half, :half])
    across = torch.linalg.solve_triangular(factor, matrices[:, :half, half:], upper=False)
    rest = torch.baddbmm(matrices[:, half:, half:], across.mH, across, alpha=-1)  # Schur complement
    return (info == 0) & positive_definite(rest)


class _SingularValues(torch.autograd.Function):
    """Singular values whose derivative is that of ``u* M v``, with the singular vectors held fixed."""

    @staticmethod
    def forward(ctx: Any, matrices: Tensor, wanted: bool) -> Tensor:
        values, U, V = _pairs(matrices, wanted)
        ctx.save_for_backward(U, V)
        ctx.save_for_forward(U, V)
        return values

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        U, V = ctx.saved_tensors
        return (U * grad[..., None, :]) @ V.mH, None

    @staticmethod
    def jvp(ctx: Any, tangent: Tensor, _: None) -> Tensor:
        U, V = ctx.saved_tensors
        return (U.conj() * (tangent @ V)).sum(-2).real


def _pairs(matrices: Tensor, vectors: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Return singular values, descending, and vectors (or nothing useful): eigenpairs of ``[[0, M], [M*, 0]]``."""
    rows, columns = matrices.shape[-2:]
    k, exact = min(rows, columns), matrices.double() if not matrices.is_complex() else matrices.to(torch.complex128)
    both = exact.new_zeros(*matrices.shape[:-2], rows + columns, rows + columns)
    both[..., :rows, rows:], both[..., rows:, :rows] = exact, exact.mH
    values, found = eigh(both) if vectors else (eigvalsh(both), both)
    found = (2**0.5 * found[..., -k:].flip(-1)).to(matrices.dtype)
    values = values[..., -k:].flip(-1).clamp_min(0).to(matrices.dtype.to_real())
    return values, found[..., :rows, :], found[..., rows:, :]


def _on_gpu(matrices: Tensor, vectors: bool) -> tuple[Tensor, Tensor]:
    """Return eigenvalues and eigenvectors (or nothing useful): of many larger matrices by cuSOLVER, else the host."""
    side, number = matrices.shape[-1], matrices.shape[:-2].numel()
    fewest = FEW[side > 128]
    if side > CUDA_SIDE and number >= fewest:
        return cusolver.decomposed(matrices, vectors) or _on_host(matrices, vectors)
    return torch.linalg.eigh(matrices) if vectors else (torch.linalg.eigvalsh(matrices), matrices)


def _on_host(matrices: Tensor, vectors: bool) -> tuple[Tensor, Tensor]:
    """Return eigenvalues and eigenvectors (or nothing useful) of matrices on a GPU, by as many threads as torch has."""
    host = matrices.flatten(0, -3).cpu().numpy()
    with ThreadPoolExecutor(torch.get_num_threads()) as pool:
        parts = np.array_split(host, min(len(host), 4 * torch.get_num_threads()))
        if not vectors:
            values = np.concatenate(list(pool.map(np.linalg.eigvalsh, parts)))
            return torch.from_numpy(values).to(matrices.device).view(matrices.shape[:-1]), matrices
        found = zip(*pool.map(np.linalg.eigh, parts), strict=True)
    values, columns = (torch.from_numpy(np.concatenate(some)).to(matrices.device) for some in found)
    return values.view(matrices.shape[:-1]), columns.view(matrices.shape)
