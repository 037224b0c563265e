"""Notebook 04: the norm 1 at stride 2, a fair blur, the norm 1 in two lines, signs that Hölder misses, equal bounds."""

from fractions import Fraction

import numpy as np
import torch
import torch.nn.functional as F

from convkit.teaching.judges.n04 import bet, equal_at, fair, norm_1, signs
from tests.teaching.judges import Case

BINOMIAL = [[1 / 16, 1 / 8, 1 / 16], [1 / 8, 1 / 4, 1 / 8], [1 / 16, 1 / 8, 1 / 16]]
NINTHS = [[1 / 9] * 3] * 3
GOOD = [[1, 1, -1], [1, 1, -1], [-1, -1, 1]]


def rows(kernel, image, stride, padding):
    return F.conv2d(torch.ones(1, kernel.shape[1], *image), kernel, stride=stride, padding=padding)


def columns(kernel, image, stride, padding):
    ones = torch.ones_like(rows(kernel, image, stride, padding))
    return F.conv_transpose2d(ones, kernel, stride=stride, padding=padding)


def norm(kernel, *layer):
    return columns(kernel.abs(), *layer).max()


CASES = {
    Case(bet, "one number, the largest column sum", "(?i)4|four"): {
        **{None: [4, Fraction(4), np.int8(4)], "the tempting answer": [9, 9.0], "an average": [9 / 4], "stride 3": [1]},
        **{"along one axis": [2], "a stride of 1": [3], "the square": [81], "draw the windows": [0, 6, 5]},
        **{"a whole number": [4.5], "never negative": [-4], "no pixel has": [18, 1e9]},
    },
    Case(fair, "3 × 3 (numbers|taps)", "0.25|1/4|1/16|quarter|binomial|1, 2, 1"): {
        None: [BINOMIAL, [*[[0.25, 0.25, 0]] * 2, [0] * 3], [[0.1, 0.2, 0.15], [0.25, 0.25, 0], [0, 0.05, 0]]],
        r"nine equal taps are unfair: the class that begins at tap \(0, 0\) adds up to 0.444": [NINTHS],
        r"smaller: the class that begins at tap \(1, 1\) adds up to 1.000": [[[0, 0, 0], [0, 1, 0], [0, 0, 0]]],
        r"smaller: the class that begins at tap \(0, 1\) adds up to 0.500": [[[0, 0.5, 0], [0, 0.5, 0], [0, 0, 0]]],
        "must add up to 1, and these add up to 16.000": [[[1, 2, 1], [2, 4, 2], [1, 2, 1]]],
        "no negative taps": [[[-0.25, 0.25, 0.5], [0.25, 0.25, 0], [0, 0, 0]]],
        r"3 × 3 taps are needed, got shape \((9,|1, 1, 3, 3|)\)": [[1 / 9] * 9, torch.full((1, 1, 3, 3), 1 / 9), 1 / 9],
        "3 × 3 numbers": [[*NINTHS[:2], [1 / 9] * 2]],
    },
    Case(norm_1, "one number", r"\.max\(\)|kernel\.abs\(\)|2 \* p|// s|torch\.ones\("): {
        **{None: [norm, lambda *of: norm(*of).reshape(1, 1)], "a pixel has one channel": [lambda K, *_: K.abs().sum()]},
        "signs of the taps cancel": [lambda *of: columns(*of).max(), lambda *of: columns(*of).abs().max()],
        "how many outputs": [lambda K, n, *of: norm(K, n, *of) if max(n) > 3 else 0.0],
        "the norm 1 is 34.127": [lambda *_: 0.0, lambda *of: -norm(*of), lambda *of: 2 * norm(*of)],
        **{"the norm ∞": [lambda K, *of: rows(K.abs(), *of).max()], "the largest entry": [lambda K, *_: K.abs().max()]},
        "adds up all columns": [lambda K, *of: columns(K.abs(), *of).sum()],
        "where is the stride?": [lambda K, *_: K.abs().sum((0, 2, 3)).max()],
        "one number: the largest": [lambda K, *of: columns(K.abs(), *of)],
    },
    Case(signs, r"each \+1 or -1", r"1\s*,\s*1\s*,\s*-\s*1|\+\s*\+\s*-|1\s*,\s*-\s*1\s*,\s*1"): {
        **{None: [GOOD], "exact: a constant image": [[[1] * 3] * 3, [[-1] * 3] * 3]},
        "stripes or a chessboard": [[[1, -1, 1]] * 3, [[1] * 3, [-1] * 3, [1] * 3], np.outer([1, -1, 1], [1, -1, 1])],
        "nine taps": [[[0] * 3] * 3, [[1, 1, 2]] * 3, [[1, 1, 0.5]] * 3, [1, 1, -1], [[1, 1, -1, 1]] * 4, 1, [[GOOD]]],
        "the ratio is 1.": [[[1, 1, 1], [1, 1, 1], [1, 1, -1]], [[1, 1, -1]] * 3],
        r"3 × 3 signs, each \+1 or -1": ["++-++---+", [["+"] * 3] * 3],
    },
    Case(equal_at, "one number, the t", r"0?\.01|\.018"): {
        **{
            None: [0.0178, 0.0182, Fraction(89, 5000)],
            "between 0 and 1": [-0.018, -1],
            "Hölder's bound is the norm": [0],
        },
        "Hölder's bound is the smaller one: take a larger t": [0.01, 0.0165, 1e-9],
        "the flattened bound is the smaller one: take a smaller t": [0.0192, 0.18, 0.5, 1.78, 1e3],
    },
}
