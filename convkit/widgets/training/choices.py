"""The controls of live training: data, network, numbers and methods, and the runs that they define."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import ipywidgets
from torch import nn

from convkit.data.dataset import Data
from convkit.data.registry import DATA, load
from convkit.data.subsets import subset
from convkit.methods.build import network
from convkit.methods.registry import get_method
from convkit.plots.style import styles
from convkit.training.adversarial import OBJECTIVES, get_objective
from convkit.training.loop import fit
from convkit.widgets.controls import choice, label_style
from convkit.widgets.training.knobs import MethodControl, number_text
from convkit.widgets.training.live import LivePanel
from convkit.widgets.training.runner import Track
from convkit.widgets.training.runs import PanelRun, Setting, model_name

SLOTS = ("first", "second", "third")
ABOUT = ("data", "model", "trained on", "attack ε", "batch size", "steps", "seed")
LIMITS = {"batch size": (1, 10_000), "steps": (1, 100_000), "seed": (0, 2**31 - 1)}
WHOLE = ("digits",)  # the others have so many images that a part must do
PART, TEST_PART = 4000, 500
_MODELS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("cnn9", {"widths": (16, 32, 64)}),
    ("cnn9", {"widths": (8, 16, 32)}),
    ("vgg11", {"width": 0.125}),
    ("resnet18", {"width": 0.125}),
    ("resnet32", {"width": 0.5}),
)


class ChoicesPanel(LivePanel):
    """A panel that chooses up to three methods with their knobs, and one data set and network for all."""

    def __init__(
        self,
        methods: Sequence[str],
        data: str | Data,
        model: str | nn.Module,
        numbers: Mapping[str, int],
        every: int,
        knobs: Mapping[str, Mapping[str, Any]] | None,
        folder: str | Path | None,
        options: Mapping[str, Any],
    ) -> None:
        if isinstance(methods, str) or not 1 <= len(methods) <= len(SLOTS):
            raise ValueError(f"{type(self).__name__} compares one to three methods, got {methods!r}; name two")
        own = (model, {**({"widths": (16, 32, 64)} if model == "cnn9" else {}), **options})
        self._models = {model_name(*one): one for one in (own, *_MODELS)}
        self._data = {data.name: data} if isinstance(data, Data) else {}
        self._given = tuple(self._data)
        images = [name for name, loader in DATA.items() if not loader.clouds]  # the networks on offer take no others
        self._names = list(dict.fromkeys([*(self._given or [str(data)]), *images]))
        self._methods, self._starts = [get_method(name).name for name in methods], dict(knobs or {})
        self._numbers, self._every, self._folder = dict(numbers), every, folder
        super().__init__()

    def controls(self) -> dict[str, Any]:
        controls: dict[str, Any] = {
            "data": choice("data", self._names),
            "model": choice("model", list(self._models)),
            "trained on": choice("trained on", [goal.words for goal in OBJECTIVES.values()]),
        }
        for label, value in {"attack ε": 0.1, **self._numbers}.items():
            controls[label] = ipywidgets.Text(
                str(value), description=label, continuous_update=False, **label_style(label, 6)
            )
        names = [*self._methods, None][: max(2, len(self._methods))]
        for slot, name, (color, *_) in zip(SLOTS[: len(names)], names, styles(len(names)), strict=True):
            controls[slot] = MethodControl(f"{slot} method", name, self._starts.get(name or "", {}), color)
        return controls

    @property
    def slots(self) -> dict[str, MethodControl]:
        """Return the controls of the methods by slot."""
        return {slot: self._controls[slot] for slot in SLOTS if slot in self._controls}

    def settings(self, steps: int | None = None) -> list[Setting]:
        """Return the settings of the runs; raise ``ValueError`` with a sentence for every invalid control."""
        faults, numbers = [], {}
        for name, (low, high) in LIMITS.items():
            text = self._controls[name].value.strip()
            numbers[name] = int(text) if text.isdecimal() else low - 1
            if not low <= numbers[name] <= high:
                faults.append(f"{name} needs a whole number from {low} to {high}, got {text!r}")
        eps = self._eps()
        if eps is None:
            faults.append(f"attack ε needs a number from 0 to 1, got {self._controls['attack ε'].value!r}")
        data = self._controls["data"].value
        if data in DATA and data not in self._given and not DATA[data].offline and self._folder is None:
            faults.append(f"{data} is read from files: name their folder, as in {type(self).__name__}(folder=...)")
        chosen = {slot: control.value for slot, control in self.slots.items() if control.value["method"]}
        if not chosen:
            faults.append("no method is chosen: take one from a list")
        if faults:
            raise ValueError("; ".join(faults))
        words = [get_method(value["method"]).words for value in chosen.values()]
        return [
            Setting(
                name=name if words.count(name) == 1 else f"{name}, {slot}",
                slot=slot,
                method=value["method"],
                knobs=value["knobs"],
                objective=next(n for n, goal in OBJECTIVES.items() if goal.words == self._controls["trained on"].value),
                eps=eps or 0.0,
                data=data,
                data_code=self._data_code(data),
                model=self._models[self._controls["model"].value][0],
                options=self._models[self._controls["model"].value][1],
                steps=steps or numbers["steps"],
                batch_size=numbers["batch size"],
                seed=numbers["seed"],
                every=self._every,
            )
            for name, (slot, value) in zip(words, chosen.items(), strict=True)
        ]

    def _eps(self) -> float | None:
        """Return the size of attacks, or ``None`` where the field holds no number from 0 to 1."""
        try:
            eps = float(self._controls["attack ε"].value)
        except ValueError:
            return None
        return eps if 0 <= eps <= 1 else None

    def _data_code(self, name: str) -> str:
        if name in self._given:
            return ""
        code = f"load({name!r})" if DATA[name].offline else f"load({name!r}, {str(self._folder)!r})"
        return code if name in WHOLE else f"subset({code}, {PART}, test_count={TEST_PART})"

    def _loaded(self, name: str) -> Data:
        if name not in self._data:
            data = load(name) if DATA[name].offline else load(name, self._folder)
            self._data[name] = data if name in WHOLE else subset(data, PART, test_count=TEST_PART)
        return self._data[name]

    def make(self, settings: Sequence[Setting]) -> list[PanelRun]:
        """Return the runs, before their first step; raise ``ValueError`` or ``OSError`` for what cannot be trained."""
        runs = []
        for setting in settings:
            data, knobs = self._loaded(setting.data), dict(setting.knobs)
            model = network(setting.model, data, setting.method, seed=setting.seed, knobs=knobs, **setting.options)
            objective = get_objective(setting.objective, setting.eps)
            records = fit(model, data, setting.method, knobs=knobs, objective=objective, **setting.plan)
            runs.append(PanelRun(setting, Track(setting.name, records, knobs), model))
        return runs

    def labels(self) -> dict[str, str]:
        """Return the text of each control by its label."""
        labels = {name: str(self._controls[name].value) for name in ABOUT}
        for slot, control in self.slots.items():
            name, knobs = control.value["method"], control.value["knobs"]
            labels[f"{slot} method"] = get_method(name).words if name else "none"
            labels |= {knob_label(slot, name, knob): number_text(value) for knob, value in knobs.items()}
        return labels


def knob_label(slot: str, method: str, knob: str) -> str:
    """Return the label of a knob where there are several methods."""
    return f"{get_method(method).knobs[knob].words} of the {slot} method"
