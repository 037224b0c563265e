"""Arrows head to tail end at the Fourier coefficient, and folded parts are the blocks of the strided layer."""

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from convkit.widgets.moving_waves import (
    FINE,
    FIVE_TAPS,
    FOLDED_TAPS,
    LINE,
    FoldingAnimation,
    PhasorAnimation,
    folded_operator,
    phasor_symbol,
    phasors,
)
from convkit.widgets.sheet import Sheet


def drawn(panel, time, **settings):
    sheet = Sheet(panel.size)
    words = panel.draw(sheet, time=time, **settings)
    return sheet.axes, words


def coefficient(v):
    return sum(tap * np.exp(2j * np.pi * v * q / LINE) for q, tap in enumerate(FIVE_TAPS))


def heads(ax):
    ends = [np.stack([mark["x"], mark["y"]], 1) @ [1, 1j] for mark in ax.marks if mark["kind"] == "arrow"]
    return np.array([ends[0][0], *(end[1] for end in ends)]), np.array([end[0] for end in ends])


def test_the_sum_of_phasors_is_the_eigenvalue_of_the_circulant_matrix():
    C = torch.zeros(LINE, LINE, dtype=torch.float64)
    for i, (q, tap) in ((i, one) for i in range(LINE) for one in enumerate(FIVE_TAPS)):
        C[i, (i + q) % LINE] += tap
    sums = torch.stack([phasors(v).sum() for v in range(LINE)])
    for v in range(LINE):
        wave = torch.exp(2j * torch.pi * v * torch.arange(LINE, dtype=torch.float64) / LINE)
        assert_close(C.cdouble() @ wave, sums[v] * wave)
    assert_close(sums, phasor_symbol(LINE))
    assert_close(sums.abs().sort().values, torch.linalg.svdvals(C).sort().values)
    assert_close(phasors(2.5).sum(), phasor_symbol(2 * LINE)[5])


@pytest.mark.parametrize("v", [0, 2, 7, 12])
def test_taps_are_added_one_after_another_head_to_tail(v):
    panel = PhasorAnimation()
    for time in range(len(FIVE_TAPS) + 1):
        (_, plane, curve), words = drawn(panel, time, plays="taps", frequency=v)
        ends, starts = heads(plane)
        assert np.allclose(starts, ends[:-1])
        partial = sum(tap * np.exp(2j * np.pi * v * q / LINE) for q, tap in enumerate(FIVE_TAPS[:time]))
        assert np.isclose(ends[-1], partial)
        assert np.allclose(ends[time:], partial)  # those to come wait at the head
        assert float(curve.marks[-1]["y"][0]) == pytest.approx(abs(partial))
    assert f"{abs(coefficient(v)):.2f}" in words
    assert f"{coefficient(v).real:.2f}" in words


def test_play_raises_the_frequency_up_to_half_a_wave_per_pixel():
    panel = PhasorAnimation()
    last = panel.moments(plays="frequency", frequency=0) - 1
    assert last == FINE * LINE // 2
    for time in (0, 5, 30, last):
        (_, plane, curve), words = drawn(panel, time, plays="frequency", frequency=3)
        assert np.isclose(heads(plane)[0][-1], coefficient(time / FINE))
        assert f"Frequency {time / FINE:g} " in words
        assert float(curve.marks[-1]["x"][0]) == time / FINE


@pytest.mark.parametrize("stride", [2, 3, 4])
def test_parts_are_laid_on_one_another_and_give_the_singular_values_of_the_strided_matrix(stride):
    m, panel = LINE // stride, FoldingAnimation()
    whole = np.abs(np.fft.fft(FOLDED_TAPS, LINE))  # the conjugates of the symbol
    dense = torch.linalg.svdvals(folded_operator(stride).matrix()).numpy()
    for time in range(stride + 1):
        (left, right), _ = drawn(panel, time, stride=stride, g=4)
        curves = {mark["name"]: mark for mark in left.marks if mark.get("name")}
        for r in range(stride):
            curve = curves[f"P at g + {r * m}" if r else "P at g"]
            assert np.allclose(curve["y"], whole[r * m : (r + 1) * m])
            assert np.array_equal(curve["x"], np.arange(m) + (r * m if r > time else 0))
        after = curves["singular value"]["y"]
        assert np.isnan(after).all() == (time < stride)
        bars = [float(mark["y1"][0]) for mark in right.marks if mark["kind"] == "bars"]
        meeting = whole[4::m]
        assert np.allclose(bars[:stride], np.where(np.arange(stride) <= time, meeting, 0))
    assert np.allclose(np.sort(after)[::-1], dense)
    assert bars[-1] == pytest.approx(np.sqrt((meeting**2).mean()))
