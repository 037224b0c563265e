"""Pictures of curves: numbers along an axis."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from convkit.plots.style import BLUE, COLORS, FAINT, INK, MARKERS, SKY, VERMILION, new_ax


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


def plot_twins(dense: Any, fast: Any, ax: Axes | None = None) -> Axes:
    """Two lists of singular values, sorted downwards: rings for the dense matrix, dots for the fast way."""
    ax, small = new_ax(ax), len(dense) > 60
    for values, name, look in (
        (dense, "SVD of the dense matrix", {"mfc": "none", "mec": VERMILION, "ms": 6 if small else 9, "mew": 1.5}),
        (fast, "two lines with the FFT", {"mfc": BLUE, "mec": BLUE, "ms": 2.5 if small else 4}),
    ):
        ax.plot(np.arange(1, len(values) + 1), np.asarray(values), "o", ls="none", clip_on=False, label=name, **look)
    ax.set(xlabel="index, largest first", ylabel="singular value", ylim=(0, None))
    ax.legend(frameon=False, loc="upper right")
    return ax


def plot_growth(seconds: Mapping[str, tuple[Any, Any]], ax: Axes | None = None) -> Axes:
    """Sizes against seconds, both logarithmic, so that a power law is a straight line."""
    ax = new_ax(ax)
    for (name, (sizes, times)), color, marker in zip(seconds.items(), COLORS, MARKERS, strict=False):
        ax.loglog(sizes, times, color=color, marker=marker, label=name)
    ax.set(ylabel="seconds")
    ax.legend(frameon=False, loc="upper left")
    return ax


def plot_between(x: Any, lower: Any, upper: Any, points: Mapping[str, Any], ax: Axes | None = None) -> Axes:
    """Points for each x, and the band between two bounds that no point can leave."""
    ax = new_ax(ax)
    ax.fill_between(x, lower, upper, color=SKY, alpha=0.25, lw=0)
    ax.plot(x, upper, color=SKY, lw=1.5)
    ax.plot(x, lower, color=SKY, lw=1.5)
    for (name, values), color, marker in zip(points.items(), COLORS, MARKERS, strict=False):
        ax.plot(x, values, marker, ls="none", color=color, ms=8, label=name)
    ax.legend(frameon=False, loc="upper left")
    return ax


def plot_lines(curves: Mapping[str, tuple[Any, Any]], ax: Axes | None = None) -> Axes:
    """Curves ``(x, y)``, each with a color and about ten markers of its own."""
    ax = new_ax(ax)
    for (name, (x, y)), color, marker in zip(curves.items(), COLORS, MARKERS, strict=False):
        ax.plot(x, y, color=color, marker=marker, markevery=max(1, len(x) // 10), ms=5, lw=1.5, label=name)
    ax.legend(frameon=False)
    return ax


def plot_wave(values: Any, ax: Axes | None = None, limit: float | None = None) -> Axes:
    """A short signal as bars on a zero line."""
    ax, values = new_ax(ax, (5, 2)), np.asarray(values)
    ax.bar(np.arange(len(values)), values, color=BLUE, width=0.8)
    ax.axhline(0, color=INK, lw=0.8)
    ax.set(xlabel="pixel", ylim=None if limit is None else (-limit, limit))
    return ax


def plot_symbol(
    curve: Any, samples: Mapping[str, Any], ax: Axes | None = None, levels: Mapping[str, float] | None = None
) -> Axes:
    """Singular values against frequency: a gray curve for all, markers for what each torus samples, dashed levels.

    All are ``(frequencies, r)`` from 0 to one wave a pixel, of which the first half is shown: a real kernel repeats it.
    """
    ax = new_ax(ax)
    values = np.asarray(curve)
    ax.plot(np.arange(len(values)) / len(values), values, color=FAINT, lw=2.5, zorder=1)
    for (name, points), color, marker in zip(samples.items(), COLORS[1:], MARKERS[1:], strict=False):
        y = np.asarray(points)
        x = np.repeat(np.arange(len(y)) / max(len(y), 1), y.shape[-1])
        ax.plot(x, y.ravel(), marker, ls="none", color=color, ms=7, label=name)
    for (name, level), color in zip((levels or {}).items(), COLORS, strict=False):
        ax.axhline(level, color=color, ls="--", lw=1.5, label=name)
    ax.set(xlabel="waves per output pixel", ylabel="singular value", xlim=(-0.015, 0.515), ylim=(0, None))
    return ax


def plot_folding(values: Any, folds: int, ax: Axes | None = None, on_top: bool = False) -> Axes:
    """Numbers at all frequencies, cut into equal parts: side by side, or on top of each other as a stride lays them."""
    ax = new_ax(ax)
    for r, (part, color, marker) in enumerate(zip(np.split(np.asarray(values), folds), COLORS, MARKERS, strict=False)):
        first = r * len(part)
        x = np.arange(len(part)) + (0 if on_top else first)
        ax.plot(x, part, color=color, marker=marker, ms=5, label=f"frequencies {first} to {first + len(part) - 1}")
    ax.set(xlabel="frequency", ylim=(0, None))
    ax.legend(frameon=False)
    return ax


def plot_by_layer(curves: Mapping[str, Any], ax: Axes | None = None, ceiling: Any = None) -> Axes:
    """Norms against the layers passed on a logarithmic scale, and a gray ceiling that no curve can cross."""
    ax = new_ax(ax)
    if ceiling is not None:
        ax.semilogy(np.arange(len(ceiling)), ceiling, color=FAINT, lw=5, label="ceiling")
    for (name, norms), color, marker in zip(curves.items(), COLORS, MARKERS, strict=False):
        every = max(1, len(norms) // 10)
        ax.semilogy(np.arange(len(norms)), norms, color=color, marker=marker, markevery=every, ms=5, lw=1.5, label=name)
    ax.minorticks_off()  # they take a third of the time of a drawing
    ax.set(xlabel="layers passed", ylabel="norm")
    ax.legend(frameon=False)
    return ax


def plot_runs(curves: Mapping[str, Sequence[tuple[Any, Any]]], ax: Axes | None = None) -> Axes:
    """Curves ``(x, y)``, one for each seed, all seeds of a name in its color and marker."""
    ax = new_ax(ax)
    for (name, seeds), color, marker in zip(curves.items(), COLORS, MARKERS, strict=False):
        for number, (x, y) in enumerate(seeds):
            label = name if number == 0 else None
            ax.plot(x, y, color=color, marker=marker, markevery=max(1, len(x) // 6), ms=4.5, lw=1.2, label=label)
    ax.legend(frameon=False)
    return ax


def plot_channels(spectra: Mapping[str, Any], ax: Axes | None = None) -> Axes:
    """Singular values of every channel, largest first; for each name one color, one line a channel."""
    ax = new_ax(ax)
    for (name, channels), color, marker in zip(spectra.items(), COLORS, MARKERS, strict=False):
        for number, values in enumerate(np.asarray(channels)):
            every = max(1, len(values) // 12)
            label = name if number == 0 else None
            x = np.arange(1, len(values) + 1)
            ax.plot(x, values, color=color, marker=marker, markevery=every, ms=4.5, lw=1.3, label=label)
    ax.axhline(1, color=INK, ls="--", lw=1)
    ax.set(xlabel="index, largest first", ylabel="singular value of a channel", ylim=(0, None))
    return ax


def plot_layers(curves: Mapping[str, Sequence[Any]], ax: Axes | None = None) -> Axes:
    """One number a layer, one line a seed, all seeds of a name in its color and marker; a dashed line at 1."""
    ax = new_ax(ax)
    for (name, seeds), color, marker in zip(curves.items(), COLORS, MARKERS, strict=False):
        for number, values in enumerate(seeds):
            label = name if number == 0 else None
            ax.plot(np.arange(1, len(values) + 1), values, color=color, marker=marker, ms=4.5, lw=1.2, label=label)
    ax.axhline(1, color=INK, ls="--", lw=1)
    ax.grid(axis="y", color=FAINT, lw=0.4)
    ax.locator_params(axis="x", integer=True)
    ax.set(xlabel="layer")
    return ax
