"""The panel of notebook 10: the norms of steps and weights while a small network trains, against a certificate."""

import functools
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from matplotlib.figure import Figure
from torch import Tensor, nn

from convkit.constraints.muon import ConvMuon
from convkit.data.registry import digits
from convkit.norms import operator_norm
from convkit.operators.operator import ConvOperator
from convkit.plots.style import BLUE, FAINT, INK, VERMILION
from convkit.randomness import seeded
from convkit.widgets.controls import choice, slider
from convkit.widgets.drawing import DrawnPanel
from convkit.widgets.panel import Words

MOST = 30
CHANNELS, SIZE, BATCH = 8, 8, 64
MOMENTUM, REST = 0.95, 0.05  # REST: rate of biases and of the last layer, whatever moves the convolutions
SLACK = 1e-4  # relative, of a bound that is kept up to rounding in float32
CONV, FLATTENED, SGD = "ConvMuon", "Muon, flattened", "SGD"
_PLACES = ((0.055, 0.14, 0.25, 0.74), (0.39, 0.14, 0.25, 0.74), (0.725, 0.14, 0.265, 0.74))


@dataclass(frozen=True)
class Walk:
    """The second convolution of a network during some steps, by the operator norm of its torus.

    ``losses`` has the loss before each step and after the last, ``steps`` the norm of each step, ``weights`` the norm
    of the weight before each step and after the last.
    """

    losses: list[float]
    steps: list[float]
    weights: list[float]


@functools.lru_cache(64)
def walk(way: str, rate: float, k: int) -> Walk:
    """Return what ``MOST`` steps at this rate do to a network of two convolutions with ``k x k`` taps, on digits."""
    data = digits()
    with seeded(0):
        convs = [
            nn.Conv2d(c, CHANNELS, k, padding=k // 2, bias=False, dtype=torch.float32)
            for c in (data.in_channels, CHANNELS)
        ]
        last = nn.Linear(CHANNELS * SIZE**2, data.classes, dtype=torch.float32)
    model = nn.Sequential(convs[0], nn.ReLU(), convs[1], nn.ReLU(), nn.Flatten(), last)
    optimizer: torch.optim.Optimizer
    if way == SGD:
        groups = [{"params": [conv.weight for conv in convs]}, {"params": last.parameters(), "lr": REST}]
        optimizer = torch.optim.SGD(groups, rate, MOMENTUM, nesterov=True)
    else:
        shapes = {"0": (SIZE, SIZE), "2": (SIZE, SIZE)}
        optimizer = ConvMuon(model, shapes, rate, rest_lr=REST, momentum=MOMENTUM, flattened=way == FLATTENED)
    weight = convs[1].weight.detach()
    generator = torch.Generator().manual_seed(0)
    losses, steps, weights = [], [], [torus_norm(weight)]
    for _ in range(MOST + 1):
        x, y = data.train_batch(torch.randperm(len(data), generator=generator)[:BATCH])
        loss = F.cross_entropy(model(x), y)
        losses.append(loss.item())
        if len(losses) > MOST:
            break
        optimizer.zero_grad()
        loss.backward()
        before = weight.clone()
        optimizer.step()
        steps.append(torus_norm(weight - before))
        weights.append(torus_norm(weight))
    return Walk(losses, steps, weights)


def torus_norm(kernel: Tensor) -> float:
    """Return the operator norm of a kernel on the torus that holds the image and its border of zeros."""
    return float(operator_norm(ConvOperator(kernel, SIZE, padding_mode="zeros").torus(), 2))


class StepPanel(DrawnPanel):
    """A panel with the steps of an optimizer on a small network: loss, norm of each step, norm of the weight."""

    title = "How long is a step? Two convolutions learn digits; the norms are those of the second one"
    size = (10.5, 3.8)

    def controls(self) -> dict[str, Any]:
        return {
            "way": choice("optimizer", [CONV, FLATTENED, SGD]),
            "rate": slider("step size", 0.1, 0.02, 0.3, 0.02),
            "count": slider("number of steps", 20, 1, MOST),
            "k": choice("kernel", [("3 × 3", 3), ("5 × 5", 5)]),
        }

    def draw(self, figure: Figure, way: str, rate: float, count: int, k: int) -> str:
        done = walk(way, round(rate, 2), k)
        losses, steps, weights = done.losses[: count + 1], done.steps[:count], done.weights[: count + 1]
        bound = [weights[0] + t * rate for t in range(count + 1)]
        broken = way != SGD and any(w > b * (1 + SLACK) for w, b in zip(weights, bound, strict=True))
        left, middle, right = (figure.add_axes(place) for place in _PLACES)
        left.plot(losses, color=BLUE, lw=1.6)
        left.set(title="loss of each batch", ylim=(0, max(2.6, 1.05 * max(losses))))
        too_long = max(steps) > rate * (1 + SLACK) and way != SGD
        middle.plot(range(1, count + 1), steps, "o", ms=4, color=VERMILION if too_long else BLUE)
        middle.axhline(rate, color=INK, ls="--", lw=1.2)
        middle.set(title="norm of each step; dashed: step size", ylim=(0, 1.12 * max(rate, *steps)))
        right.plot(weights, color=VERMILION if broken else BLUE, lw=1.8)
        right.plot(bound, color=INK, ls="--", lw=1.2)
        right.set(title="norm of the weight; dashed: certificate", ylim=(0, 1.08 * max(*weights, *bound)))
        for ax in (left, middle, right):
            ax.title.set_fontsize(10)
            ax.grid(color=FAINT, lw=0.4)
            ax.set_xlim(-0.02 * count - 0.1, 1.02 * count + 0.1)
            ax.set_xlabel("steps", fontsize=9)
        return _words(way, rate, k, losses, steps, weights[-1], bound[-1], broken)


def _words(
    way: str, rate: float, k: int, losses: list[float], steps: list[float], norm: float, bound: float, broken: bool
) -> Words:
    count, low, high = len(steps), min(steps), max(steps)
    after = "After one step" if count == 1 else f"After {count} steps"
    state = f"{after} the loss is {losses[-1]:.2f}, it was {losses[0]:.2f}."
    if way == CONV:
        return Words(
            f"{state} Every step has norm {rate:.2f}, the step size. The norm of the weight, {norm:.2f}, is below the "
            f"certificate, {bound:.2f}."
        )
    if way == SGD:
        return Words(
            f"{state} The norms of the steps are {low:.3f} to {high:.3f}: the gradient decides, not the step size. The "
            f"norm of the weight is {norm:.2f}; the dashed line, at {bound:.2f}, is no bound for SGD."
        )
    ratio = f"The steps have norms {low:.2f} to {high:.2f}, up to {high / rate:.1f} times the step size"
    root = f"exact polar factors of {k} × {k} kernels reach {k} times, Muon's are approximate"
    if not broken:
        return Words(
            f"{state} {ratio} ({root}). The norm of the weight, {norm:.2f}, has not crossed the line yet.", True
        )
    where = f"{norm:.2f}, above the line at {bound:.2f}" if norm > bound else f"{norm:.2f}, was above the line before"
    return Words(f"{state} {ratio} ({root}). The certificate is broken: the norm of the weight is {where}.", True)
