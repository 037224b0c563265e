"""The panel of notebook 04: upper bounds of the norm 2 of one layer, as bars relative to the exact norm."""

import math
from collections.abc import Callable
from typing import Any

import torch
from matplotlib.figure import Figure
from torch import Tensor

from convkit.bounds import (
    flattened_bound,
    frobenius_bound,
    gram_iteration_bound,
    grid_bound,
    holder_bound,
    reshaped_bound,
    torus_bound,
)
from convkit.data.trained import trained_kernels
from convkit.norms import operator_norm
from convkit.operators.geometry import NoFourierBlocks, PaddingMode
from convkit.operators.operator import ConvOperator
from convkit.plots.bars import plot_bounds
from convkit.widgets.controls import choice, slider
from convkit.widgets.drawing import DrawnPanel
from convkit.widgets.panel import Words

EQUAL = 1e-6  # relative: what counts as the norm itself (zero-padded norms are converged to less than that)
_PLACE = (0.185, 0.155, 0.795, 0.755)
_LIMITS = (8, 30, 120, 500, 5000)
_SAME, _FULL, _NONE, _CIRCULAR = "zeros, output as large", "zeros, every tap touches", "no padding", "circular"
_RANDOM, _BLUR, _TAP, _CHESS, _TRAINED = "random", "blur", "identity", "chessboard of signs", "trained on digits"


class NoBar(Exception):
    """Raised when a bound does not apply to the layer; the message says why."""


def equation_3(A: ConvOperator) -> Tensor:
    """Return the bound of equation 3 of Liang & Huang 2021, which counts every tap at every output pixel."""
    axes = zip(A.input_shape, A.dilation, A.kernel.shape[2:], strict=True)
    if A.padding_mode == "circular" and any(k > n // math.gcd(n, d) for n, d, k in axes):
        raise NoBar(
            "taps meet on one pixel of the circular image, and the square of a sum is not the sum of the squares"
        )
    return math.sqrt(math.prod(A.out_shape[1:])) * torch.linalg.vector_norm(A.kernel)


def gram_iteration(A: ConvOperator) -> Tensor:
    """Return the library's bound; raise ``NoBar`` in the words of this panel where it does not apply."""
    try:
        return gram_iteration_bound(A)
    except NoFourierBlocks as error:
        zeros = A.padding_mode == "zeros"
        why = "padding that is not circular" if zeros else "a stride that does not divide the size"
        raise NoBar(f"{why} leaves no Fourier blocks to square") from error


BOUNDS: dict[str, Callable[[ConvOperator], Tensor]] = {  # from crude to fine
    "equation 3 of L": equation_3,
    "Frobenius norm": frobenius_bound,
    "Hölder": holder_bound,
    "flattened × windows": flattened_bound,
    "best reshaping": reshaped_bound,
    "grid for all sizes": grid_bound,
    "torus": torus_bound,
    "Gram iteration": gram_iteration,
}
SUM_OF_SQUARES = tuple(BOUNDS)[:2]


class BoundsPanel(DrawnPanel):
    """A panel with eight bounds of the norm 2 of a layer, divided by it, for any geometry and five kernels."""

    title = "Upper bounds of the norm 2, divided by the exact norm"
    size = (9, 3.7)

    def controls(self) -> dict[str, Any]:
        return {
            "kernel": choice("kernel", [_RANDOM, _BLUR, _TAP, _CHESS, _TRAINED]),
            "padding": choice("boundary", [_SAME, _FULL, _NONE, _CIRCULAR]),
            "n": slider("image size", 8, 2, 14),
            "k": slider("kernel size", 3, 1, 5),
            "stride": slider("stride", 1, 1, 3),
            "dilation": slider("dilation", 1, 1, 3),
            "c_in": slider("channels in", 2, 1, 8),
            "c_out": slider("channels out", 3, 1, 8),
        }

    def draw(self, figure: Figure, **values: Any) -> str:
        layer = make_layer(**values)
        norm, ratios, reasons = compare(layer)
        largest = max(ratio for ratio in ratios.values() if ratio is not None)
        limit = next(limit for limit in _LIMITS if limit > 1.3 * largest)  # so that the axis seldom jumps
        ax = plot_bounds(ratios, figure.add_axes(_PLACE), limit)
        ax.set_title(f"exact norm {norm:.3f}: no bar can end to the left of 1", fontsize=10)
        text = _words(layer, norm, ratios, reasons)
        if values["kernel"] == _TRAINED and values["k"] != 3:
            text += " The trained kernel is 3 × 3, whatever the slider says."
        return Words(text)


def make_layer(
    kernel: str, padding: str, n: int, k: int, stride: int, dilation: int, c_in: int, c_out: int
) -> ConvOperator:
    """Return the layer that the controls describe."""
    taps = _taps(kernel, k, c_in, c_out)
    span = dilation * (taps.shape[-1] - 1)
    if padding == _NONE and span >= n:
        raise ValueError(
            f"without padding the window must fit into the image, got one of {span + 1} × {span + 1} pixels on "
            f"{n} × {n}; take a larger image, or another boundary"
        )
    amount = {_FULL: span, _NONE: "valid"}.get(padding, "same")
    mode: PaddingMode = "circular" if padding == _CIRCULAR else "zeros"
    return ConvOperator(taps, (n, n), (stride, stride), amount, (dilation, dilation), 1, mode)


def compare(layer: ConvOperator) -> tuple[float, dict[str, float | None], dict[str, str]]:
    """Return the exact norm, each bound divided by it (``None`` if it does not apply), and the reasons for ``None``."""
    if not frobenius_bound(layer) > 1e-12:
        raise ValueError("all taps cancel on this image: the layer is zero; change its size, or the kernel")
    norm = float(operator_norm(layer, 2))
    ratios: dict[str, float | None] = {}
    reasons: dict[str, str] = {}
    for name, bound in BOUNDS.items():
        try:
            ratios[name] = float(bound(layer)) / norm
        except NoBar as error:
            ratios[name], reasons[name] = None, str(error)
    return norm, ratios, reasons


def _taps(kind: str, k: int, c_in: int, c_out: int) -> Tensor:
    if kind == _TRAINED:
        return trained_kernels()["64 to 64"][:c_out, :c_in].double()
    if kind == _RANDOM:  # one draw for all sizes: what a slider leaves alone stays the same
        draw = torch.randn(8, 8, 5, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
        return draw[:c_out, :c_in, :k, :k] / k
    if kind == _TAP:
        taps = torch.zeros(c_out, c_in, k, k, dtype=torch.float64)
        taps[:, :, k // 2, k // 2] = torch.eye(c_out, c_in, dtype=torch.float64)
        return taps
    signs = (-1.0) ** torch.arange(k, dtype=torch.float64) if kind == _CHESS else torch.ones(k, dtype=torch.float64)
    return torch.outer(signs, signs).expand(c_out, c_in, k, k) / k**2


def _words(layer: ConvOperator, norm: float, ratios: dict[str, float | None], reasons: dict[str, str]) -> str:
    there = {name: ratio for name, ratio in ratios.items() if ratio is not None}
    equal = [name for name, ratio in there.items() if ratio < 1 + EQUAL]
    tightest, loosest = min(there, key=there.__getitem__), max(there, key=lambda name: round(there[name], 9))
    sentences = [f"The exact norm is {norm:.3f}."]
    if len(equal) == len(there):
        sentences.append("All bounds that apply are equal to it.")
    elif equal:
        sentences.append(f"Equal to it: {', '.join(equal)}. Why {equal[0]}: {_why_tight(layer, equal[0], True)}.")
    else:
        sentences.append(
            f"Tightest: {tightest}, {there[tightest]:.4g} times the norm: {_why_tight(layer, tightest, False)}."
        )
    if len(equal) < len(there):
        sentences.append(f"Loosest: {loosest}, {there[loosest]:.3g} times: {_why_loose(layer, loosest)}.")
    sentences += [f"No bar for {name}: {why}." for name, why in reasons.items()]
    return " ".join(sentences)


def _why_tight(layer: ConvOperator, name: str, equal: bool) -> str:
    if name == "torus":
        if layer.is_block_circulant:
            return "the layer has Fourier blocks, and this is their largest singular value"
        if layer.padding_mode == "circular":
            return "this is the norm at stride 1, of whose rows the layer has some"
        return f"the layer is a piece of the circular one on {' × '.join(map(str, layer.torus().input_shape))} pixels"
    if name == "Hölder":
        if equal:
            return "some input has the sign of every tap that it meets, so absolute values cost nothing"
        if (layer.kernel >= 0).all():
            return "no tap works against another, so absolute values cost nothing, only uneven sums of rows and columns"
    if equal:
        windows = "the windows of this layer do not get in each other's way"
        return {
            "flattened × windows": windows,
            "best reshaping": windows,
            "grid for all sizes": "the loudest frequency of all is one of this layer's own",
            "Gram iteration": "five squarings leave nothing but the largest singular value",
        }.get(name, "the matrix has rank one, so there is only one singular value to count")
    return "what it gives away weighs least on this layer"


def _why_loose(layer: ConvOperator, name: str) -> str:
    if name in SUM_OF_SQUARES:
        wasted = ", and counts taps that fall on the zeros, too" if _counts_padding(layer, name) else ""
        return f"it adds the squares of all singular values, and the norm is the largest alone{wasted}"
    return {
        "Hölder": "it forgets the signs, as if all taps could work together",
        "flattened × windows": "it lets all windows that read a pixel answer at full strength, and no image does",
        "best reshaping": "it lets all windows that read a pixel answer at full strength, and no image does",
        "torus": "the larger torus has waves for which this image has no room",
        "grid for all sizes": "it must hold for larger images, too, which have waves for which this one has no room",
    }.get(name, "after five squarings the other singular values are still there")


def _counts_padding(layer: ConvOperator, name: str) -> bool:
    return name == "equation 3 of L" and float(equation_3(layer)) > float(frobenius_bound(layer)) * (1 + EQUAL)
