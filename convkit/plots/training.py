"""Plots of training: what each step of several runs did."""

import math
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol

from matplotlib.axes import Axes
from matplotlib.figure import Figure

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
    @property
    def diverged(self) -> str | None: ...


History = Sequence[Record]
_PLACES = ((0.06, 0.5, 0.42, 0.335), (0.56, 0.5, 0.42, 0.335), (0.06, 0.09, 0.42, 0.335), (0.56, 0.09, 0.42, 0.335))
_STRIP = (0.0, 0.88, 1.0, 0.08)
_TITLES = (
    "test accuracy (%)",
    "norm of the layers: largest (line), least (dots)",
    "condition number of the channels, median",
)
MOST_LOSSES = 150  # points of the loss over the width of the axis


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


def plot_training(
    runs: Mapping[str, History | Sequence[History]],
    figure: Figure | None = None,
    steps: int = 0,
    before: Sequence[History | Sequence[History]] = (),
) -> Figure:
    """Plot loss, test accuracy, norms and condition numbers of runs, by name, from their records.

    Where a name has several histories, one per seed, the line is their mean, and a band reaches from the lowest to the
    highest. In long runs a point of the loss is the mean of some steps, as its title says.

    Args:
        runs: The records of each run, or a list of the records of each seed.
        figure: What to draw on; without one a new figure is made.
        steps: The planned number of steps, up to which the axis grows in jumps.
        before: Runs that are drawn in gray behind the others, without bands.
    """
    figure = Figure((10.5, 5.2)) if figure is None else figure
    several = {name: _seeds(histories) for name, histories in runs.items()}
    old = [_seeds(histories) for histories in before]
    last = max([1, *(history[-1].step for one in (*several.values(), *old) for history in one if history)])
    last = max(last, min(steps, _leap(last)))
    block = math.ceil(last / MOST_LOSSES)
    axes = [figure.add_axes(place) for place in _PLACES]
    seen: list[list[float]] = [[], [], [], []]  # numbers that must be inside
    looks = styles(len(several))
    for histories in old:
        _draw(axes, seen, histories, "", {"color": FAINT, "lw": 1.2, "zorder": 1}, last, block)
    for (name, histories), (color, marker, line) in zip(several.items(), looks, strict=True):
        look = {"color": color, "marker": marker, "ls": line, "ms": 4.5, "lw": 1.5, "zorder": 3}
        _draw(axes, seen, histories, name, look, last, block)
    loss = "loss of the batch" + (f", mean of {block} steps" if block > 1 else "")
    for place, (ax, title) in enumerate(zip(axes, (loss, *_TITLES), strict=True)):
        ax.set_title(title, fontsize=10, loc="left")
        ax.grid(color=FAINT, lw=0.4)
        ax.spines[["top", "right"]].set_visible(False)
        ax.tick_params(labelsize=9)
        ax.locator_params(axis="x", integer=True)
        ax.set_xlim(0, 1.01 * last)
        if place < 2:
            ax.tick_params(labelbottom=False)  # as below
        else:
            ax.set_xlabel("step", fontsize=9)
        if place == 1:
            ax.set_ylim(0, 103)
        else:
            _scale(ax, seen[place])
    _legend(figure, several, any(map(any, old)))
    return figure


def _seeds(histories: History | Sequence[History]) -> list[History]:
    return list(histories) if histories and isinstance(histories[0], Sequence) else [histories]  # pyright: ignore


def _draw(
    axes: Sequence[Axes],
    seen: list[list[float]],
    histories: Sequence[History],
    name: str,
    look: dict[str, Any],
    last: int,
    block: int,
) -> None:
    """Draw the curves of one run, or the means over its seeds with their bands, and note the numbers seen."""
    thin: dict[str, Any] = look | {"lw": 1.1}
    dots: dict[str, Any] = look | {"ls": ":", "lw": 1.6} | ({"marker": ""} if look.get("ls", "-") == "-" else {})
    for place, points, own, banded in (
        (0, lambda history: _blocks(loss_points(history), block), thin, True),
        (1, accuracy_points, look, True),
        (2, norm_points, look, True),
        (2, lambda history: norm_points(history, min), dots, False),
        (3, condition_points, look, True),
    ):
        x, middle, low, high = over_seeds(histories, points)
        if not x:
            continue
        apart = x[1] - x[0] if len(x) > 1 else 1
        every = max(1, round(last / (10 * apart)))  # ten markers over the width
        axes[place].plot(x, middle, label=name or None, markevery=every, **own)
        seen[place] += middle
        if name and banded and len(histories) > 1:
            axes[place].fill([*x, *x[::-1]], [*low, *high[::-1]], color=look["color"], alpha=0.2, lw=0, label=name)
            seen[place] += [*low, *high]


def over_seeds(
    histories: Sequence[History], points: Callable[[History], Points]
) -> tuple[list[float], list[float], list[float], list[float]]:
    """Return steps and, over the seeds, the mean, the least and the largest number there.

    A seed that has diverged counts up to its end; the others are cut to the shortest of them, since they train in turn.
    """
    going = [history[-1].step if history else 0 for history in histories if not (history and history[-1].diverged)]
    last = min(going, default=math.inf)
    found: dict[float, list[float]] = {}
    for history in histories:
        for step, value in zip(*points(history), strict=True):
            if step <= last:
                found.setdefault(step, []).append(value)
    x = sorted(found)
    mean, low, high = ([choose(found[step]) for step in x] for choose in (statistics.fmean, min, max))
    return x, mean, low, high


def _blocks(points: Points, size: int) -> Points:
    """Return the last step and the mean of each block of so many steps."""
    if size == 1:
        return points
    blocks: dict[int, list[float]] = {}
    for step, value in zip(*points, strict=True):
        blocks.setdefault(math.ceil(step / size), []).append(value)
    return [float(block * size) for block in blocks], [statistics.fmean(values) for values in blocks.values()]


def _scale(ax: Axes, values: Sequence[float]) -> None:
    low, high = (min(values), max(values)) if values else (0.1, 10.0)
    low, high = low / 1.25, high * 1.25
    if high / low < 4:
        middle = math.sqrt(low * high)
        low, high = middle / 2, middle * 2
    ticks = _log_ticks(low, high)
    ax.set_yscale("log")
    ax.minorticks_off()
    ax.set_yticks(ticks, [_plain(tick) for tick in ticks])
    ax.set_ylim(low, high)


def _legend(figure: Figure, runs: Iterable[str], before: bool) -> None:
    """Draw a legend above all axes, on axes of its own."""
    ax, runs = figure.add_axes(_STRIP), list(runs)
    ax.set_axis_off()
    for name, (color, marker, line) in zip(runs, styles(len(runs)), strict=True):
        ax.plot([], [], color=color, marker=marker, ls=line, ms=5, lw=2, label=name)
    if before:
        ax.plot([], [], color=FAINT, lw=1.5, label="the runs before")
    if runs:
        rows = 1 if len(runs) <= 6 else math.ceil(len(runs) ** 0.5 / 2)
        size = 16 / rows if rows > 1 else 10 if sum(map(len, runs)) < 90 else 8.5
        ax.legend(frameon=False, loc="upper left", ncols=math.ceil((len(runs) + before) / rows), fontsize=size)


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
