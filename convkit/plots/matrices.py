"""Plots of matrices, kernels and images."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from convkit.plots.numbers import numbers
from convkit.plots.style import BLUE, FAINT, INK, SIGNED, new_ax


def plot_matrix(
    matrix: Any,
    ax: Axes | None = None,
    blocks: Sequence[int | tuple[int, int]] = (),
    row: int | None = None,
    limit: float | None = None,
) -> Axes:
    """Plot a matrix in colors, orange above zero, violet below; lines every ``blocks[i]`` entries, one row framed.

    A pair in ``blocks`` gives rows and columns of blocks that are not square. ``limit`` is the magnitude at full color
    (by default the largest entry).
    """
    ax, values = new_ax(ax, (5, 5)), numbers(matrix)
    limit = limit or max(float(np.abs(values).max(initial=0)), 1e-12)
    ax.imshow(values, cmap=SIGNED, vmin=-limit, vmax=limit, interpolation="nearest")
    rows, columns = values.shape
    for level, size in enumerate(blocks):
        tall, wide = (size, size) if isinstance(size, int) else size
        line: dict[str, Any] = {"color": INK, "lw": 0.5 + 0.7 * level, "alpha": 0.5}
        ax.hlines(np.arange(tall, rows, tall) - 0.5, -0.5, columns - 0.5, **line)  # all at once: redrawn while dragged
        ax.vlines(np.arange(wide, columns, wide) - 0.5, -0.5, rows - 0.5, **line)
    if row is not None:
        across, down = [-0.5, columns - 0.5, columns - 0.5, -0.5, -0.5], row + 0.5 * np.array([-1, -1, 1, 1, -1])
        ax.plot(across, down, color=BLUE, lw=np.clip(60 / rows, 0.8, 2))  # thin enough to leave the row to be seen
    ax.locator_params(nbins=6, integer=True)
    ax.set(xlabel="input pixel", ylabel="output pixel")
    return ax


def plot_kernel(kernel: Any, ax: Axes | None = None, limit: float | None = None) -> Axes:
    """Plot a small 2-D array as colored cells with its numbers in them."""
    ax, values = new_ax(ax, (3, 3)), np.atleast_2d(numbers(kernel))
    limit = limit or max(float(np.abs(values).max(initial=0)), 1e-12)
    ax.imshow(values, cmap=SIGNED, vmin=-limit, vmax=limit, interpolation="nearest")
    for (i, j), value in np.ndenumerate(values):
        ax.text(j, i, f"{value:.2g}", ha="center", va="center", color="white" if abs(value) > 0.7 * limit else INK)
    ax.set(xticks=[], yticks=[])
    return ax


def plot_frequencies(values: Any, ax: Axes | None = None, limit: float | None = None) -> Axes:
    """Plot one number per frequency in gray, black at 0, white at ``limit``, frequency 0 in the middle."""
    ax, values = new_ax(ax, (4, 4)), np.fft.fftshift(numbers(values))
    h, w = values.shape
    edges = (-(w // 2) - 0.5, w - w // 2 - 0.5, h - h // 2 - 0.5, -(h // 2) - 0.5)  # down as in an image
    ax.imshow(values, cmap="gray", vmin=0, vmax=limit, extent=edges)
    ax.locator_params(integer=True)
    ax.set(xlabel="waves across the image", ylabel="waves down the image")
    return ax


def plot_patch(image: Any, ax: Axes | None = None, limit: float | None = None, framed: Any = None) -> Axes:
    """Plot an image as a grid of pixels, with numbers on the nonzero ones and one pixel ``(row, column)`` framed."""
    ax, values = new_ax(ax, (3, 3)), numbers(image)
    (rows, columns), limit = values.shape, limit or max(float(np.abs(values).max(initial=0)), 1e-12)
    points = min(ax.bbox.width / columns, ax.bbox.height / rows) * 72 / ax.figure.dpi  # the room of one number
    edges = np.arange(max(rows, columns) + 1) - 0.5
    look: dict[str, Any] = {"cmap": SIGNED, "vmin": -limit, "vmax": limit, "edgecolors": FAINT, "linewidth": 0.5}
    ax.pcolormesh(edges[: columns + 1], edges[: rows + 1], values, **look)
    for i, j in np.argwhere(values):
        color = "white" if abs(values[i, j]) > 0.7 * limit else INK
        text = f"{values[i, j]:.3g}"
        text = text.replace("0.", ".") if abs(values[i, j]) < 1 else text  # short: it must fit into one pixel
        ax.text(j, i, text, ha="center", va="center", fontsize=min(points / 3.3, 10), color=color)
    if framed is not None:
        i, j = framed
        ax.plot(j + 0.5 * np.array([-1, 1, 1, -1, -1]), i + 0.5 * np.array([-1, -1, 1, 1, -1]), color=BLUE, lw=2.5)
    ax.set(aspect="equal", xlim=(-0.6, columns - 0.4), ylim=(rows - 0.4, -0.6))
    ax.set_axis_off()
    return ax


def plot_image(image: Any, ax: Axes | None = None) -> Axes:
    """Plot a gray image, its smallest number black and its largest white."""
    ax = new_ax(ax, (3, 3))
    ax.imshow(numbers(image), cmap="gray", interpolation="nearest")
    ax.set(xticks=[], yticks=[])
    return ax


UNTOUCHED = "#DDDDDD"


def plot_kernel_gradient(gradient: Any, ax: Axes | None = None, limit: float = 1.5) -> Axes:
    """Plot the gradient at every entry of a kernel ``(c_out, c_in, kh, kw)``, orange above zero, violet below.

    Output channels go down and input channels across, each pair a block of taps. Zero is gray, numbers near it are
    white.
    """
    ax, values = new_ax(ax, (5, 5)), numbers(gradient)
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


def plot_picture(image: Any, ax: Axes | None = None) -> Axes:
    """Plot an image ``(channels, height, width)`` in [0, 1]: gray for one channel, else three as colors."""
    ax, values = new_ax(ax, (2, 2)), numbers(image, dtype=float)
    shown = values[0] if len(values) < 3 else values[:3].transpose(1, 2, 0)
    ax.imshow(shown, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    ax.set(xticks=[], yticks=[])
    return ax


def plot_change(change: Any, limit: float, ax: Axes | None = None) -> Axes:
    """Plot a change of an image, ``limit`` at full color: orange above zero, violet below; of colors around gray."""
    ax, values = new_ax(ax, (2, 2)), numbers(change, dtype=float)
    if len(values) < 3:
        ax.imshow(values[0], cmap=SIGNED, vmin=-limit, vmax=limit, interpolation="nearest")
    else:
        ax.imshow((0.5 + values[:3].transpose(1, 2, 0) / (2 * limit)).clip(0, 1), interpolation="nearest")
    ax.set(xticks=[], yticks=[])
    return ax
