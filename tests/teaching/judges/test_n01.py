"""The judges of notebook 01 accept every right answer, and say what is wrong with others without giving it away."""

import math
import re

import numpy as np
import pytest
import scipy.linalg
import torch

from convkit.operators.circulants import circulant
from convkit.teaching.judges import n01
from tests.teaching.judges import said, shown, spoken

NO_NUMBERS = ["a", "50331648", math.nan, -math.inf, True, None, {1}, [], torch.ones(2, 3), 1j]


# ---- the bet -------------------------------------------------------------------------------------------------------
ENTRIES = 50_331_648
WRONG_BETS = [
    *(432, 16 * 27.0, 442_368, 424_128, 3072**2, 16384**2, 1024**2, 3072, 16384, 0, -ENTRIES, 1, 1e30, 45e6, 56e6),
    *(16384 + 3072, (16384, 3072), *NO_NUMBERS),
]


@pytest.mark.parametrize("bet", [ENTRIES, float(ENTRIES), np.int64(ENTRIES), torch.tensor(ENTRIES), 5e7, 48e6], ids=str)
def test_a_bet_near_the_number_of_entries_wins(bet):
    assert said(n01.bet, bet) is None


@pytest.mark.parametrize("bet", WRONG_BETS, ids=shown)
def test_other_bets_are_told_why(bet):
    assert said(n01.bet, bet)


def test_each_tempting_bet_has_a_sentence_of_its_own():
    assert len({said(n01.bet, bet) for bet in (432, 442_368, 3072**2, 16384**2, 1024**2, 3072, 16384, 1, 1e30)}) == 9
    assert said(n01.bet, 442_368) == said(n01.bet, 424_128)


def test_nothing_said_about_the_bet_holds_its_answer():
    assert not re.search(r"50[ ,.]?331|5e7|50 million|3[ ,]?072|16[ ,]?384", spoken(n01.bet, WRONG_BETS))


# ---- exercise 1 ----------------------------------------------------------------------------------------------------
def by_index(a):
    i = torch.arange(len(a))
    return a[(i[None, :] - i[:, None]) % len(a)]


def by_unit_vectors(a):
    n = len(a)
    return torch.stack(
        [torch.stack([sum(a[p] * e[(i + p) % n] for p in range(n)) for i in range(n)]) for e in torch.eye(n)], dim=1
    )


RIGHT_CIRCS = [
    *(circulant, by_index, by_unit_vectors),
    lambda a: torch.stack([a.roll(i) for i in range(len(a))]),
    lambda a: [a.roll(i) for i in range(len(a))],
    lambda a: np.stack([np.roll(a.numpy(), i) for i in range(len(a))]),
    lambda a: [np.roll(a.numpy(), i).tolist() for i in range(len(a))],
    lambda a: scipy.linalg.circulant(a.numpy()).T,
    lambda a: circulant(a.float()),
    lambda a: torch.fft.ifft(torch.fft.fft(circulant(a))).real,  # with rounding errors
]
WRONG_CIRCS = {
    "transposed": lambda a: circulant(a).T,
    "SciPy's": lambda a: scipy.linalg.circulant(a.numpy()),
    "to the left": lambda a: torch.stack([a.roll(-i) for i in range(len(a))]),
    "to the left, by index": lambda a: torch.stack([a[(torch.arange(len(a)) + i) % len(a)] for i in range(len(a))]),
    "all rows a": lambda a: a.expand(len(a), -1),
    "all rows moved by one": lambda a: torch.stack([a.roll(1)] * len(a)),
    "all columns a": lambda a: a[:, None].expand(-1, len(a)),
    "one step too far": lambda a: torch.stack([a.roll(i + 1) for i in range(len(a))]),
    "one step too few": lambda a: torch.stack([a.roll(i - 1) for i in range(len(a))]),
    "two steps a row": lambda a: torch.stack([a.roll(2 * i) for i in range(len(a))]),
    "last row missing": lambda a: circulant(a)[:-1],
    "flat": lambda a: circulant(a).flatten(),
    "Toeplitz": lambda a: circulant(a).triu(),
    "lower half": lambda a: circulant(a).tril(),
    "diagonal": lambda a: a.diag(),
    "kernel backwards": lambda a: circulant(a.flip(0)),
    "zeros": lambda a: torch.zeros(len(a), len(a)),
    "for five numbers only": lambda a: torch.tensor(scipy.linalg.circulant([1.0, 2, 3, 4, 5]).T)[: len(a), : len(a)],
    "NaN": lambda a: circulant(a) * math.nan,
    "complex": lambda a: circulant(a) + 0j,
    "nothing": lambda a: None,
    "text": lambda a: "abc",
    "the vector": lambda a: a,
    "bools": lambda a: circulant(a) > 0,
    "an error": lambda a: a.no_such_thing,
}


@pytest.mark.parametrize("answer", RIGHT_CIRCS)
def test_every_way_to_write_circ_is_right(answer):
    assert said(n01.circ, answer) is None


@pytest.mark.parametrize("name", WRONG_CIRCS)
def test_a_matrix_that_is_not_circ_is_told_why(name):
    assert said(n01.circ, WRONG_CIRCS[name])


def test_the_first_wrong_row_is_named_and_no_right_one_is_told():
    assert said(n01.circ, lambda a: torch.stack([a.roll(1)] * 5)).startswith("all rows are the same")
    assert said(n01.circ, WRONG_CIRCS["two steps a row"]) == (
        "row 1 is the first wrong one: for a = 1 2 3 4 5 yours is 4 5 1 2 3"
    )
    text = spoken(n01.circ, list(WRONG_CIRCS.values()))
    assert not re.search(r"5 1 2 3 4|%|a\.roll\(|j - i|for i in", text)


# ---- exercise 2 ----------------------------------------------------------------------------------------------------
WRONG_SHIFTS = [
    *((-2, -1), (1, 2), (2, 2), (-2, -2), (1, 1), (2, -1), (-2, 1), (4, 3), (-4, -3), (5, 4), (0, 0), (2, 0), (3, 1)),
    *((-7, -10), (2, 12), (11, 1), (2.5, 1), (2, math.nan), (math.inf, 1), 2, (2,), (2, 1, 0), "21", ("2", "1")),
    *({2, 1}, (2, True), ((2, 1),), *NO_NUMBERS),
]


@pytest.mark.parametrize(
    "shift", [(2, 1), [2, 1], (2.0, 1), np.array([2, 1]), torch.tensor([2, 1]), (np.int64(2), torch.tensor(1))], ids=str
)
def test_the_shift_of_torch_may_be_any_pair(shift):
    assert said(n01.shift, shift) is None


@pytest.mark.parametrize("shift", WRONG_SHIFTS, ids=shown)
def test_other_shifts_are_told_why(shift):
    assert said(n01.shift, shift)


def test_sentences_about_the_shift_tell_mistakes_apart_and_hold_no_number_of_it():
    told = [said(n01.shift, shift) for shift in [(-2, -1), (1, 2), (2, 2), (3, 1), (4, 3), (5, 4), (0, 0)]]
    assert len(set(told)) == len(told)
    assert not re.search(r"\b[12]\b|\(k|// 2", spoken(n01.shift, WRONG_SHIFTS))


# ---- exercise 3 ----------------------------------------------------------------------------------------------------
def grid(M):
    return M.reshape(2, 4, 5, 3, 4, 5)


RIGHT_READINGS = [
    lambda M: grid(M)[:, 1, 1, :, :3, :3],
    lambda M: grid(M)[:, 2, 3, :, 1:4, 2:5],
    lambda M: grid(M.numpy())[:, 1, 2, :, 0:3, 1:4],
    lambda M: grid(M)[:, 1, 1, :, :3, :3].tolist(),
    lambda M: grid(M)[:, :, :, :, 2, 2].permute(0, 3, 1, 2)[:, :, 1:4, 1:4].flip(2, 3),  # off the columns, turned back
    lambda M: torch.stack([M.reshape(2, 20, 3, 4, 5)[c, 6, :, :3, :3] for c in range(2)]),
]
WRONG_READINGS = {
    "a column": lambda M: grid(M)[:, :, :, :, 2, 2].permute(0, 3, 1, 2)[:, :, 1:4, 1:4],
    "turned": lambda M: grid(M)[:, 1, 1, :, :3, :3].flip(2, 3),
    "rows and columns": lambda M: grid(M)[:, 1, 1, :, :3, :3].mT,
    "channels": lambda M: grid(M)[:, 1, 1, :, :3, :3].transpose(0, 1),
    "outputs in opposite order": lambda M: grid(M)[:, 1, 1, :, :3, :3].flip(0),
    "inputs in opposite order": lambda M: grid(M)[:, 1, 1, :, :3, :3].flip(1),
    "at the corner": lambda M: grid(M)[:, 0, 0, :, :3, :3],
    "at the edge": lambda M: grid(M)[:, 1, 0, :, :3, :3],
    "window beside": lambda M: grid(M)[:, 1, 1, :, 1:4, :3],
    "whole images": lambda M: grid(M)[:, 1, 1],
    "one channel": lambda M: grid(M)[0, 1, 1, :, :3, :3],
    "first entries": lambda M: M.flatten()[:54].reshape(2, 3, 3, 3),
    "all the taps that differ": lambda M: M[M != 0].unique().reshape(2, 3, 3, 3),
    "sum of rows": lambda M: grid(M).sum((1, 2))[:, :, :3, :3],
    "twice as large": lambda M: 2 * grid(M)[:, 1, 1, :, :3, :3],
    "rolled": lambda M: grid(M)[:, 1, 1, :, :3, :3].roll(1, 3),
    "first output from the corner": lambda M: torch.stack([grid(M)[0, 0, 0, :, :3, :3], grid(M)[1, 1, 1, :, :3, :3]]),
    "flat": lambda M: grid(M)[:, 1, 1, :, :3, :3].flatten(),
    "the matrix": lambda M: M,
    "NaN": lambda M: grid(M)[:, 1, 1, :, :3, :3] * math.nan,
    "complex": lambda M: grid(M)[:, 1, 1, :, :3, :3] + 0j,
    "nothing": lambda M: None,
    "text": lambda M: "kernel",
    "an error": lambda M: M.reshape(7, 7),
}


@pytest.mark.parametrize("answer", RIGHT_READINGS)
def test_a_kernel_may_be_read_off_any_row_inside(answer):
    assert said(n01.read_kernel, answer) is None


@pytest.mark.parametrize("name", WRONG_READINGS)
def test_a_wrong_reading_is_told_why(name):
    assert said(n01.read_kernel, WRONG_READINGS[name])


def test_readings_are_told_apart_and_no_place_is_given_away():
    names = ["turned", "rows and columns", "channels", "outputs in opposite order", "inputs in opposite order"]
    names += ["at the corner", "whole images", "twice as large", "rolled", "one channel"]
    told = [said(n01.read_kernel, WRONG_READINGS[name]) for name in names]
    assert len(set(told)) == len(told)
    assert said(n01.read_kernel, WRONG_READINGS["a column"]) == said(n01.read_kernel, WRONG_READINGS["turned"])
    assert "turned by 180°" in said(n01.read_kernel, WRONG_READINGS["a column"])
    assert "exchanged" in said(n01.read_kernel, WRONG_READINGS["rows and columns"])
    assert "channels are exchanged" in said(n01.read_kernel, WRONG_READINGS["channels"])
    assert "reaches over the edge" in said(n01.read_kernel, WRONG_READINGS["at the corner"])
    assert not re.search(r"\(1, 1|rows 0|:3|\[:", spoken(n01.read_kernel, list(WRONG_READINGS.values())))


def test_judges_leave_the_reader_s_random_numbers_alone():
    torch.manual_seed(3)
    before = torch.get_rng_state()
    for judge, answer in ((n01.circ, circulant), (n01.shift, (1, 1)), (n01.read_kernel, RIGHT_READINGS[0])):
        said(judge, answer)
    assert torch.equal(torch.get_rng_state(), before)
