"""Notebook 03: each judge takes every right answer, tells each wrong one in a sentence, and keeps the answer."""

import math

import numpy as np
import pytest
import torch

from convkit.teaching.judges import n03
from tests.teaching.judges import said, shown, spoken

# ---- the bet -------------------------------------------------------------------------------------------------------
WRONG_BETS = ["smaller", "equal", " EQUAL ", "'smaller'", "bigger", "", 3, 3.414, None, True, math.nan, ["larger"], len]


@pytest.mark.parametrize("answer", ["larger", "Larger", " larger ", "'larger'"])
def test_the_bet_is_right_however_it_is_written(answer):
    assert said(n03.bet, answer) is None


@pytest.mark.parametrize("answer", WRONG_BETS, ids=shown)
def test_another_bet_is_told_in_a_sentence(answer):
    told = said(n03.bet, answer)
    assert told
    assert "cannot be judged" not in told
    assert "Error" not in told


def test_nothing_that_is_said_to_a_lost_bet_tells_the_answer():
    words = spoken(n03.bet, ["smaller", "equal"])
    assert "larger" not in words
    assert "3.4" not in words


# ---- a kernel ------------------------------------------------------------------------------------------------------
RIGHT_KERNELS = [
    *(([1, -1], 5), ((1.0, -1.0), 5.0), (np.array([1, -1]), np.int64(7)), (torch.tensor([2.0, -2.0]), torch.tensor(3))),
    *(([1e-9, -1e-9], 5), ([1e200, -1e200], 5), ([0, 1, -1], 5), ([1, -2, 1.5], 5), ([1, -1, 1], 5)),
    *(([2, -3, 1], 5), ([1, -1, 1, -1], 5), ([-1, 1], 99)),
]
WRONG_KERNELS = [
    (([1, -1], 1), "at least as many pixels as taps (2)"),
    (([1, 0, -1, 1, 1], 4), "at least as many pixels as taps (5)"),
    (([1, -1], 0), "at least as many pixels"),
    (([1, -1], -5), "at least as many pixels"),
    (([1, -1], 10**9), "at most 100"),
    (([1, -1], 5.5), "a whole number of pixels"),
    (([1, -1], math.nan), "a whole number of pixels"),
    (([1, -1], "5"), "a whole number of pixels"),
    (([1, -1], True), "a whole number of pixels"),
    (([1, -1], None), "a whole number of pixels"),
    (([math.nan, 1], 5), "a list of 2 to 5 numbers"),
    (([math.inf, 1], 5), "a list of 2 to 5 numbers"),
    ((["a", 1], 5), "a list of 2 to 5 numbers"),
    (("1, -1", 5), "a list of 2 to 5 numbers"),
    (([1j, 1], 5), "a list of 2 to 5 numbers"),
    (({1, -1}, 5), "a list of 2 to 5 numbers"),
    ((1, 5), "a list of 2 to 5 taps"),
    (([1], 5), "a list of 2 to 5 taps"),
    (([], 5), "a list of 2 to 5 numbers"),
    (([1, -1, 1, -1, 1, -1], 9), "a list of 2 to 5 taps"),
    (([[1, -1]], 5), "a list of 2 to 5 taps"),
    (([0, 0], 5), "a kernel of zeros"),
    (([1, -2, 1], 3), "a multiple of [1, -2, 1]"),
    (([-2, 4, -2], 5), "a multiple of [1, -2, 1]"),
    (([0, 1, -2, 1, 0], 5), "a multiple of [1, -2, 1]"),
    (([1e-30, -2e-30, 1e-30], 5), "a multiple of [1, -2, 1]"),
    (([1, 2, 1], 5), "the top of this symbol lies at frequency 0"),
    (([-1, -1], 5), "the top of this symbol lies at frequency 0"),
    (([0, 0, 1], 5), "a single tap only moves the image"),
    (([1, -1], 6), "a bound. Another n may miss the top"),
]


@pytest.mark.parametrize("answer", RIGHT_KERNELS, ids=shown)
def test_every_kernel_that_breaks_the_rule_is_taken(answer):
    assert said(n03.kernel, answer) is None


@pytest.mark.parametrize("answer, sentence", WRONG_KERNELS, ids=[repr(answer) for answer, _ in WRONG_KERNELS])
def test_other_kernels_are_told_what_is_wrong(answer, sentence):
    assert sentence in said(n03.kernel, answer)


def test_a_kernel_that_is_half_given_is_waited_for():
    assert said(n03.kernel, ([1, -1], ...)) == "○"
    assert said(n03.kernel, (..., 5)) == "○"


def test_nothing_that_is_said_to_a_kernel_is_a_kernel_that_breaks_the_rule():
    words = spoken(n03.kernel, [answer for answer, _ in WRONG_KERNELS]).replace(" ", "")
    assert "1,-1" not in words.replace("[1,-2,1]", "")


# ---- a stride ------------------------------------------------------------------------------------------------------
def right_stride(H):
    first, second = H.reshape(2, -1)
    return ((first.abs() ** 2 + second.abs() ** 2) / 2).sqrt()


def by_svd(H):
    return torch.linalg.svdvals(H.reshape(2, -1).T[:, None] / 2**0.5)


def parts(H):
    return H[: len(H) // 2], H[len(H) // 2 :]


RIGHT_STRIDES = {
    "the root mean square": right_stride,
    "svdvals of rows, shape (n/2, 1)": by_svd,
    "sorted": lambda H: right_stride(H).sort().values,
    "NumPy": lambda H: right_stride(H).numpy(),
    "a list": lambda H: right_stride(H).tolist(),
    "float32": lambda H: right_stride(H).float(),
    "it may change its argument": lambda H: right_stride(H.mul_(1)),
}
WRONG_STRIDES = {
    "no factor": (lambda H: 2**0.5 * right_stride(H), "too large by one factor"),
    "a factor 2 too large": (lambda H: 2 * right_stride(H), "too large by one factor"),
    "1/2": (lambda H: right_stride(H) / 2**0.5, "too small by one factor"),
    "sum": (lambda H: sum(parts(H)).abs() / 2**0.5, "the two numbers are not added"),
    "mean": (lambda H: sum(parts(H)).abs() / 2, "the two numbers are not added"),
    "mean of magnitudes": (lambda H: sum(parts(H.abs())) / 2, "the two magnitudes are not added"),
    "larger": (lambda H: torch.maximum(*parts(H.abs())), "the larger of the two is not all"),
    "first half": (lambda H: parts(H)[0].abs(), "half of the frequencies are dropped"),
    "every second": (lambda H: H[::2].abs(), "half of the frequencies are dropped"),
    "neighbors": (
        lambda H: ((H[::2].abs() ** 2 + H[1::2].abs() ** 2) / 2).sqrt(),
        "neighbors are paired",
    ),
    "squares": (lambda H: right_stride(H) ** 2, "squares of singular values"),
    "complex": (lambda H: H[: len(H) // 2], "complex"),
    "all n": (lambda H: H.abs(), "12 frequencies fold onto 6"),
    "one": (lambda H: H.abs().max(), "12 frequencies fold onto 6"),
    "zeros": (lambda H: torch.zeros(len(H) // 2), "not the right ones"),
    "negative": (lambda H: -right_stride(H), "not the right ones"),
    "nan": (lambda H: right_stride(H) * math.nan, "6 singular values"),
    "text": (lambda H: "a", "6 singular values"),
    "None": (lambda H: None, "6 singular values"),
    "six always": (lambda H: right_stride(H) if len(H) == 12 else torch.zeros(6), "10 frequencies fold onto 5"),
    "raises": (lambda H: H[99], "your function raised"),
}


@pytest.mark.parametrize("answer", RIGHT_STRIDES.values(), ids=RIGHT_STRIDES)
def test_every_way_to_compute_the_strided_values_is_taken(answer):
    assert said(n03.stride, answer) is None


@pytest.mark.parametrize("answer, sentence", WRONG_STRIDES.values(), ids=WRONG_STRIDES)
def test_wrong_strided_values_are_told_what_is_wrong(answer, sentence):
    assert sentence in said(n03.stride, answer)


@pytest.mark.parametrize("answer", [lambda H: ..., lambda H: H + ...])
def test_a_blank_stride_is_waited_for(answer):
    assert said(n03.stride, answer) == "○"


def test_what_is_no_function_is_told():
    assert said(n03.stride, 3)


def test_nothing_that_is_said_to_a_stride_is_the_formula():
    words = spoken(n03.stride, [answer for answer, _ in WRONG_STRIDES.values()])
    for formula in ("√2", "sqrt", "n/2", "n / 2", "root mean square", "2**0.5", "A(g"):
        assert formula not in words


# ---- dilations -----------------------------------------------------------------------------------------------------
RIGHT_DILATIONS = [
    *([1, 5, 7, 11], (11, 7, 5, 1), {1, 5, 7, 11}, [1.0, 5, 7, 11], np.array([1, 5, 7, 11])),
    *(torch.tensor([1, 5, 7, 11]), [1, 5, 7, 11, 11], frozenset({1, 5, 7, 11})),
]
WRONG_DILATIONS = [
    (list(range(1, 13)), "not all of them"),
    ([1, 3, 5, 7, 9, 11], "to be odd is not enough"),
    ([2, 3, 5, 7, 11], "to be a prime number"),
    ([1, 2, 3, 4, 6, 12], "these are the divisors of 12"),
    ([1, 5, 7, 10], "dilation 10 reads 6 of the 12 frequencies, each 2 times"),
    ([12], "dilation 12 reads 1 of the 12 frequencies, each 12 times"),
    ([1], "right so far, but 3 are missing"),
    (1, "right so far, but 3 are missing"),
    ([5, 7, 11], "right so far, but 1 is missing"),
    ([1, 5, 7], "right so far, but 1 is missing"),
    ([1, 5, 7, 13], "only numbers from 1 to 12"),
    ([0, 1, 5, 7, 11], "only numbers from 1 to 12"),
    ([-1, 1, 5, 7], "only numbers from 1 to 12"),
    ([1, 5, 7, 10**9], "only numbers from 1 to 12"),
    ([1, 5.5], "a list of whole numbers"),
    ([], "a list of whole numbers"),
    (set(), "a list of whole numbers"),
    ([1, math.nan], "a list of whole numbers"),
    ([1, math.inf], "a list of whole numbers"),
    (["1", "5"], "a list of whole numbers"),
    ("1, 5, 7, 11", "a list of whole numbers"),
    ([True, 5, 7, 11], "a list of whole numbers"),
    ([1, 5, None], "a list of whole numbers"),
    (None, "a list of whole numbers"),
    (len, "a list of whole numbers"),
]


@pytest.mark.parametrize("answer", RIGHT_DILATIONS, ids=shown)
def test_the_right_dilations_are_taken_in_any_order_and_container(answer):
    assert said(n03.dilations, answer) is None


@pytest.mark.parametrize("answer, sentence", WRONG_DILATIONS, ids=[repr(answer) for answer, _ in WRONG_DILATIONS])
def test_wrong_dilations_are_told_what_is_wrong(answer, sentence):
    assert sentence in said(n03.dilations, answer)


def test_nothing_that_is_said_to_wrong_dilations_names_the_right_ones():
    words = spoken(n03.dilations, [answer for answer, _ in WRONG_DILATIONS])
    for number in ("5", "7", "11", "gcd", "coprime", "no factor"):
        assert number not in words
