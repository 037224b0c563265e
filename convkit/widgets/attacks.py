"""The panel of notebook 11: one image, two networks, an attack, and the predictions before and after it."""

import functools
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from matplotlib.figure import Figure
from torch import Tensor, nn

from convkit.attacks.blackbox import simba
from convkit.attacks.checks import check_logits
from convkit.attacks.gradient import fgsm, pgd
from convkit.data.dataset import Data
from convkit.data.registry import digits
from convkit.methods.build import network
from convkit.operators.dtypes import as_input
from convkit.operators.evaluation import apart, evaluation_copy
from convkit.plots.attacks import plot_answers
from convkit.plots.curves import plot_curves
from convkit.plots.matrices import plot_change, plot_picture
from convkit.plots.style import INK
from convkit.training.adversarial import get_objective
from convkit.training.loop import fit
from convkit.widgets.controls import choice, slider, toggle
from convkit.widgets.drawing import DrawnPanel
from convkit.widgets.panel import Words

SIZES = (0.0, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3)  # epsilons of the curves
TESTED = 40  # images of the curves
CURVE_STEPS = 10  # of PGD in the curves
MOST_STEPS = 64  # of the slider: on digits SimBA then has tried every pixel
MASK = 1000.0  # what logits are multiplied by: a probability of 1.0 has gradient 0
_FGSM, _PGD, _PGD2, _SIMBA = "FGSM", "PGD, largest pixel", "PGD, 2-norm", "SimBA"
_COLUMNS = ("the image", "the change", "attacked", "probabilities, gray before")


@dataclass(frozen=True)
class Outcome:
    """The result of an attack on one image: the changed image, probabilities before and after, SimBA's queries."""

    found: Tensor
    before: Tensor
    after: Tensor
    queries: int | None


class AttackPanel(DrawnPanel):
    """A panel that attacks an image of ``data`` and shows the predictions of two networks, and accuracies by epsilon.

    ``models`` maps one or two names to networks for images like those of ``data``, whose test images are attacked, in
    the dtype of a network's weights. Without them two small networks are trained on digits from a fixed seed, one
    plainly and one adversarially (a few seconds). The ball of the 2-norm has radius ``eps`` times the root of the
    number of pixels.
    """

    title = "Attack it: the same image, two networks"
    size = (10.5, 4.3)

    def __init__(self, models: Mapping[str, nn.Module] | None = None, data: Data | None = None) -> None:
        if models is not None and data is None:
            raise ValueError("needed the data that the models were trained on, got none; give data=load(...)")
        if models is None and data is not None:
            raise ValueError(f"needed models for {data.name}, got none; give models={{name: network}}")
        self.data = digits() if data is None else data
        self.models = dict(two_networks() if models is None else models)
        if not 1 <= len(self.models) <= 2:
            raise ValueError(f"needed one or two models, got {len(self.models)}; give models={{name: network, ...}}")
        x, self.labels = self.data.test_batch(slice(None, max(TESTED, 100)))
        self.images = x
        for name, model in self.models.items():
            try:
                with torch.no_grad(), evaluation_copy(model, x, apart) as copy:
                    logits = copy(as_input(model, x[:2].clone()))
            except RuntimeError as error:
                shape, why = tuple(x.shape[1:]), str(error).splitlines()[0]
                raise ValueError(f"{name} must take images of shape {shape}, got: {why}") from error
            check_logits(logits, x[:2])
            if logits.shape[1] != self.data.classes:
                raise ValueError(
                    f"{name} must give {self.data.classes} logits for {self.data.name}, got {logits.shape[1]}; "
                    "give the data that it was trained on"
                )
        self._curves: dict[tuple[str, bool], dict[str, tuple[Any, Any]]] = {}
        super().__init__()

    def controls(self) -> dict[str, Any]:
        return {
            "image": slider("image", 0, 0, len(self.images) - 1),
            "attack": choice("attack", [_PGD, _FGSM, _PGD2, _SIMBA]),
            "eps": slider("ε", 0.15, 0.01, 0.3, 0.01),
            "steps": slider("steps", 10, 1, MOST_STEPS),
            "masked": toggle(f"logits times {MASK:.0f} (hides the gradient)"),
        }

    def draw(self, figure: Figure, image: int, attack: str, eps: float, steps: int, masked: bool) -> str:
        label, names = int(self.labels[image]), self.data.class_names
        done = {name: self.outcome(name, image, attack, eps, steps, masked) for name in self.models}
        x = self.images[image].cpu()
        tall = 0.86 / len(done) - 0.08
        for row, (name, outcome) in enumerate(done.items()):
            base = 0.94 - (row + 1) * (tall + 0.08) + 0.02
            places = ((0.03, 0.135), (0.175, 0.135), (0.32, 0.135), (0.495, 0.205))
            axes = [figure.add_axes((left, base, width, tall)) for left, width in places]
            plot_picture(x, axes[0]).set_ylabel(name, fontsize=10)
            plot_change(outcome.found - x, eps, axes[1])
            plot_picture(outcome.found, axes[2])
            plot_answers(outcome.before, outcome.after, label, names, axes[3])
            if row == 0:
                for ax, text in zip(axes, _COLUMNS, strict=True):
                    ax.set_title(text, fontsize=10)
        ax = figure.add_axes((0.76, 0.12, 0.232, 0.8))
        curves = self.curves(attack, masked)
        plot_curves(curves, ax, math.inf, legend=None).axvline(eps, color=INK, ls="--", lw=1)
        ax.set_title(f"accuracy on {min(TESTED, len(self.images))} images (%)", fontsize=10)
        ax.set(xlabel="ε", xlim=(-0.01, 0.31), ylim=(-3, 103))
        high = max(accuracies[-1] for _, accuracies in curves.values()) > 50
        ax.legend(frameon=False, fontsize=9, loc="lower left" if high else "upper right")
        return self._words(done, image, attack, eps, steps, masked)

    def outcome(self, name: str, image: int, attack: str, eps: float, steps: int, masked: bool) -> Outcome:
        """Return the result of the attack on one image and one network, with random numbers from a fixed seed."""
        model = _Times(self.models[name], MASK) if masked else self.models[name]
        x, y = as_input(model, self.images[image : image + 1]), self.labels[image : image + 1]
        found, queries = attacked(model, x, y, attack, eps, steps)
        with torch.no_grad(), evaluation_copy(model, x, apart) as copy:
            before, after = copy(torch.cat([x, found])).softmax(1).cpu()
        return Outcome(found[0].cpu(), before, after, None if queries is None else int(queries))

    def curves(self, attack: str, masked: bool) -> dict[str, tuple[Any, Any]]:
        """Return accuracies in percent by epsilon on the first images, computed at the first call."""
        if (attack, masked) not in self._curves:
            self._curves[attack, masked] = {
                name: (_sizes(attack), self._accuracies(_Times(model, MASK) if masked else model, attack))
                for name, model in self.models.items()
            }
        return self._curves[attack, masked]

    def _accuracies(self, model: nn.Module, attack: str) -> list[float]:
        """Return accuracies by epsilon; an image that a small epsilon changes counts at all larger ones."""
        x, y = as_input(model, self.images[:TESTED]), self.labels[:TESTED]
        count, steps, accuracies = len(x), MOST_STEPS if attack == _SIMBA else CURVE_STEPS, []
        for eps in _sizes(attack):
            if len(x):
                found = attacked(model, x, y, attack, eps, steps)[0] if eps else x
                with torch.no_grad(), evaluation_copy(model, x, apart) as copy:
                    still = copy(found).argmax(1) == y
                x, y = x[still], y[still]
            accuracies.append(100 * len(x) / count)
        return accuracies

    def _words(
        self, done: Mapping[str, Outcome], image: int, attack: str, eps: float, steps: int, masked: bool
    ) -> Words:
        names, label, pixels = self.data.class_names, int(self.labels[image]), self.images[image].numel()
        radius = f"{eps * math.sqrt(pixels):.2f} in the 2-norm" if attack == _PGD2 else f"{eps:.2f} in every pixel"
        how = "one step" if attack == _FGSM else f"{steps} step{'s' * (steps > 1)}"
        if attack == _SIMBA:
            how = f"{min(steps, pixels)} of {pixels} pixels tried"
        sentences = [f"Image {image} shows {names[label]}. {attack.partition(',')[0]} within {radius}, {how}."]
        for name, outcome in done.items():
            first, last = int(outcome.before.argmax()), int(outcome.after.argmax())
            text = f"{name}: {names[first]} ({100 * float(outcome.before[first]):.0f} %)"
            if first != label:
                text += ", wrong without an attack"
            else:
                text += f", then {names[last]} ({100 * float(outcome.after[last]):.0f} %)"
                text += ", it survives" if last == label else ", fooled"
            sentences.append(text + (f", {outcome.queries} questions." if outcome.queries is not None else "."))
        if attack == _FGSM:
            sentences.append("FGSM takes one step, whatever the steps say.")
        if masked and attack != _SIMBA:
            sentences.append(
                "Broken: where a probability is 1.0 to rounding, the gradient of the loss is 0, and the attack has no "
                "direction. The answers are still those of the same networks: ask SimBA."
            )
        elif masked:
            sentences.append("SimBA needs no gradient: large logits hide nothing from it.")
        return Words(" ".join(sentences), alert=masked and attack != _SIMBA)


def attacked(
    model: nn.Module, x: Tensor, y: Tensor, attack: str, eps: float, steps: int
) -> tuple[Tensor, Tensor | None]:
    """Return the attacked images and, for SimBA, its numbers of queries; random numbers come from a fixed seed."""
    generator = torch.Generator().manual_seed(9)
    if attack == _FGSM:
        return fgsm(model, x, y, eps), None
    if attack == _SIMBA:
        return simba(model, x, y, eps, steps=min(steps, x[0].numel()), generator=generator)
    two = attack == _PGD2
    size = eps * math.sqrt(x[0].numel()) if two else eps
    return pgd(model, x, y, size, 2.5 * size / steps, steps, 2 if two else "inf", generator=generator), None


@functools.cache
def two_networks() -> dict[str, nn.Module]:
    """Return two nine-layer networks on digits with the same initial weights, trained plainly and adversarially.

    The attacks of the second one have epsilon 0.15.
    """
    data, made = digits(), {}
    for name, objective, steps in (("plain", "clean", 150), ("adversarial", "free", 400)):
        model = network("cnn9", data, "batchnorm", seed=0, widths=(8, 16, 32))
        how = {"steps": steps, "seed": 0, "schedule": "cosine", "objective": get_objective(objective, 0.15)}
        for _ in fit(model, data, "batchnorm", **how):
            pass
        made[name] = model.eval()
    return made


def _sizes(attack: str) -> tuple[float, ...]:
    return SIZES[::2] if attack == _SIMBA else SIZES  # thousands of questions each


class _Times(nn.Module):
    """A network whose logits are multiplied: the same predictions, but probabilities 0 and 1."""

    def __init__(self, model: nn.Module, factor: float) -> None:
        super().__init__()
        self.model, self.factor = model, factor

    def forward(self, x: Tensor) -> Tensor:
        return self.factor * self.model(x)
