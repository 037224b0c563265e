"""Any way to write a real number is read; everything else is told in one sentence that says what came."""

import contextlib
import math
from fractions import Fraction

import numpy as np
import pytest
import torch

from convkit.teaching.judges.numbers import array, number, whole
from tests.teaching.judges import said

THREE = [
    *(3, 3.0, Fraction(3), np.float64(3), np.float32(3), np.int8(3), np.array(3), np.array([3.0]), [3], (3.0,)),
    *(torch.tensor(3), torch.tensor([3.0]), torch.tensor(3.0).bfloat16(), torch.tensor(3.0).requires_grad_()),
]
NO_NUMBER = [
    *((math.nan, "nan"), (math.inf, "inf"), (-np.inf, "-inf"), (np.float32("nan"), "nan"), (True, "True")),
    *((torch.tensor(math.nan), "nan"), (10**400, "100000000000000000...0000000000000000000"), (np.True_, "True")),
    *((torch.tensor(True), "True"), (None, "None"), ("a", "the text 'a'"), ("3", "the text '3'"), (3 + 0j, "(3+0j)")),
    *(((3, 4), "(3, 4)"), ([3, "4"], "[3, '4']"), ({3}, "{3}"), ({}, "{}"), ([], "[]"), ((), "()")),
    *((len, "a function"), (object(), "an object of type object"), ("two\nlines", r"the text 'two\nlines'")),
    *((torch.ones(2), "an array of shape (2,) (float32)"), (torch.ones(0), "an array of shape (0,) (float32)")),
    (np.ones((1, 2), complex), "an array of shape (1, 2) (complex numbers)"),
    (torch.tensor([1.0, math.nan]), "an array of shape (2,) (float32 with NaN or infinity)"),
]
PAIRS = [
    *((1, 2), [1, 2], (1.0, 2), np.array([1, 2]), range(1, 3), (np.int64(1), 2.0), (torch.tensor(1), 2)),
    *(torch.tensor([1, 2]), torch.tensor([1.0, 2.0], requires_grad=True), np.array([Fraction(1), 2], dtype=object)),
]
NO_PAIR = [
    *((1, 2, 3), (1,), 1, [[1, 2]], [[1, 2], [3]], (1, math.nan), (1, "2"), (1, True), (1, 2j), "12", {1, 2}),
    *(np.array([1, math.inf]), np.array([True, False]), torch.tensor([1, 2j]), iter([1, 2])),
]


def test_every_way_to_write_three_is_three():
    for read, kind in ((number, float), (whole, int)):
        assert [read(answer) for answer in THREE] == [3] * len(THREE)
        assert {type(read(answer)) for answer in THREE} == {kind}


@pytest.mark.parametrize("answer, named", NO_NUMBER, ids=range(len(NO_NUMBER)))
def test_what_is_no_number_is_told_in_one_sentence(answer, named):
    sentence = said(lambda answer: str(number(answer, "one number, the factor")), answer)
    assert sentence.startswith(f"this needs one number, the factor, got {named}")
    assert "\n" not in sentence
    assert said(lambda answer: str(array(answer, "four numbers", (4,))), answer).startswith("this needs four numbers")


def test_a_judge_cannot_swallow_the_sentence_by_accident():
    def judge(answer):
        with contextlib.suppress(Exception):
            number(answer)
        return "swallowed"

    assert said(judge, "a") == "this needs one number, got the text 'a'"


def test_whole_refuses_what_lies_between():
    for answer in (2.5, math.nan, "3", np.float32(0.1), torch.tensor(2.5)):
        assert said(lambda answer: str(whole(answer)), answer).startswith("this needs one whole number, got ")


def test_every_way_to_write_a_pair_is_a_pair_and_nothing_else_is():
    pairs = [array(answer, "a pair", (2,)) for answer in PAIRS]
    assert [pair.tolist() for pair in pairs] == [[1.0, 2.0]] * len(PAIRS)
    assert {(pair.dtype, pair.requires_grad) for pair in pairs} == {(torch.float64, False)}
    told = [said(lambda answer: str(array(answer, "a pair", (2,))), answer) for answer in NO_PAIR]
    assert [sentence for sentence in told if not sentence.startswith("this needs a pair, got ")] == []
    assert said(lambda answer: str(array(answer, "a pair", (2,))), (3, ...)) == "○"


@pytest.mark.parametrize("answer", [np.zeros((2, 3)), torch.zeros(2, 3, dtype=torch.float64)], ids=["NumPy", "torch"])
def test_array_keeps_the_shape_and_leaves_the_answer_alone(answer):
    found = array(answer, "a matrix")
    found += 1
    assert found.shape == (2, 3)
    assert answer.sum() == 0
