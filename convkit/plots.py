"""Pictures of numbers: each function draws on an ax and returns it, computes nothing and sets no global style."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

# Okabe & Ito's palette: told apart with every common kind of color blindness, and in this order in gray
BLUE, ORANGE, GREEN, PURPLE, SKY, VERMILION = "#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00"
COLORS = (BLUE, ORANGE, GREEN, PURPLE, SKY, VERMILION)
INK, FAINT = "#222222", "#BBBBBB"
MARKERS = ("o", "s", "^", "D", "v", "P")
SIGNED = "PuOr_r"  # blue-violet below zero, white at zero, orange above


def new_ax(ax: Axes | None, size: tuple[float, float] = (6, 4)) -> Axes:
    """The given ax, or the only one of a new figure of this size in inches."""
    return Figure(size, layout="constrained").add_subplot() if ax is None else ax


def plot_matrix(
    matrix: Any,
    ax: Axes | None = None,
    blocks: Sequence[int] = (),
    row: int | None = None,
    limit: float | None = None,
) -> Axes:
    """A matrix as a picture, orange above zero, violet below; lines every ``blocks[i]`` entries, one row framed.

    ``limit`` is the magnitude at full color (the largest entry, when left out).
    """
    ax, values = new_ax(ax, (5, 5)), np.asarray(matrix)
    limit = limit or max(float(np.abs(values).max(initial=0)), 1e-12)
    ax.imshow(values, cmap=SIGNED, vmin=-limit, vmax=limit, interpolation="nearest")
    rows, columns = values.shape
    for level, size in enumerate(blocks):
        width = 0.5 + 0.7 * level
        for edge in range(size, rows, size):
            ax.axhline(edge - 0.5, color=INK, lw=width, alpha=0.5)
        for edge in range(size, columns, size):
            ax.axvline(edge - 0.5, color=INK, lw=width, alpha=0.5)
    if row is not None:
        ax.plot(
            [-0.5, columns - 0.5, columns - 0.5, -0.5, -0.5], row + 0.5 * np.array([-1, -1, 1, 1, -1]), color=BLUE, lw=2
        )
    ax.set(xlabel="input pixel", ylabel="output pixel")
    return ax


def plot_kernel(kernel: Any, ax: Axes | None = None, limit: float | None = None) -> Axes:
    """A small 2-D array as colored cells with its numbers written in."""
    ax, values = new_ax(ax, (3, 3)), np.atleast_2d(np.asarray(kernel))
    limit = limit or max(float(np.abs(values).max(initial=0)), 1e-12)
    ax.imshow(values, cmap=SIGNED, vmin=-limit, vmax=limit, interpolation="nearest")
    for (i, j), value in np.ndenumerate(values):
        ax.text(j, i, f"{value:.2g}", ha="center", va="center", color="white" if abs(value) > 0.7 * limit else INK)
    ax.set(xticks=[], yticks=[])
    return ax


def plot_spectra(spectra: Mapping[str, Any], ax: Axes | None = None) -> Axes:
    """Singular values sorted downwards against their index, one curve for each name."""
    ax = new_ax(ax)
    for (name, values), color, marker in zip(spectra.items(), COLORS, MARKERS, strict=False):
        values = np.asarray(values)
        every = max(1, len(values) // 20)
        ax.plot(
            np.arange(1, len(values) + 1), values, color=color, marker=marker, markevery=every, ms=5, lw=1.5, label=name
        )
    ax.set(xlabel="index, largest first", ylabel="singular value", ylim=(0, None))
    ax.legend(frameon=False)
    return ax


def plot_ratios(rows: Sequence[tuple[str, float, float | None]], ax: Axes | None = None) -> Axes:
    """Bars of ``(name, ratio, target)`` on a logarithmic axis; a tick at the target, missed ones in another color."""
    ax = new_ax(ax, (9, 0.42 * len(rows) + 1))
    for place, (_, ratio, target) in enumerate(rows):
        ax.barh(place, ratio, color=VERMILION if target is not None and ratio < target else BLUE, height=0.7)
        if target is not None:
            ax.plot([target, target], [place - 0.45, place + 0.45], color=INK, lw=2)
    ax.set(
        yticks=range(len(rows)), yticklabels=[name for name, _, _ in rows], xscale="log", ylim=(len(rows) - 0.5, -0.5)
    )
    ax.set_xlabel("times our time (black tick: target)")
    ax.tick_params(axis="y", labelsize=7)
    return ax
