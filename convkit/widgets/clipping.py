"""The panel of notebook 05: six ways to bound the norm of a layer, and what each changes in the kernel."""

import functools
import math
from dataclasses import replace
from typing import Any

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from convkit.data.trained import trained_kernels
from convkit.norms import operator_norm
from convkit.operators.operator import ConvOperator
from convkit.plots.curves import plot_spectra
from convkit.plots.matrices import plot_matrix
from convkit.plots.style import BLUE, INK
from convkit.projections.clipping import (
    alternating_projections,
    clip_and_crop,
    clip_reshaped_kernel,
    clip_singular_values,
    dykstra,
)
from convkit.spectra import singular_values
from convkit.widgets.controls import choice, slider
from convkit.widgets.drawing import DrawnPanel
from convkit.widgets.panel import Words

PIXELS = 10
MOST_ROUNDS = 20
SLACK = 1e-6  # relative, above rounding and below what a reader can see
_PLACES = ((0.065, 0.14, 0.4, 0.76), (0.5, 0.14, 0.235, 0.74), (0.755, 0.14, 0.235, 0.74))
_TRAINED, _RANDOM, _BLUR, _EDGE, _BOX = "trained, 6 channels", "random, 6 channels", "blur", "edge", "box"
_CLIP, _RESHAPED = "clip, keep every tap", "clip the flattened kernel"
_CROP, _TURNS, _DYKSTRA = "clip and crop", "clip and crop, then rescale", "Dykstra, then rescale"
_RESCALE = "rescale"
_METHODS = [_CROP, _TURNS, _DYKSTRA, _CLIP, _RESCALE, _RESHAPED]


class ClippingPanel(DrawnPanel):
    """A panel that bounds the norm of a circular layer: singular values, kernel and distance, before and after."""

    title = f"Bounding the norm of a 3 × 3 layer on {PIXELS} × {PIXELS} pixels, circular"
    size = (10, 3.8)

    def controls(self) -> dict[str, Any]:
        return {
            "kind": choice("kernel", [_TRAINED, _RANDOM, _BLUR, _EDGE, _BOX]),
            "relative": slider("bound, as a part of the norm", 0.4, 0.1, 1.0, 0.05),
            "method": choice("way", _METHODS),
            "rounds": slider("number of rounds", 1, 1, MOST_ROUNDS),
        }

    def draw(self, figure: Figure, kind: str, relative: float, method: str, rounds: int) -> str:
        before = layer(kind)
        values = singular_values(before)
        norm = float(values[0])
        bound = relative * norm
        after = bounded(before, bound, method, rounds)
        new_values = singular_values(after)
        left, middle, right = (figure.add_axes(place) for place in _PLACES)
        plot_spectra({"before": values, "after": new_values}, left)
        left.axhline(bound, color=INK, ls="--", lw=1.5, label="bound")
        left.legend(frameon=False, loc="upper right", ncols=3)
        left.set(title="all singular values", ylim=(0, 1.18 * norm))  # room for the names
        left.locator_params(axis="x", nbins=6, integer=True)
        o, i = divmod(int(before.kernel.square().sum((2, 3)).argmax()), before.kernel.shape[1])
        limit = 0.4 * float(before.kernel[o, i].abs().max())  # the largest taps saturate, so that faint ones are seen
        for ax, A, name in ((middle, before, "kernel before"), (right, after, "kernel after")):
            _plot_on_image(on_image(A)[o, i], limit, ax)
            ax.set_title(name if len(before.kernel) == 1 else f"{name}, channel {i} to {o}", fontsize=10)
        distance = float((on_image(after) - on_image(before)).norm() / before.kernel.norm())
        return _words(after, norm, float(new_values[0]), bound, distance, method, rounds)


@functools.cache
def layer(kind: str) -> ConvOperator:
    """Return the layer that a choice names, with 3 × 3 taps, float64."""
    generator = torch.Generator().manual_seed(5)
    line, box = (torch.tensor(taps, dtype=torch.float64) for taps in ((1, 2, 1), (1, 1, 1)))
    kernel = {
        _TRAINED: lambda: trained_kernels()["64 to 64"][:6, :6].double(),
        _RANDOM: lambda: torch.randn(6, 6, 3, 3, dtype=torch.float64, generator=generator) / math.sqrt(54),
        _BLUR: lambda: line.outer(line)[None, None] / 16,
        _EDGE: lambda: torch.tensor([[[[0, -1, 0], [-1, 4, -1], [0, -1, 0]]]], dtype=torch.float64) / 8,
        _BOX: lambda: box.outer(box)[None, None] / 9,
    }[kind]()
    return ConvOperator(kernel, (PIXELS, PIXELS))


def bounded(A: ConvOperator, bound: float, method: str, rounds: int) -> ConvOperator:
    """Return ``A`` after the chosen way to bound its norm; only the three iterations use ``rounds``."""
    if method == _CROP:
        for _ in range(rounds):
            A = clip_and_crop(A, bound)
        return A
    if method == _RESCALE:
        return replace(A, kernel=A.kernel * min(1.0, bound / float(operator_norm(A, 2))))
    if method in (_TURNS, _DYKSTRA):
        return (alternating_projections if method == _TURNS else dykstra)(A, bound, rounds)
    return (clip_singular_values if method == _CLIP else clip_reshaped_kernel)(A, bound)


def on_image(A: ConvOperator) -> Tensor:
    """Return the kernel on an image of zeros, centered as a kernel of the image's size would be."""
    size, (h, w) = A.kernel.shape[2:], A.input_shape
    image = A.kernel.new_zeros(*A.kernel.shape[:2], h, w)
    top, first = ((n - 1) // 2 - (k - 1) // 2 for n, k in zip((h, w), size, strict=True))
    image[:, :, top : top + size[0], first : first + size[1]] = A.kernel
    return image


def _plot_on_image(kernel: Tensor, limit: float, ax: Axes) -> None:
    plot_matrix(kernel, ax, limit=limit).set(xlabel="", ylabel="", xticks=[], yticks=[])
    low, high = (PIXELS - 1) // 2 - 1.5, (PIXELS - 1) // 2 + 1.5
    ax.plot([low, high, high, low, low], [low, low, high, high, low], color=BLUE, lw=2)


def _words(
    after: ConvOperator, norm: float, now: float, bound: float, distance: float, method: str, rounds: int
) -> Words:
    start = f"Norm {_number(norm)} before, {_number(now)} after; bound {_number(bound)}"
    distance_text = f"The kernel has moved by {_percent(distance)} of its length"
    distance_text = distance_text if distance > SLACK else "The kernel has not moved"
    if now > bound * (1 + SLACK):
        if method == _RESHAPED:
            flat = float(torch.linalg.matrix_norm(after.kernel.flatten(1), 2))
            reason = f"Only the flattened kernel is within the bound, its norm is {_number(flat)}; a layer's own norm "
            reason += "can be up to three times that of its flattened kernel"
        else:
            reason = "The crop to 3 × 3 throws away taps that held the clipped waves down; "
            reason += f"{_rounds(rounds)} {'is' if rounds == 1 else 'are'} not enough"
        above = _percent(now / bound - 1)
        return Words(f"{start}: broken, {above} above it. {reason}. {distance_text}.", alert=True)
    if distance < SLACK:
        return Words(f"{start}. Nothing was to be done: the kernel stays as it is.")
    reason = {
        _CROP: f"{_rounds(rounds)} brought the crop, too, below the bound",
        _TURNS: f"The last step, a rescale, makes the bound true after {_rounds(rounds)}",
        _DYKSTRA: f"On its way to the nearest 3 × 3 kernel, rescaled after {_rounds(rounds)} to make the bound true",
        _CLIP: f"The nearest operator within the bound, but its kernel has {PIXELS} × {PIXELS} taps instead of 3 × 3",
        _RESCALE: f"Every singular value shrank to {_percent(bound / norm)}, also those that were below the bound",
        _RESHAPED: "The flattened kernel was clipped, and the layer's own norm happens to be within the bound",
    }[method]
    return Words(f"{start}: kept. {reason}. {distance_text}.")


def _rounds(rounds: int) -> str:
    return "one round" if rounds == 1 else f"{rounds} rounds"


def _number(value: float) -> str:
    return f"{value:.3f}"


def _percent(part: float) -> str:
    return f"{100 * part:.2g} %" if part < 0.0995 else f"{100 * part:.0f} %"
