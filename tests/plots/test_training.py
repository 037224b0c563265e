"""The picture of training: every number at its place, means over seeds with their bands."""

import math

import pytest

pytest.importorskip("matplotlib")

from matplotlib.lines import Line2D

from convkit.plots import FAINT, plot_training, styles
from convkit.plots.training import MOST_LOSSES, _log_ticks, loss_points, over_seeds
from convkit.teaching.pictures import png_bytes
from convkit.training.plan import Record
from tests.plots.test_styles import sample


def steps_of(count, **last):
    return [Record(step, 2.0 / step, 0.5, 0.1, **last) for step in range(1, count + 1)]


def test_the_picture_holds_every_finite_number_and_nothing_else():
    history = [
        Record(1, 2.0, 0.1, 0.1, 0.25, {"a": 1.0, "b": 4.0}, {"a": 2.0, "b": 3.0, "c": 9.0}),
        Record(2, math.nan, 0.1, 0.1),
        Record(3, 0.5, 0.1, 0.1, 0.75, {"a": 2.0, "b": 3.0}, {"a": math.inf, "b": math.inf}),
    ]
    figure = plot_training({"one": history})
    loss, accuracy, norms, conditions = (
        [(list(line.get_xdata()), list(line.get_ydata())) for line in ax.lines] for ax in figure.axes[:4]
    )
    assert loss == [([1, 3], [2.0, 0.5])]
    assert accuracy == [([1, 3], [25.0, 75.0])]
    assert norms == [([1, 3], [4.0, 3.0]), ([1, 3], [1.0, 2.0])]
    assert conditions == [([1], [3.0])]
    assert named(figure) == ["one"]


def named(figure):
    return [text.get_text() for text in figure.axes[4].get_legend().get_texts()]


def seeds(*losses, diverged=0):
    """A history for each list of losses; the first of them diverges at this step."""
    histories = [[Record(step, loss, 0.5, 0.1) for step, loss in enumerate(one, 1)] for one in losses]
    if diverged:
        histories[0] = [*histories[0][: diverged - 1], Record(diverged, math.nan, 0.5, 0.1, diverged="the loss is nan")]
    return histories


def test_seeds_are_a_mean_with_a_band_from_the_lowest_to_the_highest():
    ours = seeds([4.0, 2.0, 1.0], [2.0, 1.0, 0.25], [3.0, 0.3, 0.25])
    figure = plot_training({"one": ours, "two": steps_of(3)}, before=[seeds([8.0, 8.0], [2.0, 2.0])])
    loss = figure.axes[0]
    before, mean, two = loss.lines
    assert list(mean.get_ydata()) == pytest.approx([3.0, 1.1, 0.5])
    assert (list(before.get_ydata()), before.get_color()) == ([5.0, 5.0], FAINT)
    (band,) = loss.patches
    corners = band.get_xy()[:6]
    assert corners[:3].tolist() == [[1, 2.0], [2, 0.3], [3, 0.25]]
    assert corners[3:].tolist() == [[3, 1.0], [2, 2.0], [1, 4.0]]
    assert len(two.get_ydata()) == 3
    low, high = loss.get_ylim()
    assert low < 0.25 < 5 < high


def test_a_seed_that_diverged_counts_up_to_its_end_and_those_that_train_are_cut_to_the_shortest():
    two, one, four = [2.0] * 5, [1.0] * 5, [4.0] * 4
    x, mean, low, high = over_seeds(seeds(two, one, four, diverged=3), loss_points)
    assert x == [1, 2, 3, 4]
    assert mean == pytest.approx([7 / 3, 7 / 3, 2.5, 2.5])
    assert (low, high) == ([1.0] * 4, [4.0] * 4)
    assert over_seeds([[], []], loss_points) == ([], [], [], [])


@pytest.mark.parametrize("steps", [100, 300, 1000])
def test_long_losses_are_means_of_blocks_as_the_title_says(steps):
    history = [Record(step, 1.0 + step % 2, 0.5, 0.1) for step in range(1, steps + 1)]
    ax = plot_training({"one": history}).axes[0]
    block = math.ceil(steps / MOST_LOSSES)
    (line,) = ax.lines
    assert ax.get_title(loc="left") == "loss of the batch" + (f", mean of {block} steps" if block > 1 else "")
    assert len(line.get_xdata()) == steps // block
    first = [record.loss for record in history[:block]]
    assert line.get_ydata()[0] == pytest.approx(sum(first) / block)
    assert line.get_xdata()[0] == block


@pytest.mark.parametrize(
    "done, planned, reach", [(4, 300, 50), (50, 300, 100), (120, 300, 200), (250, 300, 300), (4, 20, 20), (7, 0, 7)]
)
def test_the_axis_grows_by_leaps_to_the_planned_steps(done, planned, reach):
    figure = plot_training({"one": steps_of(done)}, steps=planned)
    assert all(ax.get_xlim() == (0, pytest.approx(1.01 * reach)) for ax in figure.axes[:4])


def test_the_runs_before_are_gray_and_named():
    figure = plot_training({"one": steps_of(4)}, before=[steps_of(6)])
    assert named(figure) == ["one", "the runs before"]
    assert {line.get_color() for line in figure.axes[0].lines if len(line.get_xdata()) == 6} == {FAINT}


@pytest.mark.parametrize("count", [7, 9, 20])
def test_every_run_is_drawn_in_a_look_of_its_own_and_named_in_the_legend(count):
    names = [f"ConvNorm, {place}" for place in range(count)]
    record = {"test_accuracy": 0.5, "norms": {"a": 1.0, "b": 3.0}, "conditions": {"a": 2.0}}
    figure = plot_training({name: steps_of(9, **record) for name in names})
    for lines, ax in zip((count, count, 2 * count, count), figure.axes[:4], strict=True):
        assert len({sample(line) for line in ax.lines if len(line.get_xdata())}) == lines
    legend = figure.axes[4].get_legend()
    assert named(figure) == names
    assert [sample(line) for line in legend.get_lines()] == [
        sample(Line2D([], [], color=color, marker=marker, ls=line, ms=5, lw=2)) for color, marker, line in styles(count)
    ]
    figure.draw_without_rendering()
    box = legend.get_window_extent()
    assert 0 <= box.x0 < box.x1 <= figure.bbox.width
    assert max(ax.get_window_extent().y1 for ax in figure.axes[:4]) < box.y0 < box.y1 <= figure.bbox.height


def test_no_runs_at_all_are_four_empty_axes():
    figure = plot_training({})
    assert not any(len(line.get_xdata()) for ax in figure.axes for line in ax.lines)
    assert png_bytes(figure)


@pytest.mark.parametrize("low, high", [(0.9, 1.1), (0.5, 3), (0.01, 3), (1e-9, 1e25), (3.1, 3.9), (2e-5, 7e-5)])
def test_ticks_are_few_and_inside(low, high):
    low, high = (low, high) if high / low >= 4 else (low / 2, high * 2)  # the least that the picture shows
    ticks = _log_ticks(low, high)
    assert 2 <= len(ticks) <= 6
    assert ticks == sorted(ticks)
    assert low <= ticks[0] < ticks[-1] <= high
    assert math.isfinite(sum(ticks))
