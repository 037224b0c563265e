"""Notebook 03: circular against zero padding, a kernel that breaks the rule, a stride, dilations."""

import math

import numpy as np
import torch

from convkit.teaching.judges.n03 import bet, dilations, enough, kernel, stride
from tests.teaching.judges import Case


def rms(H):
    return H.abs().square().view(2, -1).mean(0).sqrt()


def summed(H):
    return H.view(2, -1).sum(0).abs()


CASES = {
    Case(bet, secret=r"(?<!and ')larger|3\.4"): {
        **{None: ["larger", "Larger", " larger ", "'larger'"], "the tempting answer": ["smaller", "'smaller'"]},
        "two entries have changed": ["equal", " EQUAL "],
        "one of the words 'smaller', 'equal' and 'larger'": ["bigger", "", 3, 3.414, ["larger"]],
    },
    Case(kernel, secret=r"1\s*,\s*-\s*1"): {
        None: [
            *((np.array([1, -1]), np.int64(7)), (torch.tensor([2.0, -2.0]), torch.tensor(3)), ([-1.0, 1], 99.0)),
            *(([0, 1, -1], 5), ([1e-9, -1e-9], 5), ([1e200, -1e200], 5), ([1, -2, 1.5], 5), ([1, -1, 1, -1], 5)),
        ],
        "2 to 5 numbers": [(x, 5) for x in ([math.nan, 1], [math.inf, 1], ["a", 1], "1, -1", [1j, 1], {1, -1}, [])],
        "a multiple of": [([1, -2, 1], 3), ([-2, 4, -2], 5), ([0, 1, -2, 1, 0], 5), ([1e-30, -2e-30, 1e-30], 5)],
        r"pixels as taps \(2\), and at most 100": [([1, -1], n) for n in (1, 0, -5, 10**9)],
        **{r"pixels as taps \(5\)": [([1, 0, -1, 1, 1], 4)], "at frequency 0": [([1, 2, 1], 5), ([-1, -1], 5)]},
        **{"a kernel of zeros": [([0, 0], 5)], "a single tap": [([0, 0, 1], 5)], "a bound. Another n": [([1, -1], 6)]},
        "a whole number of pixels": [([1, -1], n) for n in (5.5, math.nan, "5", True, None)],
        "2 to 5 taps": [(taps, 9) for taps in (1, [1], [1, -1, 1, -1, 1, -1], [[1, -1]])],
    },
    Case(stride, "6 singular values|complex|fold onto", r"√2|sqrt|n ?/ ?2|root mean square|2\*\*0\.5|A\(g"): {
        None: [rms, lambda H: rms(H.mul_(1)), lambda H: rms(H).sort().values],
        "too large by one factor": [lambda H: 2**0.5 * rms(H), lambda H: 2 * rms(H)],
        **{"too small by one factor": [lambda H: rms(H) / 2**0.5], "squares": [lambda H: rms(H) ** 2]},
        "the two numbers": [lambda H: summed(H) / 2**0.5, lambda H: summed(H) / 2],
        **{"the two magnitudes": [lambda H: summed(H.abs()) / 2], "complex": [lambda H: H.view(2, -1)[0]]},
        "the larger of": [lambda H: H.abs().view(2, -1).amax(0)],
        "half of the frequencies": [lambda H: H.view(2, -1)[0].abs(), lambda H: H[::2].abs()],
        "neighbors": [lambda H: rms(H.view(-1, 2).T.flatten())],
        "onto 6": [lambda H: H.abs(), lambda H: H.abs().max()],
        "right ones": [lambda H: torch.zeros(len(H) // 2), lambda H: -rms(H)],
        "onto 5": [lambda H: rms(H) if len(H) == 12 else torch.zeros(6)],
    },
    Case(dilations, "a list of whole numbers|right so far", r"5|7|11|gcd|coprime|no factor"): {
        None: [[1, 5, 7, 11], (11, 7, 5, 1), {1, 5, 7, 11}, [1, 5, 7, 11, 11], frozenset({1, 5, 7, 11})],
        **{"not all of them": [list(range(1, 13))], "to be odd": [[1, 3, 5, 7, 9, 11]], "3 are missing": [[1], 1]},
        **{"a prime number": [[2, 3, 5, 7, 11]], "the divisors of 12": [[1, 2, 3, 4, 6, 12]]},
        **{"10 reads 6 of the 12 frequencies, each 2 times": [[1, 5, 7, 10]], "1 is missing": [[5, 7, 11], [1, 5, 7]]},
        **{"12 reads 1 of the 12 frequencies, each 12 times": [[12]], "a list of whole numbers": [[1, 5.5], set()]},
        "only numbers from 1 to 12": [[1, 5, 7, 13], [0, 1, 5, 7, 11], [-1, 1, 5, 7], [1, 5, 7, 10**9]],
    },
    Case(enough, "two whole numbers of pixels", r"\b(29|59)\b|twice"): {
        None: [(29, 59), [29.0, 59.0]],
        "for 1 percent: on 2[0-9] pixels the norm is still [12].* below": [(28, 58), (20, 40)],
        "for 1 percent: 30 pixels are enough, but fewer": [(30, 60)],
        "for 1 percent: 60 pixels are enough, but fewer": [(60, 30)],
        "for a quarter: on 58 pixels the norm is still 0.2": [(29, 58)],
        "for a quarter: 116 pixels are enough, but fewer": [(29, 116)],
        "take between 5 pixels": [(1, 59), (29, 1000), (-29, 59)],
        "needs whole numbers of pixels$": [(29.5, 59), (0.01, 0.0025)],
        "two whole numbers of pixels, got": [29, (29,), (29, 59, 118), "29", ("29", "59")],
    },
}
