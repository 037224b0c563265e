"""Plots of all layers of a network, and of upper bounds beside the values found."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes

from convkit.plots.curves import plot_curves, plot_points
from convkit.plots.numbers import numbers
from convkit.plots.style import BLUE, FAINT, INK, ORANGE, PURPLE, VERMILION, new_ax, styles, styles_by_meaning

VIEWS = {  # of sorted singular values: the words of both axes
    "raw": ("index, largest first", "singular value"),
    "ratio": ("index, largest first", "part of the layer's largest"),
    "rank": ("part of the layer's values", "part of the layer's largest"),
}
ROUNDING = 1e-7  # of a layer's largest value: what is smaller may be 0
POINTS = 90  # of a curve: more are not to be seen


def layer_colors(count: int) -> list[str]:
    """Return a color per layer, from dark blue for the first to yellow for the last, also distinct in gray."""
    return [colormaps["viridis"](part) for part in np.linspace(0, 0.93, count)]


def plot_layer_spectra(
    spectra: Mapping[str, Any],
    ax: Axes | None = None,
    view: str = "raw",
    picked: str | None = None,
    log: bool = False,
    faint: bool = False,
) -> Axes:
    """Plot the sorted singular values of every layer, from dark (first) to light (last); highlight one.

    ``view`` is ``"raw"``, ``"ratio"`` (divided by the largest of the layer) or ``"rank"`` (against the fraction of its
    values): Figures 5, 6 and 7 of Sedghi et al. 2019. ``log`` leaves out what may be rounding; ``faint`` draws dotted
    lines, as a background.
    """
    ax, others = new_ax(ax), []
    for (name, values), color in zip(spectra.items(), layer_colors(len(spectra)), strict=True):
        y = numbers(values, dtype=float)
        index = np.unique(np.rint(np.linspace(0, len(y) - 1, min(len(y), POINTS))).astype(int))
        x = (index + 1) / len(y) if view == "rank" else index + 1
        y = np.where(y > ROUNDING * y[0], y, np.nan) if log else y
        y = y if view == "raw" or y[0] == 0 else y / y[0]
        if picked is None or name == picked:
            width = 2.4 if name == picked else 1.2
            ax.plot(x, y[index], color=color, lw=width, ls=":" if faint else "-", zorder=3, label=name)
        else:
            others += [(x, y[index]), ([np.nan], [np.nan])]  # one line for all of them: a fifth of the time
    if others:
        x, y = (np.concatenate(parts) for parts in zip(*others, strict=True))
        ax.plot(x, y, color=FAINT, lw=0.6, ls=":" if faint else "-", zorder=1)
    if log:
        ax.set_yscale("log")
        ax.minorticks_off()  # they take a third of the time of a drawing
    else:
        ax.set_ylim(0, None)
    horizontal, vertical = VIEWS[view]
    ax.set(xlabel=horizontal, ylabel=vertical)
    return ax


def plot_growth_by_part(
    names: Sequence[str], bounds: Mapping[str, Any], found: Sequence[Any], ax: Axes | None = None
) -> Axes:
    """Plot bounds as lines over the parts of a network, and the values found below them as dots."""
    ax = new_ax(ax, (8, 4))
    x = np.arange(len(names))
    dots = "derivative at an image"
    style = styles_by_meaning([dots, *bounds])[1:]
    plot_curves({name: (x, values) for name, values in bounds.items()}, ax, math.inf, None, style, ms=6)
    for place, values in enumerate(found):
        label = dots if place == 0 else None
        ax.plot(np.full(len(values), place), numbers(values), "o", color=BLUE, ms=3.5, alpha=0.5, mew=0, label=label)
    ax.set(xticks=x, xticklabels=names, yscale="log")
    ax.grid(axis="y", color=FAINT, lw=0.4)
    ax.legend(frameon=False, loc="upper left")
    return ax


def plot_radii(radii: Mapping[str, tuple[Any, Any]], ax: Axes | None = None) -> Axes:
    """Plot certified radii against those found by attack, per image, on logarithmic axes.

    None can lie above the diagonal.
    """
    ax = new_ax(ax, (5, 4))
    style = styles(len(radii), (BLUE, ORANGE, PURPLE, VERMILION, INK))
    plot_points(radii, ax, style=style, ms=5, alpha=0.75, mew=0)
    low, high = (pick(pick(numbers(found)) for found, _ in radii.values()) for pick in (min, max))
    ax.plot([low, high], [low, high], color=INK, lw=1, label="equal")
    ax.set(xlabel="radius at which an attack succeeds", ylabel="certified radius", xscale="log", yscale="log")
    ax.legend(frameon=False, loc="center left")
    return ax
