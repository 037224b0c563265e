"""Plots of numbers side by side: bars, dots, intervals, tables."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from convkit.plots.numbers import numbers
from convkit.plots.style import BLUE, FAINT, GREEN, INK, VERMILION, Style, new_ax, styles, styles_by_meaning


def plot_bounds(ratios: Mapping[str, float | None], ax: Axes | None = None, limit: float | None = None) -> Axes:
    """Plot upper bounds divided by the exact norm as bars on a logarithmic axis, from 1 on.

    A bound that is equal to the norm has a bar of length 0: a green diamond marks it. Where a bound does not apply,
    words say so.
    """
    ax = new_ax(ax, (7, 0.42 * len(ratios) + 1))
    ratios = {name: None if ratio is None else float(numbers(ratio)) for name, ratio in ratios.items()}
    limit = limit or max([4.0, *(ratio for ratio in ratios.values() if ratio)]) * 1.6
    for place, ratio in enumerate(ratios.values()):
        if ratio is None:
            words, end, style = "does not apply here", 1.0, "italic"
        else:
            tight = abs(ratio - 1) < 1e-6
            words = "equal" if tight else f"{ratio - 1:.0e} above 1" if ratio < 1.005 else f"{ratio:.3g}"
            end, style = ratio, "normal"
            ax.barh(place, ratio - 1, left=1, color=GREEN if tight else BLUE, height=0.68)
            if tight:
                ax.plot(1, place, "D", color=GREEN, ms=6, clip_on=False, zorder=3)
        ax.annotate(
            words, (end, place), (7, 0), textcoords="offset points", va="center", fontsize=9, color=INK, style=style
        )
    ticks = [tick for tick in (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000) if tick <= limit]
    ax.set_xscale("log")
    ax.set(yticks=range(len(ratios)), yticklabels=list(ratios), ylim=(len(ratios) - 0.4, -0.6), xlim=(1, limit))
    ax.minorticks_off()  # they take a third of the time of a drawing
    ax.set(xticks=ticks, xticklabels=ticks, xlabel="times the exact norm")
    return ax


def plot_ratios(rows: Sequence[tuple[str, float, float | None]], ax: Axes | None = None) -> Axes:
    """Plot ``(name, ratio, target)`` as bars on a logarithmic axis, to the left of 1 where the other is faster.

    A tick marks the target; bars that miss it have another color.
    """
    ax = new_ax(ax, (9, 0.42 * len(rows) + 1))
    for place, (_, ratio, target) in enumerate(rows):
        color = VERMILION if target is not None and ratio < target else BLUE
        ax.barh(place, float(numbers(ratio)) - 1, left=1, color=color, height=0.7)
        if target is not None:
            ax.plot([target, target], [place - 0.45, place + 0.45], color=INK, lw=2)
    ax.axvline(1, color=INK, lw=0.8)
    ax.set(
        yticks=range(len(rows)), yticklabels=[name for name, _, _ in rows], xscale="log", ylim=(len(rows) - 0.5, -0.5)
    )
    ax.set_xlabel("times our time (black tick: target)")
    ax.tick_params(axis="y", labelsize=7)
    return ax


def plot_seeds(
    groups: Mapping[str, Sequence[float | None]], ax: Axes | None = None, colors: Sequence[str] = (), floor: float = 0
) -> Axes:
    """Plot one number per seed for each name as dots, with a bar at their mean, and its value beside it.

    ``None`` is a cross at the floor.
    """
    ax = new_ax(ax)
    for place, values in enumerate(groups.values()):
        color = colors[place] if colors else BLUE
        values = [None if value is None else float(numbers(value)) for value in values]
        apart = min(0.14, 0.6 / max(1, len(values) - 1))  # many dots move together: no group reaches the next one
        x = place + (np.arange(len(values)) - (len(values) - 1) / 2) * apart
        for at, value in zip(x, values, strict=True):
            none = value is None
            ax.plot(
                at, floor if none else value, "x" if none else "o", color=VERMILION if none else color, ms=7, mew=1.5
            )
        if None not in values:
            mean = float(np.mean(numbers(values, dtype=float)))
            ax.plot([place - 0.35, place + 0.35], [mean, mean], color=color, lw=2)
            ax.text(place + 0.38, mean, f"{mean:.3g}", va="center", fontsize=8, color=INK)
    ax.set(xticks=range(len(groups)), xticklabels=list(groups), xlim=(-0.6, len(groups) - 0.2))
    ax.grid(axis="y", color=FAINT, lw=0.4)
    return ax


def plot_intervals(rows: Mapping[str, Mapping[str, Any]], ax: Axes | None = None, aside: str = "") -> Axes:
    """Plot, for each row, estimates from below and bounds from above on a logarithmic axis.

    A row maps names to numbers, or to lists of numbers. Names that contain "bound" are bounds. The true value lies in
    the band from the largest estimate to the smallest bound; the name ``aside`` is neither.
    """
    ax = new_ax(ax, (8, 0.7 * len(rows) + 1))
    ax.set_xscale("log")
    labels = {name: name for row in rows.values() for name in row}
    looks = dict(zip(labels, styles_by_meaning(labels), strict=True))
    for place, row in enumerate(rows.values()):
        found = max(float(np.max(numbers(row[name]))) for name in row if "bound" not in name and name != aside)
        bound = min(float(np.min(numbers(row[name]))) for name in row if "bound" in name)
        if found < bound:
            ax.plot([found, bound], [place, place], color=FAINT, alpha=0.55, lw=11, solid_capstyle="butt")
        for name, values in row.items():
            x, (color, marker, _) = np.atleast_1d(numbers(values, dtype=float)), looks[name]
            look = {"color": color, "marker": marker, "label": labels.pop(name, None)}  # a name is in the legend once
            ax.plot(x, np.full(len(x), place), ls="none", ms=6.5, mew=0, alpha=0.85, **look)
    ax.set(yticks=range(len(rows)), yticklabels=list(rows), ylim=(len(rows) - 0.4, -0.6))
    ax.minorticks_off()
    ax.grid(axis="x", color=FAINT, lw=0.4)
    room: dict[str, Any] = {"loc": "lower left", "bbox_to_anchor": (-0.01, 1), "columnspacing": 1.2}
    ax.legend(frameon=False, ncols=5, fontsize=9, handletextpad=0.2, **room)
    return ax


def plot_dots(groups: Mapping[str, Sequence[float]], ax: Axes | None = None, color: str | Sequence[str] = BLUE) -> Axes:
    """Plot one number per seed for each name as dots, one line per name, with a tick at the mean and its value.

    ``color`` is one for all, or a list with one for each name.
    """
    ax = new_ax(ax)
    arrays = [numbers(values) for values in groups.values()]
    at_the_right: dict[str, Any] = {"xycoords": ("axes fraction", "data"), "annotation_clip": False}
    colors = [color] * len(arrays) if isinstance(color, str) else color
    for place, (values, shade) in enumerate(zip(arrays, colors, strict=True)):
        mean = float(np.mean(values))
        ax.plot(values, np.full(len(values), place), "o", color=shade, ms=6, alpha=0.75, mew=0)
        ax.plot(mean, place, "|", color=INK, ms=13, mew=1.5)
        ax.annotate(f"{mean:.3g}", (1.015, place), va="center", fontsize=8, color=INK, **at_the_right)
    everything = [float(value) for values in arrays for value in values]
    if any(everything):
        ax.set_xlim(right=max(everything) + 0.05 * max(map(abs, everything)))  # else the frame may cut the last dots
    ax.set(yticks=range(len(groups)), yticklabels=list(groups), ylim=(len(groups) - 0.4, -0.6))
    ax.grid(axis="y", color=FAINT, lw=0.4)
    return ax


def plot_table(
    values: Sequence[Sequence[float | None]],
    rows: Sequence[str],
    columns: Sequence[str],
    ax: Axes | None = None,
    low: float = 0,
    high: float = 100,
) -> Axes:
    """Plot a table of numbers in colored cells, pale at ``low``, deep at ``high``; a cross where one is missing."""
    ax = new_ax(ax)
    cells = np.array([[np.nan if value is None else float(numbers(value)) for value in row] for row in values])
    ax.imshow(np.clip(cells, low, high), cmap="Blues", vmin=low, vmax=high + 0.25 * (high - low), aspect="auto")
    for (row, column), value in np.ndenumerate(cells):
        text = "×" if np.isnan(value) else f"{value:.0f}"
        deep = value > low + 0.75 * (high - low)
        ax.text(column, row, text, ha="center", va="center", color="white" if deep else INK, fontsize=9)
    ax.set(xticks=range(len(columns)), xticklabels=columns, yticks=range(len(rows)), yticklabels=rows)
    ax.tick_params(length=0)
    return ax


def plot_densities(
    groups: Mapping[str, Sequence[float]],
    ax: Axes | None = None,
    width: float = 0.1,
    style: Sequence[Style] | None = None,
) -> Axes:
    """Plot the density of the numbers of each name on a logarithmic axis, and a tick for each number.

    Densities are sums of Gaussians of standard deviation ``width``, in factors of ten.
    """
    ax, style = new_ax(ax), style or styles(len(groups))
    logs = {name: np.log10(numbers(values, dtype=float)) for name, values in groups.items()}
    low, high = (end(value for values in logs.values() for value in values) for end in (min, max))
    x = np.linspace(low - 3 * width, high + 3 * width, 300)
    peak = 0.0
    for values, (color, _, line) in zip(logs.values(), style, strict=True):
        density = np.exp(-(((x[:, None] - values) / width) ** 2) / 2).sum(1) / (len(values) * width * math.tau**0.5)
        peak = max(peak, float(density.max()))
        ax.plot(10**x, density, color=color, ls=line, lw=1.8)
    for place, ((name, values), (color, marker, line)) in enumerate(zip(logs.items(), style, strict=True)):
        height = -0.05 * peak * (place + 1)
        ax.plot(10**values, np.full(len(values), height), "|", color=color, ms=6, mew=0.9)
        ax.plot([], [], color=color, marker=marker, ls=line, lw=1.8, label=name)
    ax.set(xscale="log", yticks=[], ylim=(-0.05 * peak * (len(logs) + 1), 1.08 * peak))
    ax.legend(frameon=False, fontsize=9)
    return ax
