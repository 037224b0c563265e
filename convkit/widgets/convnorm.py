"""The panel of notebook 07: channels before and after ConvNorm, an image through the layer, and how to break it."""

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from matplotlib.figure import Figure
from torch import Tensor

from convkit.normalization.convnorm import ConvNorm2d
from convkit.normalization.torus import FLOOR
from convkit.operators.operator import ConvOperator
from convkit.plots.curves import plot_channels
from convkit.plots.matrices import plot_matrix
from convkit.spectra import from_symbol, symbol
from convkit.widgets.controls import choice, slider, toggle
from convkit.widgets.drawing import DrawnPanel
from convkit.widgets.panel import Words

SLACK = 1e-6  # of singular values that should be 1: above rounding and the floor's tie, below what a reader can see
_PLACES = ((0.07, 0.15, 0.36, 0.74), (0.45, 0.1, 0.17, 0.74), (0.635, 0.1, 0.17, 0.74), (0.82, 0.1, 0.17, 0.74))
_RANDOM, _BLUR, _BOX, _EDGE = "random, 2 channels to 3", "blur", "box", "edge"
_CIRCULAR, _ZEROS = "circular", "zero padding"
_IDENTITY, _DRAWN = "identity", "random start"


@dataclass(frozen=True)
class Comparison:
    """A layer before and after its normalization.

    Singular values ``(channels, values)``, images of the first channel, the norm of the layer, and the least ``|a|``.
    ``after`` values, the image behind them and ``norm`` are NaN where ``v`` is infinite at a frequency. ``torus`` is
    the size on which the convolution is circular, ``nulls`` the number of its frequencies at which the floor is used.
    """

    before: Tensor
    after: Tensor
    images: tuple[Tensor, Tensor, Tensor]
    norm: float
    torus: int
    nulls: int
    least: float


class ConvNormPanel(DrawnPanel):
    """A panel with each channel's singular values before and after ConvNorm, and an image through the layer."""

    title = "A 3 × 3 layer, every channel normalized: its singular values, and an image through channel 1"
    size = (10.5, 3.4)

    def controls(self) -> dict[str, Any]:
        return {
            "kind": choice("kernel", [_RANDOM, _BLUR, _BOX, _EDGE]),
            "n": slider("image size", 13, 6, 16),
            "stride": choice("stride", [1, 2]),
            "border": choice("boundary", [_CIRCULAR, _ZEROS]),
            "affine": choice("affine kernel", [_IDENTITY, _DRAWN]),
            "floor": toggle("floor under the spectrum", True),
            "wrong": toggle("v of a torus one pixel too small"),
        }

    def draw(self, figure: Figure, **values: Any) -> str:
        view = through(**values)
        left, *others = (figure.add_axes(place) for place in _PLACES)
        finite = bool(view.after.isfinite().all())
        plot_channels({"before": view.before} | ({"after": view.after} if finite else {}), left)
        left.legend(frameon=False, loc="upper right", ncols=2)
        left.set_ylim(0, 1.25 * max(1.0, float(view.before.max()), float(view.after.max()) if finite else 0.0))
        limit = float(view.images[0].abs().max())
        for ax, image, name in zip(others, view.images, ("the image", "convolved", "and normalized"), strict=True):
            blank = not bool(image.isfinite().all())
            plot_matrix(torch.zeros_like(image) if blank else image, ax, limit=limit)
            ax.set(xlabel="", ylabel="", xticks=[], yticks=[])
            ax.set_title(name, fontsize=10)
            if blank:
                ax.text(0.5, 0.5, "NaN in every pixel", transform=ax.transAxes, ha="center", va="center")
        return _words(view, **values)


def kernel_of(kind: str) -> Tensor:
    """Return the 3 × 3 kernel that a choice names, float64, ``(c_out, c_in, 3, 3)``; random rows have norm 1."""
    line, box = (torch.tensor(taps, dtype=torch.float64) for taps in ((1, 2, 1), (1, 1, 1)))
    if kind == _RANDOM:
        drawn = torch.randn(3, 2, 3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
        return drawn / drawn.flatten(1).norm(dim=1)[:, None, None, None]
    if kind == _EDGE:
        return torch.tensor([[[[0, -1, 0], [-1, 4, -1], [0, -1, 0]]]], dtype=torch.float64) / 8
    return (line.outer(line) / 16 if kind == _BLUR else box.outer(box) / 9)[None, None]


def layer_of(kind: str, stride: int, border: str, affine: str) -> ConvNorm2d:
    """Return ConvNorm with that kernel, and with the initial affine kernel that a choice names."""
    kernel = kernel_of(kind)
    layer = ConvNorm2d(
        kernel.shape[1],
        len(kernel),
        3,
        stride,
        padding=1,
        padding_mode="circular" if border == _CIRCULAR else "zeros",
        affine=affine == _DRAWN,
        dtype=torch.float64,
    ).requires_grad_(False)
    layer.weight.copy_(kernel)
    if layer.affine_weight is not None:
        generator = torch.Generator().manual_seed(1)
        drawn = torch.rand(layer.affine_weight.shape, dtype=torch.float64, generator=generator)
        layer.affine_weight.copy_((2 * drawn - 1) / 3)  # as torch draws a convolution of nine taps
    return layer.eval()


def through(kind: str, n: int, stride: int, border: str, affine: str, floor: bool, wrong: bool) -> Comparison:
    """Return the layer before and after its normalization, from dense matrices.

    ``wrong`` uses the v of a torus one pixel smaller, and without ``floor`` v may be infinite.
    """
    layer, mode = layer_of(kind, stride, border, affine), "circular" if border == _CIRCULAR else "zeros"
    plain = ConvOperator(layer.weight, (n, n), stride, "same", padding_mode=mode)
    c_in, torus = layer.in_channels, n if border == _CIRCULAR else n + 2
    around = ConvOperator(layer.weight, (torus, torus))
    power = symbol(around).abs().square().sum(-1)  # (torus, torus, c_out)
    rows = layer.weight.flatten(1).norm(dim=1)
    below_floor = power.sqrt() < FLOOR * rows
    basis = torch.eye(c_in * n * n, dtype=torch.float64).view(-1, c_in, n, n)
    outputs = _affine(_with_wrong_v(layer, around, n, stride, basis), layer) if wrong else layer(basis)
    if bool(below_floor.any()) and not floor:
        outputs = outputs * torch.nan  # 1 / 0 at one frequency, and its wave reaches every pixel
    before = plain(basis)
    image = picture(n)
    first = image.flatten().repeat(c_in) / c_in
    convolved, normalized = ((first @ y[:, 0].flatten(1)).view(y.shape[2:]) for y in (before, outputs))
    before_values, after_values = (_channel_values(y) for y in (before, outputs))
    matrix = outputs.flatten(1)  # the transposed matrix of the layer
    finite = bool(matrix.isfinite().all())
    norm = float(torch.linalg.eigvalsh(matrix @ matrix.T)[-1].sqrt()) if finite else float("nan")
    return Comparison(
        before_values,
        after_values,
        (image, convolved, normalized),
        norm,
        torus,
        int(below_floor.sum()),
        float(power.min().sqrt()),
    )


def picture(n: int) -> Tensor:
    """Return an image of ``n`` by ``n`` pixels with a disc and a bar, 1 on 0."""
    at = (torch.arange(n, dtype=torch.float64) + 0.5) / n
    disc = (at[:, None] - 0.38).square() + (at - 0.38).square() < 0.27**2
    bar = ((at[:, None] - 0.8).abs() < 0.09) & (at > 0.25) & (at < 0.95)
    return (disc | bar).double()


def _with_wrong_v(layer: ConvNorm2d, around: ConvOperator, n: int, stride: int, x: Tensor) -> Tensor:
    """Return the layer without affine kernel, with the v of a torus one pixel smaller."""
    small = ConvOperator(layer.weight, tuple(size - 1 for size in around.input_shape))
    power = symbol(small).abs().square().sum(-1)
    least = FLOOR * layer.weight.flatten(1).norm(dim=1)
    v = torch.fft.ifft2(torch.maximum(power.sqrt(), least).reciprocal(), dim=(0, 1)).real
    v = v.roll(tuple(size // 2 for size in v.shape[:2]), (0, 1))  # whole around its middle before it is laid down
    v = F.pad(v, (0, 0, 0, 1, 0, 1)).roll(tuple(-(size // 2) for size in v.shape[:2]), (0, 1))
    spectrum = symbol(around) * torch.fft.fft2(v, dim=(0, 1))[..., None]
    y = from_symbol(spectrum)(F.pad(x, (0, around.input_shape[1] - n, 0, around.input_shape[0] - n)))
    return y[:, :, :n:stride, :n:stride]


def _affine(y: Tensor, layer: ConvNorm2d) -> Tensor:
    if layer.affine_weight is None:
        return y
    mode = "circular" if layer.padding_mode == "circular" else "constant"
    return F.conv2d(F.pad(y, (1, 1, 1, 1), mode=mode), layer.affine_weight, groups=len(layer.affine_weight))


def _channel_values(outputs: Tensor) -> Tensor:
    """Return the singular values of each channel's matrix, ``(channels, pixels)``, from the images of a basis."""
    matrices = outputs.flatten(2).transpose(0, 1)  # (channels, inputs, pixels)
    if not bool(matrices.isfinite().all()):
        return matrices.new_full((len(matrices), matrices.shape[2]), torch.nan)
    gram = matrices.mT @ matrices
    return torch.linalg.eigvalsh(gram).clamp(min=0).sqrt().flip(-1)


def _words(
    view: Comparison, kind: str, n: int, stride: int, border: str, affine: str, floor: bool, wrong: bool
) -> Words:
    if bool(view.after.isnan().any()):
        return Words(
            f"Broken: on the torus of {view.torus} × {view.torus} pixels the spectrum is 0 at {_times(view.nulls)}, v "
            "is infinite there, and zero times infinity is NaN, in every pixel. A floor must stop v.",
            alert=True,
        )
    low, high = float(view.after.min()), float(view.after.max())
    was = _condition(float(view.before.min()), float(view.before.max()))
    values = "all 1" if high - low < SLACK and abs(high - 1) < SLACK else f"from {low:.3f} to {high:.3f}"
    start = f"Singular values of {'each channel' if len(view.after) > 1 else 'the channel'}: {values}"
    start += f" (condition number {_condition(low, high)}, {was} before)"
    start += f"; norm of the layer {view.norm:.3f}." if len(view.after) > 1 else "."
    sentences, alert = [start], False
    if wrong:
        alert = True
        size = view.torus - 1
        sentences.append(
            f"Broken: v was made for {size} × {size} pixels and meets a torus of {view.torus} × {view.torus}."
        )
    if view.nulls:
        sentences.append(
            f"The spectrum is 0 at {_times(view.nulls)}: what is gone there no v brings back, and the floor keeps v "
            "finite."
        )
    elif not floor:
        sentences.append(f"No floor is needed: |a| is at least {view.least:.2g} at every frequency.")
    if border == _ZEROS and not wrong:
        sentences.append(f"A tight frame only on the torus of {view.torus} pixels a side: the crop to {n} breaks it.")
    if affine == _DRAWN:
        sentences.append("The affine kernel behind it bends the spectrum again.")
    if stride > 1 and not wrong and values == "all 1":
        sentences.append("A stride leaves out rows, and the rest is a tight frame still.")
    return Words(" ".join(sentences), alert)


def _times(count: int) -> str:
    return "one frequency" if count == 1 else f"{count} frequencies"


def _condition(low: float, high: float) -> str:
    return f"{high / low:.3g}" if low > 1e-4 * high else "infinite"
