"""Judges of notebook 08: two initial norms, a projection, a rate, a balance, a constant, and a table to read."""

import math
from collections.abc import Callable, Iterable
from numbers import Real
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from convkit.teaching.checks import Feedback, hints
from convkit.teaching.judges.numbers import array, number

_NEAR = 1e-6  # what a reader may lose by rounding
# Test errors of a WRN-28-10 in Table 3 of Ikami et al.: neither constraint, centering, sphere, both
_TABLE_3 = {
    ("CIFAR-10", 0.0): (5.36, 5.58, 5.68, 4.45),
    ("CIFAR-10", 1.0): (4.97, 4.66, 5.29, 4.19),
    ("CIFAR-100", 0.0): (24.15, 23.43, 22.76, 20.61),
    ("CIFAR-100", 1.0): (21.85, 20.43, 20.88, 18.31),
}


@hints(
    "The gradient of a standardized row holds one over the length of the row.",
    "A step that is longer than the row itself turns it anywhere. What is left of what was learned before?",
)
def bet(points: Any) -> str | None:
    """Judge by how many points the worst seed from short rows is below the worst one from rows of norm sqrt 2."""
    found = number(points, "one number, the percentage points")
    if found == 0:
        return "this is the tempting belief: same function, same training; open the picture below"
    if found < 0:
        return "the shorter rows are the ones in trouble"
    if found > 100:
        return "an accuracy is at most 100 percent"
    return None if found >= 30 else "it is more than that: look at the crosses in the picture"


@hints(
    "Write a row as its mean times a row of ones plus a rest of mean 0. The two parts are at right angles.",
    "How much of the squared norm does the part with the mean take? The rest must have what is left of c.",
)
def project(answer: Callable[[Tensor, float, float], Any]) -> str | None:
    """Judge a function that should return the nearest row of mean m and squared norm c."""
    for seed, n, m, c in [(0, 12, 0.0, 2.0), (1, 12, 0.2, 2.0), (2, 7, -0.3, 5.0)]:
        v = torch.randn(n, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
        u, Pv = array(answer(v.clone(), m, c), f"a row of {n} finite numbers", (n,)), v - v.mean()
        right = m + (c - n * m**2) ** 0.5 * Pv / Pv.norm()
        if (u - right).abs().max() < _NEAR:
            continue
        case = f"with m = {m}, c = {c}, n = {n} the result has mean {u.mean():.3f}, squared norm {u @ u:.3f}"
        if abs(u.mean() - m) > _NEAR:
            return f"{case}: the mean is wrong; a scaling after the shift moves it"
        if abs(u @ u - c) > _NEAR:
            return f"{case}: the norm is wrong; the mean takes a part of it"
        return f"{case}: this lies in the set, but another row of the set is nearer to v"
    return None


@hints(
    "(10) says how the gradient changes with the length of the row. What does a step of given length do to a long row?",
    "(12) has the two factors together. With which a do rows of norm r belong to rows of norm sqrt 2?",
)
def rate(answer: Callable[[float], Any]) -> str | None:
    """Judge the learning rate for rows of norm r that trains as 0.1 does for rows of norm sqrt 2."""
    for r in (0.5, 2.0, 4.0):
        found, right = _value(answer(r)), 0.1 * r**2 / 2
        if abs(found - right) < _NEAR:
            continue
        case = f"for r = {r} this is {found:.4g}"
        if abs(found - 0.1 * r / 2**0.5) < _NEAR:
            return f"{case}: that makes up for the gradient's 1/r; but a step also turns a longer row by less"
        if abs(found - 0.1 * 2 / r**2) < _NEAR:
            return f"{case}: upside down, short rows need small rates"
        if abs(found - 0.1 * r**2) < _NEAR:
            return f"{case}: right for rows compared with norm 1; here the rate 0.1 belongs to the square root of 2"
        if abs(found - 0.1) < _NEAR:
            return f"{case}: the same rate; then the outputs would differ after some steps"
        return f"{case}: the outputs would differ after some steps, see (12)"
    return None


@hints(
    "settles_at(0.1) is too small and settles_at(0.01) too large. Try a decay between them, and halve the interval.",
    "Sixteen times the decay halves the norm. What does that say of the exponent?",
)
def balanced(decay: Any) -> str | None:
    """Judge the weight decay with which a standardized row settles at the square root of 2, at rate 0.1."""
    found = number(decay, "one number, the weight decay")
    if found <= 0:
        return "without a decay nothing makes the row shorter, and it grows for ever"
    if found >= 1:
        return "so strong a decay takes away a tenth of the row, or more, in every step"
    norm = sum(_settled(found, seed) for seed in range(3)) / 3
    if abs(norm / 2**0.5 - 1) <= 0.03:
        return None
    return f"with this decay the row settles at {norm:.2f}, which is too {'long' if norm > 2**0.5 else 'short'}"


def _settled(decay: float, seed: int, rate: float = 0.1, steps: int = 3000, n: int = 45) -> float:
    """Return the mean norm of a standardized row in the second half of a training on random gradients."""
    rng = np.random.default_rng(seed)
    row, lengths = rng.normal(size=n) / n**0.5, []
    for given in rng.normal(size=(steps, n)) / n**0.5:
        row = row - row.mean()
        unit = row / np.linalg.norm(row)
        gradient = 2**0.5 / np.linalg.norm(row) * (given - given.mean() - unit * (unit @ given))
        row = (1 - rate * decay) * row - rate * gradient
        lengths.append(float(np.linalg.norm(row)))
    return float(np.mean(lengths[steps // 2 :]))


@hints(
    "Let y be standard normal. Which mean and which mean square has a leaky ReLU of y, for positive and negative y?",
    "A centered row sees the variance of its inputs. c times that variance has to be the variance of y.",
)
def constant(answer: Callable[[float], Any]) -> str | None:
    """Judge the c that keeps the variance after a leaky ReLU of slope a, with centered rows."""
    y = torch.randn(1_000_000, dtype=torch.float64, generator=torch.Generator().manual_seed(5))
    for a in (0.0, 0.2, 1.0, -0.5):
        found, right = _value(answer(a)), 2 / (1 + a**2 - (1 - a) ** 2 / math.pi)
        if abs(found - right) < _NEAR:
            continue
        case = f"for a = {a} this c gives a factor of {found * F.leaky_relu(y, a).var():.3f} a layer"
        if abs(found - 2 / (1 + a**2)) < _NEAR:
            return f"{case}: this keeps the square; but what does a centered row see of the mean?"
        if abs(found - 2 / (1 - 1 / math.pi)) < _NEAR:
            return f"{case}: that is the constant of the ReLU, a = 0"
        return f"{case}, which should be 1"
    return None


def _value(answer: Any) -> float:
    return number(answer, "a function that gives one number")


@hints(
    "Go line by line. An error is better when it is lower, and the first number of a line is that of neither.",
    "Compare the second and the third number of each line with the first one, and write down which is larger.",
)
def worse(answer: Any) -> str | None:
    """Judge the cases of Table 3 in which one constraint alone raises the error above that of neither."""
    if isinstance(answer, (str, bytes)) or not isinstance(answer, Iterable):
        raise Feedback('this needs a set of triples such as ("CIFAR-10", "center", 1.0)')
    right = {
        (data, constraint, sigma)
        for (data, sigma), errors in _TABLE_3.items()
        for constraint, error in (("center", errors[1]), ("sphere", errors[2]))
        if error > errors[0]
    }
    given = set()
    for case in answer:
        triple = _triple(case)
        if triple is None:
            return f"{case!r} is not a case of the table; name the data, 'center' or 'sphere', and sigma"
        given.add(triple)
    for data, constraint, sigma in sorted(given - right):
        errors = _TABLE_3[data, sigma]
        one = errors[1 if constraint == "center" else 2]
        return f"({data}, {constraint}, {sigma}): {one} is lower than {errors[0]}, and lower is better here"
    missing = "one case is" if len(right - given) == 1 else "some cases are"
    return f"{missing} missing" if right - given else None


def _triple(case: Any) -> tuple[str, str, float] | None:
    """Return a case of the table as a triple; ``None`` for anything else."""
    if isinstance(case, str) or not isinstance(case, Iterable):
        return None
    parts = list(case)
    if len(parts) != 3 or parts[1] not in ("center", "sphere") or not isinstance(parts[2], Real):
        return None
    data, constraint, sigma = str(parts[0]), str(parts[1]), float(parts[2])
    return (data, constraint, sigma) if (data, sigma) in _TABLE_3 else None
