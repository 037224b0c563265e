"""The panel of notebook 02: all singular values by the FFT beside those of the dense matrix, and how to break it."""

from collections.abc import Iterator
from typing import Any

import torch
from matplotlib.figure import Figure
from torch import Tensor

from convkit.operators.operator import ConvOperator
from convkit.plots.curves import plot_two_spectra
from convkit.plots.matrices import plot_frequencies, plot_matrix
from convkit.spectra import singular_values, spectrum, symbol
from convkit.widgets.controls import choice, slider, toggle
from convkit.widgets.drawing import DrawnPanel
from convkit.widgets.panel import Words

TOLERANCE = 1e-10  # float64: rounding leaves about 1e-14
_PLACES = ((0.06, 0.15, 0.43, 0.76), (0.535, 0.15, 0.19, 0.76), (0.79, 0.15, 0.2, 0.76))
_CIRCULAR, _ZEROS, _NONE = "circular", "zero padding", "none, only whole windows"


class FourierPanel(DrawnPanel):
    """A panel with the spectrum of a random layer by the FFT and by its dense matrix; switches break one of them."""

    title = "All singular values: two lines with the FFT against the SVD of the dense matrix"
    size = (10, 3.5)
    headings = {"n": "the layer", "border": "break the layer", "fft": "break the two lines"}  # noqa: RUF012

    def controls(self) -> dict[str, Any]:
        return {
            "n": slider("image size", 6, 2, 8),
            "k": slider("kernel size", 3, 1, 5),
            "c_in": slider("channels in", 2, 1, 3),
            "c_out": slider("channels out", 3, 1, 3),
            "seed": slider("random kernel", 0, 0, 9),
            "border": choice("boundary", [_CIRCULAR, _ZEROS, _NONE]),
            "stride": choice("stride", [("1", 1), ("2, which the two lines ignore", 2)]),
            "fft": choice("FFT size", [("the image size", 0), ("one too small", -1), ("one too large", 1)]),
            "crop": toggle("crop the kernel (do not fold it)"),
            "axes": toggle("SVD over the wrong axes"),
        }

    def draw(self, figure: Figure, **values: Any) -> str:
        layer, believed = layer_and_belief(**values)
        dense = torch.linalg.svdvals(layer.matrix())
        fast = two_lines(believed, values["axes"])
        left, middle, right = (figure.add_axes(place) for place in _PLACES)
        plot_two_spectra(dense, fast, left)
        plot_matrix(layer.matrix(), middle)
        rows, columns = layer.matrix().shape
        middle.set(xlabel="input", ylabel="output", xticks=[], yticks=[])
        middle.set_title(f"dense matrix, {rows} × {columns}", fontsize=10)
        largest = spectrum(believed)[..., 0]
        plot_frequencies(largest, right)
        right.set_title(f"the two lines (white: {largest.max():.2f})", fontsize=10)
        return _words(dense, fast, (rows, columns), list(_switched_on(**values)))


def layer_and_belief(
    n: int, k: int, c_in: int, c_out: int, seed: int, border: str, stride: int, fft: int, crop: bool, **_: Any
) -> tuple[ConvOperator, ConvOperator]:
    """Return the layer as it is, and the stride-1 circular layer that the two lines assume."""
    if border == _NONE and k > n:
        raise ValueError(
            f"without padding a whole {k} × {k} window must fit into the image, got one of {n} × {n}; "
            "make the image larger or the kernel smaller"
        )
    # one draw for all sizes: what a slider leaves alone stays the same
    draw = torch.randn(3, 3, 5, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    kernel = draw[:c_out, :c_in, :k, :k] / (c_in**0.5 * k)
    layer = ConvOperator(
        kernel,
        (n, n),
        stride=stride,  # pyright: ignore[reportArgumentType]
        padding="valid" if border == _NONE else "same",
        padding_mode="circular" if border == _CIRCULAR else "zeros",
    )
    taps = kernel[:, :, : n + fft, : n + fft] if crop else kernel
    return layer, ConvOperator(taps, (n + fft, n + fft))


def two_lines(A: ConvOperator, wrong_axes: bool = False) -> Tensor:
    """Return ``singular_values(A)``, or the result when the SVD runs over the frequency axes."""
    if wrong_axes:
        return torch.linalg.svdvals(symbol(A).movedim((-2, -1), (0, 1))).flatten().sort(descending=True).values
    return singular_values(A)


def _switched_on(
    n: int, k: int, border: str, stride: int, fft: int, crop: bool, axes: bool, **_: Any
) -> Iterator[tuple[bool, str]]:
    """Return, for each broken assumption, whether it shows, and why (or why not)."""
    if border == _ZEROS:
        yield (
            (True, "a layer with zero padding is not circular: no Fourier wave passes through its edges unchanged")
            if k > 1
            else (False, "a 1 × 1 window never reaches over the edge, so zero padding changes nothing")
        )
    if border == _NONE:
        yield (
            (True, "without circular padding the matrix is Toeplitz with fewer rows, not circulant")
            if k > 1
            else (False, "a 1 × 1 window always fits, so no padding is needed")
        )
    if stride > 1:
        yield True, "stride 2 keeps one output row in four, which folds frequencies onto each other"
    if fft:
        yield (
            True,
            f"an FFT of size {n + fft} looks at the waves of another image, {(n + fft) ** 2} frequencies, not {n * n}",
        )
    if crop:
        yield (
            (True, f"the part of the kernel beyond {n + fft} × {n + fft} was cut off; it must be folded and added")
            if k > n + fft
            else (False, f"the kernel fits into {n + fft} × {n + fft}, so nothing was cut off (try a smaller image)")
        )
    if axes:
        yield True, "the SVD must run over the channels, one matrix for each frequency, not one for each channel pair"


def _words(dense: Tensor, fast: Tensor, shape: tuple[int, int], switched_on: list[tuple[bool, str]]) -> Words:
    common = min(len(dense), len(fast))
    error = float((dense[:common] - fast[:common]).abs().max())
    if len(dense) == len(fast) and error <= TOLERANCE:
        so_far = f"All {len(dense)} singular values of the {shape[0]} × {shape[1]} matrix agree: error ≤ {TOLERANCE:g}."
        return Words(" ".join([so_far, *(f"Still right: {why}." for _, why in switched_on)]))
    reasons = "; ".join(why for shows, why in switched_on if shows)
    counts = f", and {len(fast)} values instead of {len(dense)}" if len(dense) != len(fast) else ""
    return Words(f"Broken: error {error:.2g}{counts}. Why: {reasons}.", alert=True)
