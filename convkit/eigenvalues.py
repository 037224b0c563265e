"""Eigenvalues of many Hermitian matrices at once, by whatever is fastest where they are."""

import contextlib
import functools
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from torch import Tensor

TORCH_SIDE = 48  # below, torch's LAPACK calls cost less than NumPy's
WORK = 2e7  # operations (matrices x side^3) below which starting threads costs more than it brings


def eigvalsh(matrices: Tensor) -> Tensor:
    """Eigenvalues of Hermitian matrices ``(..., n, n)``, ascending, as ``torch.linalg.eigvalsh`` gives them.

    On the CPU the matrices are shared out among as many threads as torch uses, each with a single-threaded LAPACK
    (where threadpoolctl is installed to say so): small decompositions gain nothing from threads of their own.
    """
    if matrices.device.type != "cpu":
        return torch.linalg.eigvalsh(matrices)
    side = matrices.shape[-1]
    flat = matrices.reshape(-1, side, side)
    solve = _torch_eigvalsh if side < TORCH_SIDE else np.linalg.eigvalsh
    workers = min(torch.get_num_threads(), len(flat))
    if workers > 1 and len(flat) * side**3 > WORK and _controller() is not None:
        # more pieces than workers: they end at about the same time
        pieces = np.array_split(flat.numpy(), min(4 * workers, len(flat)))
        with _one_thread_each(), ThreadPoolExecutor(workers) as pool:
            values = np.concatenate(list(pool.map(solve, pieces)))
    else:
        values = solve(flat.numpy())
    return torch.from_numpy(values).reshape(matrices.shape[:-1])


def eigh(matrices: Tensor) -> tuple[Tensor, Tensor]:
    """Eigenvalues, ascending, and eigenvectors of Hermitian matrices, as ``torch.linalg.eigh`` gives them."""
    return torch.linalg.eigh(matrices)


def _torch_eigvalsh(matrices: np.ndarray) -> np.ndarray:
    return torch.linalg.eigvalsh(torch.from_numpy(matrices)).numpy()


@functools.cache
def _controller() -> Any:
    try:
        from threadpoolctl import ThreadpoolController
    except ImportError:
        return None
    return ThreadpoolController()


def _one_thread_each() -> contextlib.AbstractContextManager[Any]:
    return _controller().limit(limits=1)
