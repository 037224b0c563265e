"""Plots of training: what each step of several runs did."""

import math
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from convkit.plots.style import FAINT, styles

Points = tuple[list[float], list[float]]


class Record(Protocol):
    """The numbers of one step that are drawn; ``convkit.training.Record`` has them."""

    @property
    def step(self) -> int: ...
    @property
    def loss(self) -> float: ...
    @property
    def test_accuracy(self) -> float | None: ...
    @property
    def norms(self) -> Mapping[str, float] | None: ...
    @property
    def conditions(self) -> Mapping[str, float] | None: ...


History = Sequence[Record]
_PLACES = ((0.06, 0.53, 0.42, 0.34), (0.56, 0.53, 0.42, 0.34), (0.06, 0.095, 0.42, 0.34), (0.56, 0.095, 0.42, 0.34))


def loss_points(history: History) -> Points:
    """Return steps and the losses of their batches."""
    return _points(history, lambda record: record.loss)


def accuracy_points(history: History) -> Points:
    """Return steps and the test accuracies after them in percent, where they were measured."""
    return _points(history, lambda record: None if record.test_accuracy is None else 100 * record.test_accuracy)


def norm_points(history: History, choose: Callable[[Iterable[float]], float] = max) -> Points:
    """Return steps and the largest (or smallest) norm of a layer after them, where it was measured."""
    return _points(history, lambda record: choose(record.norms.values()) if record.norms else None)


def condition_points(history: History) -> Points:
    """Return steps and the median over layers of their median channel condition numbers, where measured."""
    return _points(history, lambda record: statistics.median(record.conditions.values()) if record.conditions else None)


class TrainingPlot:
    """A plot of loss, test accuracy, norms and condition numbers of several runs, whose artists are reused.

    It is drawn several times a second while a network trains; new artists would take half as long again.
    """

    def __init__(self, figure: Figure) -> None:
        figure.clear()
        figure.set_layout_engine("none")  # fixed places: quicker, and nothing jumps
        self.figure = figure
        self.axes: list[Axes] = [figure.add_axes(place) for place in _PLACES]
        titles = ("loss of the batch", "test accuracy (%)", "norm of the layers: largest (line), least (dots)")
        for ax, title in zip(self.axes, (*titles, "condition number of the channels, median"), strict=True):
            ax.set_title(title, fontsize=10, loc="left")
            ax.grid(color=FAINT, lw=0.4)
            ax.spines[["top", "right"]].set_visible(False)
            ax.tick_params(labelsize=9)
            if ax is not self.axes[1]:
                ax.set_yscale("log")
                ax.minorticks_off()
            ax.locator_params(axis="x", integer=True)  # steps
        for ax in self.axes[:2]:
            ax.tick_params(labelbottom=False)  # as below; texts are what takes time
        for ax in self.axes[2:]:
            ax.set_xlabel("step", fontsize=9, labelpad=1)
        self.axes[1].set_ylim(0, 103)
        self._lines: dict[tuple[int, str, int], Line2D] = {}
        self._names: tuple[str, ...] = ()
        self._ticks: dict[int, list[float]] = {}

    def show(self, runs: Mapping[str, History], steps: int = 0, before: Sequence[History] = ()) -> None:
        """Draw ``runs`` by name, with those ``before`` in gray behind them; the axis grows in jumps up to ``steps``."""
        for line in self._lines.values():
            line.set_data([], [])
        last = max([1, *(history[-1].step for history in (*runs.values(), *before) if history)])
        last = max(last, min(steps, _leap(last)))
        for place, history in enumerate(before):
            self._draw("before", place, history, {"color": FAINT, "lw": 1.2, "zorder": 1}, last)
        for place, (history, (color, marker, line)) in enumerate(zip(runs.values(), styles(len(runs)), strict=True)):
            look = {"color": color, "marker": marker, "ls": line, "ms": 4.5, "lw": 1.5, "zorder": 3}
            self._draw("run", place, history, look, last)
        for number, ax in enumerate(self.axes):
            ax.set_xlim(0, 1.01 * last)
            if ax is not self.axes[1]:
                self._scale(number)
        self._legend(tuple(runs), any(before))

    def _draw(self, kind: str, place: int, history: History, look: dict[str, Any], last: int) -> None:
        dots = look | {"ls": ":", "lw": 1.6} | ({"marker": ""} if look.get("ls", "-") == "-" else {})
        for number, name, (x, y), own in (
            (0, kind, loss_points(history), look | {"lw": 1.1}),
            (1, kind, accuracy_points(history), look),
            (2, kind, norm_points(history), look),
            (2, f"{kind}, least", norm_points(history, min), dots),
            (3, kind, condition_points(history), look),
        ):
            line = self._line(number, name, place, own)
            line.set_data(x, y)
            apart = x[1] - x[0] if len(x) > 1 else 1
            line.set_markevery(max(1, round(last / (10 * apart))))  # ten of them over the width

    def _line(self, number: int, kind: str, place: int, look: dict[str, Any]) -> Line2D:
        key = (number, kind, place)
        if key not in self._lines:
            (self._lines[key],) = self.axes[number].plot([], [], **look)
        return self._lines[key]

    def _scale(self, number: int) -> None:
        values = [y for (n, _, _), line in self._lines.items() if n == number for y in np.asarray(line.get_ydata())]
        low, high = (min(values), max(values)) if values else (0.1, 10.0)
        low, high = low / 1.25, high * 1.25
        if high / low < 4:
            middle = math.sqrt(low * high)
            low, high = middle / 2, middle * 2
        ticks = _log_ticks(low, high)
        ax = self.axes[number]
        if self._ticks.get(number) != ticks:
            ax.set_yticks(ticks, [_plain(tick) for tick in ticks])
            self._ticks[number] = ticks
        ax.set_ylim(low, high)

    def _legend(self, runs: tuple[str, ...], before: bool) -> None:
        names = (*runs, "the runs before") if before else runs
        if names == self._names:
            return
        self._names = names
        for legend in list(self.figure.legends):
            legend.remove()
        handles = [Line2D([], [], color=c, marker=marker, ls=ls, ms=5, lw=2) for c, marker, ls in styles(len(runs))]
        handles += [Line2D([], [], color=FAINT, lw=1.5)] if before else []
        if names:
            rows = 1 if len(runs) <= 6 else math.ceil(len(runs) ** 0.5 / 2)
            size = {"ncols": math.ceil(len(names) / rows), "fontsize": 10 if rows == 1 else 16 / rows}
            self.figure.legend(handles, names, loc="upper left", frameon=False, **size)


def plot_training(runs: Mapping[str, History], figure: Figure | None = None) -> Figure:
    """Plot loss, test accuracy, norms and condition numbers of runs, by name, from their records."""
    figure = Figure((10.5, 4.9)) if figure is None else figure
    TrainingPlot(figure).show(runs)
    return figure


def _points(history: History, number: Callable[[Record], float | None]) -> Points:
    """Return steps and the finite numbers measured there, raised to at least 1e-9 for a logarithmic axis."""
    found = [(record.step, value) for record in history if (value := number(record)) is not None]
    finite = [(step, max(value, 1e-9)) for step, value in found if math.isfinite(value)]
    return [step for step, _ in finite], [value for _, value in finite]


def _log_ticks(low: float, high: float) -> list[float]:
    """Return at most six round numbers between two: the finest of three kinds that has so few."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for digits in ((1, 1.5, 2, 3, 4, 6), (1, 2, 5), (1,)):
        ticks = [digit * 10.0**power for power in powers for digit in digits if low <= digit * 10.0**power <= high]
        if len(ticks) <= 6:
            return ticks
    return ticks[:: math.ceil(len(ticks) / 6)]


def _leap(step: int) -> int:
    """Return the next of 50, 100, 200, 500, 1000, ..."""
    return next(
        leap for power in range(12) for leap in (50 * 10**power, 100 * 10**power, 200 * 10**power) if leap > step
    )


def _plain(value: float) -> str:
    return f"{value:g}".replace("e+0", "e").replace("e-0", "e-").replace("e+", "e")
