"""What a panel shows while one control is moved from its opening state: numbers for a page without a kernel."""

from __future__ import annotations

import base64
import itertools
import json
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import ipywidgets
import numpy as np

from convkit.widgets.animation import Film
from convkit.widgets.drawing import DrawnPanel
from convkit.widgets.panel import Panel

MOST_BYTES = 1_000_000  # of a panel's states, as JSON
MOST_PRODUCTS = 64  # states of a panel that is small enough for all values of all its controls at once
MARKS = ("x", "y", "x1", "y1")

State = dict[str, Any]


def keep_states(folder: str) -> None:
    """Let each panel that a cell shows write its states to ``folder`` instead: ``0.json``, ``1.json`` and so on.

    A panel that trains writes ``null``: it has no states without a kernel.
    """
    numbers = itertools.count()

    def bundle(self: Panel, **_: Any) -> dict[str, Any]:
        found = panel_states(self) if isinstance(self, DrawnPanel) else None
        Path(folder, f"{next(numbers)}.json").write_text(json.dumps(found, separators=(",", ":")), encoding="utf-8")
        return {"text/plain": self.words}

    Panel._repr_mimebundle_ = bundle


def panel_states(panel: DrawnPanel, most_bytes: int = MOST_BYTES) -> dict[str, Any]:
    """Return what a page needs in order to show a panel without a kernel, as plain numbers, lists and texts.

    ``states`` has a drawing for each place of the controls: ``"0,3,1"`` counts their options from 0. They are those in
    which one control is moved from the opening state or, where ``all`` is true, all of them. Where they would take more
    than ``most_bytes`` as JSON, sliders lose values between their ends: ``thinned`` names them. ``fixed`` names what a
    page cannot change; ``ready`` has the drawings of the buttons of `Panel.with_states`. The panel is left in its
    opening state.
    """
    offered = {name: found for name, control in panel._controls.items() if (found := _options(control))}
    opening = {name: _place(panel, name, options) for name, (_, options) in offered.items()}
    counts = [len(options) for _, options in offered.values()]
    panel.reset()
    panel.set()
    first = _message(panel)
    together = math.prod(counts) <= MOST_PRODUCTS and len(offered) == len(panel._controls)

    def shown(values: dict[str, Any], by_hand: bool) -> State:
        panel.reset()
        if by_hand:  # a ready-made kernel then fills its grid
            for name, value in values.items():
                panel._controls[name].value = value
        else:
            panel.set(**values)
        message = _message(panel)
        if panel._access.fault:  # the picture that was drawn last stays
            message = {**first, "words": message["words"], "alert": True, "fault": True}
        return message | {"places": [_place(panel, name, options) for name, (_, options) in offered.items()]}

    drawn: dict[tuple[int, ...], State] = {}
    if together:
        for places in itertools.product(*map(range, counts)):
            values = {name: found[place][1] for (name, (_, found)), place in zip(offered.items(), places, strict=True)}
            drawn[places] = shown(values, by_hand=False)
    else:
        drawn[tuple(opening.values())] = shown({}, by_hand=False)
        for name, (_, options) in offered.items():
            for place, (_, value) in enumerate(options):
                if place != opening[name]:
                    drawn[tuple((opening | {name: place}).values())] = shown({name: value}, by_hand=True)
    ready = {words: shown(dict(values), by_hand=False) for words, values in panel.ready.items()}
    panel.reset()
    panel.set()
    return _thinned(panel, offered, opening, (drawn, ready), together, most_bytes)


def _options(control: Any) -> tuple[str, list[tuple[str, Any]]] | None:
    """Return how a page shows a control, and its texts and values; ``None`` for one that has no list of values."""
    if hasattr(control, "options"):
        kind = "slider" if hasattr(control, "readout") else "choice"
        return kind, [option if isinstance(option, tuple) else (str(option), option) for option in control.options]
    if isinstance(control.value, bool):
        kind = "button" if isinstance(control, ipywidgets.Button) else "toggle"  # one that stays pressed
        return kind, [("off", False), ("on", True)]
    if not hasattr(control, "step"):
        return None
    count, kind = round((control.max - control.min) / control.step) + 1, type(control.value)
    values = [kind(round(control.min + number * control.step, 9)) for number in range(count)]
    return "slider", [(format(value, control.readout_format), value) for value in values]


def _place(panel: Panel, name: str, options: Iterable[tuple[str, Any]]) -> int:
    now = panel._controls[name].value
    return next(place for place, (_, value) in enumerate(options) if value == now or _near(value, now))


def _near(one: Any, two: Any) -> bool:
    return isinstance(one, float) and math.isclose(one, two, abs_tol=1e-9)


def _message(panel: DrawnPanel) -> State:
    return dict(panel._drawing.scene)


# ---- fewer bytes -----------------------------------------------------------------------------------------------------
def _thinned(
    panel: DrawnPanel,
    offered: dict[str, tuple[str, list[tuple[str, Any]]]],
    opening: dict[str, int],
    drawn: tuple[dict[tuple[int, ...], State], dict[str, State]],
    together: bool,
    most_bytes: int,
) -> dict[str, Any]:
    """Return the states as a page gets them, with as many values of each slider as fit into ``most_bytes``."""
    most = max((len(options) for _, options in offered.values()), default=0)
    while True:
        kept = {
            name: _spread(len(options), opening[name], most) if kind == "slider" else [*range(len(options))]
            for name, (kind, options) in offered.items()
        }
        found = _Page(*drawn, list(kept.values())).states
        controls = [
            {"name": name, "label": panel._controls[name].description, "kind": kind}
            | {"texts": [options[place][0] for place in kept[name]], "at": kept[name].index(opening[name])}
            for name, (kind, options) in offered.items()
        ]
        thinned = [c["label"] for c in controls if len(c["texts"]) < len(offered[c["name"]][1])]
        others = (control for name, control in panel._controls.items() if name not in offered)
        fixed = [control.description for control in others if not isinstance(control, Film)]  # a film is moved below
        found |= {"title": panel.title, "controls": controls, "all": together, "thinned": thinned, "fixed": fixed}
        if most <= 3 or len(json.dumps(found, separators=(",", ":"))) <= most_bytes:
            return found
        most = most * 9 // 10


def _spread(count: int, opening: int, most: int) -> list[int]:
    """Return at most ``most`` of the places 0 to ``count - 1``, both ends and the opening one among them."""
    if count <= most:
        return [*range(count)]
    return sorted({round(place) for place in np.linspace(0, count - 1, most - 1)} | {opening})


class _Page:
    """States in which equal arrays, and equal axes, are stored once."""

    def __init__(self, drawn: dict[tuple[int, ...], State], ready: dict[str, State], kept: list[list[int]]) -> None:
        self.data, self.arrays = bytearray(), {}
        self.axes: list[Any] = []
        self.numbers: dict[str, int] = {}
        states = {}
        for places, state in drawn.items():
            if all(place in left for place, left in zip(places, kept, strict=True)):
                key = ",".join(str(left.index(place)) for place, left in zip(places, kept, strict=True))
                states[key] = self.state(state, kept)
        self.states = {
            "states": states,
            "ready": {words: self.state(state, kept) for words, state in ready.items()},
            "axes": self.axes,
            "data": base64.b64encode(self.data).decode(),
        }

    def state(self, state: State, kept: list[list[int]]) -> State:
        nearest = [
            min(left, key=lambda one: abs(one - place)) for left, place in zip(kept, state["places"], strict=True)
        ]
        places = {"places": [left.index(place) for left, place in zip(kept, nearest, strict=True)]}
        if "moments" in state:  # of an animation: its moments share their arrays already
            return state | places | {"data": base64.b64encode(state["data"]).decode()}
        texts = [self.mark(mark, state["data"]) for mark in state["texts"]]
        axes = [self.number(ax, state["data"]) for ax in state["axes"]]
        found = {name: state[name] for name in ("size", "words", "alert", "fault") if name in state}
        return found | {"axes": axes, "texts": texts} | places

    def number(self, ax: dict[str, Any], data: bytes) -> int:
        """Return the number of these axes among the different ones."""
        ax = ax | {"marks": [self.mark(mark, data) for mark in ax["marks"]]}
        key = json.dumps(ax)
        if key not in self.numbers:
            self.numbers[key] = len(self.axes)
            self.axes.append(ax)
        return self.numbers[key]

    def mark(self, mark: dict[str, Any], data: bytes) -> dict[str, Any]:
        mark = dict(mark)
        for name in MARKS:
            if name in mark:
                kind, at, count, *rest = mark[name]
                mark[name] = [kind, self.place(data[at : at + kind * count]), count, *rest]
        if "image" in mark:
            kind, at, whole, shape, channels = mark["image"]
            count = kind * math.prod(shape) * channels
            mark["image"] = [kind, self.place(data[at : at + count]), whole, shape, channels]
        return mark

    def place(self, raw: bytes) -> int:
        if raw not in self.arrays:
            self.arrays[raw] = len(self.data)
            self.data += raw + bytes(-len(raw) % 4)  # numbers of four bytes begin at multiples of four
        return self.arrays[raw]
