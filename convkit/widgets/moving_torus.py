"""Animation of notebook 03: an image and its zeros roll up and close to a torus."""

import functools
import math
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection
from matplotlib.figure import Figure
from torch import Tensor

from convkit.norms import operator_norm
from convkit.operators.operator import ConvOperator
from convkit.plots.style import BLUE, ORANGE
from convkit.widgets.animation import AnimationPanel
from convkit.widgets.controls import slider
from convkit.widgets.moving_window import bent
from convkit.widgets.sheet import SheetAxes

TOTAL, _ROLLS = 10, 6  # pixels of the torus each way, and moments of rolling up, and of closing
PIXEL, ZERO, READ, READ_ZERO = range(4)
COLORS_OF = (BLUE, "#C4C4C4", ORANGE, "#FFE2A0")
_NAMES = ("a pixel", "a zero", "a pixel that is read", "a zero that is read")


@functools.cache
def padded_operator(padding: int) -> ConvOperator:
    """Return a zero-padded layer of 2p + 1 taps each way, whose torus has 10 × 10 pixels."""
    taps, side = 2 * padding + 1, TOTAL - padding
    kernel = torch.randn(1, 1, taps, taps, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    return ConvOperator(kernel, (side, side), padding=padding, padding_mode="zeros")


@functools.cache
def torus_norms(padding: int) -> list[float]:
    """Return the norms of the zero-padded layer and of its torus."""
    A = padded_operator(padding)
    return [float(operator_norm(B, 2)) for B in (A, A.torus())]


@functools.cache
def read_on_torus(padding: int, row: int, column: int) -> Tensor:
    """Return which pixels of the torus the output pixel there reads, ``(10, 10)``, from the matrix of the torus."""
    entries = padded_operator(padding).torus().matrix().reshape(4 * (TOTAL,))
    return entries[row, column] != 0


def torus_corners(n: int, roll: float, close: float) -> np.ndarray:
    """Return the corners of ``n × n`` pixels, ``(n + 1, n + 1, 3)``, right, up and towards the reader.

    ``roll`` goes from 0, a sheet, to 1, a tube; ``close`` from 0, the straight tube, to 1, a torus.
    """
    places = np.arange(n + 1) - n / 2
    tube = n / (2 * math.pi)
    down, back = bent(places, roll, n)
    thin = 1 - 0.55 * close  # else the hole would be closed
    up, out = -thin * down[:, None], thin * (roll * tube - back)[:, None]
    c, s = math.cos(close), math.sin(close)  # the tube turns about itself, so that its seam is seen
    up, out = c * up - s * out, c * out + s * up
    along, behind = bent(places, close, n)
    turn = 2 * math.pi * close / n * places
    right, far = along - out * np.sin(turn), behind - close * tube + out * np.cos(turn)
    return (1 + 1.1 * close) * np.stack(np.broadcast_arrays(right, up, far), axis=2)


class TorusAnimation(AnimationPanel):
    """An animation of a padded image that rolls up and closes to a torus, whose two ends share their zeros."""

    title = "A padded image closes to a torus: both ends share the same zeros"
    size = (8.6, 5.1)

    def settings(self) -> dict[str, Any]:
        return {"padding": slider("padding p", 1, 1, 2)}

    def moments(self, padding: int) -> int:
        return 2 * _ROLLS + padding + 3

    def pace(self, **settings: Any) -> float:
        return 2.5

    def draw(self, figure: Figure, time: int, padding: int) -> str:
        side, steps = TOTAL - padding, max(0, time - 2 * _ROLLS)
        roll, close = min(1.0, time / _ROLLS), min(1.0, max(0.0, time / _ROLLS - 1))
        column = (side - 2 + steps) % TOTAL  # of the window's middle, on its way from the last pixels to the first
        reads, true = read_on_torus(padding, side - 1, column).numpy(), np.zeros((TOTAL, TOTAL), dtype=bool)
        true[:side, :side] = True
        ax = figure.add_axes((0.0, 0.0, 1.0, 1.0))
        corners = seen_from(torus_corners(TOTAL, roll, close), 24 * close - 12 * steps, 10 * roll + 24 * close)
        _mesh(ax, corners, np.where(true, PIXEL, ZERO) + READ * reads)
        for y, color, name in zip((4.2, 3.4, 2.6, 1.8), COLORS_OF, _NAMES, strict=True):
            ax.fill([-9.6, -9, -9, -9.6], [y, y, y + 0.6, y + 0.6], color=color)
            ax.text(-8.7, y + 0.3, name, va="center")
        ax.set(xlim=(-9.8, 7.4), ylim=(-5.1, 5.1), aspect="equal")
        ax.set_axis_off()
        return _torus_words(padding, time, reads, true, column)


def _torus_words(padding: int, time: int, reads: np.ndarray, true: np.ndarray, column: int) -> str:
    side, strips = TOTAL - padding, "a strip of zeros" if padding == 1 else f"strips of {padding} zeros"
    if time == 0:
        return (
            f"{side} × {side} pixels, and below and at the right {strips}. Padding puts zeros on all four sides; these "
            "will do for both."
        )
    if time <= _ROLLS:
        return "The sheet rolls up: its upper edge comes to the zeros below."
    if time < 2 * _ROLLS:
        return "The tube bends: its left edge comes to the zeros at the right."
    said = f"The window reads {int((reads & true).sum())} pixels and {int((reads & ~true).sum())} zeros"
    if column >= side:
        return f"{said}. Its middle is a zero, where no output is wanted: R of equation (1) leaves this row out."
    if column:
        return f"{said}, and nothing beyond them: the output is that of the zero-padded layer, equation (1)."
    shared = int((reads & ~true & read_on_torus(padding, side - 1, side - 1).numpy()).sum())
    norms = torus_norms(padding)
    return (
        f"{said}, {shared} of them zeros that the window at the other end reads, too: both ends share them. "
        f"Equation (2) will say that the norm is at most that of the torus: {norms[0]:.3f}, and {norms[1]:.3f}."
    )


def seen_from(corners: np.ndarray, turn: float, tilt: float) -> np.ndarray:
    """Return points ``(..., 3)`` turned about the vertical axis, then tilted towards the reader, in degrees."""
    a, b = math.radians(turn), math.radians(tilt)
    about = np.array([[math.cos(a), 0, math.sin(a)], [0, 1, 0], [-math.sin(a), 0, math.cos(a)]])
    over = np.array([[1, 0, 0], [0, math.cos(b), -math.sin(b)], [0, math.sin(b), math.cos(b)]])
    return corners @ (over @ about).T


def _mesh(ax: Axes, corners: np.ndarray, codes: np.ndarray) -> None:
    """Draw a surface of colored faces, those behind first and those that are seen from the side darker."""
    if isinstance(ax, SheetAxes):
        return ax.mesh(corners, COLORS_OF, codes)
    quads = np.stack([corners[:-1, :-1], corners[:-1, 1:], corners[1:, 1:], corners[1:, :-1]], axis=2).reshape(-1, 4, 3)
    normals = np.cross(quads[:, 2] - quads[:, 0], quads[:, 3] - quads[:, 1])
    facing = np.abs(normals[:, 2]) / np.linalg.norm(normals, axis=1)
    rgb = np.array([[int(COLORS_OF[code][k : k + 2], 16) / 255 for k in (1, 3, 5)] for code in codes.ravel()])
    shaded = 2 / 15 + (0.45 + 0.55 * facing)[:, None] * (rgb - 2 / 15)
    order = np.argsort(quads[:, :, 2].sum(1))
    ax.add_collection(
        PolyCollection(list(quads[order, :, :2]), facecolors=shaded[order], edgecolors="white", linewidths=0.5)
    )
