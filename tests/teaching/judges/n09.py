"""Notebook 09: the bet on a gradient, entries counted, a momentum that replaces, the best of four."""

import math

from convkit.teaching.judges.n09 import bet, count, gain, half, strength
from tests.teaching.judges import Case


def right(p, o, i, k, s):  # norm, channels out and in, taps along an axis, stride
    return o * math.ceil(k / s) ** 2 if p == 1 else i * k**2


CASES = {
    Case(bet, "one number, the percent of the entries", r"1\.5|1\.6|/ 64|one of 64|2 percent"): {
        **{None: [100 / 64, 1, 1.9, 1.5], "the tempting belief": [100, 91], "it is fewer": [50, 2, 5]},
        **{"of how many output channels": [11.1, 100 / 9], "that pixel reads 9 taps": [0, 0.1, 0.0156]},
        "between 0 and 100 percent": [-1.5, 150, 1e9],
    },
    Case(count, "a function that gives one number", r"(?<!not )\b(27|36|16|20)\b"): {
        **{None: [right], "that is the whole kernel": [lambda p, o, i, k, s: o * i * k**2]},
        **{"reads all input": [lambda p, o, i, k, s: right(p, i, o, k, s)], "stride 1: it is not 1$": [lambda *_: 1]},
        "multiples of the stride": [lambda p, o, i, k, s: (o if p == 1 else i) * k**2],
        "the first tap": [lambda p, o, i, k, s: o * (k // s) ** 2 if p == 1 else i * k**2],
        "not taps of a window": [lambda p, o, i, k, s: (o if p == 1 else i) * math.ceil(k / s) ** 2],
        "down and across": [lambda p, o, i, k, s: o * math.ceil(k / s) if p == 1 else i * k**2],
        "a function that gives one number": [lambda *_: (27, 36)],
    },
    Case(strength, "a function that gives one number"): {
        **{None: [lambda g, k: sum(g**j for j in range(k))], "the moving average's strength": [lambda g, k: 1]},
        "the limit for many rows": [lambda g, k: 1 / (1 - g), lambda g, k: k],
        "and add them up": [lambda g, k: 1 - g**k, lambda g, k: (1 - g ** (k + 1)) / (1 - g)],
    },
    Case(gain, "one number, the points", r"0\.31|0\.309|1\.03"): {
        **{None: [0.309, 0.31, 0.305, 0.3088], "would gain nothing": [0, 0.01], "exactly one": [0.3]},
        **{"the best of two": [0.17], "in standard deviations": [1.03, 1.02], "the best of three": [0.25]},
        **{"because it is high": [-0.31], "this is not the mean": [0.2, 0.5, 3, 31]},
    },
    Case(half, "one number, the momentum", r"0\.6"): {
        **{None: [0.6, 0.62], "lies between 0 and 1": [-0.5, 1, 2]},
        **{"too few$": [0, 0.5, 0.55], "too many$": [0.7, 0.9], "hardly above the hundredth": [0.99, 0.999]},
    },
}
