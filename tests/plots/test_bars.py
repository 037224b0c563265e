"""Bars of ratios: as long on the page as the number says, and nothing longer than a larger number."""

import math

import pytest

pytest.importorskip("matplotlib")
from convkit.plots import GREEN, plot_bounds, plot_ratios

RATIOS = {"equal": 1.0, "just above": 1.01, "a little": 1.04, "more": 1.3, "none": None, "far": 30.0}


def lengths(ax):
    """How long each bar is on the page, in pixels, with its sign."""
    ax.figure.draw_without_rendering()
    boxes = [(patch.get_x(), patch.get_x() + patch.get_width()) for patch in ax.patches]
    ends = [ax.transData.transform([(start, 0), (end, 0)])[:, 0] for start, end in boxes]
    return [end - start for start, end in ends]


@pytest.mark.parametrize("limit", [None, 50, 5000])
def test_bars_of_bounds_are_as_long_as_the_logarithm_of_their_number(limit):
    ax = plot_bounds(RATIOS, limit=limit)
    numbers = [ratio for ratio in RATIOS.values() if ratio is not None]
    drawn = lengths(ax)
    scale = drawn[-1] / math.log(numbers[-1])
    assert drawn == pytest.approx([scale * math.log(ratio) for ratio in numbers], abs=1e-6)
    assert drawn == sorted(drawn)


def test_what_is_equal_has_a_mark_and_no_bar():
    ratios = {"below by rounding": 1 - 1e-9, "equal": 1.0, "above by rounding": 1 + 1e-9, "not equal": 1 + 1e-4}
    ax = plot_bounds(ratios)
    assert [abs(length) < 1e-3 for length in lengths(ax)] == [True, True, True, False]
    assert [(line.get_ydata()[0], line.get_color()) for line in ax.lines] == [(0, GREEN), (1, GREEN), (2, GREEN)]
    assert [text.get_text() for text in ax.texts] == ["equal", "equal", "equal", "1e-04 above 1"]


def test_bars_of_times_start_at_one_and_go_left_where_the_other_is_faster():
    rows = [("four times", 4.0, 2.0), ("as fast", 1.0, None), ("a quarter", 0.25, 1.0), ("twice", 2.0, None)]
    four, none, quarter, two = lengths(plot_ratios(rows))
    assert (none, quarter) == pytest.approx((0, -four), abs=1e-6)
    assert two == pytest.approx(four / 2)
