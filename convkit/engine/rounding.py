"""Rounding up: so that bounds computed in float64 stay bounds in the kernel's own dtype."""

import math

import torch
from torch import Tensor

from convkit.operators.operator import ConvOperator

EPS = torch.finfo(torch.float64).eps


def spectral_slack(A: ConvOperator) -> float:
    """Return a bound of the rounding errors of a norm found from blocks, in units of EPS.

    Errors of forming the blocks and their Gram matrices, relative to the largest block: t taps are summed, whose
    norms add up to at most sqrt(t side) times its norm, and the product of Gram matrices of Frobenius norm 1, whose
    norm is at least 1 / sqrt(side), is off by side.
    """
    taps = math.prod(A.kernel.shape[2:])
    side = min(A.kernel.shape[0] // A.groups, A.kernel.shape[1] * math.prod(A.stride))
    return 8 * (taps * math.sqrt(taps * side) + side**2)


def rounded_up(value: Tensor, A: ConvOperator, slack: float) -> Tensor:
    """Return a float64 value in the kernel's dtype, larger by ``slack`` units of EPS and the rounding of that dtype."""
    dtype = A.kernel.dtype
    return (value * (1 + (slack + 64) * EPS + torch.finfo(dtype).eps)).to(dtype)
