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
from convkit.widgets.controls import choice, slider
from convkit.widgets.training.knobs import MethodControl, knob_text
from convkit.widgets.training.live import LivePanel
from convkit.widgets.training.runner import Track
from convkit.widgets.training.runs import PanelRun, Setting, model_name

SLOTS = ("first", "second", "third")
ABOUT = ("data", "model", "schedule", "attack ε", "batch size", "steps", "seed", "seeds")
SCHEDULES = {
    "constant": "constant",
    "cosine": "cosine, to 0 at the end",
    "steps": "steps, × 0.1 after 1/2 and 3/4",
    "exponential": "exponential, × 0.95 at 45 times",
}
MOST_SEEDS = 8
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


class FaultError(ValueError):
    """Values that controls cannot have: ``fields`` has a sentence for each of them, by its name."""

    def __init__(self, fields: Mapping[str, str]) -> None:
        super().__init__("; ".join(fields.values()))
        self.fields = dict(fields)

    @property
    def pointer(self) -> str:
        """Return a short sentence that points to the fields, where the whole ones stand."""
        return f"see {' and '.join(f'{name} method' if name in SLOTS else name for name in self.fields)}"


class ChoicesPanel(LivePanel):
    """A panel that chooses up to three methods with their knobs, and one data set and network for all."""

    _starts_made = -1  # the opening is 0

    def __init__(
        self,
        methods: Sequence[str],
        objectives: Sequence[str],
        data: str | Data,
        model: str | nn.Module,
        numbers: Mapping[str, float],
        schedule: str,
        every: int,
        knobs: Mapping[str, Mapping[str, Any]] | None,
        folder: str | Path | None,
        options: Mapping[str, Any],
    ) -> None:
        if isinstance(methods, str) or not 1 <= len(methods) <= len(SLOTS):
            raise ValueError(f"{type(self).__name__} compares one to three methods, got {methods!r}; name two")
        if objectives and len(objectives) != len(methods):
            raise ValueError(f"needed an objective for each of {len(methods)} methods, got {objectives!r}; name them")
        if schedule not in SCHEDULES:
            raise ValueError(f"schedule must be one of {', '.join(SCHEDULES)}, got {schedule!r}")
        if not 1 <= numbers["seeds"] <= MOST_SEEDS:
            raise ValueError(f"seeds needs a whole number from 1 to {MOST_SEEDS}, got {numbers['seeds']!r}")
        own = (model, {**({"widths": (16, 32, 64)} if model == "cnn9" else {}), **options})
        self._models = {model_name(*one): one for one in (own, *_MODELS)}
        self._data = {data.name: data} if isinstance(data, Data) else {}
        self._given = tuple(self._data)
        images = [name for name, loader in DATA.items() if not loader.clouds]  # the networks on offer take no others
        self._names = list(dict.fromkeys([*(self._given or [str(data)]), *images]))
        self._methods, self._starts = [get_method(name).name for name in methods], dict(knobs or {})
        self._objectives = [*(objectives or ["clean"] * len(methods)), "clean"]
        for name in self._objectives:
            get_objective(name)
        self._numbers, self._schedule, self._every, self._folder = dict(numbers), schedule, every, folder
        super().__init__()

    def controls(self) -> dict[str, Any]:
        controls: dict[str, Any] = {
            "data": choice("data", self._names),
            "model": choice("model", list(self._models)),
            "schedule": choice("schedule", [(words, name) for name, words in SCHEDULES.items()], self._schedule),
        }
        for label, value in self._numbers.items():
            controls[label] = (
                slider("seeds", int(value), 1, MOST_SEEDS)
                if label == "seeds"
                else ipywidgets.Text(str(value), description=label, continuous_update=False)
            )
        names = [*self._methods, None][: max(2, len(self._methods))]
        looks = styles(len(names))
        for place, name in enumerate(names):  # the second may be left open
            slot, goal = SLOTS[place], self._objectives[place]
            controls[slot] = MethodControl(slot, name, goal, self._starts.get(name or "", {}), looks[place][0])
        return controls

    @property
    def slots(self) -> dict[str, MethodControl]:
        """Return the controls of the methods by slot."""
        return {slot: self._controls[slot] for slot in SLOTS if slot in self._controls}

    def settings(self, steps: int | None = None) -> list[Setting]:
        """Return the settings of the runs, seed by seed for each method.

        Raises ``FaultError`` with a sentence for every invalid control.
        """
        faults, numbers = dict[str, str](), {}
        for name, (low, high) in LIMITS.items():
            text = self._controls[name].value.strip()
            numbers[name] = int(text) if text.isdecimal() else low - 1
            if not low <= numbers[name] <= high:
                faults[name] = f"{name} needs a whole number from {low} to {high}, got {text!r}"
        eps = self._eps()
        if eps is None:
            faults["attack ε"] = f"attack ε needs a number from 0 to 1, got {self._controls['attack ε'].value!r}"
        data = self._controls["data"].value
        if data in DATA and data not in self._given and not DATA[data].offline and self._folder is None:
            faults["data"] = f"{data} is read from files: name their folder, as in {type(self).__name__}(folder=...)"
        chosen = {slot: control.value for slot, control in self.slots.items() if control.value["method"]}
        if not chosen:
            faults["first"] = "no method is chosen: take one from a list"
        if faults:
            raise FaultError(faults)
        seeds = self._controls["seeds"].value
        return [
            Setting(
                name=name,
                slot=slot,
                method=value["method"],
                knobs=value["knobs"],
                objective=value["objective"],
                eps=eps or 0.0,
                data=data,
                data_code=self._data_code(data),
                model=self._models[self._controls["model"].value][0],
                options=self._models[self._controls["model"].value][1],
                steps=steps or numbers["steps"],
                batch_size=numbers["batch size"],
                schedule=self._controls["schedule"].value,
                seed=seed,
                alone=seeds == 1,
                every=self._every,
            )
            for name, (slot, value) in zip(_names(chosen), chosen.items(), strict=True)
            for seed in range(numbers["seed"], numbers["seed"] + seeds)
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
        """Return the runs, before their first step; raise ``FaultError`` or ``OSError`` for what cannot be trained."""
        self._starts_made += 1
        runs = []
        for setting in settings:
            data, knobs = self._loaded(setting.data), dict(setting.knobs)
            try:
                model = network(setting.model, data, setting.method, seed=setting.seed, knobs=knobs, **setting.options)
                objective = get_objective(setting.objective, setting.eps)
                records = fit(model, data, setting.method, knobs=knobs, objective=objective, **setting.plan)
            except ValueError as error:
                words = " ".join(str(error).split())
                raise FaultError({"batch size" if "batch_size" in words else setting.slot: words}) from error
            name = setting.name if setting.alone else f"{setting.name}, seed {setting.seed}"
            runs.append(PanelRun(setting, Track(name, records, knobs, setting.name), model, self._starts_made))
        return runs

    def labels(self) -> dict[str, str]:
        """Return the text of each control by its label."""
        labels = {name: str(self._controls[name].value) for name in ABOUT}
        for slot, control in self.slots.items():
            name, knobs = control.value["method"], control.value["knobs"]
            labels[f"{slot} method"] = get_method(name).label if name else "none"
            labels[f"{slot} trained on"] = OBJECTIVES[control.value["objective"]].words
            labels |= {knob_label(slot, name, knob): knob_value(name, knob, value) for knob, value in knobs.items()}
        return labels


def _names(chosen: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return a name for each slot: the method in words, where needed with what it is trained on, or with the slot."""
    words = [get_method(value["method"]).words for value in chosen.values()]
    goals = [OBJECTIVES[value["objective"]].words for value in chosen.values()]
    pairs = list(zip(words, goals, strict=True))
    names: list[str] = []
    for slot, pair in zip(chosen, pairs, strict=True):
        if words.count(pair[0]) == 1:
            names.append(pair[0])
        else:
            names.append(f"{pair[0]}, {pair[1] if pairs.count(pair) == 1 else slot}")
    return names


def knob_label(slot: str, method: str, knob: str) -> str:
    """Return the label of a knob where there are several methods."""
    return f"{get_method(method).knobs[knob].words} of the {slot} method"


def knob_value(method: str, knob: str, value: Any) -> str:
    """Return the value of a knob of a method as text."""
    return knob_text(get_method(method).knobs[knob], value)
