"""Judges of notebook 10: the length of a step, a fourth norm, a polar factor, weight decay, a broken bound."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from convkit.constraints.muon import ConvMuon
from convkit.norms import operator_norm
from convkit.operators.operator import ConvOperator
from convkit.randomness import seeded
from convkit.teaching.checks import hints
from convkit.teaching.judges.numbers import array, number

_NEAR = 1e-6  # what a reader may lose by rounding
_BOUND, _CLOSE = 3.0, 2.8  # of exercise 4: the norm that is allowed, and what counts as close to it


@hints(
    "A flattened kernel has its taps side by side. In the layer they all meet the same pixels. What if they are alike?",
    "By (14) of notebook 02 the true norm lies between the flattened norm and a multiple of it. Where is it here?",
)
def bet(norm: Any) -> str | None:
    """Judge the true norm of a flattened polar step with 5 x 5 taps, for a gradient of a network at its start."""
    found = number(norm, "one number, the true norm of the step")
    if found <= 0:
        return "a norm is positive, unless the step is 0"
    if found > 5:
        return "it is less than that: the root of the number of taps is the most that a flattened norm of 1 allows"
    if 0.8 <= found <= 1.2:
        return "this is the tempting belief: it mistakes the flattened norm for the true one; open the picture below"
    if found < 1:
        return "the window fits the image, and then the true norm is never below the flattened one"
    return None if found >= 4.4 else "it is more than that: neighboring taps of such a gradient are much alike"


@hints(
    "The rows do not meet in this norm: each of them may spend a sum of 1. How does one row spend it best?",
    "A row that splits its 1 among several entries gets a weighted mean of their sizes. No mean beats the largest.",
)
def rows(answer: Callable[[Tensor], Any]) -> str | None:
    """Judge a function that should return the steepest matrix among those whose row sums are at most 1."""
    for seed, shape in enumerate(((3, 5), (4, 2))):
        G = torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
        D = array(answer(G.clone()), "a function that gives a matrix")
        if D.shape != G.shape:
            return f"for a G of shape {tuple(G.shape)} the step has shape {tuple(D.shape)}: the shapes must agree"
        sums, slope, most = D.abs().sum(1), float((G * D).sum()), float(G.abs().amax(1).sum())
        if sums.max() > 1 + _NEAR:
            if (D.abs().sum(0) <= 1 + _NEAR).all():
                return "each column sum is at most 1, but the norm ∞ has the row sums"
            return f"a row sum of your step is {float(sums.max()):.3g}: the step is too long"
        if slope < -_NEAR:
            return "the slope is negative: this step goes up where it should go down"
        if slope < most - _NEAR:
            return f"the length is right, but its slope is {slope:.3f}, and {most:.3f} can be had"
    return None


@hints(
    "The block at frequency f is m + 2 cos(2 π f / 12), one number. What is the polar factor of a number?",
    "If all blocks have the same sign, the polar factor is one tap. For which m does the sign change?",
)
def single(middle: Any) -> str | None:
    """Judge the middle tap of a kernel (1, m, 1) on 12 pixels whose polar factor is not a single tap."""
    m = number(middle, "one number, the tap in the middle")
    if m <= 0:
        return "m should be positive"
    blocks = m + 2 * torch.cos(2 * torch.pi * torch.arange(12, dtype=torch.float64) / 12)
    if blocks.min() > _NEAR:
        return "for this m all blocks are positive: the polar factor is a single tap, 1 in the middle"
    if blocks.abs().min() <= _NEAR:
        return "for this m a block is 0, and then the polar factor is not unique: move m a little"
    return None


@hints(
    "What does one step make of a norm a, at most? Write it as (1 - ηλ) a plus a rest.",
    "That bound is a weighted mean of two numbers, with the weights 1 - ηλ and ηλ. Which two?",
)
def ceiling(answer: Callable[[float, float], Any]) -> str | None:
    """Judge the smallest number that a norm never exceeds under decoupled weight decay and steps of norm η."""
    for start, decay in ((0.5, 0.1), (20.0, 0.1), (3.0, 0.5)):
        found = array(answer(start, decay), "a function that gives one number").flatten()
        if found.numel() != 1:
            return "the function should give one number"
        value, end = found.item(), 1 / decay
        if abs(value - max(start, end)) < _NEAR:
            continue
        case = f"for a start of {start:g} and λ = {decay:g} this gives {value:.4g}"
        if abs(value - end) < _NEAR:
            return f"{case}: but the norm is {start:g} before the first step"
        if abs(value - start) < _NEAR:
            return f"{case}: but small steps that all go one way make a small norm grow"
        if value > max(start, end):
            return f"{case}: it never gets there, a smaller number will do"
        return f"{case}: steps that all go one way lead beyond it"
    return None


@hints(
    "Try a rate, look at the norm, and halve the interval. Begin between 0 and 0.2.",
    "Nearly all of the norm at the end is ten times the same step: it is almost a straight line in the rate.",
)
def breaks(rate: Any) -> str | None:
    """Judge the largest rate at which ten flattened steps of Muon in one direction keep the norm at 3 or below."""
    found = number(rate, "one number, the rate")
    if not 0 < found <= 1:
        return "a rate between 0 and 1 is meant"
    norm = _after_ten_steps(found)
    if norm > _BOUND:
        belief = "this is what (7) allows to ConvMuon; " if found == 0.2 else ""
        return f"{belief}ten flattened steps at this rate end at {norm:.2f}, above the bound"
    return None if norm >= _CLOSE else f"ten flattened steps at this rate end at {norm:.2f}: there is room for more"


def _after_ten_steps(rate: float) -> float:
    first, gradient = (
        torch.randn(8, 8, 3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)) for seed in (0, 1)
    )
    with seeded(0):
        layer = nn.Conv2d(8, 8, 3, padding=1, bias=False, dtype=torch.float64)
    with torch.no_grad():
        layer.weight.copy_(first / _norm(first))
    optimizer = ConvMuon(nn.Sequential(layer), {"0": (8, 8)}, rate, flattened=True)
    for _ in range(10):
        layer.weight.grad = gradient + 0.3
        optimizer.step()
    return _norm(layer.weight.detach())


def _norm(kernel: Tensor) -> float:
    return operator_norm(ConvOperator(kernel, (8, 8), padding_mode="zeros").torus(), 2).item()
