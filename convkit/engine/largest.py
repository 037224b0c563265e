"""The largest singular value of a block-circulant operator, by a search for the Fourier block that has it."""

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

from convkit.engine.blocks import Blocks, Gram, angles
from convkit.engine.hermitian import eigh, eigvalsh, positive_definite, svdvals
from convkit.engine.lanczos import RESIDUALS, Product, leading_eigenvectors, random_row
from convkit.engine.workers import MapPieces, thread_pool
from convkit.operators.dtypes import differentiated
from convkit.operators.operator import ConvOperator
from convkit.operators.tables import on

DENSE_SIDE, DENSE_SIDE_ON_GPU = 24, 128  # smaller Gram blocks are decomposed as they are
STEPS = 6, 16  # Lanczos steps: on a coarse grid of frequencies, then wherever the largest block may be
STEPS_SIDE = 192  # for larger blocks, whose values lie closer together, as many times more
MARGIN = 1e-3  # of the best square: far above the rounding of float32 Gram blocks and their factorization
GRAM_SIDE = 128  # above, the value of one block is the root of an eigenvalue of its Gram block, in float64
ITERATED_SIDE, PROVED_SIDE = 512, 2048  # above the first, it is iterated; up to the second, proved and else decomposed
PROOFS = {torch.float32: 2e-7, torch.float64: 4e-10}  # of the square: room that the proof leaves above it
RESTARTS = 20  # of that iteration
PIECE = 2**20  # bytes of Gram blocks that a core takes at a time, so that they stay in its cache


def largest_singular_value(A: ConvOperator) -> Tensor:
    """Return the largest singular value of a block-circulant operator, a scalar with the gradient of ``u* A v``."""
    blocks = Blocks(A)
    if blocks.taps.is_cuda and _small(blocks) and not differentiated(blocks.taps):
        return (_squares(blocks).amax().clamp_min(0).sqrt() * blocks.scale).to(A.kernel.dtype)
    frequency, group = top_frequency(blocks)
    alone = len(blocks.frequencies) == 1
    block = blocks.at_zero()[group] if alone else blocks.group(group).at(frequency)[0, 0]
    return (largest_of_block(block) * blocks.scale).to(A.kernel.dtype)


def largest_by_group(A: ConvOperator) -> Tensor:
    """Return the largest singular value of each group of a block-circulant operator, ``(groups,)``; no gradient."""
    if A.groups == 1:
        return largest_singular_value(A)[None]
    blocks = Blocks(A)
    if _small(blocks):
        return (_squares(blocks).amax(0).clamp_min(0).sqrt() * blocks.scale).to(A.kernel.dtype)
    parts = A.kernel.detach().chunk(A.groups)
    return torch.stack([largest_singular_value(replace(A, kernel=part, groups=1)) for part in parts])


def largest_unread(A: ConvOperator) -> Tensor:
    """Return ``largest_singular_value(A)`` where the host reads no number of it: a GPU is not waited for.

    For kernels below float64, which need no scaling in float64. Only decompositions wait, to see whether they
    converged; blocks too large to be decomposed at every frequency are searched as usual, with a read of each level.
    """
    blocks = Blocks(A, scale=1)
    if not _small(blocks) or not differentiated(blocks.taps):
        return largest_singular_value(A)
    groups, _, rows, columns = blocks.taps.shape
    index = _squares(blocks.with_taps(blocks.taps.detach())).argmax()[None]
    phases = on(angles(blocks.frequencies, blocks.offsets, blocks.period), blocks.taps).to(blocks.taps.dtype)
    phases = phases.index_select(0, index // groups)
    flat = blocks.taps.index_select(0, index % groups)[0].flatten(1)
    block = torch.complex(phases.cos() @ flat, phases.sin() @ flat).view(rows, columns)
    return largest_of_block(block).to(A.kernel.dtype)


def largest_of_block(block: Tensor) -> Tensor:
    """Return the largest singular value of one matrix, a scalar with the gradient of ``u* B v``, and that one's.

    Where there are more than ``ITERATED_SIDE`` rows and columns it is iterated (see ``leading_eigenvectors``) and, up
    to ``PROVED_SIDE``, proved to be right within ``PROOFS``, or else decomposed.
    """
    if torch.is_grad_enabled() and block.requires_grad:
        return _Largest.apply(block)[0]  # pyright: ignore[reportIndexIssue, reportOptionalSubscript]
    if forward_ad.unpack_dual(block).tangent is not None:
        return svdvals(block)[0]
    if block.is_cuda or min(block.shape) > ITERATED_SIDE:
        return _Largest.forward(block)[0]
    if min(block.shape) <= GRAM_SIDE:
        return torch.linalg.svdvals(block)[0]
    exact = block.to(torch.complex128 if block.is_complex() else torch.float64)
    gram = exact @ exact.mH if len(exact) <= len(exact.mH) else exact.mH @ exact
    return eigvalsh(gram)[-1].clamp_min(0).sqrt().to(block.dtype.to_real())


class _Largest(torch.autograd.Function):
    """The largest singular value, with its vectors u and v."""

    generate_vmap_rule = True

    @staticmethod
    def forward(block: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        wide = block.shape[0] <= block.shape[1]
        exact = (block if wide else block.mH).detach()
        with thread_pool(block.device):  # one small matrix: a second thread only costs
            u = _iterated(exact) if min(block.shape) > ITERATED_SIDE and not block.is_cuda else None
            exact = exact.to(torch.complex128 if exact.is_complex() else torch.float64)
            if u is None:  # from the smaller Gram block in float64, several times cheaper than an SVD
                u = eigh((exact @ exact.mH)[None])[1][0, :, -1]
            v = exact.mH @ u
        norm = v.norm()
        v = v / norm.clamp_min(torch.finfo(torch.float64).tiny)
        u, v = (u.to(block), v.to(block)) if wide else (v.to(block), u.to(block))
        return norm.to(block.dtype.to_real()), u, v

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor], output: tuple[Tensor, Tensor, Tensor]) -> None:
        _, u, v = output
        ctx.mark_non_differentiable(u, v)
        ctx.save_for_backward(*inputs, u, v)

    @staticmethod
    def backward(ctx: Any, grad: Tensor, *_: object) -> Tensor:
        block, u, v = ctx.saved_tensors
        if torch.is_grad_enabled():  # a second derivative may follow: that of the singular vectors, by torch
            U, _, Vh = torch.linalg.svd(block, full_matrices=False)
            return grad * (U[:, :1] @ Vh[:1])
        return grad * torch.outer(u, v.conj())


def top_frequency(blocks: Blocks) -> tuple[Tensor, int]:
    """Return the frequency, ``(1, axes)``, and the group of the block with the largest singular value.

    A block is passed over only where it was proved to be smaller: Lanczos steps find a level that some block reaches,
    and a float32 Cholesky factorization shows that another stays below ``1 - MARGIN`` of it, a margin far above the
    rounding (or its Frobenius norm does, which is cheaper). The blocks left are compared in float64. A level that is
    too low leaves more of them, and never the wrong ones.
    """
    if len(blocks.frequencies) * len(blocks.taps) == 1:
        return blocks.frequencies, 0
    if _small(blocks):
        index, group = divmod(int(_squares(blocks).argmax()), len(blocks.taps))
        return blocks.frequencies[index][None], group
    with thread_pool(blocks.taps.device) as map_pieces:
        left = _candidates(blocks, map_pieces)
        pairs = [(frequency[None], group) for group, some in enumerate(left) for frequency in some]
        if len(pairs) == 1:
            return pairs[0]
        grams = [blocks.group(group).gram(len(some)) for group, some in enumerate(left)]
        squares = [_largest_eigenvalues(gram, some, map_pieces) for gram, some in zip(grams, left, strict=True)]
    return pairs[int(torch.cat(squares).argmax())]


def _iterated(matrix: Tensor) -> Tensor | None:
    """Return the leading left singular vector of a large matrix on the CPU; ``None`` where the proof fails."""
    is_complex, proved = matrix.is_complex(), len(matrix) <= PROVED_SIDE

    def by(M: Tensor) -> Product:
        def product(row: Tensor) -> Tensor:  # by M M*, of the real and the imaginary parts of complex vectors
            u = torch.view_as_complex(row[0].view(-1, 2)) if is_complex else row[0]
            w = M @ (u.conj() @ M).conj()
            return (torch.view_as_real(w) if is_complex else w).view(1, -1)

        return product

    exact = matrix.to(torch.complex128 if is_complex else torch.float64)
    rough = by(matrix.to(torch.complex64 if is_complex else torch.float32))
    start = random_row(len(matrix) * (1 + is_complex), exact.real)
    dtype = matrix.dtype.to_real()
    try:
        row = leading_eigenvectors(by(exact), start, 1, RESIDUALS[dtype], rough, RESTARTS if proved else 0)[0]
    except RuntimeError:
        if proved:
            return None
        raise
    u = torch.view_as_complex(row.view(-1, 2)) if is_complex else row
    if proved:
        above = exact @ exact.mH.neg()
        above.diagonal().add_((1 + PROOFS[dtype]) * (u.conj() @ exact).norm() ** 2)
        if not positive_definite(above[None]):
            return None
    return u


def _small(blocks: Blocks) -> bool:
    """Return whether all Gram blocks are decomposed, rather than searched."""
    return min(blocks.taps.shape[2:]) <= (DENSE_SIDE_ON_GPU if blocks.taps.is_cuda else DENSE_SIDE)


def _squares(blocks: Blocks) -> Tensor:
    """Return the largest eigenvalue of each Gram block: ``(F, groups)``."""
    gram = blocks.gram()
    return torch.cat([eigvalsh(gram.at(some))[..., -1] for some in blocks.frequencies.split(gram.chunk)])


def _candidates(blocks: Blocks, map_pieces: MapPieces) -> list[Tensor]:
    """Return, for each group, the frequencies whose block may still have the largest singular value."""
    grams = [_rough_gram(blocks.group(group)) for group in range(len(blocks.taps))]
    # neighbors have similar blocks: a grid that is coarse beside the image shows about how large they become
    steps_apart = torch.tensor([max(2, n // 16) for n in blocks.period], device="cpu")
    left = [blocks.frequencies] * len(grams)
    trial = [blocks.frequencies[(blocks.frequencies % steps_apart == 0).all(1)]] * len(grams)
    for steps in STEPS:
        reached = [_reached(gram, some, steps, map_pieces) for gram, some in zip(grams, trial, strict=True)]
        level = (1 - MARGIN) * max(reached)
        above = [_not_below(gram, some, level, map_pieces) for gram, some in zip(grams, left, strict=True)]
        if any(map(len, above)):  # no block at all above the level: it was none
            left = trial = above
        if sum(map(len, left)) == 1:
            break
    return left


def _rough_gram(blocks: Blocks) -> Gram:
    """Return Gram blocks in float32; in float64 where a setting such as TF32 leaves float32 products fewer digits."""
    gram = blocks.gram(dtype=torch.float32)
    probe = blocks.frequencies[len(blocks.frequencies) // 2][None]
    exact = blocks.gram(1).at(probe)
    return gram if (gram.at(probe) - exact).norm() <= MARGIN / 100 * exact.norm() else blocks.gram()


def _largest_eigenvalues(gram: Gram, frequencies: Tensor, map_pieces: MapPieces) -> Tensor:
    """Return the largest eigenvalue of the Gram block at each of these frequencies."""

    def largest(some: Tensor) -> Tensor:
        return eigvalsh(gram.at(some)[:, 0])[:, -1]

    return torch.cat(map_pieces(largest, frequencies, gram.chunk, len(frequencies) * gram.side**3))


def _reached(gram: Gram, frequencies: Tensor, steps: int, map_pieces: MapPieces) -> float:
    """Return a number that some eigenvalue of these Gram blocks reaches: the best Ritz value of some Lanczos steps."""
    if len(frequencies) == 0:
        return 0.0
    steps = round(steps * max(1.0, gram.side / STEPS_SIDE))
    start = torch.randn(gram.side, dtype=torch.complex64, generator=torch.Generator().manual_seed(0), device="cpu")

    def ritz_values(some: Tensor) -> Tensor:
        blocks = gram.at(some)[:, 0]
        v = (start / start.norm()).to(blocks).expand(len(blocks), -1)
        last, beta = v, v.new_zeros(len(v), 1)
        diagonal, off_diagonal = [], []  # of the tridiagonal matrix
        for _ in range(steps):
            w = torch.bmm(blocks, v[..., None])[..., 0] if blocks.is_cuda else (blocks * v[:, None]).sum(2)
            diagonal.append(torch.linalg.vecdot(v, w).real[:, None])
            w = w - diagonal[-1] * v - beta * last
            # the kernel is about 1; next to nothing must not be blown up to a vector longer than 1
            beta = w.norm(dim=1, keepdim=True).clamp_min(1e-12)
            off_diagonal.append(beta)
            last, v = v, w / beta
        off = torch.diag_embed(torch.cat(off_diagonal[:-1], 1), 1)
        return torch.linalg.eigvalsh(torch.diag_embed(torch.cat(diagonal, 1)) + off + off.mT)[:, -1]

    # few operations for their number: cores share them only where blocks are large
    operations = len(frequencies) * gram.side**2 * steps
    return float(torch.cat(map_pieces(ritz_values, frequencies, _piece(gram), operations)).max())


def _not_below(gram: Gram, frequencies: Tensor, level: float, map_pieces: MapPieces) -> Tensor:
    """Return those frequencies at which no Cholesky factor of ``level - G(f)`` proves the eigenvalues to be below."""
    frequencies = frequencies[gram.bounds(frequencies)[:, 0].cpu() >= level]

    def unproved(some: Tensor) -> Tensor:
        blocks = gram.at(some)[:, 0].neg_()
        blocks.diagonal(dim1=1, dim2=2).add_(level)
        return some[~positive_definite(blocks).cpu()]

    operations = len(frequencies) * gram.side**3
    return torch.cat(map_pieces(unproved, frequencies, _piece(gram), operations))


def _piece(gram: Gram) -> int:
    """Return how many float32 Gram blocks to take at a time."""
    return PIECE // (8 * gram.side**2) + 1 if gram.device.type == "cpu" else gram.chunk
