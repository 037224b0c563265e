"""Pictures of attacked images, of what the network says about them, of densities and of numbers that may predict."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.patches import Rectangle

from convkit.plots.style import COLORS, FAINT, INK, MARKERS, VERMILION, new_ax


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
