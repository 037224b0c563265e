"""Notebook 06: the bet on a jump, BatchNorm after a shorter kernel, test images, a bound that is kept."""

import math

import numpy as np
from torch.linalg import matrix_norm

from convkit.projections.clipping import alternating_projections, clip_and_crop, clip_singular_values, dykstra
from convkit.teaching.judges.n06 import bet, calm, images, kept, statistics
from tests.teaching.judges import Case


def needed(accuracy, gain):
    return accuracy * (100 - accuracy) * 9 / gain**2


def rescaled(layer, bound):
    return layer.kernel * min(1, bound / matrix_norm(layer.matrix(), 2))


CASES = {
    Case(bet, "one number, the largest norm", r"\b(5\.9|6\.7|7|8\.4|10)\b"): {
        **{
            None: [7, 5.9, 8.4, 6.69, 5, 10, 14],
            "a norm is positive": [0, -3],
            "one round leaves it above": [0.5, 0.7],
        },
        **{"the tempting belief": [4, 0.75, 0.9, 3.8, 4.13], "^it is more than that": [4.3, 4.9]},
        "^it is less than that": [14.1, 100, 1e9],
    },
    Case(statistics, "a number for each channel in both", r"(s|factor)\s*(\*\*|²|\^)|squared|twice"): {
        None: [lambda m, v, s: (s * m, s**2 * v)],
        "the order is wrong": [lambda m, v, s: (s**2 * v, s * m)],
        "these are the old statistics": [lambda m, v, s: (m, v)],
        "the wrong way": [lambda m, v, s: (m / s, s**2 * v), lambda m, v, s: (s * m, v / s**2)],
        "the mean is wrong": [lambda m, v, s: (m, s**2 * v), lambda m, v, s: (s**2 * m, v)],
        "it is a mean of squares": [lambda m, v, s: (s * m, s * v)],
        "how far do the outputs lie": [lambda m, v, s: (s * m, v), lambda m, v, s: (s * m, s**0.5 * v)],
        "a number for each channel in both": [lambda m, v, s: s * m, lambda *_: 0.25],
    },
    Case(images, "a function that gives one number"): {
        None: [needed, lambda a, g: math.ceil(needed(a, g)), lambda a, g: round(needed(a, g))],
        "is the whole gain": [lambda a, g: needed(a, g) / 9],
        "the difference of two accuracies": [lambda a, g: 2 * needed(a, g)],
        "do not mix them": [lambda a, g: needed(a, g) / 1e4, lambda a, g: needed(a, 0.01 * g)],
        "n stands under a root": [lambda a, g: 3 * (a * (100 - a)) ** 0.5 / g],
        "the gain has to be squared": [lambda a, g: needed(a, g) * g / 3],
        **{"it is too many": [lambda a, g: 900 * a / g**2], "it is too few": [lambda a, g: 360, lambda *_: 0]},
        "a function that gives one number": [lambda a, g: (a, g)],
    },
    Case(kept, "a kernel of finite numbers", "torus|dykstra|alternating"): {
        None: [lambda A, c: dykstra(A.torus(), c).kernel, lambda A, c: alternating_projections(A.torus(), c)],
        "it has to keep its 3 × 3 taps": [lambda A, c: clip_singular_values(A.torus(), c)],
        "one round is not enough": [lambda A, c: clip_and_crop(A.torus(), c)],
        "this layer has zero padding": [lambda A, c: alternating_projections(A.circular(), c)],
        "has norm 8.216 .* nothing has changed": [lambda A, c: A.kernel],
        "times as far as it must: a plain rescale": [rescaled, lambda A, c: 0 * A.kernel],
        "times as far as it must$": [lambda A, c: alternating_projections(A.torus(), c, rounds=1)],
        "its kernel has to stay": [
            lambda A, c: dykstra(A.torus(), c).kernel * max(1, 0.5 + 0.5 * c / matrix_norm(A.matrix(), 2))
        ],
        "norm 4.190 now, and the bound is 4.108$": [lambda A, c: 0.51 * A.kernel],
        "a kernel of finite numbers": [lambda A, c: A.kernel[0], lambda A, c: A.kernel.sum()],
    },
    Case(calm, "one number, the learning rate", r"0\.00[2-9]"): {
        **{
            None: [2**-7, np.float64(0.005)],
            "should be 0.001 or more": [0, -0.01, 1e-4],
            "at most 1 is meant": [2, 100],
        },
        "with this rate and seed 0": [0.1, 1],
    },
}
