"""The judges of notebook 02 accept every right answer, and say what is wrong with others without giving it away."""

import math
import re

import numpy as np
import pytest
import torch

from convkit.operators.operator import ConvOperator
from convkit.spectra import singular_values, spectrum
from convkit.teaching.judges import n02
from tests.teaching.judges import said, shown, spoken

NO_NUMBERS = ["a", "3", math.nan, math.inf, True, None, {1}, [], torch.ones(2, 3), 1j, len]


# ---- the bet -------------------------------------------------------------------------------------------------------
WRONG_BETS = [1, 1.0, 1.001, 1.73, 2, 2.9, 3.1, 6, 9, 9.0, 81, 27, 0, 0.5, -3, -1e9, 1e300, (3, 3), *NO_NUMBERS]


@pytest.mark.parametrize("bet", [3, 3.0, 9**0.5, np.float32(3), torch.tensor(3.0), np.sqrt(9), 2.995], ids=shown)
def test_the_factor_wins_the_bet(bet):
    assert said(n02.bet, bet) is None


@pytest.mark.parametrize("bet", WRONG_BETS, ids=shown)
def test_other_bets_are_told_why(bet):
    assert said(n02.bet, bet)


def test_nothing_said_about_the_bet_holds_its_answer():
    told = [said(n02.bet, bet) for bet in (-3, 0.5, 1, 2, 9)]
    assert len(set(told)) == len(told)
    assert not re.search(r"\b(3|three|9|nine)\b|sqrt|√", spoken(n02.bet, [1, 2, 0, 27, 81, -5, 1e3]))


# ---- exercise 1 ----------------------------------------------------------------------------------------------------
def coefficients(kernel, size):
    return torch.fft.fft2(kernel, s=size).permute(2, 3, 0, 1)


RIGHT_LINES = [
    lambda kernel, size: torch.linalg.svdvals(coefficients(kernel, size)),
    lambda kernel, size: torch.linalg.svdvals(coefficients(kernel, size)).float(),
    lambda kernel, size: torch.linalg.svdvals(coefficients(kernel, size).mT).flatten().tolist(),
    lambda kernel, size: torch.linalg.svd(torch.fft.fft2(kernel.permute(2, 3, 0, 1), s=size, dim=(0, 1))).S,
    lambda kernel, size: np.linalg.svd(
        np.fft.fft2(kernel.permute(2, 3, 0, 1).numpy(), size, axes=(0, 1)), compute_uv=False
    ),
    lambda kernel, size: torch.linalg.svdvals(ConvOperator(kernel, size).matrix()),
    lambda kernel, size: singular_values(ConvOperator(kernel, size)).flip(0),
]
fft2, fftn, rfft2, svdvals = torch.fft.fft2, torch.fft.fftn, torch.fft.rfft2, torch.linalg.svdvals
WRONG_LINES = {  # what a reader did, and a piece of the sentence that names it
    "neither size nor axes": (lambda kernel, size: svdvals(fft2(kernel)), "two things are wrong"),
    "no size": (lambda kernel, size: svdvals(fft2(kernel).permute(2, 3, 0, 1)), "how large the image is"),
    "no axes": (lambda kernel, size: svdvals(fft2(kernel, s=size)), "two frequency axes"),
    "sizes exchanged": (lambda kernel, size: svdvals(coefficients(kernel, size[::-1])), "height and width"),
    "half": (lambda kernel, size: svdvals(rfft2(kernel, s=size).permute(2, 3, 0, 1)), "opposite frequencies"),
    "half, no axes": (lambda kernel, size: svdvals(rfft2(kernel, s=size)), "two things are wrong: rfft2"),
    "axes of NumPy": (lambda kernel, size: svdvals(fft2(kernel, s=size, dim=(0, 1))), "over the channels"),
    "all axes": (lambda kernel, size: svdvals(fftn(kernel)), "over the channels"),
    "flattened": (lambda kernel, size: svdvals(kernel.flatten(1)), "flattened kernel"),
    "no FFT": (lambda kernel, size: svdvals(kernel), "where is the Fourier transform"),
    "no FFT, axes": (lambda kernel, size: svdvals(kernel.permute(2, 3, 0, 1)), "where is the Fourier transform"),
    "sizes": (lambda kernel, size: fft2(kernel, s=size).abs(), "one channel meets one"),
    "sizes, no image": (lambda kernel, size: fft2(kernel).abs(), "one channel meets one"),
    "real parts": (lambda kernel, size: svdvals(coefficients(kernel, size).real), "imaginary parts"),
    "no phases": (lambda kernel, size: svdvals(coefficients(kernel, size).abs()), "need"),
    "squares": (lambda kernel, size: svdvals(coefficients(kernel, size)) ** 2, "squares"),
    "orthonormal FFT": (
        lambda kernel, size: svdvals(fft2(kernel, s=size, norm="ortho").permute(2, 3, 0, 1)),
        "too small by the same factor",
    ),
    "inverse FFT": (
        lambda kernel, size: svdvals(torch.fft.ifft2(kernel, s=size).permute(2, 3, 0, 1)),
        "too small by the same factor",
    ),
    "coefficients": (coefficients, "real numbers"),
    "U, S, Vh": (lambda kernel, size: torch.linalg.svd(coefficients(kernel, size)), "without U and Vh"),
    "zero padding": (
        lambda kernel, size: svdvals(ConvOperator(kernel, size, padding_mode="zeros").matrix()),
        "not the right ones",
    ),
    "the norm": (lambda kernel, size: singular_values(ConvOperator(kernel, size))[0], "make 48, yours are 1:"),
    "without doubles": (lambda kernel, size: singular_values(ConvOperator(kernel, size)).unique()[::2], "make 48"),
    "one layer only": (
        lambda kernel, size: svdvals(torch.fft.fft2(kernel, s=(4, 6)).permute(2, 3, 0, 1)),
        "right for one layer",
    ),
    "columns of one size": (
        lambda kernel, size: svdvals(torch.fft.fft2(kernel, s=(size[0], 6)).permute(2, 3, 0, 1)),
        "right for one layer",
    ),
    "zeros": (lambda kernel, size: torch.zeros(48), "not the right ones"),
    "NaN": (lambda kernel, size: svdvals(coefficients(kernel, size)) * math.nan, "with NaN"),
    "nothing": (lambda kernel, size: None, "this needs the singular values"),
    "text": (lambda kernel, size: "48 values", "this needs the singular values"),
    "an error": (lambda kernel, size: svdvals(fft2(kernel, input_shape=size)), "your function raised TypeError"),
    "a number": (lambda kernel, size: 48, "make 48, yours are 1"),
}


@pytest.mark.parametrize("answer", RIGHT_LINES)
def test_every_way_to_all_singular_values_is_right(answer):
    assert said(n02.two_lines, answer) is None


@pytest.mark.parametrize("name", WRONG_LINES)
def test_wrong_lines_are_told_what_they_did(name):
    answer, piece = WRONG_LINES[name]
    sentence = said(n02.two_lines, answer)
    assert sentence is not None
    assert piece in sentence


def test_both_mistakes_of_forgetting_everything_are_named():
    sentence = said(n02.two_lines, WRONG_LINES["neither size nor axes"][0])
    assert "how large the image is" in sentence
    assert "frequency axes" in sentence


def test_nothing_said_about_the_lines_holds_them():
    text = spoken(n02.two_lines, [answer for name, (answer, _) in WRONG_LINES.items() if name != "an error"])
    assert not re.search(r"\(2, 3, 0, 1\)|s=|fft2\(|svdvals\(", text)


# ---- exercise 2 ----------------------------------------------------------------------------------------------------
REMOVED = [(12, 4), (12, 8), (15, 5), (15, 10), (18, 6), (18, 12)]
WRONG_BLURS = [
    *((12, 0), (12, 6), (12, 3), (12, 5), (11, 4), (10, 3), (20, 7), (16, 8), (9, 3), (21, 7), (12, -4), (12, 16)),
    *((15, 15), (12.5, 4), (12, 4.5), (12, math.nan), (math.inf, 4), (-5, 1e9), (1e300, 1), (12,), 12, (12, 4, 0)),
    *(("12", "4"), "12, 4", (12, None), (12, True), {12, 4}, *NO_NUMBERS),
]


@pytest.mark.parametrize("answer", [*REMOVED, [12, 4], (12.0, 4), np.array([15, 5]), torch.tensor([18, 6])], ids=shown)
def test_a_removed_wave_is_right(answer):
    assert said(n02.blur, answer) is None


def test_no_other_wave_is_removed():
    pairs = [(n, v) for n in range(10, 21) for v in range(n)]
    assert [pair for pair in pairs if said(n02.blur, pair) is None] == REMOVED


@pytest.mark.parametrize("answer", WRONG_BLURS, ids=shown)
def test_other_waves_are_told_why(answer):
    assert said(n02.blur, answer)


def test_the_rest_of_a_wave_is_told_in_percent_and_no_size_is_given_away():
    assert said(n02.blur, (20, 5)) == "on 20 pixels a wave of frequency 5 is left with 33% of its size"
    for n, v in ((20, 7), (10, 3)):
        assert "left with 0%" not in said(n02.blur, (n, v))
    wrong = [(12, 0), (12, 6), (11, 4), (20, 7), (9, 3), (11, 11), (12.5, 4)]
    assert not re.search(
        r"\b(12|15|18|multiple|n / 3|period of)\b", re.sub(r"on \d+ pixels", "", spoken(n02.blur, wrong))
    )


# ---- exercise 3 ----------------------------------------------------------------------------------------------------
def from_phases(*phases):
    return torch.fft.irfft(torch.exp(1j * torch.tensor(phases, dtype=torch.float64)), n=8)


TAPS = from_phases(0, 1, 2.5, -0.7, 0)
RIGHT_TAPS = [
    *(TAPS, TAPS.float(), TAPS.numpy(), TAPS.tolist(), tuple(TAPS.tolist()), -TAPS, from_phases(math.pi, 1, 2, 3, 0)),
    *(TAPS.clone().requires_grad_(), torch.tensor([0.5, 0.5, 0, 0, 0.5, -0.5, 0, 0])),
]
WRONG_TAPS = {
    "a shift": torch.eye(8)[3],
    "no shift": torch.eye(8)[0],
    "a shift with its sign turned": -torch.eye(8)[5],
    "hardly more than a shift": from_phases(0, 1e-6, 1e-6, 1e-6, 0),
    "a small turn": from_phases(0, 0.01, 0, 0, 0),
    "twice as long": 2 * TAPS,
    "length 1 is not enough": torch.full((8,), 8**-0.5),
    "zeros": torch.zeros(8),
    "random": torch.arange(8.0),
    "phases": torch.tensor([0.0, 1.0, 2.5, -0.7, 0.0]),
    "eigenvalues": torch.exp(1j * torch.arange(8.0)),
    "complex taps": torch.fft.ifft(torch.exp(1j * torch.arange(8.0) ** 2)),
    "complex list": [1j] * 8,
    "seven taps": TAPS[:7],
    "a column": TAPS[:, None],
    "a kernel": TAPS[None, None],
    "NaN": TAPS * math.nan,
    "one NaN": torch.tensor([1.0, 0, 0, 0, 0, 0, 0, math.nan]),
    "infinite": torch.full((8,), math.inf),
    "text": "12345678",
    "texts": ["1"] * 8,
    "bools": torch.eye(8)[3] > 0,
    "a function": from_phases,
    "nothing": None,
    "a number": 1,
}


@pytest.mark.parametrize("taps", RIGHT_TAPS, ids=shown)
def test_taps_that_change_no_length_are_right(taps):
    assert said(n02.all_pass, taps) is None


@pytest.mark.parametrize("name", WRONG_TAPS)
def test_other_taps_are_told_why(name):
    assert said(n02.all_pass, WRONG_TAPS[name])


def test_sentences_about_taps_name_the_mistake():
    assert "single tap" in said(n02.all_pass, WRONG_TAPS["a shift with its sign turned"])
    assert "frequency 0 is multiplied by a number of size 2" in said(n02.all_pass, WRONG_TAPS["twice as long"])
    assert said(n02.all_pass, WRONG_TAPS["length 1 is not enough"]).startswith("the taps have length 1")
    assert "real numbers" in said(n02.all_pass, WRONG_TAPS["complex taps"])
    assert "with NaN" in said(n02.all_pass, WRONG_TAPS["NaN"])
    assert (spectrum(ConvOperator(TAPS[None, None], 8)) - 1).abs().max() < 1e-10  # what the judge asks for


def test_nothing_said_about_the_taps_holds_some():
    text = spoken(n02.all_pass, list(WRONG_TAPS.values()))
    assert not re.search(r"irfft\(|exp\(|-0\.7|0 or π", text)
