"""Notebook 12: the bet on a bound, BatchNorm folded in, a bound in one line, two matrices that meet."""

import math

import torch
from torch.linalg import inv, svd

from convkit.teaching.judges.n12 import bet, bound_of, deep, fold, meet
from tests.teaching.judges import Case


def gain(w, v, eps):
    return w / (v + eps).sqrt()


def folded(gain, axis=0):
    """The function that multiplies the kernel by gain(weight, variance, eps) along an axis."""
    view = [-1 if i == axis else 1 for i in range(4)]
    return lambda kernel, norm: kernel * gain(norm.weight, norm.running_var, norm.eps).view(view)


def with_the_mean(kernel, norm):
    return folded(gain)(kernel, norm) - norm.running_mean.view(-1, 1, 1, 1)


def blocks(F):
    return math.prod(1 + b for b in F)


def left(A):
    return svd(A).U


def right(B):
    return svd(B).Vh.T


def turn(A, B):
    return right(B) @ left(A).T


def reflection(A, B):  # the mirror image that takes one direction to the other, and nothing more
    difference = left(A)[:, 0] - right(B)[:, 0]
    difference = difference / difference.norm()
    return torch.eye(len(A), dtype=A.dtype) - 2 * torch.outer(difference, difference)


CASES = {
    Case(bet, "one number, the powers of ten", r"\b(7|7\.4|8|six|seven|eight)\b"): {
        **{None: [7.4, 7, 8, 6.9], "the tempting belief": [0, 1, 2], "a slope would have been found above": [-1, -7.4]},
        **{"it is more than that": [3, 5, 6.3], "it is fewer than that": [8.5, 9]},
        "the steepest slope would be below 1": [9.6, 1e9],
    },
    Case(fold, "a kernel of (finite numbers|shape)"): {
        **{None: [folded(gain), torch.no_grad()(folded(gain))], "the weight alone": [folded(lambda w, v, e: w)]},
        **{"its own weight": [folded(lambda w, v, e: gain(1, v, e))], "multiplies rows": [folded(gain, 2)]},
        **{"the running variance is": [folded(lambda w, v, e: w / (v + e))], "multiplies columns": [folded(gain, 3)]},
        **{"eps is missing": [folded(lambda w, v, e: gain(w, v, 0))], "which axis of the kernel": [folded(gain, 1)]},
        "before the root": [folded(lambda w, v, e: w / (v.sqrt() + e))],
        **{"the mean moves the outputs": [with_the_mean], "turns the sign": [folded(lambda *of: gain(*of).abs())]},
        "compare the two on an image": [lambda kernel, norm: kernel],
        r"a kernel of shape \(3, 3, 3, 3\) is needed": [lambda kernel, norm: norm.weight],
    },
    Case(bound_of, "a function that gives one number"): {
        **{None: [lambda F, p: blocks(F) / p**0.5], "side by side": [lambda F, p: sum(1 + b for b in F) / p**0.5]},
        **{"the skip is missing": [lambda F, p: math.prod(F) / p**0.5], "the pooling": [lambda F, p: blocks(F)]},
        **{"bounds multiply": [lambda F, p: (1 + sum(F)) / p**0.5], "not larger": [lambda F, p: blocks(F) * p**0.5]},
        **{"is not 1/p": [lambda F, p: blocks(F) / p], "6.75 is not": [lambda F, p: (1 + max(F)) ** len(F) / p**0.5]},
    },
    Case(meet, "a matrix of finite numbers|a 5 × 5 matrix is needed"): {
        **{None: [turn, reflection], r"5 × 5 matrix is needed, got one of shape \(5,\)": [lambda A, B: left(A)[:, 0]]},
        **{"the other way round": [lambda A, B: turn(A, B).T], "left and right": [lambda A, B: right(A) @ left(B).T]},
        **{"reaches 57%": [lambda A, B: torch.eye(len(A))], "reaches 34%": [lambda A, B: right(B).flip(1) @ left(A).T]},
        "reaches 64%": [lambda A, B: turn(A, B) if len(A) == 5 else torch.eye(len(A))],
        "not orthogonal": [lambda A, B: inv(B) @ inv(A), lambda A, B: torch.outer(right(B)[:, 0], left(A)[:, 0])],
    },
    Case(deep, "one whole number, of matrices", r"\b1[34]\b|teen"): {
        **{None: [13, 14], "one matrix alone": [1, 0, -13], "so many are not needed": [101, 10**6]},
        **{"too few$": [2, 5, 12], "too many$": [15, 20], "one whole number": [13.5]},
    },
}
