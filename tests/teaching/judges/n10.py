"""Notebook 10: the bet on a step's length, the steepest rows, a polar factor, a ceiling, a broken bound."""

import math

import numpy as np
import torch

from convkit.teaching.judges.n10 import bet, breaks, ceiling, rows, single
from tests.teaching.judges import Case


def right_rows(G):
    D = torch.zeros_like(G)
    for i, row in enumerate(G):
        j = int(row.abs().argmax())
        D[i, j] = row[j].sign()
    return D


def by_columns(G):
    return right_rows(G.T).T


CASES = {
    Case(bet, "one number, the true norm of the step", r"4\.\d|\b5\b"): {
        **{None: [4.8, 4.4, 5, np.float32(4.6)], "the tempting belief": [1, 1.0, 0.9, 1.1]},
        **{"a norm is positive": [0, -1, -4.8], "never below the flattened": [0.5, 0.1]},
        **{"it is more than that": [1.5, 2, 3, 4.3], "it is less than that": [5.1, 25, 1e9]},
    },
    Case(rows, "a function that gives a matrix|the shapes must agree"): {
        None: [right_rows, lambda G: right_rows(G).tolist()],
        "the shapes must agree": [lambda G: right_rows(G).T, lambda G: right_rows(G)[0], lambda G: 1.0],
        "the norm ∞ has the row sums": [by_columns],
        "the step is too long": [torch.sign, lambda G: 2 * right_rows(G), lambda G: G / G.norm() * 9],
        "goes up where it should go down": [lambda G: -right_rows(G)],
        "^the length is right, but its slope": [
            lambda G: G.sign() / G.shape[1],
            lambda G: G / G.abs().sum(1, keepdim=True),
            lambda G: G / G.abs().sum(1).max(),
            lambda G: 0 * G,
        ],
    },
    Case(single, "one number, the tap in the middle"): {
        **{None: [1.5, 0.5, 1.9, np.float64(1.2)], "m should be positive": [0, -1.5]},
        **{"all blocks are positive": [2.1, 3, 100], "is not unique": [1, 2, math.sqrt(3)]},
    },
    Case(ceiling, "a function that gives one number|should give one number"): {
        **{None: [lambda a, d: max(a, 1 / d)], "should give one number": [lambda a, d: (a, 1 / d)]},
        "but the norm is 20 before the first step": [lambda a, d: 1 / d],
        "make a small norm grow": [lambda a, d: a],
        "it never gets there": [lambda a, d: a + 1 / d, lambda a, d: 1e9],
        "lead beyond it": [lambda a, d: d, lambda a, d: min(a, 1 / d) + 1, lambda a, d: -max(a, 1 / d)],
    },
    Case(breaks, "one number, the rate", r"0\.09"): {
        **{None: [0.098, 0.095, np.float64(0.097)], "a rate between 0 and 1": [0, -0.1, 1.5, 98]},
        **{"^this is what .* end at 5.*above the bound": [0.2], "^ten .* above the bound": [0.11, 0.15, 0.3, 1]},
        "there is room for more": [0.09, 0.05, 1e-6],
    },
}
