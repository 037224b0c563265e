"""Pictures of channels and their normalization: sorted spectra of several channels, numbers layer by layer."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from convkit.plots.style import COLORS, FAINT, INK, MARKERS, new_ax


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
