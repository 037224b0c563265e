"""Notebook 00: no constant images, thirty equal layers, an all-pass kernel, the loudest layer."""

import math

import torch
from torch import nn
from torch.linalg import matrix_norm

from convkit.norms import operator_norm
from convkit.operators.network import conv_operators
from convkit.teaching.judges.n00 import all_pass, loudest, norm_of_thirty, stops_constants
from tests.teaching.judges import Case

EDGES = [[0, 1, 0], [1, -4, 1], [0, 1, 0]]
ROWS = "three rows of three numbers, got"
NO_KERNELS = [[1, 2, 3], [[1, 2], [3, 4]], torch.ones(1, 1, 3, 3)]
ONES, EYE = torch.ones(3, 3), torch.eye(3)
NORM = 10**-0.2  # of each of the thirty layers


def one(row, column, value=1.0):
    return value * torch.outer(EYE[row], EYE[column])


MIX = one(1, 1, 0.6) + one(1, 2, 0.4)


def largest(measure):
    """The function that names the layer where ``measure`` is largest."""

    def loudest(model, x):
        found = {name: float(measure(A)) for name, A in conv_operators(model.requires_grad_(False), x).items()}
        return max(found, key=found.__getitem__)

    return loudest


right = largest(lambda A: operator_norm(A, 2))
CASES = {
    Case(stops_constants, ROWS): {
        **{None: [EDGES, [[0.1, 0.2, -0.3]] * 3], ROWS: NO_KERNELS},
        "^an image of ones becomes 1 everywhere, not 0$": [[[0, 1, 0], [1, -3, 1], [0, 1, 0]]],
    },
    Case(norm_of_thirty, "one number, the norm of each layer", r"\.63|\b0\.6\b|root|\*\*|\(1 / 30\)|10\^"): {
        **{None: [NORM, 0.63, 0.631, 1e-6 ** (1 / 30)], "a single layer": [1e-6, 1e-6 / 30, 1e-180]},
        **{"share out a sum": [1 / 30], "too little": [0.5, 0.6, 0.62, 1e-3], "nothing at all": [0]},
        **{"too much": [0.64, 0.65, 0.7, 0.8, 0.9, 0.999, 1 - 1e-6], "gets smaller": [1, 1.585, 30, 1e6, 1e300]},
        "never negative": [-0.2, -NORM, math.log(1e-6) / 30, 30 * math.log(1e-6)],
    },
    Case(all_pass, ROWS, r"shift|move|roll|\[\[|single|only one"): {
        **{None: [one(1, 2), one(0, 0), one(2, 1, -1.0), one(1, 1, -1.0), one(0, 2), one(2, 0)], ROWS: NO_KERNELS},
        "all should be 1": [EDGES, EYE, ONES, one(1, 1) + one(1, 2), MIX + one(1, 2, 0.4)],
        **{"this is the identity": [one(1, 1)], "into zero": [one(1, 1, 0.0)]},
        "values are equal": [one(0, 1, 2.0), one(0, 1, 0.5), one(0, 1, 1.001)],
        "some wave becomes weaker": [ONES / 9, EYE / 3, (one(0, 1) + one(1, 1)) / 2, MIX],
    },
    Case(loudest, secret=r"operator_norm\(|max\(|svdvals"): {
        **{None: [right], "this needs a function": ["0"]},
        **{"two layers come close": [largest(lambda A: operator_norm(A.torus(), 2))], "cannot be judged": [nn.Conv2d]},
        "^it returned the number 0; the name of that layer is the text '0'$": [lambda *of: int(right(*of))],
        "here one of '0', '1', not 'conv1'": [lambda model, x: "conv1"],
        "not an object of type Tensor": [lambda model, x: model[0].weight.norm()],
        **{"not an object of type Conv2d": [lambda model, x: model[0]], r"not \['0'\]": [lambda *of: [right(*of)]]},
        "doubles every image": [
            *map(largest, (lambda A: matrix_norm(A.kernel.flatten(1), 2), lambda A: matrix_norm(A.matrix()))),
            *map(largest, (lambda A: A.kernel.norm(), lambda A: A.kernel.abs().max(), lambda A: -operator_norm(A, 2))),
            *(lambda model, x, place=place: list(conv_operators(model, x))[place] for place in (0, 1, -1)),
        ],
        "more entries, or with larger sums": [
            *map(largest, (lambda A: A.kernel.sum(), lambda A: A.kernel.abs().sum(), lambda A: A.kernel.numel())),
            *(largest(lambda A, ord=ord: operator_norm(A, ord)) for ord in (1, torch.inf)),
        ],
    },
}
