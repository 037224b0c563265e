"""Largest singular values by Krylov spaces: of one operator of any geometry, and of all blocks of a torus at once."""

import math
from dataclasses import replace

import numpy as np
import torch
from scipy.sparse.linalg import ArpackError, LinearOperator, eigsh
from torch import Tensor

from convkit.eigenvalues import workers
from convkit.fourier import Gram, HalfSet, Taps, normalized
from convkit.operators import ConvOperator

DENSE_SIDE = 24  # smaller Gram blocks are decomposed as they are
CHECKS = (5, 8, 12, 18, 26, 38, 52)  # Lanczos steps after which frequencies are dropped
FEW = 4  # frequencies left for the float64 finish
MARGIN = 1e-3  # of the best square: far above the rounding of float32 Gram blocks and their factorization


def leading_right_vectors(A: ConvOperator, k: int) -> Tensor:
    """Orthonormal right singular vectors of the k largest singular values of ``A``, float64, ``(k, *in_shape)``.

    Implicitly restarted Lanczos iteration (ARPACK), and again beside what was found until nothing larger is left,
    since a Krylov space sees only one copy of a repeated value. ``RuntimeError`` where it does not converge.
    """
    columns = math.prod(A.in_shape)

    def gram(x: np.ndarray) -> np.ndarray:
        batch = torch.as_tensor(x.T.copy(), device=A.kernel.device).reshape(-1, *A.in_shape)
        return A.adjoint(A(batch)).flatten(1).T.cpu().numpy().reshape(x.shape)

    rng = np.random.default_rng(0)
    start = rng.standard_normal(columns)
    scale = start @ gram(start) / (start @ start)
    found = np.zeros((columns, 0))
    squares = np.zeros(0)
    while scale > 0:
        wanted = 1 if len(squares) else k

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


def top_frequency(taps: Taps, half: HalfSet) -> tuple[Tensor, int]:
    """The frequency, shape ``(1, axes)``, and the group of the block with the largest singular value.

    Lanczos iterations on all blocks at once, matrix-free in float32, find a few blocks that are decomposed in float64.
    Their random starts may have missed a larger one (seen in 1 of 2000 kernels). So every other block is asked by a
    float32 Cholesky factorization whether it stays below ``1 - MARGIN`` of the best square, a margin far above its
    rounding, and those that do not are decomposed, too.
    """
    taps, _ = normalized(taps)
    groups, _, rows, columns = taps.taps.shape
    best, answer = -1.0, (half.frequencies[:1], 0)
    if min(rows, columns) <= DENSE_SIDE or len(half.frequencies) <= FEW:
        gram = Gram(taps)
        chunks = half.frequencies.split(gram.chunk)
        squares = torch.cat([torch.linalg.eigvalsh(gram.at(some))[..., -1] for some in chunks])
        where, group = divmod(int(squares.argmax()), groups)
        return half.frequencies[where][None], group
    for asking in (False, True):
        for group in range(groups):
            one = replace(taps, taps=taps.taps[group : group + 1].double())
            places = _not_below(one, half, (1 - MARGIN) * best) if asking else _survivors(one, half)
            left = half.frequencies[places]
            if len(left) == 0:
                continue
            gram = Gram(one, len(left))
            squares = torch.cat([torch.linalg.eigvalsh(gram.at(some))[:, 0, -1] for some in left.split(gram.chunk)])
            if squares.max() > best:
                best, answer = float(squares.max()), (left[squares.argmax().cpu()][None], group)
    return answer


def _not_below(taps: Taps, half: HalfSet, level: float) -> Tensor:
    """Indices of the frequencies whose Gram block has no float32 Cholesky factor in ``level - B B*``."""
    gram = Gram(taps, dtype=torch.float32)
    identity = torch.eye(gram.side, device=taps.taps.device, dtype=torch.float32)

    def ask(some: Tensor) -> Tensor:
        blocks = level * identity - gram.at(half.frequencies[some])[:, 0]
        return some[(torch.linalg.cholesky_ex(blocks).info != 0).cpu()]

    everything = torch.arange(len(half.frequencies))
    with workers(taps.taps.device) as run:
        return torch.cat(run(ask, everything, gram.chunk, len(everything) * gram.side**3))


def _survivors(taps: Taps, half: HalfSet) -> Tensor:
    """Indices of the frequencies that may hold the largest singular value."""
    kernel = taps.taps[0].float()  # (t, rows, columns)
    kernel = kernel / kernel.abs().amax().clamp_min(torch.finfo(kernel.dtype).tiny)
    kernel = kernel if kernel.shape[1] <= kernel.shape[2] else kernel.mT
    t, r, c = kernel.shape
    down = kernel.movedim(1, 0).reshape(r, t * c)  # x -> K_t^T x for all taps at once
    angles = taps.phases(half.frequencies).to(kernel)
    cos, sin = angles.cos(), angles.sin()
    # complex numbers as (real, imaginary) rows, so that each step is two real products with the kernel
    turn = torch.cat([torch.stack([cos, -sin], 1), torch.stack([sin, cos], 1)], 2)  # (F, 2, 2 t): exp(-i angle)
    generator = torch.Generator().manual_seed(0)
    v = torch.randn(len(turn), 2, r, dtype=kernel.dtype, generator=generator).to(kernel.device)
    v = v / v.norm(dim=(1, 2), keepdim=True)
    before, left = torch.zeros_like(v), torch.arange(len(turn))
    diagonal = beside = v.new_zeros(len(v), 0, dtype=torch.float64)
    for step in range(1, CHECKS[-1] + 1):
        w = turn @ (v.flatten(0, 1) @ down).view(-1, 2 * t, c)  # B(f)^H v
        w = ((turn.mT @ w).view(-1, t * c) @ down.T).view(-1, 2, r)  # B(f) of that
        if step > 1:
            w = w - beside[:, -1].to(w.dtype)[:, None, None] * before
        along = (v * w).sum((1, 2))
        w = w - along[:, None, None] * v
        across = w.norm(dim=(1, 2))
        diagonal, beside = (
            torch.cat([diagonal, along.double()[:, None]], 1),
            torch.cat([beside, across.double()[:, None]], 1),
        )
        before, v = v, w / across.clamp_min(torch.finfo(across.dtype).tiny)[:, None, None]
        if step in CHECKS or step == r:
            T = torch.diag_embed(diagonal) + torch.diag_embed(beside[:, :-1], 1) + torch.diag_embed(beside[:, :-1], -1)
            values, vectors = torch.linalg.eigh(T)
            ritz = values[:, -1].clamp_min(0).sqrt()
            residual = beside[:, -1] * vectors[:, -1, -1].abs() / (2 * ritz).clamp_min(1e-30)
            keep = (ritz + 3 * residual >= (1 - 1e-5) * ritz.max()).nonzero().flatten()  # 1e-5: float32 rounding
            left, turn, v, before = left[keep.cpu()], turn[keep], v[keep], before[keep]
            diagonal, beside = diagonal[keep], beside[keep]
            if len(left) <= FEW or step >= r:
                break
    return left
