"""Largest singular values by Krylov spaces: of one operator of any geometry, and of all blocks of a torus at once."""

from dataclasses import replace

import torch
from torch import Tensor

from convkit.engine.blocks import Gram, HalfSet, Taps, normalized
from convkit.engine.hermitian import eigvalsh, positive_definite
from convkit.engine.workers import Run, workers

DENSE_SIDE = 24  # smaller Gram blocks are decomposed as they are
STEPS = 6, 16  # Lanczos steps: on a coarse grid of frequencies, then wherever the largest block may be
STEPS_SIDE = 192  # for larger blocks, whose values lie closer together, as many times more
MARGIN = 1e-3  # of the best square: far above the rounding of float32 Gram blocks and their factorization
PIECE = 2**20  # bytes of Gram blocks that a core takes at a time, so that they stay in its cache


def top_frequency(taps: Taps, half: HalfSet) -> tuple[Tensor, int]:
    """The frequency, shape ``(1, axes)``, and the group of the block with the largest singular value.

    A block is passed over only where it was proved to be smaller: Lanczos steps find a level that some block reaches,
    and a float32 Cholesky factorization shows that another stays below ``1 - MARGIN`` of it, a margin far above the
    rounding (or its Frobenius norm does, which is cheaper). The blocks left are compared in float64. A level that is
    too low leaves more of them, and never the wrong ones.
    """
    taps, _ = normalized(taps)
    groups, _, rows, columns = taps.taps.shape
    if min(rows, columns) <= DENSE_SIDE:
        gram = Gram(taps)
        chunks = half.frequencies.split(gram.chunk)
        squares = torch.cat([torch.linalg.eigvalsh(gram.at(some))[..., -1] for some in chunks])
        where, group = divmod(int(squares.argmax()), groups)
        return half.frequencies[where][None], group
    each = [replace(taps, taps=kernel) for kernel in taps.taps.split(1)]
    with workers(taps.taps.device) as run:
        left = _not_below_the_largest(each, half, run)
        pairs = [(place, group) for group, places in enumerate(left) for place in places.tolist()]
        if len(pairs) > 1:
            found = [_largest(Gram(one, len(some)), half, some, run) for one, some in zip(each, left, strict=True)]
            squares = torch.cat(found)
            pairs = pairs[int(squares.argmax()) :]
    where, group = pairs[0]
    return half.frequencies[where][None], group


def _largest(gram: Gram, half: HalfSet, places: Tensor, run: Run) -> Tensor:
    """The largest eigenvalue of each Gram block at these places of the list of frequencies."""

    def work(some: Tensor) -> Tensor:
        return eigvalsh(gram.at(half.frequencies[some])[:, 0])[:, -1]

    return torch.cat(run(work, places, gram.chunk, len(places) * gram.side**3))


def _not_below_the_largest(each: list[Taps], half: HalfSet, run: Run) -> list[Tensor]:
    """For each group the places of the frequencies whose block was not proved smaller than another one."""
    grams = [_rough(one, half) for one in each]
    bounds = [gram.bounds(half.frequencies)[:, 0].cpu() for gram in grams]
    left = [torch.arange(len(half.frequencies))] * len(grams)
    # neighbors have similar blocks: a grid that is coarse beside the image shows about how large they become
    coarse = [half.frequencies[:, axis] % max(2, n // 16) == 0 for axis, n in enumerate(each[0].size)]
    trial = [torch.stack(coarse).all(0).nonzero().flatten()] * len(grams)
    for steps in STEPS:
        reached = [_reached(gram, half, some, steps, run) for gram, some in zip(grams, trial, strict=True)]
        level = (1 - MARGIN) * max(reached)
        may = [some[bound[some] >= level] for some, bound in zip(left, bounds, strict=True)]
        may = [_not_below(gram, half, some, level, run) for gram, some in zip(grams, may, strict=True)]
        if any(map(len, may)):  # no block at all above the level: it was none
            left = trial = may
        if sum(map(len, left)) == 1:
            break
    return left


def _rough(taps: Taps, half: HalfSet) -> Gram:
    """Gram blocks in float32; in float64 where a setting such as TF32 leaves float32 products fewer digits."""
    gram = Gram(taps, dtype=torch.float32)
    probe = half.frequencies[len(half.frequencies) // 2][None]
    exact = Gram(taps, 1).at(probe)
    return gram if (gram.at(probe) - exact).norm() <= MARGIN / 100 * exact.norm() else Gram(taps)


def _reached(gram: Gram, half: HalfSet, places: Tensor, steps: int, run: Run) -> float:
    """What the largest eigenvalue of these Gram blocks reaches at least: the best Ritz value of some Lanczos steps."""
    if len(places) == 0:
        return 0.0
    steps = round(steps * max(1.0, gram.side / STEPS_SIDE))
    start = torch.randn(gram.side, dtype=torch.complex64, generator=torch.Generator().manual_seed(0))

    def work(some: Tensor) -> Tensor:
        blocks = gram.at(half.frequencies[some])[:, 0]
        v = (start / start.norm()).to(blocks).expand(len(blocks), -1)
        before, across = v, v.new_zeros(len(v), 1)
        diagonal, beside = [], []
        for _ in range(steps):
            w = (blocks * v[:, None]).sum(2)  # faster than many small matrix products
            diagonal.append(torch.linalg.vecdot(v, w).real[:, None])
            w = w - diagonal[-1] * v - across * before
            # the kernel is about 1; next to nothing must not be blown up to a vector longer than 1
            across = w.norm(dim=1, keepdim=True).clamp_min(1e-12)
            beside.append(across)
            before, v = v, w / across
        off = torch.diag_embed(torch.cat(beside[:-1], 1), 1)
        return torch.linalg.eigvalsh(torch.diag_embed(torch.cat(diagonal, 1)) + off + off.mT)[:, -1]

    # few operations for their number: cores share them only where blocks are large
    return float(torch.cat(run(work, places, _piece(gram), len(places) * gram.side**2 * steps)).max())


def _not_below(gram: Gram, half: HalfSet, places: Tensor, level: float, run: Run) -> Tensor:
    """Which of these places have a Gram block with no Cholesky factor of ``level`` minus it."""

    def work(some: Tensor) -> Tensor:
        blocks = gram.at(half.frequencies[some])[:, 0].neg_()
        blocks.diagonal(dim1=1, dim2=2).add_(level)
        return some[~positive_definite(blocks).cpu()]

    return torch.cat(run(work, places, _piece(gram), len(places) * gram.side**3))


def _piece(gram: Gram) -> int:
    return PIECE // (8 * gram.side**2) + 1 if gram.device.type == "cpu" else gram.chunk
