"""Judges of notebook 09: the entries that a gradient touches, their number, momentum, strength, the best of four."""

import math
from collections.abc import Callable
from typing import Any

import torch

from convkit.teaching.checks import hints
from convkit.teaching.judges.numbers import number

_NEAR = 1e-6  # what a reader may lose by rounding


@hints(
    "The norm is the largest row sum of the layer's matrix. Which weights does this one row hold?",
    "A row belongs to one pixel of one output channel, and reads all input channels.",
)
def bet(percent: Any) -> str | None:
    """Judge how many percent of the entries one gradient of the norm inf touches."""
    found = number(percent, "one number, the percent of the entries")
    if not 0 <= found <= 100:
        return "a part is between 0 and 100 percent"
    if found > 90:
        return "this is the tempting belief; a maximum has the gradient of the one row that attains it"
    if abs(found - 100 / 9) < 2:
        return "all taps of a window count, in all 64 input channels; but of how many output channels?"
    if found < 1:
        return "a row of the matrix belongs to one output pixel, but that pixel reads 9 taps in each of 64 channels"
    return None if found < 2 else "it is fewer: count the entries of one row of the matrix"


@hints(
    "The norm inf: a row of the matrix is one output pixel. Which entries of the kernel does that pixel read?",
    "The norm 1: a column is one input pixel. Which taps of a channel can meet it, when windows lie s pixels apart?",
    "Count the places 0, s, 2 s, ... that are smaller than k.",
)
def count(answer: Callable[..., Any]) -> str | None:
    """Judge the largest number of entries that the gradient of a norm touches."""
    inf = math.inf
    cases = [(inf, 4, 3, 3, 1), (inf, 4, 3, 3, 2), (1, 4, 3, 3, 1), (1, 4, 3, 3, 2), (1, 5, 2, 5, 3), (1, 5, 2, 2, 3)]
    for ord, c_out, c_in, k, s in cases:
        found = number(answer(ord, c_out, c_in, k, s), "a function that gives one number")
        step = math.ceil(k / s)
        right = c_in * k**2 if ord == inf else c_out * step**2
        if abs(found - right) < _NEAR:
            continue
        case = f"norm {ord}, {c_in} channels to {c_out}, {k} × {k}, stride {s}: it is not {found:g}"
        if found == (c_out * k**2 if ord == inf else c_in * step**2):
            return f"{case}; a row of the matrix reads all input channels, a column goes to all output channels"
        if ord == 1 and found == c_out * k**2:
            return f"{case}; a pixel meets only taps whose places differ by multiples of the stride"
        if ord == 1 and found == c_out * (k // s) ** 2:
            return f"{case}; the first tap counts, too: of 3 taps in steps of 2 there are two, not one"
        if ord == 1 and found == c_out * step:
            return f"{case}; the taps of a class are counted down and across"
        if ord == inf and found == c_in * step**2:
            return f"{case}; the stride leaves out windows, not taps of a window"
        if found == c_out * c_in * k**2:
            return f"{case}; that is the whole kernel"
        return case
    return None


@hints(
    "touched(0.5) is too small and touched(0.9) too large. Try a momentum between them.",
    "Halve the interval: is the share below one half or above it?",
)
def half(momentum: Any) -> str | None:
    """Judge the momentum with which the moving average of the gradients touches half of the entries."""
    found = number(momentum, "one number, the momentum")
    if not 0 <= found < 1:
        return "a momentum lies between 0 and 1"
    if found > 0.95:
        return "with so large a momentum one pull is hardly above the hundredth that counts as touched"
    share = sum(_touched(found, seed) for seed in (4, 5, 6)) / 3
    if 45 <= share <= 55:
        return None
    return f"with this momentum {share:.0f} percent of the entries are touched: too {'many' if share > 55 else 'few'}"


def _touched(gamma: float, seed: int, eta: float = 0.004) -> float:
    """Return the percent of rows whose pull is 0.01 or more in steps 21 to 60: the walk of section 3, row by row."""
    generator = torch.Generator().manual_seed(seed)
    kernel = torch.randn(16, 16, 3, 3, dtype=torch.float64, generator=generator) / 12
    average, shares = torch.zeros_like(kernel), []
    for _ in range(60):
        pull = torch.zeros_like(kernel)
        largest = kernel.abs().sum((1, 2, 3)).argmax()
        pull[largest] = kernel[largest].sign()
        average = gamma * average + (1 - gamma) * pull
        kernel = kernel - eta * average + 0.002 * torch.randn(kernel.shape, dtype=torch.float64, generator=generator)
        shares.append((average.abs() >= 0.01).double().mean().item())
    return 100 * sum(shares[20:]) / 40


@hints(
    "In the long run each of the k rows was set at another time. How many steps ago is that, row by row?",
    "The row that was set j steps ago has faded j times. How large is its entry of h now? Add up those of all rows.",
)
def strength(answer: Callable[[float, int], Any]) -> str | None:
    """Judge the long-run strength of a pull whose active entries are set, not added to."""
    for gamma, k in ((0.5, 1), (0.5, 2), (0.5, 3), (0.9, 4)):
        h, averaged = torch.zeros(k, dtype=torch.float64), torch.zeros(k, dtype=torch.float64)
        for t in range(1000 * k):
            h, averaged = gamma * h, gamma * averaged
            h[t % k] = 1
            averaged[t % k] += 1 - gamma
        found, right = number(answer(gamma, k), "a function that gives one number"), h.sum().item()
        if abs(found - right) < _NEAR:
            continue
        case = f"γ = {gamma} and {k} rows: it is not {found:.4g}"
        if abs(found - averaged.sum().item()) < _NEAR:
            return f"{case}; that is the moving average's strength, and here the newest row counts in full"
        if abs(found - 1 / (1 - gamma)) < _NEAR:
            return f"{case}; that is the limit for many rows: a row that comes again is set to 1, not added to"
        if abs(found - k) < _NEAR:
            return f"{case}; rows that wait for their turn fade"
        return f"{case}; write down h of the row that was set j steps ago, and add them up"
    return None


@hints(
    "Draw four numbers from a normal distribution, keep the largest, and do this many times: torch.randn has a shape.",
    "The mean of the largest is in standard deviations. How many points is one of them here?",
)
def gain(answer: Any) -> str | None:
    """Judge the expected lead of the best of four over one plain run, for a deviation of 0.3 points."""
    found = number(answer, "one number, the points")
    if abs(found) < 0.02:
        return "the mean of the four would gain nothing; the best of them is chosen after the fact"
    if abs(found - 1.03) < 0.03:
        return "this is in standard deviations, and one of them is 0.3 points"
    if abs(found - 0.3) < 0.004:
        return "this is exactly one standard deviation; simulate it and see whether it is more or less"
    if abs(found - 0.169) < 0.01:
        return "that is the best of two"
    if abs(found - 0.254) < 0.01:
        return "that is the best of three"
    if found < 0:
        return "the best of four is chosen because it is high"
    return None if 0.304 < found < 0.314 else "this is not the mean; simulate the best of four many times"
