"""Notebook 08: the bet on two starts, a projection, a rate, a constant, and a table to be read."""

from math import pi

from convkit.teaching.judges.n08 import balanced, bet, constant, project, rate, worse
from tests.teaching.judges import Case

WORSE = [("CIFAR-10", "center", 0.0), ("CIFAR-10", "sphere", 0.0), ("CIFAR-10", "sphere", 1.0)]


def scaled(v, c):
    return c**0.5 * v / v.norm()


def nearest(v, m, c):
    return m + scaled(v - v.mean(), c - len(v) * m**2)


CASES = {
    Case(bet, "one number, the percentage points", r"\b(30|90|98)\b"): {
        **{None: [30, 90, 100, 97.5], "the tempting belief": [0, 0.0], "the ones in trouble": [-5, -90]},
        **{"it is more than that": [1, 10, 29.9], "at most 100 percent": [100.1, 1e9]},
    },
    Case(project, "a row of 12 finite numbers"): {
        **{None: [nearest], "with m = 0.2, .* the norm is wrong": [lambda v, m, c: m + scaled(v - v.mean(), c)]},
        "another row": [lambda v, m, c: 2 * m - nearest(v, m, c), lambda v, m, c: nearest(v.flip(0), m, c)],
        "with m = -0.3, .* the norm is wrong": [lambda v, m, c: m + scaled(v - v.mean(), c - 12 * m**2)],
        "a row of 12 finite numbers": [lambda v, m, c: m, lambda *of: nearest(*of)[:, None]],
        "the mean is wrong": [lambda v, m, c: scaled(v - v.mean(), c), lambda v, m, c: scaled(v - v.mean() + m, c)],
    },
    Case(rate, "a function that gives one number", r"r\s*(\*\*|²|\^)\s*2?\s*/\s*2|0\.05"): {
        **{None: [lambda r: 0.05 * r**2], "makes up for": [lambda r: 0.1 * r / 2**0.5]},
        **{"upside down": [lambda r: 0.2 / r**2], "compared with norm 1": [lambda r: 0.1 * r**2]},
        **{"the same rate": [lambda r: 0.1], "after some steps, see": [lambda r: 0.1 * r**0.5, lambda r: -0.05 * r**2]},
        "a function that gives one number": [lambda r: (0.1, r)],
    },
    Case(constant, "a function that gives one number"): {
        None: [lambda a: 2 / (1 + a**2 - (1 - a) ** 2 / pi)],
        "should be 1": [lambda a: 2 / (1 + a**2 - 1 / pi), lambda a: 1 / (1 + a), lambda a: 2 / (1 + a - (1 - a) / pi)],
        "this keeps the square": [lambda a: 2 / (1 + a**2), lambda a: 2],
        "the constant of the ReLU": [lambda a: 2 / (1 - 1 / pi)],
    },
    Case(worse, secret=r"\b(2|3|two|three) "): {
        None: [set(WORSE), [list(case) for case in WORSE], [(name, what, int(sigma)) for name, what, sigma in WORSE]],
        **{"some cases are missing": [[]], "one case is missing": [WORSE[:2]]},
        r"\(CIFAR-10, center, 1.0\): 4.66 is lower than 4.97": [[*WORSE, ("CIFAR-10", "center", 1.0)]],
        r"\(CIFAR-100, sphere, 0.0\): 22.76 is lower than 24.15": [[("CIFAR-100", "sphere", 0)]],
        "this needs a set of triples": ["CIFAR-10", 3],
        "is not a case of the table": [
            *([("CIFAR-10", "both", 0.0)], [("MNIST", "center", 0.0)], [("CIFAR-10", "center")], [1, 2, 3], ["abc"]),
            *([("CIFAR-10", "center", 0.5)], [("CIFAR-10", "center", "0")], [(0.0, "center", "CIFAR-10")]),
        ],
    },
    Case(balanced, "one number, the weight decay", r"0\.02"): {
        **{None: [0.025, 0.024, 0.0254], "grows for ever": [0, -0.1], "so strong a decay": [1, 10]},
        **{"which is too long": [0.01, 0.02, 1e-3], "which is too short": [0.03, 0.1, 0.9]},
    },
}
