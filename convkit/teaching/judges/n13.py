"""Judges of notebook 13: the bet on a spiral, a largest step, a momentum, the best slope, a Fréchet distance."""

import math
from collections.abc import Callable
from typing import Any

from convkit.teaching.checks import hints
from convkit.teaching.judges.numbers import number

_NEAR = 1e-6  # what a reader may lose by rounding


@hints(
    "Write one step as a matrix. How long are its columns?",
    "Each step multiplies the distance by the same factor, and there are 400 steps.",
)
def bet(distance: Any) -> str | None:
    """Judge the distance from the goal after 400 steps of size 0.1 that begin at distance 1."""
    found = number(distance, "one number, the distance after 400 steps")
    if found < 0:
        return "a distance is not negative"
    if found < 0.5:
        return "this is the tempting belief, that both players come to rest; open the picture below"
    if found < 1.2:
        return "so it would be for steps that are infinitely small; these are not; open the picture below"
    if found < 6:
        return "it is more than that"
    return None if found <= 9 else "it is less than that"


@hints(
    "The two eigenvalues are conjugate to each other here, so the square of their absolute value is the determinant.",
    "Write the determinant of the matrix of the update as 1 plus something. For which h is that something negative?",
)
def largest_step(answer: Callable[[float], Any]) -> str | None:
    """Judge the size below which steps with a penalty of strength γ < 2 lead to the goal."""
    for gamma in (0.2, 0.7, 1.5):
        found = number(answer(gamma), "a function that gives one number, a step size")
        case = f"for γ = {gamma:g} this gives {found:.4g}"
        if found <= 0:
            return f"{case}: small positive steps do come to rest"
        if found > gamma + _NEAR:
            return f"{case}: with steps just below that size the spiral still goes outward"
        if found < gamma - _NEAR:
            return f"{case}: somewhat larger steps come to rest, too"
    return None


@hints(
    "Run turns_with for 0.9, 0.5 and 0.1. In which direction does the distance change?",
    "The interval that is allowed has two halves.",
)
def momentum(value: Any) -> str | None:
    """Judge a momentum that leads two players who take turns to the goal."""
    found = number(value, "one number, the momentum")
    if not -1 < found < 1:
        return "a momentum between -1 and 1 is meant"
    theta, psi, last_theta, last_psi = 1.0, 0.0, 0.0, 0.0
    for _ in range(600):
        last_psi = found * last_psi - 0.3 * theta
        psi += last_psi
        last_theta = found * last_theta + 0.3 * psi
        theta += last_theta
    distance = math.hypot(theta, psi)
    if distance < 0.01:
        return None
    if distance > 2:
        return f"with this momentum the distance grows to {distance:.2g}"
    return f"with this momentum the distance is still {distance:.2g} after 600 steps"


@hints(
    "Plot k / (1 + exp(k)), or take its derivative.",
    "The derivative is zero where 1 + exp(k) = k exp(k). Halve an interval between 1 and 2.",
)
def best_slope(slope: Any) -> str | None:
    """Judge the slope of a discriminator at which the loss of (5) gives a generator at distance 1 the most."""
    found = number(slope, "one number, the slope k")
    if found <= 0:
        return "the slope is positive: the discriminator prefers what is real"
    if found >= 5:
        return "so steep a discriminator is sure of itself, and the generator gets almost nothing"
    if abs(found - 1) < _NEAR:
        return "near, but the gradient still grows a little beyond a slope of 1"
    if abs(found - 1.2785) <= 0.01:
        return None
    return f"the gradient still grows with the slope at {found:.4g}" if found < 1.2785 else "it is less steep than that"


@hints(
    "Two numbers differ: the means, and the roots of the variances.",
    "In one dimension (8) is the sum of two squares: the difference of the means, and that of the deviations.",
)
def distance(answer: Any) -> str | None:
    """Judge the Fréchet distance of normal distributions with means 0 and 3, and variances 1 and 4."""
    found = number(answer, "one number, the distance by (8)")
    if abs(found - 10) < _NEAR:
        return None
    if abs(found - 18) < _NEAR:
        return "this has the difference of the variances; the roots are what counts"
    if abs(found - 9) < _NEAR:
        return "this is the part of the means alone"
    if abs(found - 10**0.5) < _NEAR:
        return "FID is the square of that: no root is taken at the end"
    if abs(found - 1) < _NEAR:
        return "this is the part of the deviations alone"
    return "this is not the sum of both parts"
