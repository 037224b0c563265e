"""Animations of notebook 01: a window writes the rows of a matrix, and a line closes to a ring."""

import math
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from convkit.operators.circulants import circulant
from convkit.operators.operator import ConvOperator
from convkit.plots.matrices import plot_matrix
from convkit.plots.style import BLUE, FAINT, GREEN, INK, ORANGE, VERMILION
from convkit.widgets.animation import AnimationPanel
from convkit.widgets.controls import choice

IMAGE = torch.tensor([[3, 1, 4, 1, 5], [9, 2, 6, 5, 3], [5, 8, 9, 7, 9], [3, 2, 3, 8, 4]], dtype=torch.float64)
TAPS = torch.arange(1.0, 7.0, dtype=torch.float64).reshape(2, 3)
_PLACES = ((0.005, 0.38, 0.29, 0.5), (0.06, 0.04, 0.18, 0.23), (0.355, 0.12, 0.37, 0.78), (0.77, 0.38, 0.225, 0.5))
_BEHIND = ((0, 1), (0, 2))  # as in S: the window begins at its output pixel


def window_operator(boundary: str) -> ConvOperator:
    """Return the layer of section 3: a kernel of 2 × 3 taps on 4 × 5 pixels."""
    return ConvOperator(TAPS[None, None], (4, 5), padding=_BEHIND, padding_mode=boundary)  # pyright: ignore[reportArgumentType]


class WindowAnimation(AnimationPanel):
    """An animation of a window that slides over an image: each place writes a row of the matrix and an output pixel."""

    title = "Each place of the window writes one row of the matrix"
    size = (10.2, 4.5)
    clock = "row of the matrix"

    def settings(self) -> dict[str, Any]:
        return {"boundary": choice("beyond the edge", [("the opposite edge", "circular"), ("zeros", "zeros")])}

    def moments(self, boundary: str) -> int:
        return IMAGE.numel()

    def draw(self, figure: Figure, time: int, boundary: str) -> str:
        A, (h, w) = window_operator(boundary), IMAGE.shape
        M, Y = A.matrix(), A(IMAGE[None, None])[0, 0]
        i, j = divmod(time, w)
        around = F.pad(IMAGE[None, None], (0, 2, 0, 1), mode="circular" if boundary == "circular" else "constant")[0, 0]
        image, kernel, matrix, output = (figure.add_axes(place) for place in _PLACES)
        _cells(image, F.pad(-IMAGE, (0, 2, 0, 1)), 18)
        for (r, s), value in np.ndenumerate(around.numpy()):
            _number(image, (s + 0.12, r + 0.12), f"{value:g}", INK if r < h and s < w else "#888888")
        _frame(image, -0.5, -0.5, w, h, INK, 1)
        _frame(image, j - 0.5, i - 0.5, 3, 2, BLUE, 3)
        for (p, q), tap in np.ndenumerate(TAPS.numpy()):
            _number(image, (j + q - 0.3, i + p - 0.27), f"{tap:g}", VERMILION, 8)
            _number(kernel, (q, p), f"{tap:g}")
        image.set_title("image x, and beyond its edge", fontsize=10)
        _cells(kernel, TAPS, 12)
        kernel.set_title("the kernel", fontsize=10)
        plot_matrix(M, matrix, [w], time, limit=6)
        matrix.axhspan(time + 0.5, h * w - 0.5, color="#FFFFFF", zorder=1)  # what is to come is covered
        matrix.set_ylim(h * w - 0.5, -0.5)
        matrix.set_title("the matrix M", fontsize=10)
        _cells(output, torch.zeros(h, w), 1)
        for (r, s), value in np.ndenumerate(Y.numpy()):
            _number(output, (s, r), f"{value:g}" if r * w + s <= time else "")
        _frame(output, j - 0.5, i - 0.5, 1, 1, GREEN, 3)
        output.set_title("the output, y = M x", fontsize=10)
        beyond = TAPS.numel() - IMAGE[i : i + 2, j : j + 3].numel()
        where = {"circular": "wrap to the opposite edge", "zeros": "meet zeros and write nothing"}[boundary]
        across = f"; {beyond} of its 6 taps {where}" if beyond else ""
        done = time + 1 == len(M) and boundary == "circular"
        whole = " All rows together are the matrix of equation (7)." if done else ""
        return (
            f"Row {time}: the window at pixel ({i}, {j}) puts {int(M[time].count_nonzero())} taps into the columns of "
            f"the pixels that it reads{across}. Tap times pixel adds up to {Y[i, j]:g}, output pixel ({i}, {j}).{whole}"
        )


def _number(ax: Axes, at: Any, words: str, color: str = INK, size: float = 10) -> None:
    ax.text(float(at[0]), float(at[1]), words, ha="center", va="center", fontsize=size, color=color, zorder=6)


def _cells(ax: Axes, values: Tensor, limit: float) -> None:
    """Draw small numbers as pale cells without axes."""
    rows, columns = values.shape
    edges = np.arange(max(rows, columns) + 1) - 0.5
    look: dict[str, Any] = {"cmap": "PuOr_r", "vmin": -limit, "vmax": limit, "edgecolors": FAINT, "linewidth": 0.5}
    ax.pcolormesh(edges[: columns + 1], edges[: rows + 1], values.numpy(), **look)
    ax.set(aspect="equal", xlim=(-0.6, columns - 0.4), ylim=(rows - 0.4, -0.6))
    ax.set_axis_off()


def _frame(ax: Axes, x: float, y: float, wide: float, tall: float, color: str, lw: float) -> None:
    ax.plot([x, x + wide, x + wide, x, x], [y, y, y + tall, y + tall, y], color=color, lw=lw)


def bent(places: Any, part: float, around: float) -> tuple[np.ndarray, np.ndarray]:
    """Return points of a straight line (``part`` 0) that bends upward to a circle of length ``around`` (``part`` 1)."""
    places, curvature = np.asarray(places, dtype=float), 2 * math.pi * part / around
    if curvature == 0:
        return places, np.zeros_like(places)
    return np.sin(curvature * places) / curvature, (1 - np.cos(curvature * places)) / curvature


PIXELS, RING_TAPS = 8, torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64)
_BENDS = 6
PLACES = [(i, 0.0) for i in range(PIXELS - 1)] + [(PIXELS - 2, k / _BENDS) for k in range(1, _BENDS + 1)]
PLACES += [(PIXELS - 1, 1.0), (PIXELS, 1.0)]  # the window's place, and how far the line has closed


def ring_rows(place: int, part: float) -> Tensor:
    """Return the rows written so far: those of zeros beyond the end, with ``part`` of what only the ring adds."""
    C = circulant(F.pad(RING_TAPS, (0, PIXELS - len(RING_TAPS))))
    M = C.triu() + part * C.tril(-1)
    return torch.where(torch.arange(PIXELS)[:, None] <= place, M, 0)


class RingAnimation(AnimationPanel):
    """An animation of a line of pixels that closes to a ring, while a window slides on and writes the matrix."""

    title = "Modulo n: the line closes to a ring, and the matrix becomes circulant"
    size = (10.2, 4.2)

    def moments(self) -> int:
        return len(PLACES)

    def draw(self, figure: Figure, time: int) -> str:
        place, part = PLACES[time]
        line, matrix = figure.add_axes((0.005, 0.03, 0.56, 0.87)), figure.add_axes((0.63, 0.14, 0.36, 0.76))
        middle = (PIXELS - 1) / 2
        x, y = bent(np.linspace(-0.5, PIXELS + 1.5, 81) - middle, part, PIXELS)
        grown = min(8.6 / np.ptp(x), 5.4 / max(np.ptp(y), 1e-9))  # it fills the picture as far as it bends

        def at(places: Any, out: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
            places = np.asarray(places, dtype=float) - middle
            right, up = bent(places, part, PIXELS)
            turn = 2 * math.pi * part / PIXELS * places
            right, up = right - (x.min() + x.max()) / 2, up - (y.min() + y.max()) / 2
            return grown * right + out * np.sin(turn), grown * up - out * np.cos(turn)

        line.plot(*at(np.linspace(0, PIXELS - 1 + part, 61)), color=FAINT, lw=2, zorder=1)
        ghosts = np.array([PIXELS, PIXELS + 1])
        line.plot(*at(ghosts), "o", color=FAINT, mfc="white", mec=FAINT, mew=1.5, ms=17, zorder=1)
        line.plot(*at(np.arange(PIXELS)), "o", color=INK, mfc="white", mec=INK, mew=1.5, ms=19, zorder=2)
        for j in range(PIXELS):
            _number(line, at(j), str(j))
        line.plot(*at(place + np.linspace(-0.42, 2.42, 21), 0.62), color=BLUE, lw=3, zorder=3)
        line.plot(*at(place, -0.68), "v", color=GREEN, ms=9, zorder=3)
        for q, tap in enumerate(RING_TAPS.tolist()):
            line.plot(*at([place + q], 1.12), "s", color=ORANGE, ms=15, zorder=3)
            _number(line, at(place + q, 1.12), f"{tap:g}")
        line.set(xlim=(-5.6, 5.6), ylim=(-4.3, 4.3), aspect="equal")
        line.set_axis_off()
        line.set_title("pixels, and the window with its three taps", fontsize=10)
        M = ring_rows(place, part)
        plot_matrix(M, matrix, (), place % PIXELS, limit=5)
        whole = ring_rows(PIXELS, 1).numpy()
        for i, j in np.argwhere(whole):
            _number(matrix, (j, i), f"{whole[i, j]:g}" if M[i, j] == whole[i, j] else "")
        matrix.set_title("the rows written so far", fontsize=10)
        return _ring_words(place, part)


def _ring_words(place: int, part: float) -> str:
    if place == PIXELS:
        return f"The window is back at pixel 0: the {PIXELS} rows are those of circ(a), and equation (3) holds."
    if place == PIXELS - 1:
        return "Row 7 has a tap on pixel 7 and two on the pixels 0 and 1: what leaves at the right enters at the left."
    if part == 1:
        return "The line is a ring: pixel 0 comes after pixel 7, and the tap 3 of row 6 stands in column 0."
    if part:
        return "The line bends. The pixel beyond the end moves to pixel 0: these two become one."
    if place == PIXELS - 2:
        return "At place 6 the tap 3 is beyond the end of the line. With zeros there, row 6 loses it."
    return f"At place {place} the window reads the pixels {place} to {place + 2}: row {place} has its taps there."
