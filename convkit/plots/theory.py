"""Pictures of matrices, kernels, symbols, singular values and bounds."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from convkit.plots.style import BLUE, COLORS, FAINT, GREEN, INK, MARKERS, SIGNED, SKY, VERMILION, new_ax


def plot_matrix(
    matrix: Any,
    ax: Axes | None = None,
    blocks: Sequence[int | tuple[int, int]] = (),
    row: int | None = None,
    limit: float | None = None,
) -> Axes:
    """A matrix as a picture, orange above zero, violet below; lines every ``blocks[i]`` entries, one row framed.

    A pair in ``blocks`` gives the rows and the columns of blocks that are not square. ``limit`` is the magnitude at
    full color (the largest entry, when left out).
    """
    ax, values = new_ax(ax, (5, 5)), np.asarray(matrix)
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


def plot_frequencies(values: Any, ax: Axes | None = None, limit: float | None = None) -> Axes:
    """One number for each frequency in gray, black at zero, white at ``limit``; the constant image in the middle."""
    ax, values = new_ax(ax, (4, 4)), np.fft.fftshift(np.asarray(values))
    h, w = values.shape
    edges = (-(w // 2) - 0.5, w - w // 2 - 0.5, h - h // 2 - 0.5, -(h // 2) - 0.5)  # down as in an image
    ax.imshow(values, cmap="gray", vmin=0, vmax=limit, extent=edges)
    ax.locator_params(integer=True)
    ax.set(xlabel="waves across the image", ylabel="waves down the image")
    return ax


def plot_plane(points: Mapping[str, Any], ax: Axes | None = None) -> Axes:
    """Complex numbers as points in the plane, with the unit circle."""
    ax, turn = new_ax(ax, (4, 4)), np.linspace(0, 2 * np.pi, 200)
    ax.plot(np.cos(turn), np.sin(turn), color=FAINT, lw=1)
    for (name, values), color, marker in zip(points.items(), COLORS, MARKERS, strict=False):
        ax.plot(np.real(values), np.imag(values), marker, ls="none", color=color, ms=8, label=name)
    ax.set(xlabel="real part", ylabel="imaginary part", aspect="equal")
    ax.legend(frameon=False, loc="upper left", bbox_to_anchor=(0, -0.2))
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


def plot_patch(image: Any, ax: Axes | None = None, limit: float | None = None, framed: Any = None) -> Axes:
    """An image as a grid of pixels, with numbers on those that are not zero and one pixel ``(row, column)`` framed."""
    ax, values = new_ax(ax, (3, 3)), np.asarray(image)
    (rows, columns), limit = values.shape, limit or max(float(np.abs(values).max(initial=0)), 1e-12)
    points = min(ax.bbox.width / columns, ax.bbox.height / rows) * 72 / ax.figure.dpi  # the room of one number
    edges = np.arange(max(rows, columns) + 1) - 0.5
    look: dict[str, Any] = {"cmap": SIGNED, "vmin": -limit, "vmax": limit, "edgecolors": FAINT, "linewidth": 0.5}
    ax.pcolormesh(edges[: columns + 1], edges[: rows + 1], values, **look)
    for i, j in np.argwhere(values):
        color = "white" if abs(values[i, j]) > 0.7 * limit else INK
        text = f"{values[i, j]:.3g}"
        text = text.replace("0.", ".") if abs(values[i, j]) < 1 else text  # short: it must fit into one pixel
        ax.text(j, i, text, ha="center", va="center", fontsize=min(points / 3, 10), color=color)
    if framed is not None:
        i, j = framed
        ax.plot(j + 0.5 * np.array([-1, 1, 1, -1, -1]), i + 0.5 * np.array([-1, -1, 1, 1, -1]), color=BLUE, lw=2.5)
    ax.set(aspect="equal", xlim=(-0.6, columns - 0.4), ylim=(rows - 0.4, -0.6))
    ax.set_axis_off()
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


def plot_image(image: Any, ax: Axes | None = None) -> Axes:
    """A gray picture, its smallest number black and its largest white."""
    ax = new_ax(ax, (3, 3))
    ax.imshow(np.asarray(image), cmap="gray", interpolation="nearest")
    ax.set(xticks=[], yticks=[])
    return ax


def plot_bounds(ratios: Mapping[str, float | None], ax: Axes | None = None, limit: float | None = None) -> Axes:
    """Bars of upper bounds divided by the exact norm, from 1 on a logarithmic axis; words where one does not apply.

    Every bar is as long as its number says. One that is equal to the norm has no length: a green diamond marks it.
    """
    ax = new_ax(ax, (7, 0.42 * len(ratios) + 1))
    limit = limit or max([4.0, *(ratio for ratio in ratios.values() if ratio)]) * 1.6
    for place, ratio in enumerate(ratios.values()):
        if ratio is None:
            words, end, style = "does not apply here", 1.0, "italic"
        else:
            tight = abs(ratio - 1) < 1e-6
            words = "equal" if tight else f"{ratio - 1:.0e} above 1" if ratio < 1.005 else f"{ratio:.3g}"
            end, style = ratio, "normal"
            ax.barh(place, ratio - 1, left=1, color=GREEN if tight else BLUE, height=0.68)
            if tight:
                ax.plot(1, place, "D", color=GREEN, ms=6, clip_on=False, zorder=3)
        ax.annotate(
            words, (end, place), (7, 0), textcoords="offset points", va="center", fontsize=9, color=INK, style=style
        )
    ticks = [tick for tick in (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000) if tick <= limit]
    ax.set_xscale("log")
    ax.set(yticks=range(len(ratios)), yticklabels=list(ratios), ylim=(len(ratios) - 0.4, -0.6), xlim=(1, limit))
    ax.minorticks_off()  # they take a third of the time of a drawing
    ax.set(xticks=ticks, xticklabels=ticks, xlabel="times the exact norm")
    return ax


def plot_ratios(rows: Sequence[tuple[str, float, float | None]], ax: Axes | None = None) -> Axes:
    """Bars of ``(name, ratio, target)`` from 1 on a logarithmic axis, to the left where the other is faster.

    A tick marks the target; bars that miss it have another color.
    """
    ax = new_ax(ax, (9, 0.42 * len(rows) + 1))
    for place, (_, ratio, target) in enumerate(rows):
        color = VERMILION if target is not None and ratio < target else BLUE
        ax.barh(place, ratio - 1, left=1, color=color, height=0.7)
        if target is not None:
            ax.plot([target, target], [place - 0.45, place + 0.45], color=INK, lw=2)
    ax.axvline(1, color=INK, lw=0.8)
    ax.set(
        yticks=range(len(rows)), yticklabels=[name for name, _, _ in rows], xscale="log", ylim=(len(rows) - 0.5, -0.5)
    )
    ax.set_xlabel("times our time (black tick: target)")
    ax.tick_params(axis="y", labelsize=7)
    return ax
