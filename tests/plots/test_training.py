"""The picture of training: every number at its place, and kept artists that draw what new ones would."""

import math

import pytest

from convkit.plots import FAINT, TrainingPlot, plot_training
from convkit.plots.training import _log_ticks
from convkit.teaching.pictures import png_bytes
from convkit.training.plan import Record


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
        [(list(line.get_xdata()), list(line.get_ydata())) for line in ax.lines] for ax in figure.axes
    )
    assert loss == [([1, 3], [2.0, 0.5])]
    assert accuracy == [([1, 3], [25.0, 75.0])]
    assert norms == [([1, 3], [4.0, 3.0]), ([1, 3], [1.0, 2.0])]
    assert conditions == [([1], [3.0])]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["one"]


def test_a_picture_brought_up_to_date_is_the_picture_made_anew():
    short, long = list(steps_of(3, norms={"a": 2.0})), list(steps_of(9, norms={"a": 30.0}))
    figure = plot_training({"one": short, "two": long})
    kept = TrainingPlot(figure)
    kept.show({"one": long}, before=[short])
    kept.show({"one": short, "two": long})
    assert png_bytes(figure) == png_bytes(plot_training({"one": short, "two": long}))


@pytest.mark.parametrize(
    "done, planned, reach", [(4, 300, 50), (50, 300, 100), (120, 300, 200), (250, 300, 300), (4, 20, 20), (7, 0, 7)]
)
def test_the_axis_grows_by_leaps_to_the_planned_steps(done, planned, reach):
    figure = plot_training({})
    TrainingPlot(figure).show({"one": steps_of(done)}, steps=planned)
    assert all(ax.get_xlim() == (0, pytest.approx(1.01 * reach)) for ax in figure.axes)


def test_the_runs_before_are_gray_and_named():
    figure = plot_training({"one": steps_of(4)})
    TrainingPlot(figure).show({"one": steps_of(4)}, before=[steps_of(6)])
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["one", "the runs before"]
    assert {line.get_color() for line in figure.axes[0].lines if len(line.get_xdata()) == 6} == {FAINT}


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
