"""The plot of a row of weights and its step on the sphere, in three dimensions."""

import math
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from convkit.plots.numbers import numbers
from convkit.plots.style import BLUE, FAINT, GREEN, INK, ORANGE, SKY, VERMILION, new_ax

REACH = 1.62  # of the radius: how far the plane and the axes of the picture go


class View:
    """A projection of points in space: a rotation about the vertical axis, then a tilt towards the reader."""

    def __init__(self, turn: float, tilt: float) -> None:
        a, b = math.radians(turn), math.radians(tilt)
        self.right = np.array([-math.sin(a), math.cos(a), 0])
        self.up = np.array([-math.sin(b) * math.cos(a), -math.sin(b) * math.sin(a), math.cos(b)])
        self.towards = np.array([math.cos(b) * math.cos(a), math.cos(b) * math.sin(a), math.sin(b)])

    def __call__(self, points: Any) -> tuple[np.ndarray, np.ndarray]:
        points = numbers(points, dtype=float)
        return points @ self.right, points @ self.up


PLANE = np.array([1, -1, 0]) / 2**0.5, np.array([1, 1, -2]) / 6**0.5  # a basis of the rows of mean 0


def plot_sphere(ax: Axes, view: View, radius: float, edge: float) -> None:
    """Plot the ball, the plane of mean 0 up to ``edge``, their common circle, and the axes of three weights.

    The part of the circle behind the ball is dotted.
    """
    reach, angle, (across, along) = REACH * radius, np.linspace(0, 2 * np.pi, 121), PLANE
    ring = np.outer(np.cos(angle), across) + np.outer(np.sin(angle), along)
    ax.fill(*view(edge * ring), color=ORANGE, alpha=0.14, lw=0, zorder=0)
    ax.fill(radius * np.cos(angle), radius * np.sin(angle), color=SKY, alpha=0.22, lw=0, zorder=1)
    ax.plot(radius * np.cos(angle), radius * np.sin(angle), color=SKY, lw=1, zorder=1)
    for number, end in enumerate(np.eye(3) * reach, start=1):
        x, y = map(float, view(end))
        ax.annotate("", (x, y), (0, 0), arrowprops={"arrowstyle": "->", "color": FAINT, "lw": 1}, zorder=1)
        ax.text(1.07 * x, 1.07 * y, f"$w_{number}$", color="#777777", ha="center", va="center")
    _curve(ax, view, radius * ring, radius, BLUE, 2.2)
    ax.set(aspect="equal")
    ax.set_axis_off()


def plot_sphere_step(
    path: Any, plain: Any, centered: Any, radius: float, turn: float, tilt: float, ax: Axes | None = None
) -> Axes:
    """Plot the steps of a row of three weights: the sphere, the plane of mean 0, and their common circle.

    ``path`` holds the row before and after each step, ``(steps + 1, 3)``; ``plain`` is where the last step would lead
    without constraints, ``centered`` where its centered gradient leads (``None``: it was not centered).
    """
    ax, view = new_ax(ax, (5, 5)), View(turn, tilt)
    path = numbers(path)
    across, along = PLANE
    plot_sphere(ax, view, radius, np.max([REACH * radius, *np.abs(path @ across), *np.abs(path @ along)]))
    ax.annotate("", view(plain), view(path[-2]), arrowprops={"arrowstyle": "->", "color": VERMILION, "lw": 2}, zorder=4)
    ways = [(plain, path[-1], GREEN)]
    if centered is not None:
        ways = [(plain, centered, ORANGE), (centered, path[-1], GREEN)]
    for start, end, color in ways:
        (x, y), (u, v) = view(start), view(end)
        ax.plot([x, u], [y, v], color=color, lw=2.2, ls=(0, (2, 1.2)), zorder=4)
    ax.plot(*view(path), color=INK, lw=1, marker="o", ms=4, zorder=5)
    for point, marker, color, name in (
        (plain, "D", VERMILION, "after the plain step"),
        (centered, "s", ORANGE, "its gradient centered"),
        (path[-1], "o", GREEN, "the new row"),
    ):
        if point is not None:
            ax.plot(*view(point), marker, color=color, ms=8, zorder=6, label=name, ls="none")
    ax.plot(*view(path[0]), "o", mfc="white", mec=INK, ms=8, zorder=6, label="start", ls="none")
    return ax


def _curve(ax: Axes, view: View, points: np.ndarray, radius: float, color: str, width: float) -> None:
    """Plot a curve on the ball: solid in front, thin and dotted behind."""
    x, y = view(points)
    front = points @ view.towards >= 0
    ax.plot(np.where(front, x, np.nan), np.where(front, y, np.nan), color=color, lw=width, zorder=3)
    ax.plot(np.where(front, np.nan, x), np.where(front, np.nan, y), color=color, lw=0.6 * width, ls=":", zorder=2)
