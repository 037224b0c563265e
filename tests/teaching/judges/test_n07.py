"""The judges of notebook 07 accept every right answer, and say what is wrong with others without giving it away."""

import math
import re

import numpy as np
import pytest
import torch

from convkit.teaching.judges import n07
from tests.teaching.judges import said, shown, spoken

NO_NUMBERS = ["a", "90", math.nan, math.inf, True, None, {90}, [], (90, 80), torch.ones(2), 1j]


# ---- the bet -------------------------------------------------------------------------------------------------------
WRONG_BETS = [0, 0.0, -5, -90, 1, 10, 29.9, 100.1, 1e9, *NO_NUMBERS]


@pytest.mark.parametrize("bet", [30, 90, 100, 97.5, np.int64(60), torch.tensor(88.0)], ids=shown)
def test_a_large_bet_wins(bet):
    assert said(n07.bet, bet) is None


@pytest.mark.parametrize("bet", WRONG_BETS, ids=shown)
def test_other_bets_are_told_why(bet):
    assert said(n07.bet, bet)


def test_sentences_on_the_bet_do_not_name_it():
    assert not re.search(r"\b(30|90|98)\b", spoken(n07.bet, WRONG_BETS[:9]))


# ---- the projection ------------------------------------------------------------------------------------------------
def right_row(v, m, c):
    Pv = v - v.mean()
    return m + (c - len(v) * m**2) ** 0.5 * Pv / Pv.norm()


WRONG_ROWS = {
    "mean 0": lambda v, m, c: c**0.5 * (v - v.mean()) / (v - v.mean()).norm(),
    "too long": lambda v, m, c: m + c**0.5 * (v - v.mean()) / (v - v.mean()).norm(),
    "scaled last": lambda v, m, c: c**0.5 * (v - v.mean() + m) / (v - v.mean() + m).norm(),
    "not centered": lambda v, m, c: c**0.5 * v / v.norm(),
    "farthest": lambda v, m, c: 2 * m - right_row(v, m, c),
    "of another row": lambda v, m, c: right_row(v.flip(0), m, c),
    "unchanged": lambda v, m, c: v,
    "one number": lambda v, m, c: m,
    "a column": lambda v, m, c: right_row(v, m, c)[:, None],
    "nan": lambda v, m, c: v * math.nan,
    "n of one case": lambda v, m, c: m + (c - 12 * m**2) ** 0.5 * (v - v.mean()) / (v - v.mean()).norm(),
}


def test_the_nearest_row_is_right_as_tensor_array_and_list():
    for kind in (lambda u: u, lambda u: u.numpy(), lambda u: u.tolist()):
        assert said(n07.project, lambda v, m, c, kind=kind: kind(right_row(v, m, c))) is None


@pytest.mark.parametrize("name", WRONG_ROWS)
def test_other_rows_are_told_why(name):
    assert said(n07.project, WRONG_ROWS[name])


# ---- the rate ------------------------------------------------------------------------------------------------------
WRONG_RATES = {
    "one factor": lambda r: 0.1 * r / 2**0.5,
    "upside down": lambda r: 0.2 / r**2,
    "against norm 1": lambda r: 0.1 * r**2,
    "the same": lambda r: 0.1,
    "root": lambda r: 0.1 * r**0.5,
    "negative": lambda r: -0.05 * r**2,
    "text": lambda r: "0.1",
    "nan": lambda r: math.nan,
    "pair": lambda r: (0.1, r),
}


@pytest.mark.parametrize("kind", [float, np.float64, torch.tensor])
def test_the_square_of_the_length_is_right(kind):
    assert said(n07.rate, lambda r: kind(0.05 * r**2)) is None


@pytest.mark.parametrize("name", WRONG_RATES)
def test_other_rates_are_told_why(name):
    assert said(n07.rate, WRONG_RATES[name])


def test_no_sentence_on_the_rate_has_the_formula():
    assert not re.search(r"r\s*(\*\*|²|\^)\s*2?\s*/\s*2|0\.05", spoken(n07.rate, list(WRONG_RATES.values())))


# ---- the constant --------------------------------------------------------------------------------------------------
WRONG_CONSTANTS = {
    "the square": lambda a: 2 / (1 + a**2),
    "of the ReLU": lambda a: 2 / (1 - 1 / math.pi),
    "two": lambda a: 2,
    "the mean of the ReLU": lambda a: 2 / (1 + a**2 - 1 / math.pi),
    "the mean alone": lambda a: 1 / (1 + a),
    "right for a = 0 and 1": lambda a: 2 / (1 + a - (1 - a) / math.pi),
    "text": lambda a: "c",
    "nan": lambda a: math.nan,
}


def test_the_constant_of_a_leaky_relu_is_right():
    assert said(n07.constant, lambda a: 2 / (1 + a**2 - (1 - a) ** 2 / math.pi)) is None


@pytest.mark.parametrize("name", WRONG_CONSTANTS)
def test_other_constants_are_told_why(name):
    assert said(n07.constant, WRONG_CONSTANTS[name])


# ---- the table -----------------------------------------------------------------------------------------------------
RIGHT_CASES = [("CIFAR-10", "center", 0.0), ("CIFAR-10", "sphere", 0.0), ("CIFAR-10", "sphere", 1.0)]
WRONG_CASES = [
    *([], RIGHT_CASES[:2], [*RIGHT_CASES, ("CIFAR-10", "center", 1.0)], [("CIFAR-100", "sphere", 0)], "CIFAR-10", 3),
    *([("CIFAR-10", "both", 0.0)], [("MNIST", "center", 0.0)], [("CIFAR-10", "center")], [1, 2, 3], ["abc"], None),
    *([("CIFAR-10", "center", 0.5)], [("CIFAR-10", "center", "0")], math.nan, [(0.0, "center", "CIFAR-10")]),
]


@pytest.mark.parametrize("kind", [set, list, tuple, frozenset])
def test_three_cases_are_right_as_any_collection(kind):
    assert said(n07.worse, kind(RIGHT_CASES)) is None
    assert said(n07.worse, kind((name, what, int(sigma)) for name, what, sigma in RIGHT_CASES)) is None


def test_cases_may_be_lists():
    assert said(n07.worse, [list(case) for case in RIGHT_CASES]) is None


@pytest.mark.parametrize("cases", WRONG_CASES, ids=shown)
def test_other_cases_are_told_why(cases):
    assert said(n07.worse, cases)


def test_no_sentence_counts_the_cases_that_are_missing():
    assert not re.search(r"\b(2|3|two|three) ", spoken(n07.worse, WRONG_CASES[:2]))
