"""Controls for the knobs of a method: sliders over round numbers, check boxes and lists."""

from __future__ import annotations

import math
from collections.abc import Mapping, MutableMapping
from typing import Any

import ipywidgets
import traitlets

from convkit.methods.method import Knob, KnobValue
from convkit.methods.registry import METHODS, get_method
from convkit.training.adversarial import OBJECTIVES
from convkit.widgets.controls import choice, in_columns, label_style, toggle

NONE = "none"
HIDDEN = ("momentum", "residual_start")  # of many methods, and seldom moved: code can
_GRIDS: dict[str, tuple[float, ...]] = {"momentum": (0, 0.5, 0.9, 0.95, 0.99), "smoothing": (0, 0.5, 0.9, 0.99)}
_REACH = 1000  # how far a slider goes on both sides of the default, as a factor


def grid(name: str, knob: Knob, value: KnobValue | None = None) -> list[float]:
    """Return the places of a knob's slider: round numbers within its limits, its default, and ``value``."""
    whole = isinstance(knob.default, int)
    if name in _GRIDS:
        places = {*_GRIDS[name]}
    else:
        middle = float(knob.default) or min(knob.high, 1.0) / 10
        low, high = max(knob.low, middle / _REACH), min(knob.high, middle * _REACH)
        powers = range(math.floor(math.log10(low or middle / _REACH)), math.ceil(math.log10(high)) + 1)
        round_numbers = [float(f"{digit}e{power}") for power in powers for digit in (1, 2, 5)]
        if name == "groups":
            round_numbers = [2.0**power for power in range(13)]
        places = {number for number in round_numbers if low * (1 - 1e-9) <= number <= high * (1 + 1e-9)}
        places |= {0.0} if knob.low == 0 else set()
    places |= {knob.default} | ({value} if value is not None else set())
    return sorted({int(place) if whole else float(place) for place in places})


def knob_control(name: str, knob: Knob, value: KnobValue | None = None) -> Any:
    """Return a control for one knob: a check box, a list for choices, or a slider over ``grid``."""
    value = knob.check(name, knob.default if value is None else value)
    if knob.options:
        return choice(knob.words, list(zip(knob.options, knob.choices, strict=True)), value)
    if knob.choices == (True, False):
        return toggle(knob.words, bool(value))
    if knob.choices:
        return choice(knob.words, list(knob.choices), value)
    options = [(number_text(place), place) for place in grid(name, knob, value)]
    # shows a new place while it is dragged, as every other slider does
    return ipywidgets.SelectionSlider(
        options=options, value=value, description=knob.words, **label_style(knob.words, 15)
    )


def knob_sliders(method: str, knobs: MutableMapping[str, Any], *names: str) -> list[Any]:
    """Return controls that write into ``knobs``, the mapping that a run reads at each step.

    There is one for each live knob of the method, or for ``names``. ``knobs`` gets the default of a knob that it lacks.
    """
    controls = []
    for name, knob in get_method(method).knobs.items():
        if name in names or (not names and knob.live and name not in HIDDEN):
            control = knob_control(name, knob, knobs.get(name))
            knobs[name] = control.value
            control.observe(lambda change, name=name: knobs.update({name: change["new"]}), names="value")
            controls.append(control)
    return controls


def number_text(value: Any) -> str:
    """Return a number as short text, a truth value as yes or no."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.3g}".replace("e-0", "e-").replace("e+0", "e") if isinstance(value, float) else str(value)


def knob_text(knob: Knob, value: Any) -> str:
    """Return the value of a knob as its control shows it."""
    return knob.options[knob.choices.index(value)] if knob.options else number_text(value)


class MethodControl(ipywidgets.VBox):
    """A list of methods, the images that the method is trained on, and the knobs of the chosen method.

    ``value`` is ``{"method": name or None, "objective": name in OBJECTIVES, "knobs": {...}}``.
    """

    watched = "state"
    state = traitlets.Dict()

    def __init__(
        self,
        slot: str,
        method: str | None,
        objective: str = "clean",
        knobs: Mapping[str, Any] | None = None,
        color: str = "",
    ) -> None:
        border = {"border_left": f"4px solid {color}", "padding": "2px 0 2px 8px", "margin": "3px 0"} if color else {}
        super().__init__(layout=border)
        self.description = f"{slot} method"
        options = [(NONE, None), *((one.label, name) for name, one in METHODS.items())]
        goals = [(goal.words, name) for name, goal in OBJECTIVES.items()]
        self._list = ipywidgets.Dropdown(options=options, value=method, description=self.description)
        self._goal = ipywidgets.Dropdown(options=goals, value=objective, description=f"{slot} trained on")
        self._knobs: dict[str, Any] = {}
        self._row = ipywidgets.GridBox()
        self._filling = False
        self.children = [self._row]
        self._fill(dict(knobs or {}))
        self._list.observe(lambda _: self._filling or self._fill({}), names="value")
        self._goal.observe(lambda change: self._moved("objective", change["new"]), names="value")

    @property
    def value(self) -> dict[str, Any]:
        """Return the name of the chosen method, that of its objective, and its knobs."""
        return {**self.state, "knobs": dict(self.state["knobs"])}

    @value.setter
    def value(self, value: Mapping[str, Any]) -> None:
        self._filling = True
        try:
            self._list.value = value["method"]
            self._goal.value = value.get("objective", self._goal.value)
        finally:
            self._filling = False
        self._fill(value.get("knobs", {}))

    def _fill(self, values: Mapping[str, Any]) -> None:
        """Show the knobs of the chosen method, with these values or its defaults."""
        method = self._list.value
        known = get_method(method).knobs if method else {}
        settings = get_method(method).settings(values) if method else {}
        shown = {name: value for name, value in settings.items() if name not in HIDDEN}
        same = self.state.get("method") == method and self._knobs.keys() == shown.keys()
        if same and all(_has(self._knobs[name], value) for name, value in shown.items()):
            self._filling = True
            for name, value in shown.items():
                self._knobs[name].value = value
            self._filling = False
        else:
            old, self._knobs = self._knobs, {}
            for name, value in shown.items():
                control = knob_control(name, known[name], value)
                control.observe(lambda change, name=name: self._moved(name, change["new"]), names="value")
                self._knobs[name] = control
            in_columns(self._row, [self._list, self._goal, *self._knobs.values()])
            for control in old.values():
                control.close()
        self.state = {"method": method, "objective": self._goal.value, "knobs": settings}

    def _moved(self, name: str, value: Any) -> None:
        if not self._filling:
            changed = {name: value} if name == "objective" else {"knobs": {**self.state["knobs"], name: value}}
            self.state = {**self.state, **changed}


def _has(control: Any, value: Any) -> bool:
    """Return whether a control can hold the value as it is."""
    return not hasattr(control, "options") or value in [place for _, place in _pairs(control.options)]


def _pairs(options: Any) -> list[tuple[Any, Any]]:
    return [option if isinstance(option, tuple) else (option, option) for option in options]
