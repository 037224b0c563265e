"""Sliders, lists, check boxes and number fields in one style."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import ipywidgets
import traitlets

WHOLE_ROW = "auto / 1 / auto / -1"  # of a grid; ipywidgets resets grid-column


def slider(label: str, value: float, min: float, max: float, step: float = 1) -> ipywidgets.Widget:
    """Return a slider over whole numbers, if value, limits and step are ints, or decimals.

    ``value`` must be on the grid that the limits and the step define.
    """
    steps = (value - min) / step
    if not min <= value <= max or abs(steps - round(steps)) > 1e-9:
        raise ValueError(f"slider {label!r} needs a value min + k * step in [{min}, {max}], got {value} at step {step}")
    whole = all(isinstance(number, int) for number in (value, min, max, step))
    if whole:
        return ipywidgets.IntSlider(
            int(value), description=label, min=min, max=max, step=step, **label_style(label, 17)
        )
    digits = len(f"{step:.6f}".rstrip("0").partition(".")[2])
    look = label_style(label, 17) | {"readout_format": f".{digits}f"}
    return ipywidgets.FloatSlider(value, description=label, min=min, max=max, step=step, **look)


def choice(label: str, options: Sequence[Any], value: Any = None) -> ipywidgets.Dropdown:
    """Return a drop-down list of texts, or of (text, value) pairs; the first is chosen unless ``value`` is given."""
    pairs = [option if isinstance(option, tuple) else (str(option), option) for option in options]
    first = pairs[0][1] if value is None else value
    longest = max(len(text) for text, _ in pairs)
    return ipywidgets.Dropdown(options=pairs, value=first, description=label, **label_style(label, 0.6 * longest + 4))


def toggle(label: str, value: bool = False) -> ipywidgets.Checkbox:
    """Return a check box."""
    return ipywidgets.Checkbox(value, description=label, indent=False, **label_style(label, 2))


def label_style(label: str, room: float) -> dict[str, Any]:
    """Return the arguments that show a control's label whole and leave ``room``, in em, for the control itself."""
    # "initial" does not cut the description; ch is about the width of a letter
    layout = {"width": f"calc({len(label)}ch + {room:.0f}em)", "margin": "2px 16px 2px 2px"}
    return {"style": {"description_width": "initial"}, "layout": layout}


def aligned(controls: Mapping[str, Any], headings: Mapping[str, str], width: str) -> ipywidgets.GridBox:
    """Return controls in columns, as many as the page has room for, below headings; all labels have one width."""
    cells: list[Any] = []
    for name, control in controls.items():
        if name in headings:
            cells.append(ipywidgets.HTML(f"<i>{headings[name]}</i>", layout={"grid_area": WHOLE_ROW}))
        cells.append(control)
    box = ipywidgets.GridBox(layout={"max_width": width})
    in_columns(box, cells)
    return box


def in_columns(box: ipywidgets.GridBox, cells: Sequence[Any]) -> None:
    """Put controls into a grid, in columns whose labels have one width."""
    short = ipywidgets.Checkbox | ipywidgets.Button | ipywidgets.HTML | NumberGrid
    labelled = [one for one in cells if not isinstance(one, short)]
    longest = max([len(one.description) for one in labelled], default=0)
    for control in labelled:
        control.layout.width, control.style.description_width = "auto", f"{longest}ch"
    box.children = cells
    box.layout.grid_template_columns = f"repeat(auto-fill, minmax(min(100%, calc({longest}ch + 17em)), 1fr))"
    box.layout.align_items, box.layout.grid_gap = "center", "2px 16px"


class NumberGrid(ipywidgets.VBox):
    """A grid of number fields; ``value`` is a tuple of rows, and raises ``ValueError`` that names an invalid field."""

    watched = "texts"
    texts = traitlets.Tuple()

    def __init__(self, label: str, value: Sequence[Sequence[float]]) -> None:
        super().__init__()
        self.description = label
        self.value = value

    @property
    def value(self) -> tuple[tuple[float, ...], ...]:
        """Return the rows of numbers; raise ``ValueError`` for a field that holds no number."""
        return tuple(tuple(self._number(i, j) for j in range(len(row))) for i, row in enumerate(self.texts))

    @value.setter
    def value(self, rows: Sequence[Sequence[float]]) -> None:
        texts = tuple(tuple(f"{float(number):g}" for number in row) for row in rows)
        if tuple(map(len, texts)) != tuple(map(len, self.texts)):
            self._fields = [[self._field(i, j, text) for j, text in enumerate(row)] for i, row in enumerate(texts)]
            heading = ipywidgets.Label(self.description)
            self.layout.grid_area = f"span {len(texts) + 1} / auto / auto / {-1 if len(texts[0]) > 4 else 'auto'}"
            self.children = [heading, *(ipywidgets.HBox(row) for row in self._fields)]
        self.texts = texts
        for fields, row in zip(self._fields, texts, strict=True):
            for field, text in zip(fields, row, strict=True):
                field.value = text

    def _field(self, i: int, j: int, text: str) -> ipywidgets.Text:
        place = f"{self.description}, row {i + 1}, column {j + 1}"
        field = ipywidgets.Text(text, continuous_update=False, tooltip=place, layout={"width": "5.5em"})
        field.observe(lambda change: self._typed(i, j, change["new"]), names="value")
        return field

    def _typed(self, i: int, j: int, text: str) -> None:
        rows = [list(row) for row in self.texts]
        rows[i][j] = text
        self.texts = tuple(map(tuple, rows))

    def _number(self, i: int, j: int) -> float:
        text = self.texts[i][j]
        try:
            number = float(text)
        except ValueError:
            number = math.nan
        if not math.isfinite(number):
            raise ValueError(f"{self.description}, row {i + 1}, column {j + 1} needs a number, got {text!r}")
        return number


def numbers(label: str, value: Sequence[Sequence[float]]) -> NumberGrid:
    """Return a grid of numbers to edit, such as a kernel."""
    return NumberGrid(label, value)
