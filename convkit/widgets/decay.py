"""The panel of notebook 09: which entries of a kernel norm decay changes, step by step."""

import functools
import math
from dataclasses import dataclass, replace
from typing import Any

import torch
from matplotlib.figure import Figure
from torch import Tensor

from convkit.norms import operator_norm
from convkit.operators.geometry import PaddingMode
from convkit.operators.operator import ConvOperator
from convkit.plots.matrices import plot_kernel_gradient
from convkit.plots.style import BLUE, INK, ORANGE
from convkit.widgets.controls import choice, slider
from convkit.widgets.drawing import DrawnPanel
from convkit.widgets.panel import Words

MOST_STEPS = 40
RATE = 0.01  # times beta: what a step takes off an entry that is pulled in full
THRESHOLD = 0.01  # of a full pull: what is less counts as none
_PLACES = ((0.05, 0.13, 0.25, 0.76), (0.36, 0.13, 0.25, 0.76), (0.69, 0.57, 0.3, 0.33), (0.69, 0.13, 0.3, 0.33))
_IMAGES: dict[str, tuple[int, PaddingMode]] = {
    "6 × 6, zeros around": (6, "zeros"),
    "2 × 2, zeros around": (2, "zeros"),
    "2 × 2, circular": (2, "circular"),
}
_RIGHT, _REPLACED, _EXCHANGED = "Algorithm 1", "momentum replaces entries", "axes exchanged in the index"


class DecayPanel(DrawnPanel):
    """A panel with norm decay alone on one layer, without a loss: gradient, moving average and norm."""

    title = "What the gradient of a norm pulls on: a 3 × 3 layer with 3 channels in and 4 out, no other loss"
    size = (10, 4)

    def controls(self) -> dict[str, Any]:
        return {
            "ord": choice("norm", [("1, largest column", 1), ("∞, largest row", math.inf)]),
            "momentum": slider("momentum", 0.5, 0.0, 0.9, 0.1),
            "steps": slider("number of steps", 12, 1, MOST_STEPS),
            "stride": choice("stride", [("2 down, 1 across", (2, 1)), ("1", (1, 1)), ("2", (2, 2))]),
            "image": choice("image", list(_IMAGES)),
            "way": choice("computed by", [_RIGHT, _REPLACED, _EXCHANGED]),
        }

    def draw(
        self,
        figure: Figure,
        ord: float,
        momentum: float,
        steps: int,
        stride: tuple[int, int],
        image: str,
        way: str,
    ) -> str:
        path = walk(ord, momentum, stride, image, way)
        now = path[steps]
        left, middle, top, bottom = (figure.add_axes(place) for place in _PLACES)
        plot_kernel_gradient(now.p, left).set_title(f"gradient of the norm, step {steps}", fontsize=10)
        plot_kernel_gradient(torch.where(now.h.abs() < THRESHOLD, 0, now.h), middle).set_title(
            "its moving average", fontsize=10
        )
        number = range(len(path))
        top.plot(number, [state.norm for state in path], color=INK, lw=1.5)
        top.plot(steps, now.norm, "o", color=INK)
        top.set_title(f"norm {_name(ord)} of the layer", fontsize=10, loc="left")
        top.tick_params(labelbottom=False)  # as below; texts are what takes time
        top.locator_params(axis="y", nbins=4)
        for name, color, marker in (("the gradient", ORANGE, "s"), ("its moving average", BLUE, "o")):
            shares = [100 * share(state.p if color == ORANGE else state.h) for state in path[1:]]
            bottom.plot(number[1:], shares, color=color, lw=1.5, label=name)
            bottom.plot(steps, shares[steps - 1], marker, color=color)
        bottom.set_title("entries pulled (%)", fontsize=10, loc="left")
        bottom.set(ylim=(0, 128), yticks=(0, 50, 100), xlabel="step")
        bottom.legend(frameon=False, fontsize=8, ncols=2, loc="upper right")
        return _words(path[0].norm, now, ord, momentum, steps, way)


@dataclass(frozen=True)
class State:
    """The result of a step: norm, gradient and moving average, and the last two as Algorithm 1 computes them."""

    norm: float
    p: Tensor
    h: Tensor
    claimed: float  # the norm before the step as the chosen way sees it, and as it was
    true: float
    right_p: Tensor
    right_h: Tensor


@functools.cache
def layer(stride: tuple[int, int], image: str) -> ConvOperator:
    """Return the initial layer, float64, with the same kernel for every norm."""
    size, border = _IMAGES[image]
    kernel = torch.randn(4, 3, 3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(8)) / math.sqrt(27)
    return ConvOperator(kernel, (size, size), stride, 1, padding_mode=border)


@functools.lru_cache(maxsize=64)
def walk(ord: float, momentum: float, stride: tuple[int, int], image: str, way: str) -> list[State]:
    """Return the states of forty steps ``w <- w - RATE h`` from the layer; the first is the one before them."""
    A = layer(stride, image)
    zero = torch.zeros_like(A.kernel)
    norm = float(operator_norm(A, ord))
    h = right_h = zero
    path = [State(norm, zero, zero, norm, norm, zero, zero)]
    for _ in range(MOST_STEPS):
        true, right_p = norm_gradient(A, ord)
        claimed, p = norm_gradient(exchanged(A), ord) if way == _EXCHANGED else (true, right_p)
        smoothed = momentum * h + (1 - momentum) * p
        h = torch.where(p != 0, p, momentum * h) if way == _REPLACED else smoothed
        right_h = momentum * right_h + (1 - momentum) * right_p
        A = replace(A, kernel=A.kernel - RATE * h)
        path.append(State(float(operator_norm(A, ord)), p, h, claimed, true, right_p, right_h))
    return path


def norm_gradient(A: ConvOperator, ord: float) -> tuple[float, Tensor]:
    """Return the norm and its gradient with respect to the kernel."""
    kernel = A.kernel.detach().clone().requires_grad_()
    norm = operator_norm(replace(A, kernel=kernel), ord)
    return float(norm.detach()), torch.autograd.grad(norm, kernel)[0]


def exchanged(A: ConvOperator) -> ConvOperator:
    """Return the same kernel under the geometry with its axes exchanged."""
    return replace(A, stride=A.stride[::-1], input_shape=A.input_shape[::-1])


def share(pull: Tensor) -> float:
    """Return the fraction of the entries whose pull is at least ``THRESHOLD``."""
    return float((pull.abs() >= THRESHOLD).double().mean())


def _name(ord: float) -> str:
    return "1" if ord == 1 else "∞"


def _words(start: float, now: State, ord: float, momentum: float, steps: int, way: str) -> Words:
    entries, reached, above = now.p.numel(), int(now.p.count_nonzero()), int((now.h.abs() >= THRESHOLD).sum())
    text = f"After {steps} step{'s' * (steps > 1)} the norm {_name(ord)} is {now.norm:.3f}, it was {start:.3f}. "
    text += f"The last gradient pulls on {reached} of {entries} entries, the moving average on {above}"
    if way == _REPLACED:
        times = float(now.h.abs().sum() / now.right_h.abs().sum())
        if abs(times - 1) < 1e-9:
            return Words(f"{text}. Without momentum nothing is left to be replaced: this is Algorithm 1.")
        reason = f"entries are put in the place of h, not averaged into it, and its pull is {times:.2f} times that of "
        return Words(f"{text}. Broken: {reason}Algorithm 1 on the same gradients.", alert=True)
    if way == _EXCHANGED:
        missed = int(((now.p == 0) & (now.right_p != 0)).sum())
        wrong = int(((now.p != 0) & (now.right_p == 0)).sum())
        if missed + wrong == 0 and abs(now.claimed - now.true) < 1e-9:
            return Words(f"{text}. Here the exchange does no harm: the right index gives the same entries.")
        reason = (
            f"before this step the index made the norm {now.claimed:.3f}, it was {now.true:.3f}; the gradient misses "
        )
        reason += f"{missed} of the {int(now.right_p.count_nonzero())} entries that make it and pulls on {wrong} others"
        return Words(f"{text}. Broken: {reason}.", alert=True)
    if momentum == 0:
        return Words(f"{text}: without momentum they are the same.")
    kept = "it keeps pulling where the gradient was before, less with every step"
    return Words(f"{text}: {kept}." if above > reached else f"{text}: the gradient has not moved on yet.")
