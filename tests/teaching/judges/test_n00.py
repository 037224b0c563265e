"""The judges of notebook 00 accept every right answer, and say what is wrong with others without giving it away."""

import math
import re

import numpy as np
import pytest
import torch
from torch import nn

from convkit.norms import operator_norm
from convkit.operators.network import conv_operators
from convkit.teaching.judges import n00
from tests.teaching.judges import said, shown, spoken

NO_KERNELS = ["a", None, True, 1.0, [1, 2, 3], [[1, 2], [3, 4]], torch.ones(1, 1, 3, 3), [[math.nan] * 3] * 3, {1: 2}]
NO_KERNELS += [
    [[math.inf, 0, 0]] * 3,
    [["a"] * 3] * 3,
    [[1j, 0, 0]] * 3,
    torch.ones(3, 3, dtype=torch.bool),
    [[1], [2, 3], []],
]


def one(row: int, column: int, value: float = 1.0) -> list[list[float]]:
    """A kernel with one entry."""
    return [[value if (i, j) == (row, column) else 0.0 for j in range(3)] for i in range(3)]


# ---- the worked example --------------------------------------------------------------------------------------------
EDGES = [[0, 1, 0], [1, -4, 1], [0, 1, 0]]


@pytest.mark.parametrize(
    "kernel", [EDGES, tuple(map(tuple, EDGES)), np.array(EDGES), torch.tensor(EDGES), [[0.1, 0.2, -0.3]] * 3], ids=shown
)
def test_a_kernel_with_the_sum_zero_stops_constants(kernel):
    assert said(n00.stops_constants, kernel) is None


def test_another_sum_is_told():
    told = said(n00.stops_constants, [[0, 1, 0], [1, -3, 1], [0, 1, 0]])
    assert told == "an image of ones becomes 1 everywhere, not 0"


@pytest.mark.parametrize("kernel", NO_KERNELS, ids=shown)
@pytest.mark.parametrize("judge", [n00.stops_constants, n00.all_pass])
def test_what_is_no_kernel_is_told_in_words(judge, kernel):
    assert "three rows of three numbers" in str(said(judge, kernel))


# ---- exercise 1 ----------------------------------------------------------------------------------------------------
RIGHT_NORM = 10**-0.2
WRONG_NORMS = [
    *(1e-6, 1e-6 / 30, 1 / 30, 0.5, 0.6, 0.64, 0.62, 0.65, 0.7, 0.8, 0.9, 0.999, 1, 1.0, 1.585, 30, 1e6, 0, -0.2),
    *(-RIGHT_NORM, 1e-180, 1 - 1e-6, 1e-3, math.log(1e-6) / 30, 30 * math.log(1e-6), 1e300),
    *("0.63", "a", math.nan, math.inf, True, None, [0.63, 0.63], 1j, {0.63}, torch.ones(2), lambda: 0.63),
]


@pytest.mark.parametrize(
    "norm",
    [RIGHT_NORM, 0.63, 0.631, 1e-6 ** (1 / 30), np.float32(RIGHT_NORM), torch.tensor(RIGHT_NORM), [RIGHT_NORM]],
    ids=str,
)
def test_the_norm_of_thirty_layers_is_accepted(norm):
    assert said(n00.norm_of_thirty, norm) is None


@pytest.mark.parametrize("norm", WRONG_NORMS, ids=shown)
def test_another_norm_is_told_why(norm):
    assert said(n00.norm_of_thirty, norm) not in (None, "○")


def test_tempting_norms_have_sentences_of_their_own():
    assert len({said(n00.norm_of_thirty, norm) for norm in (1e-6, 1 / 30, 0.5, 0.8, 1, 0, -0.2)}) == 7


def test_nothing_said_about_the_norm_holds_its_answer():
    assert not re.search(r"\.63|\b0\.6\b|root|\*\*|\(1 / 30\)|10\^", spoken(n00.norm_of_thirty, WRONG_NORMS))


# ---- exercise 2 ----------------------------------------------------------------------------------------------------
RIGHT_KERNELS = [one(1, 2), one(0, 0), one(2, 1, -1.0), one(1, 1, -1.0), np.array(one(0, 2)), torch.tensor(one(2, 0))]
WRONG_KERNELS = [
    *(
        one(1, 1),
        one(0, 1, 2.0),
        one(0, 1, 0.5),
        one(1, 1, 0.0),
        EDGES,
        [[1 / 9] * 3] * 3,
        torch.eye(3),
        torch.ones(3, 3),
    ),
    *([[0, 0.5, 0], [0, 0.5, 0], [0, 0, 0]], [[0, 0, 0], [0, 1, 1], [0, 0, 0]], [[1, 2, 1], [2, 4, 2], [1, 2, 1]]),
    *([[0, 0, 0], [0, 0.6, 0.8], [0, 0, 0]], torch.eye(3) / 3, one(0, 1, 1.001), *NO_KERNELS),
]


@pytest.mark.parametrize("kernel", RIGHT_KERNELS, ids=shown)
def test_a_moved_image_loses_nothing(kernel):
    assert said(n00.all_pass, kernel) is None


@pytest.mark.parametrize("kernel", WRONG_KERNELS, ids=shown)
def test_other_kernels_are_told_why(kernel):
    assert said(n00.all_pass, kernel) not in (None, "○")


def test_tempting_kernels_have_sentences_of_their_own():
    kernels = (one(1, 1), one(0, 1, 2.0), one(1, 1, 0.0), [[0, 0, 0], [0, 0.6, 0.4], [0, 0, 0]], EDGES)
    assert len({said(n00.all_pass, kernel) for kernel in kernels}) == 5


def test_nothing_said_about_all_pass_kernels_holds_one():
    assert not re.search(r"shift|move|roll|\[\[|single|only one", spoken(n00.all_pass, WRONG_KERNELS))


# ---- exercise 3 ----------------------------------------------------------------------------------------------------
def largest(measure):
    """The function that names the layer where ``measure`` is largest."""

    def loudest(model, x):
        found = {name: float(measure(A)) for name, A in conv_operators(model.requires_grad_(False), x).items()}
        return max(found, key=found.__getitem__)

    return loudest


def by_hand(model, x):
    """Right without the library's norm: the dense matrices."""
    norms = {name: torch.linalg.svdvals(A.matrix())[0].item() for name, A in conv_operators(model, x).items()}
    return sorted(norms, key=lambda name: norms[name])[-1]


WRONG_MEASURES = {
    "flattened": lambda A: torch.linalg.matrix_norm(A.kernel.flatten(1), 2),
    "Frobenius of the kernel": lambda A: A.kernel.norm(),
    "Frobenius of the matrix": lambda A: torch.linalg.matrix_norm(A.matrix()),
    "largest entry": lambda A: A.kernel.abs().max(),
    "sum": lambda A: A.kernel.sum(),
    "sum of magnitudes": lambda A: A.kernel.abs().sum(),
    "number of entries": lambda A: A.kernel.numel(),
    "norm 1": lambda A: operator_norm(A, 1),
    "norm inf": lambda A: operator_norm(A, torch.inf),
    "norm on a torus": lambda A: operator_norm(A.torus(), 2),
    "the smallest norm": lambda A: -operator_norm(A, 2),
}
WRONG_FUNCTIONS = {
    **{name: largest(measure) for name, measure in WRONG_MEASURES.items()},
    "always the first": lambda model, x: "0",
    "always the second": lambda model, x: "1",
    "the last layer": lambda model, x: list(conv_operators(model, x))[-1],
    "a number": lambda model, x: int(by_hand(model, x)),
    "an unknown name": lambda model, x: "conv1",
    "nothing": lambda model, x: None,
    "the norm": lambda model, x: operator_norm(next(iter(conv_operators(model, x).values())), 2),
    "the layer": lambda model, x: model[0],
    "a list": lambda model, x: [by_hand(model, x)],
    "an error": lambda model, x: model.norm,
    "no function": "0",
    "one argument": lambda model: "0",
    "a class": nn.Conv2d,
}


@pytest.mark.parametrize("function", [largest(lambda A: operator_norm(A, 2)), by_hand])
def test_the_loudest_layer_is_named(function):
    assert said(n00.loudest, function) is None


@pytest.mark.parametrize("name", WRONG_FUNCTIONS)
def test_functions_that_name_another_layer_are_told(name):
    assert said(n00.loudest, WRONG_FUNCTIONS[name]) not in (None, "○")


def test_a_number_in_place_of_a_name_is_told_so():
    told = said(n00.loudest, WRONG_FUNCTIONS["a number"])
    assert told == "it returned the number 0; the name of that layer is the text '0'"


def test_a_blank_in_the_function_waits():
    assert said(n00.loudest, lambda model, x: ...) == "○"


def test_nothing_said_about_the_loudest_layer_holds_the_line_that_finds_it():
    assert not re.search(r"operator_norm\(|max\(|svdvals", spoken(n00.loudest, list(WRONG_FUNCTIONS.values())))
