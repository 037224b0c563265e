"""The judges of notebook 06 accept every right answer, and say what is wrong with others without giving it away."""

import math
import re

import numpy as np
import pytest
import torch

from convkit.teaching.judges import n06
from tests.teaching.judges import said, shown, spoken

NO_NUMBERS = ["a", "2", math.nan, math.inf, True, None, {2}, [], (1, 2), torch.ones(2), 1j]


# ---- the bet -------------------------------------------------------------------------------------------------------
WRONG_BETS = [1, 1.0, 0, -2, 0.5, 1.2, 1.69, 2.31, 3, 4, 4.0, 16, 1e9, *NO_NUMBERS]


@pytest.mark.parametrize("bet", [2, 1.7, 2.3, np.float32(2), torch.tensor(2), np.array([1.9])], ids=shown)
def test_a_bet_near_two_wins(bet):
    assert said(n06.bet, bet) is None


@pytest.mark.parametrize("bet", WRONG_BETS, ids=shown)
def test_other_bets_are_told_why(bet):
    assert said(n06.bet, bet)


def test_sentences_on_the_bet_do_not_name_it():
    assert not re.search(r"\b(2|two|1\.7|2\.3)\b", spoken(n06.bet, WRONG_BETS[:13]))


# ---- the blur ------------------------------------------------------------------------------------------------------
BLUR = [0.5, 0.25, 0, 0, 0, 0, 0, 0, 0.25]
DELTA = [1, 0, 0, 0, 0, 0, 0, 0, 0]
WRONG_BLURS = [
    *(
        BLUR,
        [1] * 9,
        [0] * 9,
        [0, 1, 0, 0, 0, 0, 0, 0, 0],
        [-1, *[0] * 8],
        [2, *[0] * 8],
        [1 / 3, 1 / 3, *[0] * 6, 1 / 3],
    ),
    *([1, 0, 0], [[1, 0, 0], [0, 0, 0], [0, 0, 0]], [math.nan] * 9, ["a"] * 9, "delta", 1, [1j, *[0] * 8]),
    torch.fft.ifft(1 / torch.fft.fft(torch.tensor(BLUR)).abs()).real,
    1 / torch.fft.fft(torch.tensor(BLUR)).abs(),
]


@pytest.mark.parametrize("kind", [list, tuple, np.array, torch.tensor, lambda g: torch.tensor(g).half()])
def test_the_identity_is_right_as_any_kind_of_list(kind):
    assert said(n06.blur, kind(DELTA)) is None


@pytest.mark.parametrize("g", WRONG_BLURS, ids=shown)
def test_other_kernels_are_told_why(g):
    assert said(n06.blur, g)


def test_no_sentence_on_the_blur_names_the_identity():
    assert not re.search(r"identity|itself is|1, 0|delta|single tap", spoken(n06.blur, WRONG_BLURS[:7]))


# ---- one channel in ------------------------------------------------------------------------------------------------
WRONG_NORMS = {
    "one to root": lambda c: (1, c**0.5),
    "one": lambda c: (1, 1),
    "to the number": lambda c: (c**0.5, c),
    "random": lambda c: (c**0.5, 1 + c**0.5),
    "swapped": lambda c: (c**0.5, 1),
    "zero": lambda c: (0, c**0.5),
    "one number": lambda c: c**0.5,
    "three": lambda c: (c**0.5,) * 3,
    "nan": lambda c: (math.nan, c**0.5),
    "text": lambda c: ("root", "root"),
    "right for three only": lambda c: (3**0.5, 3**0.5),
    "negative": lambda c: (-(c**0.5), c**0.5),
}


@pytest.mark.parametrize("kind", [tuple, list, np.array, torch.tensor])
def test_the_root_is_right_as_any_kind_of_pair(kind):
    assert said(n06.one_channel, lambda c: kind([c**0.5, c**0.5])) is None


@pytest.mark.parametrize("name", WRONG_NORMS)
def test_other_norms_are_told_why(name):
    assert said(n06.one_channel, WRONG_NORMS[name])


# ---- the inverse root ----------------------------------------------------------------------------------------------
def strengths(weight, n):
    return torch.fft.fft2(weight, s=(n, n)).abs()


WRONG_ROOTS = {
    "strength": lambda w, n: strengths(w, n).square().sum(1).sqrt(),
    "no root": lambda w, n: 1 / strengths(w, n).square().sum(1),
    "no square": lambda w, n: strengths(w, n).sum(1).rsqrt(),
    "no square, no root": lambda w, n: 1 / strengths(w, n).sum(1),
    "mean": lambda w, n: strengths(w, n).square().mean(1).rsqrt(),
    "over the outputs": lambda w, n: strengths(w, n).square().sum(0).rsqrt(),
    "no sum": lambda w, n: 1 / strengths(w, n),
    "complex": lambda w, n: torch.fft.fft2(w, s=(n, n)).sum(1),
    "not padded": lambda w, n: torch.fft.fft2(w).abs().square().sum(1).rsqrt(),
    "ones": lambda w, n: torch.ones(len(w), n, n),
    "nan": lambda w, n: torch.full((len(w), n, n), math.nan),
    "text": lambda w, n: "v",
    "twice": lambda w, n: 2 * strengths(w, n).square().sum(1).rsqrt(),
}


def test_the_inverse_root_is_right_in_either_precision():
    assert said(n06.inverse_root, lambda w, n: strengths(w, n).square().sum(1) ** -0.5) is None
    assert said(n06.inverse_root, lambda w, n: np.linalg.norm(np.fft.fft2(w, s=(n, n)), axis=1) ** -1.0) is None


@pytest.mark.parametrize("name", WRONG_ROOTS)
def test_other_roots_are_told_why(name):
    assert said(n06.inverse_root, WRONG_ROOTS[name])
