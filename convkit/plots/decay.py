"""Pictures of what pulls on the entries of a kernel, and of a table of accuracies."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from convkit.plots.style import INK, SIGNED, new_ax

UNTOUCHED = "#DDDDDD"


def plot_touched(pull: Any, ax: Axes | None = None, limit: float = 1.5) -> Axes:
    """What pulls on each entry of a kernel ``(c_out, c_in, kh, kw)``: orange downwards, violet upwards, gray nothing.

    Output channels go down and input channels across, each pair a block of taps. Where there is little, it is white.
    """
    ax, values = new_ax(ax, (5, 5)), np.asarray(pull)
    c_out, c_in, kh, kw = values.shape
    picture = values.transpose(0, 2, 1, 3).reshape(c_out * kh, c_in * kw)
    ax.set_facecolor(UNTOUCHED)
    colors = {"cmap": SIGNED, "vmin": -limit, "vmax": limit}
    ax.imshow(np.where(picture == 0, np.nan, picture), interpolation="nearest", **colors)
    few = max(c_out, c_in) <= 16
    line = {"color": "white", "lw": 2 if few else 0.3}
    ax.hlines(np.arange(kh, c_out * kh, kh) - 0.5, -0.5, c_in * kw - 0.5, **line)
    ax.vlines(np.arange(kw, c_in * kw, kw) - 0.5, -0.5, c_out * kh - 0.5, **line)
    for axis, channels, taps in ((ax.xaxis, c_in, kw), (ax.yaxis, c_out, kh)):
        shown = range(channels) if few else range(0, channels, 16)
        axis.set_ticks([taps * c + (taps - 1) / 2 for c in shown], [str(c + 1) for c in shown])
        axis.set_tick_params(length=0)
    ax.set(xlabel="input channel", ylabel="output channel")
    return ax


def plot_table(
    values: Sequence[Sequence[float | None]],
    rows: Sequence[str],
    columns: Sequence[str],
    ax: Axes | None = None,
    low: float = 0,
    high: float = 100,
) -> Axes:
    """Numbers in colored cells, pale at ``low`` and below, deep at ``high``; a cross where there is none."""
    ax = new_ax(ax)
    numbers = np.array([[np.nan if value is None else value for value in row] for row in values], dtype=float)
    ax.imshow(np.clip(numbers, low, high), cmap="Blues", vmin=low, vmax=high + 0.25 * (high - low), aspect="auto")
    for (row, column), value in np.ndenumerate(numbers):
        text = "×" if np.isnan(value) else f"{value:.0f}"
        deep = value > low + 0.75 * (high - low)
        ax.text(column, row, text, ha="center", va="center", color="white" if deep else INK, fontsize=9)
    ax.set(xticks=range(len(columns)), xticklabels=columns, yticks=range(len(rows)), yticklabels=rows)
    ax.tick_params(length=0)
    return ax
