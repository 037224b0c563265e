"""Notebook 15: the part of claims that hold, the number of seeds, luck among twenty, rates that reverse a verdict."""

import numpy as np

from convkit.teaching.judges.n15 import _tested, bet, luck, reverses, seeds
from tests.teaching.judges import Case

WORDS = [line.verdict for line in _tested()]
SHARE = 100 * sum(word in ("same sign", "agrees") for word in WORDS) / len(WORDS)

CASES = {
    Case(bet, "one number, of percent|lies between 0 and 100"): {
        None: [SHARE, SHARE + 9, SHARE - 9 if SHARE > 9 else SHARE, np.float32(SHARE)],
        "between 0 and 100": [-1, 101, 1e9],
        "it is less than that": [min(SHARE + 11, 100), 100],
        **({"it is more than that": [0]} if SHARE > 10 else {}),
    },
    Case(seeds, "one whole number, of seeds|two seeds or more", r"\b10 seeds\b"): {
        None: [10, 10.0, np.int64(10)],
        "too seldom": [2, 3, 5, 8, 9],
        "fewer seeds are enough": [11, 20, 100],
        "two seeds or more": [1, 0, -3],
        "so many are not needed": [10**9],
    },
    Case(luck, "one number, of percent|between 0 and 100", r"64"): {
        None: [64, 64.2, 64.15],
        "that is the chance of one comparison alone": [5],
        "counts some cases twice": [100],
        "none of the twenty": [36, 35.8],
        "it is less than that": [80, 95],
        "it is more than that": [10, 50],
        "between 0 and 100": [-5, 200],
    },
    Case(reverses, "a pair of rates|among 0.02, 0.05, 0.1"): {
        None: [(0.1, 0.02), [0.1, 0.02]],
        "BN is still ahead": [(0.02, 0.1), (0.1, 0.1), (0.05, 0.05)],
        "both rates must be among": [(0.2, 0.02), (0, 0.1)],
    },
}
