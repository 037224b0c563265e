"""The judges of notebook 08 accept every right answer, and say what is wrong with others without giving it away."""

import math
import re

import numpy as np
import pytest
import torch

from convkit.teaching.judges import n08
from tests.teaching.judges import said, shown, spoken

NO_NUMBERS = ["a", "1.6", math.nan, math.inf, True, None, {1}, [], (1, 2), torch.ones(2), 1j]


# ---- the bet -------------------------------------------------------------------------------------------------------
WRONG_BETS = [100, 91, 50, 11.1, 100 / 9, 2, 5, 0, 0.1, 0.0156, -1.5, 150, 1e9, *NO_NUMBERS]


@pytest.mark.parametrize("bet", [100 / 64, 1, 1.9, np.float32(1.5), torch.tensor(1.6)], ids=shown)
def test_a_bet_near_one_row_wins(bet):
    assert said(n08.bet, bet) is None


@pytest.mark.parametrize("bet", WRONG_BETS, ids=shown)
def test_other_bets_are_told_why(bet):
    assert said(n08.bet, bet)


def test_sentences_on_the_bet_do_not_name_it():
    assert not re.search(r"1\.5|1\.6|/ 64|one of 64|2 percent", spoken(n08.bet, WRONG_BETS[:13]))


# ---- the count -----------------------------------------------------------------------------------------------------
def right_count(ord, c_out, c_in, k, stride):
    return c_in * k**2 if ord == math.inf else c_out * (-(-k // stride)) ** 2


WRONG_COUNTS = {
    "all": lambda ord, c_out, c_in, k, stride: c_out * c_in * k**2,
    "swapped": lambda ord, c_out, c_in, k, stride: right_count(ord, c_in, c_out, k, stride),
    "no stride": lambda ord, c_out, c_in, k, stride: (c_in if ord == math.inf else c_out) * k**2,
    "floor": lambda ord, c_out, c_in, k, stride: c_in * k**2 if ord == math.inf else c_out * (k // stride) ** 2,
    "stride in both": lambda ord, c_out, c_in, k, stride: (c_in if ord == math.inf else c_out) * (-(-k // stride)) ** 2,
    "one way": lambda ord, c_out, c_in, k, stride: c_in * k**2 if ord == math.inf else c_out * -(-k // stride),
    "one": lambda *_: 1,
    "nan": lambda *_: math.nan,
    "text": lambda *_: "27",
    "pair": lambda *_: (27, 36),
    "too few": lambda ord: 27,
}


@pytest.mark.parametrize("kind", [int, float, np.int64, torch.tensor])
def test_the_count_is_right_as_any_kind_of_number(kind):
    assert said(n08.count, lambda *case: kind(right_count(*case))) is None


@pytest.mark.parametrize("name", WRONG_COUNTS)
def test_other_counts_are_told_why(name):
    assert said(n08.count, WRONG_COUNTS[name])


def test_no_sentence_gives_a_right_count():
    assert not re.search(r"\b(27|36|16|20)\b", spoken(n08.count, [WRONG_COUNTS["one"], WRONG_COUNTS["all"]]))


# ---- the momentum that replaces ------------------------------------------------------------------------------------
WRONG_STRENGTHS = {
    "one": lambda gamma, k: 1,
    "the limit": lambda gamma, k: 1 / (1 - gamma),
    "all": lambda gamma, k: k,
    "the average": lambda gamma, k: 1 - gamma**k,
    "one power more": lambda gamma, k: (1 - gamma ** (k + 1)) / (1 - gamma),
    "text": lambda gamma, k: "2",
    "nan": lambda gamma, k: math.nan,
}


@pytest.mark.parametrize("kind", [float, np.float64, torch.tensor])
def test_the_geometric_sum_is_right(kind):
    assert said(n08.strength, lambda gamma, k: kind(sum(gamma**j for j in range(k)))) is None


@pytest.mark.parametrize("name", WRONG_STRENGTHS)
def test_other_strengths_are_told_why(name):
    assert said(n08.strength, WRONG_STRENGTHS[name])


# ---- the best of four ----------------------------------------------------------------------------------------------
WRONG_GAINS = [0, 0.01, 0.3, 1.03, 1.02, 0.17, 0.25, 0.2, 0.5, 3, -0.31, 31, *NO_NUMBERS]


@pytest.mark.parametrize("gain", [0.309, 0.31, 0.305, np.float64(0.3088), torch.tensor(0.309)], ids=shown)
def test_the_mean_of_the_best_of_four_is_right(gain):
    assert said(n08.gain, gain) is None


@pytest.mark.parametrize("gain", WRONG_GAINS, ids=shown)
def test_other_gains_are_told_why(gain):
    assert said(n08.gain, gain)


def test_no_sentence_gives_the_mean():
    assert not re.search(r"0\.31|0\.309|1\.03", spoken(n08.gain, WRONG_GAINS[:12]))
