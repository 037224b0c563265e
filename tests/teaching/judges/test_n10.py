"""The judges of notebook 10 accept every right answer, and say what is wrong with others without giving it away."""

import json
import math
import re

import numpy as np
import pytest
import torch

from convkit.teaching.judges import n10
from tests import RESULTS
from tests.teaching.judges import said, shown, spoken

NO_NUMBERS = ["a", "7.4", math.nan, math.inf, True, None, {7}, [], (7, 8), torch.ones(2), 1j]

# ---- the bet -------------------------------------------------------------------------------------------------------
WRONG_BETS = [0, 1, 2, -1, -7.4, 3, 5, 6.3, 8.5, 9, 9.6, 1e9, *NO_NUMBERS]


@pytest.mark.parametrize("bet", [7.4, 7, 8, np.float64(6.9), torch.tensor(7.4)], ids=shown)
def test_a_bet_near_the_gap_wins(bet):
    assert said(n10.bet, bet) is None


@pytest.mark.parametrize("bet", WRONG_BETS, ids=shown)
def test_other_bets_are_told_why(bet):
    assert said(n10.bet, bet)


def test_sentences_on_the_bet_do_not_name_it():
    assert not re.search(r"\b(7|7\.4|8|six|seven|eight)\b", spoken(n10.bet, WRONG_BETS[:12]))


def test_the_judge_knows_the_measured_gap():
    file = RESULTS / "spectra-slopes.json"
    measured = json.loads(file.read_text(encoding="utf-8"))
    gap = math.log10(measured["bound"] / max(measured["local"]))
    assert abs(gap - n10._POWERS) < 0.01


# ---- BatchNorm folded in -------------------------------------------------------------------------------------------
def gain_of(norm):
    return norm.weight / (norm.running_var + norm.eps).sqrt()


WRONG_FOLDS = {
    "weight alone": lambda kernel, norm: kernel * norm.weight.view(-1, 1, 1, 1),
    "no weight": lambda kernel, norm: kernel / (norm.running_var + norm.eps).sqrt().view(-1, 1, 1, 1),
    "no root": lambda kernel, norm: kernel * (norm.weight / (norm.running_var + norm.eps)).view(-1, 1, 1, 1),
    "no eps": lambda kernel, norm: kernel * (norm.weight / norm.running_var.sqrt()).view(-1, 1, 1, 1),
    "eps after": lambda kernel, norm: kernel * (norm.weight / (norm.running_var.sqrt() + norm.eps)).view(-1, 1, 1, 1),
    "input channels": lambda kernel, norm: kernel * gain_of(norm).view(1, -1, 1, 1),
    "rows": lambda kernel, norm: kernel * gain_of(norm).view(1, 1, -1, 1),
    "columns": lambda kernel, norm: kernel * gain_of(norm),
    "no sign": lambda kernel, norm: kernel * gain_of(norm).abs().view(-1, 1, 1, 1),
    "with the mean": lambda kernel, norm: (
        kernel * gain_of(norm).view(-1, 1, 1, 1) - norm.running_mean.view(-1, 1, 1, 1)
    ),
    "unchanged": lambda kernel, norm: kernel,
    "the gain": lambda kernel, norm: gain_of(norm),
    "nan": lambda kernel, norm: kernel * math.nan,
    "text": lambda kernel, norm: "kernel",
}


def test_the_kernel_times_the_gain_is_right_with_and_without_gradient():
    assert said(n10.fold, lambda kernel, norm: kernel * gain_of(norm)[:, None, None, None]) is None
    with torch.no_grad():
        assert said(n10.fold, lambda kernel, norm: torch.einsum("ijab,i->ijab", kernel, gain_of(norm))) is None


@pytest.mark.parametrize("name", WRONG_FOLDS)
def test_other_kernels_are_told_why(name):
    assert said(n10.fold, WRONG_FOLDS[name])


# ---- a bound in one line -------------------------------------------------------------------------------------------
WRONG_BOUNDS = {
    "no skip": lambda branches, p: math.prod(branches) / p**0.5,
    "sum": lambda branches, p: (1 + sum(branches)) / p**0.5,
    "sum of blocks": lambda branches, p: sum(1 + b for b in branches) / p**0.5,
    "1 / p": lambda branches, p: math.prod(1 + b for b in branches) / p,
    "no pooling": lambda branches, p: math.prod(1 + b for b in branches),
    "times the root": lambda branches, p: math.prod(1 + b for b in branches) * p**0.5,
    "largest": lambda branches, p: (1 + max(branches)) ** len(branches) / p**0.5,
    "text": lambda branches, p: "2",
    "nan": lambda branches, p: math.nan,
}


@pytest.mark.parametrize("kind", [float, np.float64, torch.tensor])
def test_the_product_of_blocks_over_the_root_is_right(kind):
    assert said(n10.bound_of, lambda branches, p: kind(math.prod(1 + b for b in branches) / p**0.5)) is None


@pytest.mark.parametrize("name", WRONG_BOUNDS)
def test_other_bounds_are_told_why(name):
    assert said(n10.bound_of, WRONG_BOUNDS[name])


# ---- matrices that meet --------------------------------------------------------------------------------------------
def left(A):
    return torch.linalg.svd(A).U


def right(B):
    return torch.linalg.svd(B).Vh.T


def reflection(A, B):  # the mirror image that takes one direction to the other, and nothing more
    difference = left(A)[:, 0] - right(B)[:, 0]
    difference = difference / difference.norm()
    return torch.eye(len(A), dtype=A.dtype) - 2 * torch.outer(difference, difference)


WRONG_MEETINGS = {
    "transposed": lambda A, B: left(A) @ right(B).T,
    "exchanged": lambda A, B: torch.linalg.svd(A).Vh.T @ torch.linalg.svd(B).U.T,
    "identity": lambda A, B: torch.eye(len(A)),
    "reversed": lambda A, B: right(B).flip(1) @ left(A).T,
    "not orthogonal": lambda A, B: torch.linalg.inv(B) @ torch.linalg.inv(A),
    "one direction alone": lambda A, B: torch.outer(right(B)[:, 0], left(A)[:, 0]),
    "a vector": lambda A, B: left(A)[:, 0],
    "text": lambda A, B: "Q",
    "of one size": lambda A, B: right(B) @ left(A).T if len(A) == 5 else torch.eye(len(A)),
    "nan": lambda A, B: A * math.nan,
}


@pytest.mark.parametrize("kind", [lambda Q: Q, lambda Q: Q.numpy(), lambda Q: Q.tolist()])
def test_a_turn_from_one_basis_to_the_other_is_right(kind):
    assert said(n10.meet, lambda A, B: kind(right(B) @ left(A).T)) is None


def test_a_reflection_is_right_too():
    assert said(n10.meet, reflection) is None


@pytest.mark.parametrize("name", WRONG_MEETINGS)
def test_other_turns_are_told_why(name):
    assert said(n10.meet, WRONG_MEETINGS[name])
