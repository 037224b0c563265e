"""The panel of notebook 12: the singular values of all layers of a network, one of which is highlighted."""

import functools
from collections import OrderedDict
from dataclasses import dataclass, replace
from typing import Any

import torch
from matplotlib.figure import Figure
from torch import Tensor, nn

from convkit.audit.table import fourier_relative
from convkit.data.trained import trained_kernels
from convkit.normalization.folding import channel_gains, with_gain
from convkit.norms import operator_norm
from convkit.operators.network import conv_operators
from convkit.operators.operator import ConvOperator
from convkit.plots.spectra import ROUNDING, layer_colors, plot_layer_spectra
from convkit.randomness import seeded
from convkit.spectra import singular_values
from convkit.widgets.controls import choice, toggle
from convkit.widgets.drawing import DrawnPanel
from convkit.widgets.panel import Words

ALL = "all layers"
THRESHOLD = 0.1  # of a layer's largest value: what is smaller counts as little
_VIEWS = {"as they are": "raw", "relative to the largest": "ratio", "by relative rank": "rank"}
_TORUS, _CIRCULAR = "zeros, by their torus", "made circular"


class SpectraPanel(DrawnPanel):
    """A panel with the singular values of every convolution and linear layer that ``model(x)`` calls.

    ``other`` is a second network with layers of the same names, such as the network before training; ``names`` are the
    names of the two. Without a model it shows the kit's trained kernels. All values are computed, by Fourier, when they
    are first shown; a click on the bar of colors picks a layer. Raises ``ValueError`` as ``conv_operators`` does, with
    the name of the layer.
    """

    title = "The singular values of all layers of a network"
    size = (9.5, 4.3)
    steered = (1,)  # the bar of colors

    def __init__(
        self,
        model: nn.Module | None = None,
        x: Tensor | None = None,
        other: nn.Module | None = None,
        names: tuple[str, str] = ("trained", "at the start"),
    ) -> None:
        if model is None:
            model, other, x = _kits_own()
        if x is None:
            raise ValueError("SpectraPanel needs x, a batch that the model takes: the norms depend on the image size")
        self._models = {name: one for name, one in zip(names, (model, other), strict=True) if one is not None}
        self._operators = {name: _operators(one, x) for name, one in self._models.items()}
        first, *rest = (list(operators) for operators in self._operators.values())
        if rest and rest[0] != first:
            raise ValueError(
                f"the two networks need layers of the same names, got {_some(set(first) ^ set(rest[0]))} in one of "
                "them alone; show them in two panels"
            )
        self._layers = first
        self._spectrum = functools.cache(self._computed)
        self._own_norm = functools.cache(self._converged)
        super().__init__()

    def controls(self) -> dict[str, Any]:
        both = [*self._models, "both"] if len(self._models) > 1 else list(self._models)
        return {
            "layer": choice("layer", [ALL, *self._layers]),
            "view": choice("singular values", list(_VIEWS)),
            "weights": choice("weights", both),
            "folded": toggle("with BatchNorm's gains"),
            "log": toggle("logarithmic axis"),
            "boundary": choice("boundary", [_TORUS, _CIRCULAR]),
        }

    def clicked(self, x: float, y: float) -> dict[str, Any]:
        """Pick the layer of the color that was clicked."""
        return {"layer": self._layers[min(max(round(y), 0), len(self._layers) - 1)]}

    def draw(
        self, figure: Figure, layer: str, view: str, weights: str, folded: bool, log: bool, boundary: str
    ) -> Words:
        ax = figure.add_axes((0.085, 0.12, 0.81, 0.81))
        shown = list(self._models) if weights == "both" else [weights]
        picked = None if layer == ALL else layer
        for name in reversed(shown):
            spectra = {one: self._spectrum(name, one, folded, boundary).values for one in self._layers}
            faint = weights == "both" and name != shown[0]
            plot_layer_spectra(spectra, ax, _VIEWS[view], picked, log, faint)
        strip = figure.add_axes((0.94, 0.2, 0.014, 0.66))  # a colorbar of matplotlib's takes ten times as long
        strip.imshow([[color] for color in layer_colors(len(self._layers))], aspect="auto", origin="lower")
        strip.set(xticks=(), yticks=())
        strip.set_title("last layer", fontsize=8)
        strip.set_xlabel("first layer", fontsize=8)
        if weights == "both":
            ax.set_title(f"lines: {shown[0]}, dotted: {shown[1]}", fontsize=10)
        say = self._words_of_all if picked is None else functools.partial(self._words, layer)
        return Words(" ".join(say(name, folded, boundary, place > 0) for place, name in enumerate(shown)))

    def _computed(self, name: str, layer: str, folded: bool, boundary: str) -> "Spectrum":
        A = self._seen(name, layer, folded)
        exact = A.is_block_circulant
        if boundary == _CIRCULAR and not exact:
            B, _ = fourier_relative(A.circular())  # rounds up a size that the stride does not divide
            return Spectrum(singular_values(B).double(), "same layer made circular", False)
        B, where = fourier_relative(A)
        return Spectrum(singular_values(B).double(), where, exact)

    def _converged(self, name: str, layer: str, folded: bool) -> float:
        return float(operator_norm(self._seen(name, layer, folded), 2))

    def _seen(self, name: str, layer: str, folded: bool) -> ConvOperator:
        A, gain = self._operators[name][layer]
        return with_gain(A, gain) if folded and gain is not None else A

    def _words(self, layer: str, name: str, folded: bool, boundary: str, again: bool) -> str:
        seen, (A, gain) = self._spectrum(name, layer, folded, boundary), self._operators[name][layer]
        condition = "infinite" if seen.condition > 1 / ROUNDING else f"{seen.condition:.3g}"
        numbers = f"norm {seen.norm:.4g}, condition number {condition}, stable rank {seen.stable_rank:.3g} of "
        numbers += f"{len(seen.values)}."
        if again:
            return f"{_sentence(name)}: {numbers}"
        size = "×".join(map(str, A.kernel.shape[2:]))
        text = f"{layer}, {name} ({A.in_shape[0]} channels to {A.out_shape[0]}, {size} taps, stride {A.stride[0]}"
        text += (", nothing behind it to fold" if gain is None else ", BatchNorm's gains in it") if folded else ""
        if seen.exact:
            return f"{text}): {numbers} All exact: the layer has Fourier blocks."
        own = f"The layer's own norm, converged, is {self._own_norm(name, layer, folded):.4g}"
        below = ", below it as it must be" if boundary == _TORUS else ""
        return f"{text}): {numbers} These are numbers of the {seen.where}. {own}{below}."

    def _words_of_all(self, name: str, folded: bool, boundary: str, again: bool) -> str:
        spectra = {layer: self._spectrum(name, layer, folded, boundary) for layer in self._layers}
        norms = {layer: seen.norm for layer, seen in spectra.items()}
        low, high = min(norms, key=norms.__getitem__), max(norms, key=norms.__getitem__)
        above = sum(int((seen.values > THRESHOLD * seen.norm).sum()) for seen in spectra.values())
        count = sum(len(seen.values) for seen in spectra.values())
        text = f"{_sentence(name)}: norms from {norms[low]:.3g} ({low}) to {norms[high]:.3g} ({high}); of {count} "
        text += f"singular values {above / count:.0%} are above a tenth of their layer's largest."
        if again:
            return text
        exact = sum(seen.exact for seen in spectra.values())
        return f"{text} {exact} of {len(spectra)} layers are exact, the others measured {_TELL[boundary]}."


_TELL = {_TORUS: "on the torus around their zeros", _CIRCULAR: "as if their padding were circular"}


@dataclass(frozen=True)
class Spectrum:
    """The singular values, descending, of a layer (``exact``) or of the operator that stands for it."""

    values: Tensor
    where: str
    exact: bool

    @property
    def norm(self) -> float:
        """Return the largest singular value."""
        return float(self.values[0])

    @property
    def condition(self) -> float:
        """Return the largest over the smallest singular value."""
        return float(self.values[0] / self.values[-1])

    @property
    def stable_rank(self) -> float:
        """Return the sum of squares over the largest square."""
        return float(self.values.square().sum() / self.values[0] ** 2) if self.norm else 0.0


# ---- private -------------------------------------------------------------------------------------------------------
def _operators(model: nn.Module, x: Tensor) -> dict[str, tuple[ConvOperator, Tensor | None]]:
    """Return each layer's operator, its kernel a copy, and the gains of the BatchNorm after it."""
    with torch.no_grad():
        gains = channel_gains(model)
        return {
            name: (replace(A, kernel=A.kernel.detach().clone()), gains[name][1] if name in gains else None)
            for name, A in conv_operators(model, x, "note").items()
        }


def _sentence(name: str) -> str:
    return f"{name[:1].upper()}{name[1:]}"


def _some(names: set[str]) -> str:
    listed = sorted(names)
    return ", ".join(map(repr, listed[:3])) + (f" and {len(listed) - 3} more" if len(listed) > 3 else "")


def _kits_own() -> tuple[nn.Module, nn.Module, Tensor]:
    """Return the three layers whose kernels the kit ships, trained and initialized by torch, on 4 x 4 pixels."""
    trained, start = OrderedDict(), OrderedDict()
    with seeded(0), torch.no_grad():
        for name, kernel in trained_kernels().items():
            trained[name], start[name] = (
                nn.Conv2d(kernel.shape[1], kernel.shape[0], 3, padding=1, bias=False, dtype=kernel.dtype)
                for _ in range(2)
            )
            trained[name].weight.copy_(kernel)
    return nn.Sequential(trained), nn.Sequential(start), torch.zeros(1, 64, 4, 4)
