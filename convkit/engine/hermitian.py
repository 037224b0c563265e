"""Batched eigenvalues and Cholesky tests of Hermitian matrices, by the fastest backend for the device and the size."""

import numpy as np
import torch
from torch import Tensor

FACTOR_SIDE = 100  # above, products of halves are faster than torch's batched LAPACK factorization
TORCH_SIDE = 48  # below, torch's LAPACK calls cost less than NumPy's


def eigvalsh(matrices: Tensor) -> Tensor:
    """Return the eigenvalues of Hermitian matrices ``(..., n, n)``, ascending, as ``torch.linalg.eigvalsh`` does."""
    if matrices.device.type != "cpu" or matrices.shape[-1] < TORCH_SIDE:
        return torch.linalg.eigvalsh(matrices)
    return torch.from_numpy(np.linalg.eigvalsh(matrices.numpy()))


def eigh(matrices: Tensor) -> tuple[Tensor, Tensor]:
    """Return the eigenvalues, ascending, and the eigenvectors of Hermitian matrices, as ``torch.linalg.eigh`` does."""
    double = matrices.dtype in (torch.float64, torch.complex128)
    if matrices.requires_grad or matrices.device.type != "cpu" or matrices.shape[-1] < TORCH_SIDE or not double:
        return torch.linalg.eigh(matrices)
    values, vectors = np.linalg.eigh(matrices.numpy())
    return torch.from_numpy(values), torch.from_numpy(vectors)


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
