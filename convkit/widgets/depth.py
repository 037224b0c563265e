"""The panel of notebook 00: the norms of a signal and of its gradient on the way through many layers."""

import functools
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from convkit.loading import needs
from convkit.norms import operator_norm
from convkit.operators.operator import ConvOperator
from convkit.plots.curves import plot_by_layer, plot_spectra
from convkit.plots.matrices import plot_image
from convkit.spectra import from_symbol, singular_values, symbol
from convkit.widgets.controls import choice, slider
from convkit.widgets.drawing import DrawnPanel
from convkit.widgets.panel import Words

DEEPEST = 40
LOST = 1e-6  # beyond a factor of a million a network does not train in float32 (24 binary digits)
_PLACES = ((0.07, 0.15, 0.4, 0.76), (0.545, 0.15, 0.225, 0.76), (0.8, 0.52, 0.195, 0.39), (0.8, 0.02, 0.195, 0.39))
_ALL_PASS, _RANDOM, _BLUR = "all-pass", "random 3 × 3", "blur"
_PHOTOGRAPH, _DIGIT, _NOISE = "photograph", "handwritten digit", "noise"
_BINOMIAL = torch.tensor([1, 2, 1], dtype=torch.float64).outer(torch.tensor([1, 2, 1], dtype=torch.float64))


class DepthPanel(DrawnPanel):
    """A panel with the norms of signal and gradient layer by layer, for circular layers of one operator norm."""

    title = "Many circular one-channel convolutions and nothing between them: what becomes of signal and gradient"
    size = (10, 3.8)

    def controls(self) -> dict[str, Any]:
        return {
            "norm": slider("norm of each layer", 1.0, 0.6, 2.2, 0.05),
            "depth": slider("number of layers", 10, 1, DEEPEST),
            "kind": choice("kernels", [_RANDOM, _ALL_PASS, _BLUR]),
            "source": choice("input", [_PHOTOGRAPH, _DIGIT, _NOISE]),
        }

    def draw(self, figure: Figure, norm: float, depth: int, kind: str, source: str) -> str:
        signal, gradient = norms_by_layer(norm, depth, kind, source)
        spectrum = norm * singular_values(layers(kind, tuple(pictures()[source].shape))[0])
        curves, values, before, after = (figure.add_axes(place) for place in _PLACES)
        plot_by_layer({"signal, forward": signal, "gradient, backward": gradient}, curves, norm ** np.arange(depth + 1))
        curves.set(ylabel="norm (1 at the start)", title="signal and gradient on their way")
        curves.locator_params(axis="x", integer=True)
        low, high = curves.get_ylim()
        curves.set_ylim(min(low, 1e-2), max(high, 1e2))  # else a flat line is stretched to a mountain
        plot_spectra({"layer 1": spectrum}, values)
        values.set(title="singular values of a layer", ylim=(0, 2.3), yticks=[0, 0.5, 1, 1.5, 2])
        values.locator_params(axis="x", nbins=4)
        plot_image(pictures()[source], before).set_title("goes in", fontsize=10)
        plot_image(after_layers(depth, kind, source), after).set_title(f"after layer {depth}, stretched", fontsize=10)
        spread = float(spectrum.square().mean().sqrt())
        return _words(norm, depth, kind, float(signal[-1]), float(gradient[-1]), spread)


@functools.cache
def pictures() -> dict[str, Tensor]:
    """Return the three inputs, each an image of norm 1, ``(h, w)``."""
    with needs("kit", "the panel of notebook 00"):
        from sklearn.datasets import load_digits, load_sample_image
    photograph = torch.as_tensor(np.mean(load_sample_image("china.jpg"), axis=2))[:416]
    images = {
        _PHOTOGRAPH: photograph.unflatten(0, (-1, 16)).unflatten(2, (-1, 16)).mean((1, 3)),  # 26 × 40
        _DIGIT: torch.as_tensor(load_digits(return_X_y=True)[0][3]).reshape(8, 8),
        _NOISE: torch.randn(26, 40, dtype=torch.float64, generator=torch.Generator().manual_seed(1)),
    }
    return {name: image / image.norm() for name, image in images.items()}


@functools.cache
def layers(kind: str, shape: tuple[int, int]) -> list[ConvOperator]:
    """Return as many circular one-channel layers of operator norm 1 as the panel can stack."""
    generator = torch.Generator().manual_seed(7)
    if kind == _BLUR:
        return [ConvOperator(_BINOMIAL[None, None] / 16, shape)] * DEEPEST
    kernels = torch.randn(DEEPEST, 1, 1, 3, 3, dtype=torch.float64, generator=generator)
    operators = [ConvOperator(kernel, shape) for kernel in kernels]
    if kind == _ALL_PASS:  # the nearest operators all of whose singular values are 1
        return [from_symbol(symbol(A) / symbol(A).abs()) for A in operators]
    return [ConvOperator(A.kernel / operator_norm(A, 2), shape) for A in operators]


@functools.cache
def _symbols(kind: str, shape: tuple[int, int]) -> Tensor:
    return torch.stack([symbol(A).reshape(shape) for A in layers(kind, shape)])


def norms_by_layer(norm: float, depth: int, kind: str, source: str) -> tuple[Tensor, Tensor]:
    """Return the norms of the signal after 0, 1, ..., ``depth`` layers, and those of the gradient on its way back.

    Both start with norm 1, the gradient as noise. A layer multiplies the transform of an image by its symbol, its
    adjoint by the conjugate, so that no image has to be computed.
    """
    image = pictures()[source]
    symbols = _symbols(kind, tuple(image.shape))[:depth]
    noise = torch.randn(*image.shape, dtype=image.dtype, generator=torch.Generator().manual_seed(2))
    powers = norm ** torch.arange(depth + 1, dtype=image.dtype)
    signal = _passed(image, symbols).abs().square().sum((1, 2)).sqrt()
    gradient = _passed(noise / noise.norm(), symbols.flip(0).conj()).abs().square().sum((1, 2)).sqrt()
    return powers * signal, powers * gradient


def after_layers(depth: int, kind: str, source: str) -> Tensor:
    """Return the image after this many layers of norm 1, ``(h, w)``."""
    image = pictures()[source]
    return torch.fft.ifft2(_passed(image, _symbols(kind, tuple(image.shape))[:depth])[-1], norm="ortho").real


def _passed(image: Tensor, symbols: Tensor) -> Tensor:
    """Return the orthonormal Fourier transforms of the image before the first layer, after it, after the second, ..."""
    start = torch.fft.fft2(image, norm="ortho")
    return torch.cat([start[None], start * symbols.cumprod(0)])


def _words(norm: float, depth: int, kind: str, signal: float, gradient: float, spread: float) -> Words:
    start = f"After {depth} layer{'s' * (depth > 1)} the signal's norm is {_number(signal)}, the gradient's "
    start += f"{_number(gradient)} (both start at 1)"
    reason = {
        _ALL_PASS: f"every singular value is {norm:.2f}, so each layer multiplies every norm by {norm:.2f}. The "
        "picture is scrambled, yet it could be recovered",
        _RANDOM: f"{norm:.2f} is only the largest singular value, a ceiling (gray). The root mean square of the "
        f"singular values of layer 1 is {spread:.2f}, and that is what noise meets on average",
        _BLUR: f"only the mean of an image is multiplied by the full {norm:.2f}. Fine detail, such as the noise that "
        "the gradient starts as, meets singular values near 0",
    }[kind]
    if min(signal, gradient) < LOST or max(signal, gradient) > 1 / LOST:
        what = "Vanished" if min(signal, gradient) < LOST else "Exploded"
        return Words(f"{what}, beyond a factor of a million. {start}: {reason}.", alert=True)
    return Words(f"{start}: {reason}.")


def _number(value: float) -> str:
    if 1e-3 <= value < 1e4:
        return f"{value:.2g}" if value < 100 else f"{value:.0f}"
    digit, exponent = f"{value:.0e}".split("e")
    return f"{digit}e{int(exponent)}"
