"""Plots of a network's predictions: for an image before and after an attack, and on a plane through the inputs."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.patches import Rectangle

from convkit.plots.numbers import numbers
from convkit.plots.style import BLUE, FAINT, VERMILION, new_ax, styles


def plot_answers(before: Any, after: Any, label: int, names: Sequence[str], ax: Axes | None = None) -> Axes:
    """Plot class probabilities before an attack (gray bars) and after it (colored bars, blue for the label)."""
    ax, before, after = new_ax(ax), numbers(before, dtype=float), numbers(after, dtype=float)
    places = np.arange(len(before))
    colors = [BLUE if k == label else VERMILION for k in places]
    ax.bar(places, before, width=0.85, color=FAINT)
    ax.bar(places, after, width=0.45, color=colors)
    ax.set(ylim=(0, 1.05), xlim=(-0.7, len(before) - 0.3), yticks=(0, 0.5, 1))
    few = len(places) <= 10 and all(len(str(name)) < 3 for name in names)
    ax.set_xticks(places if few else [label], list(names) if few else [names[label]])
    ax.tick_params(length=0, labelsize=8)
    return ax


def plot_regions(
    answers: Any,
    extent: tuple[float, float, float, float],
    points: Any,
    labels: Any,
    eps: float,
    ax: Axes | None = None,
) -> Axes:
    """Plot a network's predictions on a part of the plane, and squares of side ``2 eps`` around given points.

    ``answers`` are class numbers ``(height, width)`` from the bottom up, NaN for none. From the seventh class on the
    colors repeat, with other markers.
    """
    ax, points, labels = new_ax(ax, (5, 5)), numbers(points), numbers(labels)
    looks = styles(int(np.max(labels)) + 1)
    colors = ListedColormap([color for color, _, _ in looks])
    ax.imshow(
        numbers(answers), origin="lower", extent=extent, cmap=colors, vmin=-0.5, vmax=len(looks) - 0.5, alpha=0.35
    )
    for (x, y), label in zip(points, labels, strict=True):
        color, marker, _ = looks[int(label)]
        ax.add_patch(Rectangle((x - eps, y - eps), 2 * eps, 2 * eps, fill=False, ec=color, lw=1.8))
        ax.plot(x, y, marker=marker, color=color, ms=6, mec="white", mew=0.7)
    return ax


def plot_path(
    losses: Any,
    extent: tuple[float, float, float, float],
    path: Any,
    border: Any,
    ax: Axes | None = None,
) -> Axes:
    """Plot the path of an attack on a plane through the image, over the loss there: dark low, light high.

    ``losses`` is ``(height, width)`` from the top down, ``path`` ``(points, 2)`` from the image, a square, to the last
    point, a cross. Small dots are ``border``, ``(points, 2)``, where the network's answer changes.
    """
    ax, path, border = new_ax(ax, (3, 3)), numbers(path), numbers(border)
    ax.imshow(numbers(losses), cmap="gray", extent=extent, aspect="auto", interpolation="nearest")
    ax.plot(border[:, 0], border[:, 1], ls="none", marker="o", ms=2.5, mew=0, color=BLUE, label="the answer changes")
    ax.plot(path[:, 0], path[:, 1], color=VERMILION, lw=1.2, marker="o", ms=3, label="the attack")
    ax.plot(path[:1, 0], path[:1, 1], ls="none", color=VERMILION, marker="s", ms=6, mec=VERMILION, label="the image")
    ax.plot(path[-1:, 0], path[-1:, 1], ls="none", color=VERMILION, marker="X", ms=6, label="the last point")
    ax.set(xlim=extent[:2], ylim=extent[2:], xticks=[], yticks=[])
    return ax
