"""The judges of notebook 05 accept every right answer, and say what is wrong with others without giving it away."""

import math

import numpy as np
import pytest
import torch

from convkit.teaching.judges import n05
from tests.teaching.judges import said, shown, spoken

NO_NUMBERS = ["a", "48", math.nan, math.inf, -math.inf, True, None, {48}, [], (40, 50), torch.ones(2), 1j]


# ---- the bet -------------------------------------------------------------------------------------------------------
WRONG_BETS = [0, 0.0, -5, -1e9, 0.4, 1, 10, 35.9, 60.1, 100, 232, 233, 1e9, *NO_NUMBERS]


@pytest.mark.parametrize("bet", [36, 48, 60, 50.5, np.float32(45), np.int8(40), torch.tensor(41), np.array([55])])
def test_a_bet_near_the_excess_wins(bet):
    assert said(n05.bet, bet) is None


@pytest.mark.parametrize("bet", WRONG_BETS, ids=shown)
def test_other_bets_are_told_why(bet):
    assert said(n05.bet, bet)


def test_a_fraction_is_told_that_percent_are_meant():
    assert "percent" in said(n05.bet, 0.48)


def test_sentences_on_the_bet_hold_no_digit_of_the_answer():
    words = spoken(n05.bet, WRONG_BETS[:13])
    assert not any(number in words for number in ("36", "48", "50", "60"))


# ---- the clip ------------------------------------------------------------------------------------------------------
def right_clip(blocks, bound):
    U, S, Vh = torch.linalg.svd(blocks, full_matrices=False)
    return U @ (S.clamp(max=bound)[..., None] * Vh)


def wrong_clips():
    svd = torch.linalg.svd

    def values_alone(blocks, bound):
        return torch.linalg.svdvals(blocks).clamp(max=bound)

    def full(blocks, bound):
        return svd(blocks)[0]

    def with_v(blocks, bound):
        U, S, Vh = svd(blocks, full_matrices=False)
        return (U * S.clamp(max=bound)[..., None, :]) @ Vh.conj()

    def rescaled(blocks, bound):
        return blocks * bound / torch.linalg.svdvals(blocks).max()

    def each_rescaled(blocks, bound):
        return blocks * (bound / torch.linalg.svdvals(blocks)[..., :1, None]).clamp(max=1)

    def entries(blocks, bound):
        return blocks * (bound / blocks.abs()).clamp(max=1)

    def untouched(blocks, bound):
        return blocks

    def zero(blocks, bound):
        return 0 * blocks

    def real(blocks, bound):
        return right_clip(blocks, bound).real

    def nan(blocks, bound):
        return blocks * math.nan

    def number(blocks, bound):
        return 3

    def for_the_first_sizes(blocks, bound):
        return right_clip(blocks, bound) if blocks.shape[-2:] == (3, 2) else blocks

    def first_axis(blocks, bound):
        U, _, Vh = svd(blocks, full_matrices=False)
        return U[0] @ Vh[0]

    return {name: f for name, f in locals().items() if callable(f) and name != "svd"}


def test_the_clip_of_all_blocks_is_right():
    assert said(n05.clip, right_clip) is None


@pytest.mark.parametrize("name", wrong_clips())
def test_other_clips_are_told_why(name):
    assert said(n05.clip, wrong_clips()[name])


def test_a_clip_may_not_change_the_blocks_it_is_given():
    def in_place(blocks, bound):
        blocks *= 0
        return blocks

    assert said(n05.clip, in_place)


# ---- less than is needed -------------------------------------------------------------------------------------------
WRONG_PARTS = [0.5, 0.45, 0.3, 0.1, 1e-9, 1, 0.9, 0, -0.37, 37, 1.5, *NO_NUMBERS]


@pytest.mark.parametrize("part", [0.37, np.float64(0.37), torch.tensor(0.37)])
def test_a_part_that_ends_just_below_a_half_is_right(part):
    assert said(n05.asked, part) is None


@pytest.mark.parametrize("part", WRONG_PARTS, ids=shown)
def test_other_parts_are_told_why(part):
    assert said(n05.asked, part)


def test_no_sentence_names_the_part():
    assert "0.37" not in spoken(n05.asked, WRONG_PARTS[:9])


# ---- the true norm -------------------------------------------------------------------------------------------------
WRONG_NORMS = {
    "the bound": lambda t, kh, kw, c: c,
    "the flattened norm": lambda t, kh, kw, c: min(c, t * (kh * kw) ** 0.5),
    "no root": lambda t, kh, kw, c: c * kh * kw,
    "always clipped": lambda t, kh, kw, c: c * (kh * kw) ** 0.5,
    "before the clip": lambda t, kh, kw, c: t * kh * kw,
    "three times": lambda t, kh, kw, c: 3 * min(c, 3 * t),
    "nothing": lambda t, kh, kw, c: 0,
    "negative": lambda t, kh, kw, c: -min(c, t * (kh * kw) ** 0.5) * (kh * kw) ** 0.5,
    "nan": lambda t, kh, kw, c: math.nan,
    "text": lambda t, kh, kw, c: "c",
    "two numbers": lambda t, kh, kw, c: (c, c),
    "rows only": lambda t, kh, kw, c: min(c, t * kh**0.5) * kh**0.5,
}


@pytest.mark.parametrize("kind", [float, np.float32, torch.tensor, lambda x: torch.tensor([x])])
def test_the_true_norm_is_right_as_any_kind_of_number(kind):
    assert said(n05.true_norm, lambda t, kh, kw, c: kind(min(c * (kh * kw) ** 0.5, t * kh * kw))) is None


@pytest.mark.parametrize("name", WRONG_NORMS)
def test_other_norms_are_told_why(name):
    assert said(n05.true_norm, WRONG_NORMS[name])
