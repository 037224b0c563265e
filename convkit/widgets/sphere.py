"""The panel of notebook 08: a projected gradient step in three dimensions, after Figure 1 of Ikami et al. 2021."""

from dataclasses import dataclass
from typing import Any

import torch
from matplotlib.figure import Figure
from torch import Tensor

from convkit.constraints.sphere import centered_sphere
from convkit.plots.sphere import REACH, plot_sphere_step
from convkit.plots.style import BLUE, FAINT, GREEN, INK, VERMILION
from convkit.widgets.controls import slider, toggle
from convkit.widgets.drawing import DrawnPanel
from convkit.widgets.panel import Words

RADIUS = 2**0.5
START = (1.0, -1.0, 0.0)  # mean 0, norm sqrt 2
GRADIENT = (0.35, -0.75, -1.1)  # of a linear loss: the same everywhere
MOST = 12
SLACK = 1e-6
_PLACES = ((0.005, 0.0, 0.56, 0.93), (0.66, 0.6, 0.325, 0.32), (0.66, 0.14, 0.325, 0.32))


@dataclass(frozen=True)
class Walk:
    """The result of some steps: the rows ``path``, ``(steps + 1, 3)``, and the last step before it was projected.

    ``plain`` is the row after the plain step, ``centered`` the same with mean 0 (``None`` if it is not centered).
    """

    path: Tensor
    plain: Tensor
    centered: Tensor | None


def walk(rate: float, steps: int, center: bool, rescale: bool) -> Walk:
    """Return the rows after steps of SGD without momentum on a linear loss, constrained by ``centered_sphere``."""
    row = torch.tensor([START], dtype=torch.float64, requires_grad=True)
    gradient = torch.tensor([GRADIENT], dtype=torch.float64)
    optimizer = torch.optim.SGD([row], lr=rate)
    if center or rescale:
        centered_sphere(optimizer, {"row": row}, RADIUS, center=center, scale=rescale)
    path = [row.detach().clone()]
    for _ in range(steps):
        row.grad = gradient.clone()
        optimizer.step()
        path.append(row.detach().clone())
    plain = path[-2] - rate * gradient
    return Walk(torch.cat(path), plain[0], plain[0] - plain.mean() if center else None)


class SpherePanel(DrawnPanel):
    """A panel with a row of three weights and its steps on the sphere and in the plane of mean 0, from any side."""

    title = "A step on the sphere: three weights, mean 0 and norm √2"
    size = (9.5, 4.6)

    def controls(self) -> dict[str, Any]:
        return {
            "rate": slider("step size", 0.8, 0.1, 2.0, 0.1),
            "steps": slider("number of steps", 1, 1, MOST),
            "turn": slider("turn the picture", -30, -90, 90, 5),
            "tilt": slider("tilt the picture", 15, -90, 90, 5),
            "center": toggle("center the gradient", True),
            "rescale": toggle("rescale to the sphere", True),
        }

    def draw(self, figure: Figure, rate: float, steps: int, turn: int, tilt: int, center: bool, rescale: bool) -> str:
        done = walk(rate, steps, center, rescale)
        norms, means = done.path.norm(dim=1), done.path.mean(1)
        space, upper, lower = (figure.add_axes(place) for place in _PLACES)
        plot_sphere_step(done.path, done.plain, done.centered, RADIUS, turn, tilt, space)
        room = 1.16 * max(REACH * RADIUS, float(norms.max()), float(done.plain.norm()))
        space.set(xlim=(-room, room), ylim=(-room, room))
        space.legend(frameon=False, loc="upper left", fontsize=9, handletextpad=0.2, borderpad=0)
        space.text(0.02, 0.02, "blue circle: mean 0 and norm √2", transform=space.transAxes, color=BLUE, fontsize=9)
        for ax, values, target, name in (
            (upper, norms, RADIUS, "norm of the row"),
            (lower, means, 0.0, "mean of the row"),
        ):
            fine = bool(((values - target).abs() < SLACK).all())
            ax.axhline(target, color=INK, ls="--", lw=1.2)
            ax.plot(range(steps + 1), values.tolist(), marker="o", ms=5, lw=1.5, color=GREEN if fine else VERMILION)
            ax.set_title(name, fontsize=10, loc="left")
            ax.grid(color=FAINT, lw=0.4)
            ax.set_xlim(-0.3, max(steps, 4) + 0.3)
        upper.set_ylim(0, max(2.2, 1.1 * float(norms.max())))
        lower.set_ylim(-0.35, max(0.6, 1.15 * float(means.max())))
        lower.set_xlabel("steps", fontsize=9)
        return _words(done, norms, means, steps, center, rescale)


def _words(done: Walk, norms: Tensor, means: Tensor, steps: int, center: bool, rescale: bool) -> Words:
    norm, mean = float(norms[-1]), float(means[-1])
    after = "After one step" if steps == 1 else f"After {steps} steps"
    state = f"{after} the row has mean {_number(mean)} and norm {_number(norm)}"
    broken = []
    if abs(mean) > SLACK:
        broken.append("the gradient was not centered, so that the row left the plane")
    if abs(norm - RADIUS) > SLACK:
        why = "its steps lie in the plane and lead off the sphere" if center else "nothing brings it back to the sphere"
        broken.append(f"it was not rescaled: {why}")
    if broken:
        return Words(f"{state}, not 0 and 1.414: {'; and '.join(broken)}.", alert=True)
    turned = _angle(done.path[-2], done.path[-1])
    return Words(
        f"{state}: both constraints hold. The last step turned the row by {turned:.0f} degrees; without "
        f"the constraints it would have ended at mean {_number(float(done.plain.mean()))} and "
        f"norm {_number(float(done.plain.norm()))}."
    )


def _angle(a: Tensor, b: Tensor) -> float:
    cosine = float((a @ b) / (a.norm() * b.norm()))
    return float(torch.rad2deg(torch.acos(torch.tensor(min(1.0, cosine)))))


def _number(value: float) -> str:
    return f"{value if abs(value) > 5e-4 else 0:.3f}"
