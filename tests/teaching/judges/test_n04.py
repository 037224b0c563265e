"""Notebook 04: each judge takes every right answer, tells each wrong one in a sentence, and keeps the answer."""

import math
from fractions import Fraction

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from convkit.teaching.judges import n04
from tests.teaching.judges import said, spoken

# ---- the bet -------------------------------------------------------------------------------------------------------
WRONG_BETS = [
    (9, "the tempting answer"),
    (9.0, "the tempting answer"),
    (9 / 4, "an average pixel"),
    (1, "stride 3"),
    (2, "right along one axis"),
    (3, "a stride of 1"),
    (81, "the square"),
    (0, "draw the windows"),
    (6, "draw the windows"),
    (5, "draw the windows"),
    (4.5, "a whole number"),
    (-4, "never negative"),
    (18, "no pixel has as many windows"),
    (1e9, "no pixel has as many windows"),
    (math.nan, "one number, the largest column sum"),
    (math.inf, "one number, the largest column sum"),
    ("4", "one number, the largest column sum"),
    ("a", "one number, the largest column sum"),
    (True, "one number, the largest column sum"),
    (None, "one number, the largest column sum"),
    ((2, 2), "one number, the largest column sum"),
    (4 + 0j, "one number, the largest column sum"),
    (len, "one number, the largest column sum"),
]


@pytest.mark.parametrize("answer", [4, 4.0, Fraction(4), np.int8(4), torch.tensor(4), torch.tensor([4.0]), [4]])
def test_the_bet_is_right_as_any_number(answer):
    assert said(n04.bet, answer) is None


@pytest.mark.parametrize("answer, sentence", WRONG_BETS, ids=[repr(answer) for answer, _ in WRONG_BETS])
def test_another_bet_is_told_in_a_sentence(answer, sentence):
    assert sentence in said(n04.bet, answer)


def test_nothing_that_is_said_to_a_lost_bet_tells_the_answer():
    words = spoken(n04.bet, [answer for answer, _ in WRONG_BETS])
    assert "4" not in words
    assert "four" not in words.lower()


# ---- the fair blur -------------------------------------------------------------------------------------------------
BINOMIAL = [[1 / 16, 1 / 8, 1 / 16], [1 / 8, 1 / 4, 1 / 8], [1 / 16, 1 / 8, 1 / 16]]
RIGHT_BLURS = [
    *(BINOMIAL, np.array(BINOMIAL), torch.tensor(BINOMIAL), torch.tensor(BINOMIAL).double()),
    [[0.25, 0.25, 0], [0.25, 0.25, 0], [0, 0, 0]],
    [[0.1, 0.2, 0.15], [0.25, 0.25, 0], [0, 0.05, 0]],
]
NINTHS = [[1 / 9] * 3] * 3
WRONG_BLURS = [
    (NINTHS, "nine equal taps are unfair: the class that begins at tap (0, 0) adds up to 0.444"),
    ([[0, 0, 0], [0, 1, 0], [0, 0, 0]], "the class that begins at tap (1, 1) adds up to 1.000"),
    ([[0, 0.5, 0], [0, 0.5, 0], [0, 0, 0]], "this can be made smaller"),
    ([[0.25, 0, 0.25], [0, 0, 0], [0.25, 0, 0.25]], "the class that begins at tap (0, 0)"),
    ([[1, 2, 1], [2, 4, 2], [1, 2, 1]], "must add up to 1, and these add up to 16.000"),
    ([[0, 0, 0]] * 3, "must add up to 1, and these add up to 0.000"),
    ([[-0.25, 0.25, 0.5], [0.25, 0.25, 0], [0, 0, 0]], "no negative taps"),
    ([[1 / 9] * 9], "3 × 3 taps are needed, got shape (1, 9)"),
    ([1 / 9] * 9, "3 × 3 taps are needed, got shape (9,)"),
    (torch.full((1, 1, 3, 3), 1 / 9), "3 × 3 taps are needed"),
    (1 / 9, "3 × 3 taps are needed"),
    ([[math.nan] * 3] * 3, "3 × 3 numbers"),
    ([[math.inf] * 3] * 3, "3 × 3 numbers"),
    ([["a"] * 3] * 3, "3 × 3 numbers"),
    ([[True] * 3] * 3, "3 × 3 numbers"),
    ([[1 / 9] * 3, [1 / 9] * 2, [1 / 9] * 3], "3 × 3 numbers"),
    ("fair", "3 × 3 numbers"),
    (None, "3 × 3 numbers"),
]


@pytest.mark.parametrize("answer", RIGHT_BLURS, ids=range(len(RIGHT_BLURS)))
def test_every_fair_blur_is_taken(answer):
    assert said(n04.fair, answer) is None


@pytest.mark.parametrize("answer, sentence", WRONG_BLURS, ids=range(len(WRONG_BLURS)))
def test_other_blurs_are_told_what_is_wrong(answer, sentence):
    assert sentence in said(n04.fair, answer)


def test_nothing_that_is_said_to_a_blur_is_a_fair_one():
    words = spoken(n04.fair, [answer for answer, _ in WRONG_BLURS])
    for piece in ("0.25", "1/4", "1/16", "quarter", "binomial", "1, 2, 1"):
        assert piece not in words


# ---- the norm 1 in two lines ---------------------------------------------------------------------------------------
def right_norm(kernel, image, stride, padding, maximum=lambda sums: sums.max()):
    outputs = [(n + 2 * p - k) // s + 1 for n, k, s, p in zip(image, kernel.shape[2:], stride, padding, strict=True)]
    ones = torch.ones(1, len(kernel), *outputs)
    return maximum(F.conv_transpose2d(ones, kernel.abs(), stride=stride, padding=padding))


def row_sums(kernel, image, stride, padding):
    return F.conv2d(torch.ones(1, kernel.shape[1], *image), kernel.abs(), stride=stride, padding=padding)


def signed(kernel, image, stride, padding):
    outputs = F.conv2d(torch.ones(1, kernel.shape[1], *image), kernel, stride=stride, padding=padding).shape[2:]
    return F.conv_transpose2d(torch.ones(1, len(kernel), *outputs), kernel, stride=stride, padding=padding)


def as_large_as_the_image(kernel, image, stride, padding):
    full = F.conv_transpose2d(torch.ones(1, len(kernel), *image), kernel.abs(), stride=stride, padding=padding)
    return full[..., : image[0], : image[1]].max()


RIGHT_NORMS = {
    "a tensor": right_norm,
    "a float": lambda *args: right_norm(*args).item(),
    "a tensor of one entry": lambda *args: right_norm(*args).reshape(1, 1),
    "float64": lambda kernel, *args: right_norm(kernel, *args).double(),
    "NumPy": lambda *args: right_norm(*args).numpy(),
}
WRONG_NORMS = {
    "rows": (lambda *args: row_sums(*args).max(), "the norm ∞"),
    "signed": (lambda *args: signed(*args).max(), "signs of the taps cancel"),
    "absolute too late": (lambda *args: signed(*args).abs().max(), "signs of the taps cancel"),
    "sum of all": (lambda *args: right_norm(*args, torch.sum), "adds up all columns"),
    "taps of a channel": (lambda kernel, *_: kernel.abs().sum((0, 2, 3)).max(), "where is the stride?"),
    "all taps": (lambda kernel, *_: kernel.abs().sum(), "a pixel has one channel"),
    "largest tap": (lambda kernel, *_: kernel.abs().max(), "the largest entry"),
    "image": (lambda *args: right_norm(*args, lambda sums: sums), "one number: the largest"),
    "pair": (lambda *args: (1.0, 2.0), "one number, the norm 1"),
    "as large as the image": (as_large_as_the_image, "how many outputs are there?"),
    "zero": (lambda *args: 0.0, "the norm 1 is"),
    "negative": (lambda *args: -right_norm(*args), "the norm 1 is"),
    "twice": (lambda *args: 2 * right_norm(*args), "the norm 1 is"),
    "nan": (lambda *args: math.nan, "one number, the norm 1"),
    "inf": (lambda *args: torch.tensor(math.inf), "one number, the norm 1"),
    "text": (lambda *args: "a", "one number, the norm 1"),
    "None": (lambda *args: None, "one number, the norm 1"),
    "True": (lambda *args: True, "one number, the norm 1"),
    "raises": (lambda *args: args[9], "your function raised"),
    "few arguments": (lambda kernel: 0, "your function raised"),
    "small only": (
        lambda kernel, image, *args: right_norm(kernel, image, *args) if max(image) > 3 else 0.0,
        "how many outputs are there?",
    ),
}


@pytest.mark.parametrize("answer", RIGHT_NORMS.values(), ids=RIGHT_NORMS)
def test_every_way_to_return_the_norm_is_taken(answer):
    assert said(n04.norm_1, answer) is None


@pytest.mark.parametrize("answer, sentence", WRONG_NORMS.values(), ids=WRONG_NORMS)
def test_wrong_norms_are_told_what_is_wrong(answer, sentence):
    assert sentence in said(n04.norm_1, answer)


@pytest.mark.parametrize("answer", [lambda *args: ..., lambda kernel, *args: kernel + ...])
def test_a_blank_norm_is_waited_for(answer):
    assert said(n04.norm_1, answer) == "○"


def test_what_is_no_function_is_told():
    assert said(n04.norm_1, torch.ones(3))


def test_nothing_that_is_said_to_a_norm_is_the_program():
    words = spoken(n04.norm_1, [answer for answer, _ in WRONG_NORMS.values()])
    for piece in (".max()", "kernel.abs()", "2 * p", "// s", "torch.ones("):
        assert piece not in words


# ---- signs ---------------------------------------------------------------------------------------------------------
GOOD = [[1, 1, -1], [1, 1, -1], [-1, -1, 1]]
RIGHT_SIGNS = [GOOD, np.array(GOOD), torch.tensor(GOOD), torch.tensor(GOOD).float(), tuple(map(tuple, GOOD))]
WRONG_SIGNS = [
    ([[1] * 3] * 3, "exact: a constant image"),
    ([[-1] * 3] * 3, "exact: a constant image"),
    ([[1, -1, 1], [-1, 1, -1], [1, -1, 1]], "stripes or a chessboard"),
    ([[1, -1, 1]] * 3, "stripes or a chessboard"),
    ([[1, 1, 1], [-1, -1, -1], [1, 1, 1]], "stripes or a chessboard"),
    ([[1, 1, 1], [1, 1, 1], [1, 1, -1]], "the ratio is 1."),
    ([[1, 1, -1]] * 3, "the ratio is 1."),
    ([[0] * 3] * 3, "each +1 or -1"),
    ([[1, 1, 2]] * 3, "each +1 or -1"),
    ([[1, 1, 0.5]] * 3, "each +1 or -1"),
    ([1, 1, -1], "each +1 or -1"),
    ([[1, 1, -1, 1]] * 4, "each +1 or -1"),
    (torch.tensor(GOOD)[None, None], "each +1 or -1"),
    (1, "each +1 or -1"),
    ([[math.nan] * 3] * 3, "each +1 or -1"),
    ([[math.inf] * 3] * 3, "each +1 or -1"),
    ([["+"] * 3] * 3, "each +1 or -1"),
    ([[True, True, False]] * 3, "each +1 or -1"),
    ("++-++---+", "each +1 or -1"),
    (None, "each +1 or -1"),
    ([[1, 1, -1], [1, 1], [1]], "each +1 or -1"),
]


@pytest.mark.parametrize("answer", RIGHT_SIGNS, ids=range(len(RIGHT_SIGNS)))
def test_signs_without_a_rhythm_are_taken(answer):
    assert said(n04.signs, answer) is None


@pytest.mark.parametrize("answer, sentence", WRONG_SIGNS, ids=range(len(WRONG_SIGNS)))
def test_other_signs_are_told_what_is_wrong(answer, sentence):
    assert sentence in said(n04.signs, answer)


def test_nothing_that_is_said_to_signs_writes_them_down():
    words = spoken(n04.signs, [answer for answer, _ in WRONG_SIGNS]).replace(" ", "")
    for piece in ("1,1,-1", "++-", "1,-1,1"):
        assert piece not in words
