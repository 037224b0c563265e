"""Pictures of numbers by seed: dots of one group stay with it, and no frame cuts a dot."""

import pytest

pytest.importorskip("matplotlib")

from matplotlib.figure import Figure

from convkit.plots import plot_across, plot_seeds


def new_axes():
    return Figure(figsize=(4, 3)).subplots()


@pytest.mark.parametrize("count", [1, 2, 3, 5, 8, 20])
def test_dots_of_many_seeds_stay_with_their_group(count):
    ax = plot_seeds({"one": list(range(count)), "other": [2.0] * count}, new_axes())
    dots = [line for line in ax.lines if line.get_marker() == "o"]
    assert len(dots) == 2 * count
    for place, group in enumerate((dots[:count], dots[count:])):
        x = [float(dot.get_xdata()[0]) for dot in group]
        assert max(abs(at - place) for at in x) <= 0.36
        assert sum(x) / count == pytest.approx(place)
        assert len(set(x)) == count


@pytest.mark.parametrize("values", [[3.0, 3.1], [0.001, 0.001], [1.0, 90.0], [-2.0, -1.0]])
def test_the_last_dot_is_inside_the_frame_also_from_zero(values):
    ax = plot_across({"a": values, "b": values[:1]}, new_axes())
    right = ax.get_xlim()[1]
    assert right > max(values)
    ax.set_xlim(left=min(0, min(values)))
    low, high = ax.get_xlim()
    assert high == right
    if max(values) > 0:
        assert (high - max(values)) / (high - low) > 0.04


def test_zeros_are_drawn_inside_the_frame_too():
    low, high = plot_across({"a": [0.0, 0.0]}, new_axes()).get_xlim()
    assert low < 0 < high
