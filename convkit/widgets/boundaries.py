"""The panel of notebook 03: three spectra of one layer for several boundaries, strides, dilations and groups."""

from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from matplotlib.figure import Figure
from torch import Tensor

from convkit.operators.operator import ConvOperator
from convkit.plots.curves import plot_spectra, plot_symbol
from convkit.spectra import singular_values, spectrum
from convkit.widgets.controls import choice, numbers, slider
from convkit.widgets.drawing import DrawnPanel
from convkit.widgets.panel import Words

Rows = tuple[tuple[float, ...], ...]

FINE = 240  # frequencies that stand for all of them
_PLACES = ((0.06, 0.14, 0.45, 0.76), (0.54, 0.14, 0.45, 0.76))
_KERNELS = [
    ("second difference 1, -2, 1", (1, -2, 1)),
    ("blur 1, 2, 1", (1, 2, 1)),
    ("two taps 1, -1", (1, -1)),
    ("five taps 1, 3, -2, 1, 2", (1, 3, -2, 1, 2)),
]
_SAME, _FULL, _NONE, _CIRCULAR = "zeros, output as large", "zeros, every tap touches", "no padding", "circular"


class BoundaryPanel(DrawnPanel):
    """A panel with the exact spectrum of a 1-D layer, that of its circular relative, and that of its torus."""

    title = "One layer, three spectra: as it is, circular on the same pixels, and on the larger torus"
    size = (9.6, 3.9)

    def controls(self) -> dict[str, Any]:
        return {
            "preset": choice("start from", _KERNELS),
            "taps": numbers("taps, one row for each group", [_KERNELS[0][1]]),
            "pixels": slider("pixels", 3, 2, 24),
            "stride": slider("stride", 1, 1, 3),
            "dilation": slider("dilation", 1, 1, 4),
            "groups": slider("groups", 1, 1, 3),
            "boundary": choice("boundary", [_SAME, _FULL, _NONE, _CIRCULAR]),
        }

    def react(self, name: str) -> None:
        taps, groups = self._controls["taps"], self._controls["groups"].value
        if name == "preset":
            taps.value = one_row_a_group((self._controls["preset"].value,), groups)
        elif name == "groups":
            taps.value = one_row_a_group(taps.value, groups)

    def draw(self, figure: Figure, **values: Any) -> str:
        layer = make_layer(**values)
        exact, circular, larger = three_spectra(layer)
        third = "torus" if larger.stride == layer.stride else "stride 1"
        names = ("this layer, exact", _pixels("circular", circular), _pixels(third, larger))
        left, right = (figure.add_axes(place) for place in _PLACES)
        sorted_values = (exact, *(_sorted(A) for A in (circular, larger)))
        plot_spectra(dict(zip(names, sorted_values, strict=True)), left)
        left.set_title("all singular values, sorted")
        by_frequency = [torch.zeros(0, 1) if A is None else spectrum(A) for A in (circular, larger)]
        every = spectrum(replace(larger.circular(), input_shape=(FINE * larger.stride[0],)))
        plot_symbol(every, dict(zip(names[1:], by_frequency, strict=True)), right, {"exact norm": float(exact[0])})
        right.set_title("the same, frequency by frequency")
        top = 1.3 * max(float(exact[0]), float(every.max()), 1e-6)  # room for the names
        for ax in (left, right):
            ax.set(ylim=(-0.02 * top, top))
            ax.locator_params(axis="y", nbins=6)
        left.locator_params(axis="x", nbins=6, integer=True)
        left.legend(frameon=False, loc="upper right", ncols=2, fontsize=8.5)
        right.set(ylabel=None)
        right.tick_params(labelleft=False)  # as on the left
        right.legend(right.lines[-1:], ["exact norm of this layer"], frameon=False, loc="upper right", fontsize=8.5)
        return _words(layer, *sorted_values)


def one_row_a_group(rows: Rows, groups: int) -> Rows:
    """Return one row of taps per group; each new group starts with half the taps of the one before."""
    rows = tuple(rows[:groups])
    while len(rows) < groups:
        rows = (*rows, tuple(tap / 2 for tap in rows[-1]))
    return rows


def make_layer(
    taps: Rows, pixels: int, stride: int, dilation: int, groups: int, boundary: str, **_: Any
) -> ConvOperator:
    """Return the layer that the controls describe, with one channel per group."""
    kernel = torch.tensor(one_row_a_group(taps, groups), dtype=torch.float64)[:, None]
    if dilation * (kernel.shape[-1] - 1) >= pixels and boundary == _NONE:
        raise ValueError(
            f"without padding the kernel must fit into the image, got {kernel.shape[-1]} taps with dilation {dilation} "
            f"on {pixels} pixels; take more pixels, or another boundary"
        )
    padding = {_FULL: dilation * (kernel.shape[-1] - 1), _NONE: "valid"}.get(boundary, "same")
    mode = "circular" if boundary == _CIRCULAR else "zeros"
    return ConvOperator(kernel, (pixels,), (stride,), padding, (dilation,), groups, mode)


def three_spectra(layer: ConvOperator) -> tuple[Tensor, ConvOperator | None, ConvOperator]:
    """Return the exact singular values, those of the circular relative (``None`` if it has no blocks), and a bound.

    The bound consists of the singular values on the torus.
    """
    exact = torch.linalg.svdvals(layer.matrix())
    circular = layer.circular()
    uneven = layer.padding_mode == "circular" and not layer.is_block_circulant
    larger = replace(layer, stride=(1,)) if uneven else layer.torus()  # its rows are some of those at stride 1
    return exact, circular if circular.is_block_circulant else None, larger


def _sorted(A: ConvOperator | None) -> Tensor:
    return torch.zeros(0) if A is None else singular_values(A)


def _pixels(name: str, A: ConvOperator | None) -> str:
    return f"{name}: none" if A is None else f"{name}, {A.input_shape[0]} pixels"


def _words(layer: ConvOperator, exact: Tensor, circular: Tensor, larger: Tensor) -> Words:
    (n,), (s,) = layer.input_shape, layer.stride
    norm, above = float(exact[0]), float(larger[0])
    start = f"The exact norm is {norm:.3f}."
    if layer.is_block_circulant:
        why = "The layer is circular" if layer.padding_mode == "circular" else "No window crosses the boundary"
        return Words(f"{start} {why} and the stride divides the size: Fourier is exact, the three curves are one.")
    missing = f"No circular curve: stride {s} does not divide {n} pixels, so Fourier has no blocks on this size."
    if layer.padding_mode == "circular":
        return Words(f"{start} {missing} Its rows are some of those at stride 1, whose norm {above:.3f} is a bound.")
    torus = f"The torus of {layer.torus().input_shape[0]} pixels has {above:.3f}: a bound, at every index."
    if len(circular) == 0:
        return Words(f"{start} {missing} {torus}")
    gap, tolerance = float(circular[0]) - norm, 1e-9 * max(norm, 1e-6)
    same = f"Circular on the same {n} pixels has {float(circular[0]):.3f}"
    if gap < -tolerance:
        return Words(f"{start} {same}, {-gap:.3f} too little: circular is not a bound. {torus}", alert=True)
    if not any(map(sum, layer.pads)):
        return Words(f"{start} {same}: a bound, since without padding the layer is some rows of that matrix.")
    # full padding can leave more values than a strided circular matrix has: those that it lacks count as 0
    circular = F.pad(circular[: len(exact)], (0, max(0, len(exact) - len(circular))))
    below = int((circular < exact - tolerance).sum())
    more = f"{gap:.3f} more" if gap >= 5e-4 else "the same"
    others = f", yet {below} of its values lie below the exact ones" if below else " and no value below the exact ones"
    return Words(f"{start} {same}, {more}{others}. {torus}")
