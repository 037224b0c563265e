"""The panel of notebook 11: one image, two networks, an attack, its path, and the predictions before and after it."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure
from torch import Tensor, nn

from convkit.attacks.checks import LOSSES, check_logits
from convkit.data.dataset import Data
from convkit.data.registry import digits
from convkit.operators.dtypes import as_input
from convkit.operators.evaluation import apart, evaluation_copy
from convkit.plots.attacks import plot_answers, plot_path
from convkit.plots.curves import plot_curves
from convkit.plots.matrices import plot_change, plot_picture
from convkit.plots.style import INK
from convkit.widgets.attack_networks import Models, panel_data, two_networks
from convkit.widgets.attack_path import FGSM, MASK, PGD, PGD2, SIMBA, Attack, Plane, followed, plane
from convkit.widgets.controls import choice, slider, toggle
from convkit.widgets.drawing import DrawnPanel
from convkit.widgets.panel import Words

SIZES = (0.0, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3)  # epsilons of the curves
TESTED = 40  # images of the curves, where they are small
SMALL = 100  # pixels of a small image; of larger ones a third of the images do, and those of colors fall earlier
LARGE_SIZES = (0.0, 0.02, 0.04, 0.08, 0.15, 0.3)
MOST_STEPS = 64  # of the slider: on digits SimBA then has tried every pixel
MOST_RESTARTS = 5
LONG = 1_500_000  # pixels that networks are shown: more than that take half a second
MOST_LETTERS = 20
_COLUMNS = ("the image", "the change", "attacked", "probabilities, gray before", "loss on a plane, path")
_LOSSES = {"ce": "cross-entropy", "margin": "margin"}
_ANY = "any wrong answer"


@dataclass(frozen=True)
class Outcome:
    """The result of an attack on one image: the changed image, probabilities before and after, queries, the path."""

    found: Tensor
    before: Tensor
    after: Tensor
    queries: int | None
    plane: Plane


class AttackPanel(DrawnPanel):
    """A panel that attacks an image of ``data`` and shows the predictions of two networks, and accuracies by epsilon.

    ``models`` maps one or two names to networks for images like those of ``data``, whose test images are attacked, in
    the dtype of a network's weights. Without them two small networks are trained on digits from a fixed seed, one
    plainly and one adversarially (a few seconds). Two more are trained for another data set once it is chosen; MNIST
    and CIFAR-10 are offered with the ``folder`` of their files. The ball of the 2-norm has radius ``eps`` times the
    root of the number of pixels. Beside each network stands the loss on the plane through the image, the attacked image
    and an image on the way there, with the path of the attack.
    """

    title = "Attack it: the same image, two networks"
    size = (12, 4.6)

    def __init__(
        self, models: Mapping[str, nn.Module] | None = None, data: Data | None = None, folder: str | Path | None = None
    ) -> None:
        if models is not None and data is None:
            raise ValueError("needed the data that the models were trained on, got none; give data=load(...)")
        if models is None and data is not None:
            raise ValueError(f"needed models for {data.name}, got none; give models={{name: network}}")
        self._folder = folder
        self._use(digits() if data is None else data, two_networks("digits") if models is None else models)
        self._sets: dict[str, tuple[Data, Models] | None] = {self.data.name: (self.data, self.models)}
        others = ["digits", "shapes", *([] if folder is None else ["mnist", "cifar10"])]
        self._sets = dict.fromkeys([self.data.name, *others]) | self._sets
        self._chosen = self.data.name
        super().__init__()

    def take(self, models: Mapping[str, nn.Module], data: Data) -> None:
        """Show other networks, for images like those of ``data``, from now on; the first ones can be chosen again.

        Raises ``ValueError`` for what the panel cannot show; it then stays as it is.
        """
        self._use(data, models)
        name = f"{data.name}, networks handed over"
        self._sets[name], self._chosen = (self.data, self.models), ""
        self._quietly(lambda: setattr(self.control("data"), "options", list(self._sets)))
        self.set(data=name, image=0, target=-1, eps=0.15 if data.in_channels == 1 else 0.03)

    def controls(self) -> dict[str, Any]:
        return {
            "data": choice("images of", list(self._sets)),
            "image": slider("image", 0, 0, len(self.images) - 1),
            "attack": choice("attack", [PGD, FGSM, PGD2, SIMBA]),
            "target": choice("target", self._targets()),
            "loss": choice("loss", [(_LOSSES.get(name, name), name) for name in LOSSES]),
            "eps": slider("ε", 0.15, 0.01, 0.3, 0.01),
            "steps": slider("steps", 10, 1, MOST_STEPS),
            "restarts": slider("restarts", 1, 1, MOST_RESTARTS),
            "masked": toggle(f"logits times {MASK:.0f} (hides the gradient)"),
        }

    def react(self, name: str) -> None:
        """Start with a fitting epsilon where the images change."""
        if name == "data":
            found = self._sets[self.control("data").value]
            colored = found[0].in_channels > 1 if found else self.control("data").value in ("shapes", "cifar10")
            self.control("eps").value = 0.03 if colored else 0.15

    def draw(self, figure: Figure, data: str, image: int, **settings: Any) -> str:
        image = self._choose(data, image)
        target = settings.pop("target")
        settings["target"] = target if 0 <= target < self.data.classes else None
        how = Attack(settings.pop("attack"), **settings)
        self._announce(how)
        label, names = int(self.labels[image]), self.data.class_names
        done = {name: self.outcome(name, image, how) for name in self.models}
        x, shown = self.images[image].cpu(), _cut(done)
        tall = 0.86 / len(done) - 0.08
        for row, (name, outcome) in enumerate(done.items()):
            base = 0.94 - (row + 1) * (tall + 0.08) + 0.02
            places = ((0.025, 0.125), (0.155, 0.125), (0.285, 0.125), (0.44, 0.15), (0.61, 0.15))
            axes = [figure.add_axes((left, base, width, tall)) for left, width in places]
            plot_picture(x, axes[0]).set_ylabel(shown[name], fontsize=10)
            plot_change(outcome.found - x, how.eps, axes[1])
            plot_picture(outcome.found, axes[2])
            plot_answers(outcome.before, outcome.after, label, names, axes[3])
            on = outcome.plane
            plot_path(on.losses, on.extent, on.path, on.border, axes[4])
            if row == 0:
                for ax, text in zip(axes, _COLUMNS, strict=True):
                    ax.set_title(text, fontsize=10)
        ax = figure.add_axes((0.805, 0.12, 0.187, 0.8))
        curves = self.curves(how)
        named = {shown[name]: curve for name, curve in curves.items()}
        plot_curves(named, ax, math.inf, legend=None).axvline(how.eps, color=INK, ls="--", lw=1)
        count = len(self._tested(how)[0])
        what = "accuracy" if how.target is None else f"not taken for {names[how.target]}"
        ax.set_title(f"{what}, {count} images (%)", fontsize=10)
        ax.set(xlabel="ε", xlim=(-0.01, 0.31), ylim=(-3, 103))
        high = max(accuracies[-1] for _, accuracies in curves.values()) > 50
        ax.legend(frameon=False, fontsize=9, loc="lower left" if high else "upper right")
        return self._words(done, image, how)

    def outcome(self, name: str, image: int, how: Attack) -> Outcome:
        """Return the result of the attack on one image and one network, with random numbers from a fixed seed."""
        model, how = self.models[name], how.plain
        x, y = as_input(model, self.images[image : image + 1]), self.labels[image : image + 1]
        found, queries, way = followed(how, model, x, y)
        with torch.no_grad(), evaluation_copy(how.seen(model), x, apart) as copy:
            before, after = copy(torch.cat([x, found])).softmax(1).cpu()
        asked = None if queries is None else int(queries)
        return Outcome(found[0].cpu(), before, after, asked, plane(how, model, x, y, found, way))

    def curves(self, how: Attack) -> dict[str, tuple[Any, Any]]:
        """Return the percentage that an attack leaves, by epsilon, on the first images; computed at the first call."""
        key = self._key(how)
        if key not in self._curves:
            self._curves[key] = {
                name: (self._sizes(how), self._left(model, how)) for name, model in self.models.items()
            }
        return self._curves[key]

    # ---- data and networks -------------------------------------------------------------------------------------------
    def _use(self, data: Data, models: Mapping[str, nn.Module]) -> None:
        """Take data and networks that fit them; raise ``ValueError`` for others, with nothing changed."""
        if not 1 <= len(models) <= 2:
            raise ValueError(f"needed one or two models, got {len(models)}; give models={{name: network, ...}}")
        x, labels = data.test_batch(slice(None, max(TESTED, 100)))
        for name, model in models.items():
            try:
                with torch.no_grad(), evaluation_copy(model, x, apart) as copy:
                    logits = copy(as_input(model, x[:2].clone()))
            except RuntimeError as error:
                shape, why = tuple(x.shape[1:]), str(error).splitlines()[0]
                raise ValueError(f"{name} must take images of shape {shape}, got: {why}") from error
            check_logits(logits, x[:2])
            if logits.shape[1] != data.classes:
                raise ValueError(
                    f"{name} must give {data.classes} logits for {data.name}, got {logits.shape[1]}; "
                    "give the data that it was trained on"
                )
        self.data, self.models, self.images, self.labels = data, dict(models), x, labels
        self._curves: dict[Any, dict[str, tuple[Any, Any]]] = {}

    def _choose(self, name: str, image: int) -> int:
        """Bring the chosen data and its networks, which are trained the first time; return the number of an image."""
        if name != self._chosen:
            found = self._sets[name]
            if found is None:
                self.announce(f"Two networks are being trained on {name}, one plainly and one adversarially.")
                try:
                    found = self._sets[name] = panel_data(name, self._folder), two_networks(name, self._folder)
                except OSError as error:
                    raise ValueError(str(error)) from error
            self._use(*found)
            self._chosen = name
            self._quietly(self._fit_controls)
        return min(image, len(self.images) - 1)

    def _fit_controls(self) -> None:
        self.control("image").max = len(self.images) - 1
        if [*self.control("target").options] != self._targets():
            self.control("target").options = self._targets()

    def _targets(self) -> list[tuple[str, int]]:
        return [(_ANY, -1), *((str(name), number) for number, name in enumerate(self.data.class_names))]

    # ---- curves ------------------------------------------------------------------------------------------------------
    def _key(self, how: Attack) -> tuple[Any, ...]:
        one = how.plain
        return one.name, MOST_STEPS if one.name == SIMBA else one.steps, one.loss, one.restarts, one.target, one.masked

    def _sizes(self, how: Attack) -> tuple[float, ...]:
        sizes = SIZES if self.images[0].numel() <= SMALL else LARGE_SIZES
        return sizes[::2] if how.name == SIMBA else sizes  # thousands of questions each

    def _tested(self, how: Attack) -> tuple[Tensor, Tensor]:
        count = TESTED if self.images[0].numel() <= SMALL else math.ceil(TESTED / 3)
        x, y = self.images[:count], self.labels[:count]
        others = y != (-1 if how.plain.target is None else how.plain.target)
        return x[others], y[others]

    def _left(self, model: nn.Module, how: Attack) -> list[float]:
        """Return percentages by epsilon; an image that falls to a small epsilon counts as fallen at all larger ones."""
        x, y = self._tested(how)
        name, steps, loss, restarts, target, masked = self._key(how)
        x, count, found = as_input(model, x), len(x), list[float]()
        for eps in self._sizes(how):
            if len(x):
                one = Attack(name, eps, steps, loss, restarts, target, masked)
                at = one.run(model, x, y, until_wrong=name in (PGD, PGD2))[0] if eps else x
                with torch.no_grad(), evaluation_copy(one.seen(model), x, apart) as copy:
                    still = one.beyond(copy(at), y) <= 0
                x, y = x[still], y[still]
            found.append(100 * len(x) / count)
        return found

    def _announce(self, how: Attack) -> None:
        """Say that it takes a while, where it does."""
        images, one = len(self._tested(how)[0]), how.plain
        shown = 0 if self._key(how) in self._curves else images * len(self._sizes(how))
        asked = 2 * min(MOST_STEPS, self.images[0].numel()) if one.name == SIMBA else 3 * (one.steps + 2) * one.restarts
        if shown * asked * self.images[0].numel() * len(self.models) > LONG:
            self.announce(
                f"{one.name.partition(',')[0]} attacks {images} images, at {len(self._sizes(how))} sizes of ε."
            )

    # ---- words -------------------------------------------------------------------------------------------------------
    def _words(self, done: Mapping[str, Outcome], image: int, how: Attack) -> Words:
        names, label, attack = self.data.class_names, int(self.labels[image]), how.name
        pixels = self.images[image].numel()
        length = f"{how.eps * math.sqrt(pixels):.2f} in the 2-norm"
        radius = length if attack == PGD2 else f"{how.eps:.2f} in every pixel"
        text = "one step" if attack == FGSM else f"{how.steps} step{'s' * (how.steps > 1)}"
        if attack == SIMBA:
            text = f"{min(how.steps, pixels)} of {pixels} pixels tried"
        elif how.plain.restarts > 1:
            text += f", {how.restarts} restarts"
        if how.plain.loss != "ce":
            text += f", by the {_LOSSES.get(how.loss, how.loss)}"
        goal = "" if how.plain.target is None else f", towards {names[how.plain.target]}"
        sentences = [f"Image {image} shows {names[label]}. {attack.partition(',')[0]} within {radius}, {text}{goal}."]
        for name, outcome in done.items():
            first, last = int(outcome.before.argmax()), int(outcome.after.argmax())
            text = f"{name}: {names[first]} ({100 * float(outcome.before[first]):.0f} %)"
            if first != label:
                text += ", wrong without an attack"
            else:
                text += f", then {names[last]} ({100 * float(outcome.after[last]):.0f} %)"
                text += ", it survives" if last == label else ", fooled"
            sentences.append(text + (f", {outcome.queries} questions." if outcome.queries is not None else "."))
        sentences.append(
            "On the planes, lighter is a higher loss; the path leads from the image, a square, to a cross, and "
            "the network's answer changes at the dots."
        )
        return self._with_notes(sentences, label, how)

    def _with_notes(self, sentences: list[str], label: int, how: Attack) -> Words:
        one = how.plain
        if how.name == FGSM:
            sentences.append("FGSM takes one step from the image, whatever the steps say; restarts change nothing.")
        if how.name == SIMBA and (how.loss, how.target, how.restarts) != (one.loss, one.target, one.restarts):
            sentences.append("SimBA only asks for the label's probability: target, loss and restarts change nothing.")
        if one.target == label:
            sentences.append("The target is the label itself: the attack makes the networks surer of it.")
        if how.masked and how.name == SIMBA:
            sentences.append("SimBA needs no gradient: large logits hide nothing from it.")
        elif how.masked and one.loss == "margin":
            sentences.append("The margin needs no probabilities: large logits hide nothing from its gradient.")
        elif how.masked:
            sentences.append(
                "Broken: where a probability is 1.0 to rounding, the gradient of the loss is 0, and the attack has no "
                "direction. The answers are still those of the same networks: take the margin, or ask SimBA."
            )
        return Words(" ".join(sentences), alert=how.masked and how.name != SIMBA and one.loss == "ce")


def _cut(names: Mapping[str, Any]) -> dict[str, str]:
    """Return the names with their middle cut out where there is no room for them, unless that makes them equal."""
    half = MOST_LETTERS // 2
    cut = {name: name if len(name) <= MOST_LETTERS else f"{name[:half]}…{name[1 - half :]}" for name in names}
    return cut if len({*cut.values()}) == len(cut) else {name: name for name in names}
