"""All singular values of a block-circulant operator, by its Gram blocks in float64."""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from convkit.engine.blocks import Blocks
from convkit.engine.hermitian import eigvalsh, svdvals
from convkit.engine.workers import MapPieces, thread_pool
from convkit.operators.dtypes import differentiated
from convkit.operators.operator import ConvOperator
from convkit.operators.tables import on

SMALL = {torch.float32: 1e-5, torch.float64: 1e-4}  # of the largest: the square of less lost digits that a value has
GRAM_SIDE = 128  # a single matrix with fewer rows or columns is decomposed as it is
COLUMNS = 2048  # of a large matrix that are in float64 at a time


def block_values(A: ConvOperator) -> tuple[Tensor, Blocks]:
    """Return the singular values at ``blocks.frequencies``, descending, ``(F, values of a block)``; and the blocks.

    In float64, or with a gradient in the kernel's dtype.
    """
    blocks = Blocks(A)
    with thread_pool(A.kernel.device) as map_pieces:
        if differentiated(blocks.taps):
            values = svdvals(blocks.at(blocks.frequencies))
        elif len(blocks.frequencies) == 1:  # a kernel of size 1, or of a stride that it does not exceed
            values = _of_matrices(blocks.at_zero())[None]
        else:
            values = _from_gram(blocks, map_pieces)
        values = values * blocks.scale
        full = min(A.kernel.shape[0] // A.groups, A.kernel.shape[1] * math.prod(A.stride))
        values = F.pad(values, (0, full - values.shape[-1]))  # of columns that no tap reads
        return values.flatten(1).sort(descending=True).values, blocks  # the union over groups


# ---- private ---------------------------------------------------------------------------------------------------------
def _from_gram(blocks: Blocks, map_pieces: MapPieces) -> Tensor:
    """Return the singular values of the blocks in float64, ``(F, groups, side)``, as roots of eigenvalues."""
    gram, groups = blocks.gram(), len(blocks.taps)

    def eigenvalues(some: Tensor) -> Tensor:
        real = bool(blocks.self_conjugate[some[0]])  # all of them are, or none
        return eigvalsh(gram.at(blocks.frequencies[some], real))

    def directly(some: Tensor) -> Tensor:
        return svdvals(blocks.at(blocks.frequencies[some]))

    def decompose(work: Callable[[Tensor], Tensor], some: Tensor) -> Tensor:
        return torch.cat(map_pieces(work, some, gram.chunk, len(some) * groups * gram.side**3))

    squares = blocks.taps.new_zeros(len(blocks.frequencies), groups, gram.side, dtype=torch.float64)
    for kind in (blocks.self_conjugate, ~blocks.self_conjugate):
        if kind.any():
            some = kind.nonzero().flatten()
            squares[on(some, squares)] = decompose(eigenvalues, some)
    values = squares.clamp_min(0).sqrt().flip(-1)
    if blocks.dtype == torch.float64:  # squaring lost the digits of the small ones
        small = (values[..., -1] < SMALL[blocks.dtype] * values.amax()).any(1)
        if small.any():
            values[small] = decompose(directly, small.nonzero().flatten().cpu())
    return values


def _of_matrices(matrices: Tensor) -> Tensor:
    """Return the singular values of real matrices, ``(groups, values)``, of large ones by their Gram matrices."""
    matrices = matrices if matrices.shape[1] <= matrices.shape[2] else matrices.mT
    if matrices.is_cuda or matrices.shape[1] < GRAM_SIDE:
        return svdvals(matrices.double())
    gram = matrices.new_zeros(*matrices.shape[:2], matrices.shape[1], dtype=torch.float64)
    for part in matrices.split(COLUMNS, dim=2):  # not all of them in float64 at a time
        gram.baddbmm_(part.double(), part.mT.double())
    values = eigvalsh(gram).clamp_min(0).sqrt().flip(-1)
    small = values[:, -1] < SMALL[matrices.dtype] * values.amax()
    if small.any():
        values[small] = svdvals(matrices[small].double())
    return values
