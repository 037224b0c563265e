"""Plots of curves and points: numbers along an axis."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
from matplotlib.axes import Axes

from convkit.plots.numbers import numbers
from convkit.plots.style import BLUE, FAINT, INK, SKY, VERMILION, Style, new_ax, styles

Curve = tuple[Any, Any]
Place = Literal["best", "upper left"]


def plot_curves(
    curves: Mapping[str, Curve | list[Curve]],
    ax: Axes | None = None,
    markers: float | None = None,
    legend: Place | None = "best",
    style: Sequence[Style] | None = None,
    **look: Any,
) -> Axes:
    """Plot curves by name, each name in its own style; a name has a curve ``(x, y)``, or a list with one per seed.

    A curve has about ``markers`` markers (``inf``: one at every point; by default 10, or 6 for a list). ``legend`` is
    its place (``None``: no legend), ``style`` a list such as ``styles(n)`` returns, and ``look`` goes to ``Axes.plot``.
    Set logarithmic axes afterwards: ``plot_curves(curves).set(yscale="log")``.
    """
    ax = new_ax(ax)
    for (name, several), (color, marker, line) in zip(curves.items(), style or styles(len(curves)), strict=True):
        pairs, few, ms, lw = (several, 6, 4.5, 1.2) if isinstance(several, list) else ([several], 10, 5, 1.5)
        usual = {"color": color, "marker": marker, "ls": line, "ms": ms, "lw": lw}
        for number, (x, y) in enumerate(pairs):
            every = max(1, int(len(x) // (markers or few)))
            ax.plot(numbers(x), numbers(y), label=name if number == 0 else None, markevery=every, **usual | look)
    if legend:
        ax.legend(frameon=False, loc=legend)
    return ax


def plot_points(points: Mapping[str, Curve], ax: Axes | None = None, legend: Place | None = None, **look: Any) -> Axes:
    """Plot points by name, each name with its own color and marker; ``look`` goes to ``plot_curves``."""
    return plot_curves(points, ax, math.inf, legend, ls="none", **look)


def plot_bands(
    runs: Mapping[str, tuple[Any, Sequence[Any]]], ax: Axes | None = None, style: Sequence[Style] | None = None
) -> Axes:
    """Plot the median of several runs by name, and a band from the lowest to the highest of them.

    A name has ``(x, runs)``. A run that ended early counts as far as it goes.
    """
    ax, medians = new_ax(ax), {}
    style = style or styles(len(runs))
    for (name, (x, several)), (color, _, _) in zip(runs.items(), style, strict=True):
        table = np.full((len(several), max(map(len, several))), np.nan)
        for row, values in zip(table, several, strict=True):
            row[: len(values)] = numbers(values)
        x = numbers(x)[: table.shape[1]]
        ax.fill_between(x, np.nanmin(table, 0), np.nanmax(table, 0), color=color, alpha=0.22, lw=0)
        medians[name] = x, np.nanmedian(table, 0)
    return plot_curves(medians, ax, style=style)


def plot_spectra(spectra: Mapping[str, Any], ax: Axes | None = None, style: Sequence[Style] | None = None) -> Axes:
    """Plot singular values, sorted in descending order, against their index, one curve per name."""
    ax = plot_curves({name: _numbered(values) for name, values in spectra.items()}, ax, markers=20, style=style)
    ax.set(xlabel="index, largest first", ylabel="singular value", ylim=(0, None))
    return ax


def plot_two_spectra(dense: Any, fast: Any, ax: Axes | None = None) -> Axes:
    """Plot two lists of singular values, sorted in descending order, as rings (dense matrix) and dots (FFT)."""
    ax, small = new_ax(ax), len(dense) > 60
    for values, name, look in (
        (dense, "SVD of the dense matrix", {"mfc": "none", "mec": VERMILION, "ms": 6 if small else 9, "mew": 1.5}),
        (fast, "two lines with the FFT", {"mfc": BLUE, "mec": BLUE, "ms": 2.5 if small else 4}),
    ):
        ax.plot(np.arange(1, len(values) + 1), numbers(values), "o", ls="none", clip_on=False, label=name, **look)
    ax.set(xlabel="index, largest first", ylabel="singular value", ylim=(0, None))
    ax.legend(frameon=False, loc="upper right")
    return ax


def plot_growth(seconds: Mapping[str, Curve], ax: Axes | None = None) -> Axes:
    """Plot sizes against seconds on logarithmic axes, so that a power law is a straight line."""
    ax = plot_curves(seconds, ax, markers=math.inf, legend="upper left", ms=6)
    ax.set(ylabel="seconds", xscale="log", yscale="log")
    return ax


def plot_band(x: Any, lower: Any, upper: Any, points: Mapping[str, Any], ax: Axes | None = None) -> Axes:
    """Plot points for each x, and the band between two bounds on them."""
    ax, x, lower, upper = new_ax(ax), numbers(x), numbers(lower), numbers(upper)
    ax.fill_between(x, lower, upper, color=SKY, alpha=0.25, lw=0)
    ax.plot(x, upper, color=SKY, lw=1.5)
    ax.plot(x, lower, color=SKY, lw=1.5)
    return plot_points({name: (x, values) for name, values in points.items()}, ax, legend="upper left", ms=8)


def plot_plane(points: Mapping[str, Any], ax: Axes | None = None) -> Axes:
    """Plot complex numbers as points in the plane, with the unit circle."""
    ax, turn = new_ax(ax, (4, 4)), np.linspace(0, 2 * np.pi, 200)
    ax.plot(np.cos(turn), np.sin(turn), color=FAINT, lw=1)
    arrays = {name: numbers(values) for name, values in points.items()}
    plot_points({name: (np.real(values), np.imag(values)) for name, values in arrays.items()}, ax, ms=8)
    ax.set(xlabel="real part", ylabel="imaginary part", aspect="equal")
    ax.legend(frameon=False, loc="upper left", bbox_to_anchor=(0, -0.2))
    return ax


def plot_wave(values: Any, ax: Axes | None = None, limit: float | None = None) -> Axes:
    """Plot a short signal as bars on a zero line."""
    ax, values = new_ax(ax, (5, 2)), numbers(values)
    ax.bar(np.arange(len(values)), values, color=BLUE, width=0.8)
    ax.axhline(0, color=INK, lw=0.8)
    ax.set(xlabel="pixel", ylim=None if limit is None else (-limit, limit))
    return ax


def plot_symbol(
    curve: Any, samples: Mapping[str, Any], ax: Axes | None = None, levels: Mapping[str, float] | None = None
) -> Axes:
    """Plot singular values against frequency: a gray curve for all, markers for each image size, dashed levels.

    All have shape ``(frequencies, r)``, from 0 to one wave per pixel; the second half, which repeats the first one for
    a real kernel, is not shown.
    """
    ax, levels = new_ax(ax), levels or {}
    values = numbers(curve)
    ax.plot(np.arange(len(values)) / len(values), values, color=FAINT, lw=2.5, zorder=1)
    arrays = {name: numbers(points) for name, points in samples.items()}
    sampled = {name: (np.repeat(np.arange(len(y)) / len(y), y.shape[-1]), y.ravel()) for name, y in arrays.items()}
    plot_points(sampled, ax, style=styles(len(samples) + 1)[1:], ms=7)
    for (name, level), (color, _, line) in zip(levels.items(), styles(len(levels)), strict=True):
        ax.axhline(float(numbers(level)), color=color, ls="--" if line == "-" else line, lw=1.5, label=name)
    ax.set(xlabel="waves per output pixel", ylabel="singular value", xlim=(-0.015, 0.515), ylim=(0, None))
    return ax


def plot_folding(values: Any, folds: int, ax: Axes | None = None, on_top: bool = False) -> Axes:
    """Plot numbers at all frequencies, cut into equal parts: side by side, or on top of each other as by a stride."""
    parts = np.split(numbers(values), folds)
    firsts = range(0, len(values), len(parts[0]))
    curves = {
        f"frequencies {first} to {first + len(part) - 1}": _numbered(part, 0 if on_top else first)
        for first, part in zip(firsts, parts, strict=True)
    }
    ax = plot_curves(curves, ax, markers=math.inf)
    ax.set(xlabel="frequency", ylim=(0, None))
    return ax


def plot_by_layer(curves: Mapping[str, Any], ax: Axes | None = None, ceiling: Any = None) -> Axes:
    """Plot norms against the number of layers on a logarithmic scale, and an upper bound in gray."""
    ax = new_ax(ax)
    if ceiling is not None:
        ax.plot(*_numbered(ceiling, 0), color=FAINT, lw=5, label="ceiling")
    plot_curves({name: _numbered(norms, 0) for name, norms in curves.items()}, ax)
    ax.set(xlabel="layers passed", ylabel="norm", yscale="log")
    ax.minorticks_off()  # they take a third of the time of a drawing
    return ax


def plot_channels(spectra: Mapping[str, Any], ax: Axes | None = None, style: Sequence[Style] | None = None) -> Axes:
    """Plot the singular values of every channel in descending order: a style per name, a line per channel."""
    several = {name: [_numbered(values) for values in channels] for name, channels in spectra.items()}
    ax = plot_curves(several, ax, markers=12, legend=None, style=style, lw=1.3)
    ax.axhline(1, color=INK, ls="--", lw=1)
    ax.set(xlabel="index, largest first", ylabel="singular value of a channel", ylim=(0, None))
    return ax


def plot_layers(curves: Mapping[str, Sequence[Any]], ax: Axes | None = None) -> Axes:
    """Plot one number per layer, a line per seed and a style per name; a dashed line at 1."""
    several = {name: [_numbered(values) for values in seeds] for name, seeds in curves.items()}
    ax = plot_curves(several, ax, markers=math.inf, legend=None)
    ax.axhline(1, color=INK, ls="--", lw=1)
    ax.grid(axis="y", color=FAINT, lw=0.4)
    ax.locator_params(axis="x", integer=True)
    ax.set(xlabel="layer")
    return ax


def _numbered(values: Any, first: int = 1) -> Curve:
    """Return values and their indices, from ``first`` on."""
    return np.arange(first, first + len(values)), numbers(values)
