"""Animations of notebooks 05 and 08: projections in turns on two sets, and a projected gradient step."""

import functools
import math
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from matplotlib.figure import Figure
from torch import Tensor

from convkit.operators.operator import ConvOperator
from convkit.plots.sphere import View, plot_sphere
from convkit.plots.style import BLUE, FAINT, GREEN, INK, ORANGE, SKY, VERMILION
from convkit.projections.clipping import clip_and_crop, clip_singular_values, project_centered_sphere
from convkit.spectra import singular_values, symbol
from convkit.widgets.animation import AnimationPanel
from convkit.widgets.controls import slider
from convkit.widgets.sphere import GRADIENT, RADIUS, START

ROUNDS = 8
_TAKEN, _OUTSIDE = "taken from the three taps", "left outside of them"


@functools.cache
def turns(pixels: int) -> tuple[list[ConvOperator], float]:
    """Return the kernels of alternating projections of a blur, clipped and cropped in turns, and the bound.

    The bound lies a fifth of the way from the second singular value to the first, so that one frequency is above it.
    """
    A = ConvOperator(torch.tensor([[[0.25, 0.5, 0.25]]], dtype=torch.float64), pixels)
    values = singular_values(A)
    bound = float(0.8 * values[values < values[0] - 1e-9][0] + 0.2 * values[0])
    found = [A]
    for _ in range(ROUNDS):
        found += [clip_singular_values(found[-1], bound), clip_and_crop(found[-1], bound)]
    return found, bound


def on_line(A: ConvOperator) -> Tensor:
    """Return the taps on as many pixels as the line has, in the middle."""
    (n,), k = A.input_shape, A.kernel.shape[-1]
    first = (n - 1) // 2 - (k - 1) // 2
    return F.pad(A.kernel[0, 0], (first, n - k - first))


def slice_of(pixels: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return the first kernel, and two directions of length 1: less of the three taps, and less of all others."""
    start = on_line(turns(pixels)[0][0])
    inside = (start != 0).double()
    return start, -inside / inside.norm(), -(1 - inside) / (1 - inside).norm()


def ball_slice(pixels: int, reach: float) -> np.ndarray:
    """Return the corners of the norm ball's slice through the walk, cut off at ``reach``, ``(corners, 2)``."""
    _, bound = turns(pixels)
    parts = [symbol(ConvOperator(taps[None, None], pixels))[:, 0, 0].real.numpy() for taps in slice_of(pixels)]
    corners = reach * np.array([[-1.0, -1], [1, -1], [1, 1], [-1, 1]])
    for sign in (1, -1):
        for value, across, up in zip(*parts, strict=True):  # keep sign (value + across x + up y) <= bound
            room = bound - sign * (value + corners @ [across, up])
            kept = []
            for at in range(len(corners)):
                here, there = room[at - 1], room[at]
                if here * there < 0:
                    kept.append(corners[at - 1] + here / (here - there) * (corners[at] - corners[at - 1]))
                if there >= 0:
                    kept.append(corners[at])
            corners = np.array(kept)
    return corners


class WalkAnimation(AnimationPanel):
    """An animation of alternating projections between the kernels of three taps and the ball of the operator norm."""

    title = "Clip and crop in turns: a walk between two sets"
    size = (10.2, 4.2)

    def settings(self) -> dict[str, Any]:
        return {"pixels": slider("pixels", 8, 5, 16)}

    def moments(self, pixels: int) -> int:
        return 2 * ROUNDS + 1

    def draw(self, figure: Figure, time: int, pixels: int) -> str:
        kernels, bound = turns(pixels)
        start, *directions = slice_of(pixels)
        path = np.array([[float((on_line(A) - start) @ way) for way in directions] for A in kernels])
        lengths = np.linalg.norm(np.diff(path, axis=0), axis=1)
        reached = path[np.minimum(np.arange(len(path)), time)]  # what is to come waits where the walk is
        plane, steps = figure.add_axes((0.07, 0.16, 0.5, 0.74)), figure.add_axes((0.67, 0.16, 0.32, 0.74))
        wide, tall = 1.12 * path[-1, 0], 1.25 * path[:, 1].max()
        ball = ball_slice(pixels, 4 * max(wide, tall))
        plane.fill(ball[:, 0], ball[:, 1], color=SKY, alpha=0.3, lw=0)
        plane.plot(ball[[*range(len(ball)), 0], 0], ball[[*range(len(ball)), 0], 1], color=BLUE, lw=1.5)
        plane.axhline(0, color=ORANGE, lw=3)
        plane.plot(reached[:, 0], reached[:, 1], color=INK, lw=1.5, zorder=3)
        for first, color, name in ((1, BLUE, "after the clip"), (0, ORANGE, "after the crop")):
            plane.plot(
                reached[first::2, 0], reached[first::2, 1], "o", color=color, mec=INK, ms=7, label=name, zorder=4
            )
        plane.text(0.97, 0.94, "norm within the bound", transform=plane.transAxes, ha="right", va="top")
        plane.text(0.97, 0.04, "three taps", transform=plane.transAxes, ha="right", va="bottom", color=ORANGE)
        plane.set(xlim=(-0.12 * wide, wide), ylim=(-0.15 * tall, tall), xlabel=_TAKEN, ylabel=_OUTSIDE)
        plane.legend(frameon=False, loc="upper left", fontsize=9)
        plane.set_title("the walk, in the plane in which it lies", fontsize=10)
        index = np.arange(1, len(path))
        for first, color in ((0, BLUE), (1, ORANGE)):
            seen = np.where(index <= time, lengths, np.nan)[first::2]
            steps.plot(index[first::2], seen, "o", color=color, mec=INK, ms=7, clip_on=False)
        steps.plot(index, lengths[0] * (1 - 3 / pixels) ** ((index - 1) / 2), color=FAINT, lw=1, ls="--", zorder=1)
        steps.set(yscale="log", xlim=(0, len(path)), ylim=(lengths[-1] / 2, 2 * lengths[0]), xlabel="projections")
        steps.set_xticks(range(0, len(path), 2))
        steps.set_title("how far each one moves", fontsize=10)
        above = float(singular_values(kernels[time])[0]) - bound
        if time == 0:
            return f"The start has three taps, and a norm {above:.3f} above the bound {bound:.3f}."
        moved = f"moves the kernel by {lengths[time - 1]:.4f}"
        if time % 2:
            return f"Clip {(time + 1) // 2} {moved}, straight to the ball, and leaves taps outside of the three."
        return (
            f"Crop {time // 2} {moved}, straight back to the three taps: the norm is {above:.4f} above the bound. By "
            f"equation (6) a round leaves 1 − 3/{pixels} of the excess; by (7) it comes closer to all that both share."
        )


STEPS = 4
_PLACES = ((0.005, 0.0, 0.56, 0.92), (0.66, 0.6, 0.33, 0.3), (0.66, 0.14, 0.33, 0.3))
_LOOKS = (VERMILION, "D", "after the plain step"), (ORANGE, "s", "its gradient centered"), (GREEN, "o", "the new row")


def sphere_path(rate: float) -> Tensor:
    """Return the row at the start, and after the gradient step, the centering and the rescaling of each step."""
    row, gradient = torch.tensor([START], dtype=torch.float64), torch.tensor([GRADIENT], dtype=torch.float64)
    path = [row]
    for _ in range(STEPS):
        plain = path[-1] - rate * gradient
        path += [plain, plain - plain.mean(), project_centered_sphere(plain, RADIUS)]
    return torch.cat(path)


class SphereStepAnimation(AnimationPanel):
    """An animation of Algorithm 1: a gradient step, its mean taken off, and the rescaling that brings it back."""

    title = "One step of Algorithm 1 in three parts: step, center, rescale"
    size = (10.2, 4.6)

    def settings(self) -> dict[str, Any]:
        return {
            "rate": slider("step size", 0.6, 0.1, 1.0, 0.1),
            "turn": slider("turn the picture", -30, -90, 90, 10),
            "tilt": slider("tilt the picture", 20, -90, 90, 10),
        }

    def moments(self, rate: float, turn: int, tilt: int) -> int:
        return 3 * STEPS + 1

    def draw(self, figure: Figure, time: int, rate: float, turn: int, tilt: int) -> str:
        path, view = sphere_path(rate).numpy(), View(turn, tilt)
        reached = path[np.minimum(np.arange(len(path)), time)]  # what is to come waits where the row is
        space, upper, lower = (figure.add_axes(place) for place in _PLACES)
        plot_sphere(space, view, RADIUS, 2.3)
        x, y = view(reached)
        for at in range(1, len(path)):
            part = slice(at - 1, at + 1)
            space.plot(x[part], y[part], color=_LOOKS[(at - 1) % 3][0], lw=2, ls="-" if at % 3 == 1 else "--", zorder=4)
        for phase in (3, 2, 1):
            color, marker, name = _LOOKS[phase - 1]
            look: dict[str, Any] = {"color": color, "mec": INK, "mew": 0.5, "ms": 7, "zorder": 5}
            space.plot(x[phase::3], y[phase::3], marker, label=name, **look)
        space.plot(x[:1], y[:1], "o", mfc="white", mec=INK, ms=8, label="start", zorder=6)
        space.set(xlim=(-2.5, 2.5), ylim=(-2.5, 2.5))
        space.legend(frameon=False, loc="upper left", fontsize=9)
        space.text(0.02, 0.02, "blue circle: mean 0 and norm √2", transform=space.transAxes, color=BLUE, fontsize=9)
        index = np.arange(len(path))
        norms, means = np.linalg.norm(path, axis=1), path.mean(1)
        for ax, values, target, name in (
            (upper, norms, RADIUS, "norm of the row"),
            (lower, means, 0.0, "mean of the row"),
        ):
            ax.axhline(target, color=INK, ls="--", lw=1.2)
            ax.plot(index, np.where(index <= time, values, np.nan), color=FAINT, lw=1.2)
            for phase, (color, marker, _) in enumerate(_LOOKS, start=1):
                seen = np.where((index <= time) & (index > 0), values, np.nan)[phase::3]
                ax.plot(index[phase::3], seen, marker, color=color, mec=INK, mew=0.5, ms=6)
            ax.set_title(name, fontsize=10, loc="left")
            ax.grid(color=FAINT, lw=0.4)
            ax.set_xlim(-0.4, len(path) - 0.6)
            ax.set_xticks(range(0, len(path), 3), [str(step) for step in range(STEPS + 1)])
        upper.set_ylim(min(1.2, norms.min() - 0.1), max(1.8, norms.max() + 0.1))
        lower.set_ylim(-0.12, max(0.5, means.max() + 0.1))
        lower.set_xlabel("steps", fontsize=9)
        turned = math.degrees(math.acos(np.clip(path[time] @ path[max(0, time - 3)] / RADIUS**2, -1, 1)))
        return _sphere_words(time, float(norms[time]), float(means[time]), turned)


def _sphere_words(time: int, norm: float, mean: float, turned: float) -> str:
    step, phase = (time + 2) // 3, (time - 1) % 3
    state = f"mean {mean if abs(mean) > 5e-4 else 0:.3f}, norm {norm:.3f}"
    if time == 0:
        return f"The row is on the set of equation (1): {state}."
    if phase == 0:
        return f"Step {step}: the plain gradient step leads off the sphere and off the plane: {state}."
    if phase == 1:
        return f"Step {step}: the mean is taken off, so that the row is in the plane again: {state}."
    return (
        f"Step {step}: rescaled to norm √2, the row is the nearest one on the set, equations (4) and (5): {state}. The "
        f"step has turned it by {turned:.0f} degrees."
    )
