"""Pictures of attacked images, of what the network says about them, of densities and of numbers that may predict."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.patches import Rectangle

from convkit.plots.style import COLORS, FAINT, INK, MARKERS, SIGNED, VERMILION, new_ax


def plot_picture(image: Any, ax: Axes | None = None) -> Axes:
    """An image ``(channels, height, width)`` in [0, 1]: gray with one channel, else the first three as colors."""
    ax, values = new_ax(ax, (2, 2)), np.asarray(image, dtype=float)
    shown = values[0] if len(values) < 3 else values[:3].transpose(1, 2, 0)
    ax.imshow(shown, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    return _bare(ax)


def plot_change(change: Any, limit: float, ax: Axes | None = None) -> Axes:
    """A change of an image, ``limit`` at full color: orange above zero, violet below; of colors around gray."""
    ax, values = new_ax(ax, (2, 2)), np.asarray(change, dtype=float)
    if len(values) < 3:
        ax.imshow(values[0], cmap=SIGNED, vmin=-limit, vmax=limit, interpolation="nearest")
    else:
        ax.imshow((0.5 + values[:3].transpose(1, 2, 0) / (2 * limit)).clip(0, 1), interpolation="nearest")
    return _bare(ax)


def plot_answers(before: Any, after: Any, label: int, names: Sequence[str], ax: Axes | None = None) -> Axes:
    """Probabilities of the classes, before an attack (gray bars) and after it (colored; the label's in blue)."""
    ax, before, after = new_ax(ax), np.asarray(before, dtype=float), np.asarray(after, dtype=float)
    places = np.arange(len(before))
    colors = [COLORS[0] if k == label else VERMILION for k in places]
    ax.bar(places, before, width=0.85, color=FAINT)
    ax.bar(places, after, width=0.45, color=colors)
    ax.set(ylim=(0, 1.05), xlim=(-0.7, len(before) - 0.3), yticks=(0, 0.5, 1))
    few = len(places) <= 10 and all(len(str(name)) < 3 for name in names)
    ax.set_xticks(places if few else [label], list(names) if few else [names[label]])
    ax.tick_params(length=0, labelsize=8)
    return ax


def plot_accuracy(curves: Mapping[str, tuple[Any, Any]], ax: Axes | None = None, at: float | None = None) -> Axes:
    """Accuracy in percent against epsilon, one curve for each name; a dashed line where epsilon is now."""
    ax = new_ax(ax)
    for (name, (eps, accuracy)), color, marker in zip(curves.items(), COLORS, MARKERS, strict=False):
        ax.plot(eps, accuracy, color=color, marker=marker, ms=5, lw=1.5, label=name)
    if at is not None:
        ax.axvline(at, color=INK, ls="--", lw=1)
    ax.set(ylim=(-3, 103), xlabel="ε", ylabel="accuracy (%)")
    ax.legend(frameon=False, fontsize=9)
    return ax


def plot_densities(groups: Mapping[str, Sequence[float]], ax: Axes | None = None, width: float = 0.1) -> Axes:
    """For each name the density of its numbers on a logarithmic axis, by Gaussians, and a bar for each number.

    ``width`` is the standard deviation of a Gaussian, in factors of ten.
    """
    ax = new_ax(ax)
    logs = {name: np.log10(np.asarray(values, dtype=float)) for name, values in groups.items()}
    low, high = (end(value for values in logs.values() for value in values) for end in (min, max))
    x = np.linspace(low - 3 * width, high + 3 * width, 300)
    peak = 0.0
    for values, color in zip(logs.values(), COLORS, strict=False):
        density = np.exp(-(((x[:, None] - values) / width) ** 2) / 2).sum(1) / (len(values) * width * math.tau**0.5)
        peak = max(peak, float(density.max()))
        ax.plot(10**x, density, color=color, lw=1.8)
    for place, (values, color, marker, name) in enumerate(zip(logs.values(), COLORS, MARKERS, logs, strict=False)):
        height = -0.05 * peak * (place + 1)
        ax.plot(10**values, np.full(len(values), height), "|", color=color, ms=6, mew=0.9)
        ax.plot([], [], color=color, marker=marker, lw=1.8, label=name)
    ax.set(xscale="log", yticks=[], ylim=(-0.05 * peak * (len(logs) + 1), 1.08 * peak))
    ax.legend(frameon=False, fontsize=9)
    return ax


def plot_prediction(groups: Mapping[str, tuple[Any, Any]], ax: Axes | None = None, log: bool = True) -> Axes:
    """One dot a network, a color and marker for each group: what may predict against what is to be predicted."""
    ax = new_ax(ax)
    for (name, (x, y)), color, marker in zip(groups.items(), COLORS, MARKERS, strict=False):
        ax.plot(x, y, marker, color=color, ms=5.5, alpha=0.8, mec="white", mew=0.4, label=name)
    ax.set(xscale="log" if log else "linear")
    ax.grid(color=FAINT, lw=0.4)
    return ax


def plot_regions(
    answers: Any,
    extent: tuple[float, float, float, float],
    points: Any,
    labels: Any,
    eps: float,
    ax: Axes | None = None,
) -> Axes:
    """A network's answers on a part of the plane, and around points that it knows the squares of changes by ``eps``.

    ``answers`` are class numbers ``(height, width)`` from the bottom up, NaN for none.
    """
    ax, points = new_ax(ax, (5, 5)), np.asarray(points)
    kinds = int(np.max(np.asarray(labels))) + 1
    colors = ListedColormap(COLORS[:kinds])
    ax.imshow(answers, origin="lower", extent=extent, cmap=colors, vmin=-0.5, vmax=kinds - 0.5, alpha=0.35)
    for (x, y), label in zip(points, labels, strict=True):
        square = Rectangle((x - eps, y - eps), 2 * eps, 2 * eps, fill=False, ec=COLORS[int(label)], lw=1.8)
        ax.add_patch(square)
        ax.plot(x, y, MARKERS[int(label)], color=COLORS[int(label)], ms=6, mec="white", mew=0.7)
    return ax


def _bare(ax: Axes) -> Axes:
    ax.set(xticks=[], yticks=[])
    return ax
