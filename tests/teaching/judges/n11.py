"""Notebook 11: the bet on two networks, an exact answer, a loss that unmasks, a difference in its errors."""

from math import hypot, inf, nan

import torch
import torch.nn.functional as F

from convkit.teaching.judges.n11 import bet, exact, loud_enough, standard_errors, unmasking
from tests.teaching.judges import Case


def safe(W, b, x, y, eps, p=1):
    logits = x @ W.T + b
    lead = logits.gather(1, y[:, None]) - logits
    gain = eps * torch.linalg.vector_norm(W[y][:, None] - W, p, dim=2)
    return ((lead > gain) | (F.one_hot(y, len(W)) == 1)).all(1)


def second_only(W, b, x, y, eps):
    top = (x @ W.T + b).topk(2, dim=1)
    return top.values[:, 0] - top.values[:, 1] > eps * (W[y] - W[top.indices[:, 1]]).abs().sum(1)


def others(z, y):
    return z.masked_fill(F.one_hot(y, z.shape[1]) == 1, -1e9).amax(1)


def own(z, y):
    return z.gather(1, y[:, None])[:, 0]


def margin(z, y):
    return others(z, y) - own(z, y)


def ratio(z, y):  # the margin over the spread of the logits
    return margin(z, y) / z.topk(3, dim=1).values[:, ::2].diff(dim=1)[:, 0].neg().detach()


def cross_entropy(z, y):
    return F.cross_entropy(z, y, reduction="none")


def by(error):
    """The function that divides the difference of two means by error(s, t, n)."""
    return lambda a, s, b, t, n: (a - b) / error(s, t, n)


CASES = {
    Case(bet, "two numbers, as in", r"B (keeps|gets) all|no error|of all"): {
        **{None: [(5, 100), (0, 100), (30, 99)], "dividing the logits of A": [(50, 50), (50, 100), (100, 100)]},
        **{"the tempting belief": [(90, 10), (100, 5)], "what did the theorem promise": [(5, 50), (5, 98), (0, 0)]},
        **{"two numbers, as in": [(1, 2, 3)], "between 0 and 100": [(-5, 1e9), (-5, 100), (5, 101)]},
    },
    Case(exact): {
        None: [safe, lambda *of: safe(*of).numpy(), lambda *of: safe(*of).tolist()],
        "400 times True or False": [lambda *of: safe(*of).double(), lambda *of: safe(*of).sum(), lambda *_: "yes"],
        **{"in the norm 2": [lambda *of: safe(*of, p=2)], "the norm ∞ of the gradient": [lambda *of: safe(*of, p=inf)]},
        **{"ask all of them": [second_only], "for 70 of 400": [lambda W, b, x, y, eps: safe(W, b, x, y, 2 * eps)]},
        **{"the other way round": [lambda *of: ~safe(*of)], "for 95 of 400": [lambda W, b, x, y, eps: y == y]},
    },
    Case(unmasking): {
        **{None: [margin, ratio, lambda z, y: cross_entropy(z / 1000, y)], "the label's own": [others]},
        "is 0 in float32": [cross_entropy, lambda z, y: -own(z.softmax(1), y), lambda z, y: (z.argmax(1) != y).float()],
        "not their mean or sum": [F.cross_entropy, lambda *_: "margin", lambda *_: 0.0],
        "where the answer is wrong": [lambda z, y: z.topk(2, dim=1).values.diff(dim=1)[:, 0]],
        **{"nearest to the label's": [lambda z, y: -own(z, y)], "the attack climbs": [lambda z, y: -margin(z, y)]},
        "the loss is NaN or infinite": [lambda z, y: margin(z, y) * nan, lambda z, y: z.exp().sum(1)],
    },
    Case(standard_errors, "a function that gives one number", r"2\.38|1\.39|2\.4\b"): {
        None: [by(lambda s, t, n: hypot(s, t) / n**0.5), by(lambda s, t, n: -hypot(s, t) / n**0.5)],
        **{"one seed": [by(lambda s, t, n: hypot(s, t))], "their squares do": [by(lambda s, t, n: (s + t) / n**0.5)]},
        "both means are uncertain": [by(lambda s, t, n: s / n**0.5)],
        **{"as the number": [by(lambda s, t, n: hypot(s, t) / n)], "the difference itself": [by(lambda s, t, n: 1)]},
        "2.06 is not": [by(lambda s, t, n: hypot(s, t) / (n - 1) ** 0.5)],
        "0.16 is not": [lambda a, s, b, t, n: hypot(s, t) / n**0.5],
    },
    Case(loud_enough, "one number, the factor on the logits", r"\b(2[3-9]\d|[34]\d\d)\b"): {
        **{None: [300, 256.0, 400], "the factor is positive": [0, -300]},
        **{"not yet more than half": [1, 10, 200], "survive already": [600, 1000, 1e5]},
    },
}
