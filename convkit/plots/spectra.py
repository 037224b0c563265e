"""Pictures of all layers of a network at once, and of bounds beside what was found."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes

from convkit.plots.style import BLUE, FAINT, INK, LOOKS, MARKERS, ORANGE, PURPLE, VERMILION, new_ax

VIEWS = {  # of sorted singular values: the words of both axes
    "raw": ("index, largest first", "singular value"),
    "ratio": ("index, largest first", "part of the layer's largest"),
    "rank": ("part of the layer's values", "part of the layer's largest"),
}
ROUNDING = 1e-7  # of a layer's largest value: what is smaller may be 0
POINTS = 90  # of a curve: more are not to be seen


def layer_colors(count: int) -> list[str]:
    """One color a layer, from dark blue for the first to yellow for the last: told apart without seeing colors."""
    return [colormaps["viridis"](part) for part in np.linspace(0, 0.93, count)]


def plot_layer_spectra(
    spectra: Mapping[str, Any],
    ax: Axes | None = None,
    view: str = "raw",
    picked: str | None = None,
    log: bool = False,
    faint: bool = False,
) -> Axes:
    """The singular values of every layer, sorted downwards, first layers dark and last ones light; one may be picked.

    ``view`` is ``"raw"``, ``"ratio"`` (each divided by its largest) or ``"rank"`` (against the part of its values):
    Figures 5, 6 and 7 of Sedghi et al. 2019. ``log`` leaves out what may be rounding; ``faint`` draws dotted lines, to
    lie behind others.
    """
    ax, others = new_ax(ax), []
    for (name, values), color in zip(spectra.items(), layer_colors(len(spectra)), strict=True):
        y = np.asarray(values, dtype=float)
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
    """Bounds as lines over the parts of a network, and below them all that was found, dot by dot; logarithmic."""
    ax = new_ax(ax, (8, 4))
    x = np.arange(len(names))
    for name, values in bounds.items():
        color, marker = next((look for word, *look in LOOKS if word in name), (INK, "X"))
        ax.semilogy(x, values, color=color, marker=marker, ms=6, lw=1.5, label=name)
    for place, values in enumerate(found):
        label = "derivative at an image" if place == 0 else None
        ax.semilogy(np.full(len(values), place), values, "o", color=BLUE, ms=3.5, alpha=0.5, mew=0, label=label)
    ax.set(xticks=x, xticklabels=names)
    ax.grid(axis="y", color=FAINT, lw=0.4)
    ax.legend(frameon=False, loc="upper left")
    return ax


def plot_radii(radii: Mapping[str, tuple[Any, Any]], ax: Axes | None = None) -> Axes:
    """Certified radii against those found by attack, image by image, both logarithmic; none can lie above the line."""
    ax = new_ax(ax, (5, 4))
    for (name, (found, certified)), color, marker in zip(
        radii.items(), (BLUE, ORANGE, PURPLE, VERMILION, INK), MARKERS, strict=False
    ):
        ax.loglog(found, certified, marker, ls="none", color=color, ms=5, alpha=0.75, mew=0, label=name)
    low, high = (pick(pick(found) for found, _ in radii.values()) for pick in (min, max))
    ax.plot([low, high], [low, high], color=INK, lw=1, label="equal")
    ax.set(xlabel="radius at which an attack succeeds", ylabel="certified radius")
    ax.legend(frameon=False, loc="center left")
    return ax
