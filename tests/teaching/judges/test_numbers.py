"""Any way to write a real number is read; everything else is told in one sentence that says what came."""

import math
from fractions import Fraction

import numpy as np
import pytest
import torch

from convkit.teaching.judges.numbers import array, number, whole
from tests.teaching.judges import said, shown

THREE = [
    *(3, 3.0, Fraction(3), np.float64(3), np.float32(3), np.int8(3), np.array(3), np.array([3.0]), [3], (3.0,)),
    *(
        torch.tensor(3),
        torch.tensor([3.0]),
        torch.tensor(3.0, dtype=torch.bfloat16),
        torch.tensor(3.0).requires_grad_(),
    ),
]
NO_NUMBER = {
    "nan": "nan",
    "inf": "inf",
    "-np.inf": "-inf",
    "np.float32('nan')": "nan",
    "torch.tensor(math.nan)": "nan",
    "10**400": "100000000000000000...0000000000000000000",
    "True": "True",
    "np.True_": "True",
    "torch.tensor(True)": "True",
    "None": "None",
    "'a'": "the text 'a'",
    "'3'": "the text '3'",
    "3 + 0j": "(3+0j)",
    "(3, 4)": "(3, 4)",
    "[3, '4']": "[3, '4']",
    "{3}": "{3}",
    "{}": "{}",
    "[]": "[]",
    "()": "()",
    "len": "a function",
    "torch.ones(2)": "an array of shape (2,) (float32)",
    "np.ones((1, 2), complex)": "an array of shape (1, 2) (complex numbers)",
    "torch.tensor([1.0, nan])": "an array of shape (2,) (float32 with NaN or infinity)",
    "torch.ones(0)": "an array of shape (0,) (float32)",
    "object()": "an object of type object",
    "'two\\nlines'": "the text 'two\\nlines'",
}
OBJECTS = {"nan": math.nan, "inf": math.inf, "math": math, "np": np, "torch": torch}


@pytest.mark.parametrize("answer", THREE, ids=shown)
def test_every_way_to_write_three_is_three(answer):
    assert number(answer) == 3.0
    assert type(number(answer)) is float
    assert whole(answer) == 3
    assert type(whole(answer)) is int


@pytest.mark.parametrize("source", NO_NUMBER)
def test_what_is_no_number_is_told_in_one_sentence(source):
    answer = eval(source, OBJECTS)
    sentence = said(lambda answer: None if number(answer, "one number, the factor") else "zero", answer)
    assert sentence is not None
    assert sentence.startswith(f"this needs one number, the factor, got {NO_NUMBER[source]}")
    assert "\n" not in sentence
    assert said(lambda answer: str(array(answer, "four numbers", (4,))), answer).startswith("this needs four numbers")


def test_a_blank_inside_is_told_as_not_given_yet():
    assert said(lambda answer: str(array(answer, "a pair", (2,))), (3, ...)) == "○"


def test_a_judge_cannot_swallow_the_sentence_by_accident():
    def judge(answer):
        try:
            number(answer)
        except Exception:
            return "swallowed"

    assert said(judge, "a") == "this needs one number, got the text 'a'"


@pytest.mark.parametrize("answer", [2.5, math.nan, "3", np.float32(0.1), torch.tensor(2.5)])
def test_whole_refuses_what_lies_between(answer):
    assert said(lambda answer: str(whole(answer)), answer).startswith("this needs one whole number, got ")


PAIRS = [
    *((1, 2), [1, 2], (1.0, 2), np.array([1, 2]), range(1, 3), (np.int64(1), 2.0), (torch.tensor(1), 2)),
    *(torch.tensor([1, 2]), torch.tensor([1.0, 2.0], requires_grad=True), np.array([Fraction(1), 2], dtype=object)),
]


@pytest.mark.parametrize("answer", PAIRS, ids=shown)
def test_every_way_to_write_a_pair_is_a_pair(answer):
    pair = array(answer, "a pair", (2,))
    assert pair.dtype == torch.float64
    assert not pair.requires_grad
    assert pair.tolist() == [1.0, 2.0]


NO_PAIR = [
    *((1, 2, 3), (1,), 1, [[1, 2]], [[1, 2], [3]], (1, math.nan), (1, "2"), (1, True), (1, None), "12", {1, 2}),
    *([], {1: 2}, (1, 2j), np.array([1, math.inf]), np.array([True, False]), torch.tensor([1, 2j]), iter([1, 2])),
]


@pytest.mark.parametrize("answer", NO_PAIR, ids=shown)
def test_what_is_no_pair_is_told(answer):
    assert said(lambda answer: str(array(answer, "two numbers", (2,))), answer).startswith(
        "this needs two numbers, got "
    )


def test_array_keeps_the_shape_and_leaves_the_answer_alone():
    answer = np.arange(6).reshape(2, 3)
    found = array(answer, "a matrix")
    found += 1
    assert found.shape == (2, 3)
    assert answer[0, 0] == 0


def test_array_does_not_write_into_a_tensor_of_the_reader():
    answer = torch.zeros(2, dtype=torch.float64)
    found = array(answer, "a pair")
    found += 1
    assert answer.sum() == 0
