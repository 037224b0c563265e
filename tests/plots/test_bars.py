"""Bars and dots are where their numbers say: nothing is longer than a larger number, and no frame cuts a dot."""

import math

import pytest

pytest.importorskip("matplotlib")
from convkit.plots import GREEN, plot_bounds, plot_dots, plot_ratios, plot_seeds

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


@pytest.mark.parametrize("count", [1, 2, 3, 5, 8, 20])
def test_dots_of_many_seeds_stay_with_their_group(count):
    ax = plot_seeds({"one": list(range(count)), "other": [2.0] * count})
    dots = [line for line in ax.lines if line.get_marker() == "o"]
    assert len(dots) == 2 * count
    for place, group in enumerate((dots[:count], dots[count:])):
        x = [float(dot.get_xdata()[0]) for dot in group]
        assert max(abs(at - place) for at in x) <= 0.36
        assert sum(x) / count == pytest.approx(place)
        assert len(set(x)) == count


@pytest.mark.parametrize("values", [[3.0, 3.1], [0.001, 0.001], [1.0, 90.0], [-2.0, -1.0], [0.0, 0.0]])
def test_no_dot_is_cut_by_the_frame_also_where_it_begins_at_zero(values):
    ax = plot_dots({"a": values, "b": values[:1]})
    low, high = ax.get_xlim()
    assert low < min(values) <= max(values) < high
    ax.set_xlim(left=min(0, *values))
    low, right = ax.get_xlim()
    assert right == high
    if max(values) > 0:
        assert (high - max(values)) / (high - low) > 0.04
