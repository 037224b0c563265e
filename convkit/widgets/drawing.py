"""Pictures that the page draws itself: numbers go to it, one message for each move of a control."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import anywidget
import ipywidgets
import numpy as np
import traitlets
from matplotlib.figure import Figure

from convkit.widgets import panel
from convkit.widgets.panel import Panel, Words, new_figure
from convkit.widgets.sheet import Sheet, SheetAxes, Side

MOST_BYTES = 19_000  # of a message, without its envelope
SIDES = (0, 128, 112, 96, 64, 48, 32, 24, 16, 8)  # of matrices and images when numbers must be fewer; 0: as they are
POINTS = 8  # of a curve, for each entry along a side of a matrix
GAP = 65_535  # in 16 bits: no number


class Drawing(anywidget.AnyWidget):
    """A picture in the browser and the words below it: hover shows numbers, the legend picks a curve, a drag zooms.

    ``scene`` is what ``scene(sheet)`` returns, with ``words`` and ``alert`` (red words). While ``working`` has words,
    they stand in place of the others, and the picture is pale. In the axes that ``steered`` counts, a drag and a click
    are sent to the kernel, one at a time: each is answered by a message.
    """

    _esm = (Path(__file__).parent / "drawing.js").read_text(encoding="utf-8")
    scene = traitlets.Dict().tag(sync=True)
    working = traitlets.Unicode().tag(sync=True)
    steered = traitlets.List().tag(sync=True)


class DrawnPanel(Panel):
    """A panel whose page draws the picture from numbers, in the colors of its theme.

    ``draw`` is called with a ``Sheet`` in place of a figure. For a page without a kernel, ``figure`` and ``png`` are
    drawn by Matplotlib when they are asked for. In the axes that ``steered`` counts from 0, in the order of ``draw``,
    the mouse moves controls: see ``dragged`` and ``clicked``.
    """

    steered: Sequence[int] = ()

    def dragged(self, right: float, up: float, before: dict[str, Any]) -> dict[str, Any]:
        """Return values for controls while the mouse drags.

        Args:
            right, up: How far it has come since the drag began, in widths and heights of the axes.
            before: The values of all controls when the drag began.
        """
        return {}

    def clicked(self, x: float, y: float) -> dict[str, Any]:
        """Return values for controls after a click at this place, in the coordinates of the axes."""
        return {}

    def _views(self) -> list[ipywidgets.DOMWidget]:
        self._drawing, self._painted = Drawing(steered=list(self.steered)), False
        self._before_drag: dict[str, Any] = {}
        self._drawing.on_msg(self._steer)
        return [self._drawing]

    def _steer(self, _: Any, content: dict[str, Any], __: Any) -> None:
        def move() -> None:
            if content.get("begins"):
                self._before_drag = self.values
            if "right" in content:
                values = self.dragged(content["right"], content["up"], self._before_drag)
            else:
                values = self.clicked(content["x"], content["y"])
            self._known(values)
            self._assign(values)

        self._paint(move)
        self._drawing.send({"done": True})

    def _drawn(self) -> str:
        values, sheet = self.values, Sheet(self.size)
        words = self.draw(cast("Figure", sheet), **values)
        self._shown, self._scene, self._painted = values, scene(sheet), False
        return words

    def _show(self, words: str) -> None:
        self._say(words)

    def _say(self, words: str) -> None:
        self.words = words if isinstance(words, Words) else Words(words)
        with self._drawing.hold_sync():  # one message
            self._drawing.scene = {**self._scene, "words": str(words), "alert": self.words.alert}
            self._drawing.working = ""

    def announce(self, words: str) -> None:
        """Show what is being computed: until the next picture, the old one is pale and its words are gone."""
        self._drawing.working = words

    @property
    def figure(self) -> Figure:
        """Return the picture as Matplotlib draws it."""
        if not self._painted:
            self._figure, self._png, self._painted = new_figure(self.size, None), b"", True
            self.draw(self._figure, **self._shown)
        return self._figure

    @property
    def png(self) -> bytes:
        """Return the picture for a page without a kernel."""
        figure = self.figure
        self._png = self._png or panel.png_bytes(figure)
        return self._png


def scene(sheet: Sheet) -> dict[str, Any]:
    """Return what is drawn on the sheet: plain Python, and ``data``, the bytes of all numbers, one after the other.

    Numbers are float32. Where that is more than a message may hold, curves get 16 bits, matrices and images 8; then
    matrices lose entries (of each block of neighbors the largest magnitude stays), images pixels (means), and curves
    points.
    """
    return film([sheet])


def film(sheets: Sequence[Sheet]) -> dict[str, Any]:
    """Return what is drawn on sheets that follow one another, as ``scene`` does for one: each value is `merged`."""
    for side in SIDES:
        packed = _Packer(side)
        found = merged([packed.sheet(sheet) for sheet in sheets])
        found["data"] = bytes(packed.data)
        if len(found["data"]) + len(json.dumps(found | {"data": 0})) <= MOST_BYTES:
            break
    return found  # pyright: ignore[reportPossiblyUnboundVariable]


def merged(values: list[Any]) -> Any:
    """Return what all values are, if they are equal; otherwise merge dicts and lists of one shape, part by part.

    Where they differ stands ``{"each": values}``.

    >>> merged([{"x": [4, 0, 2], "name": "a"}, {"x": [4, 8, 2], "name": "a"}])
    {'x': [4, {'each': [0, 8]}, 2], 'name': 'a'}
    """
    first = values[0]
    if all(value == first for value in values):
        return first
    if all(isinstance(value, dict) and value.keys() == first.keys() for value in values):
        return {name: merged([value[name] for value in values]) for name in first}
    if all(isinstance(value, list | tuple) and len(value) == len(first) for value in values):
        return [merged(list(parts)) for parts in zip(*values, strict=True)]
    return {"each": values}


class _Packer:
    """Numbers of a sheet in bytes: equal arrays are stored once, and a list of plain numbers says where and how."""

    def __init__(self, side: int) -> None:
        self.side, self.data = side, bytearray()
        self.places: dict[bytes, int] = {}

    def sheet(self, sheet: Sheet) -> dict[str, Any]:
        axes = [self.axes(ax) for ax in sheet.axes]
        texts = [self.mark(text, Side(), Side()) for text in sheet.texts]
        return {"size": [inches * sheet.dpi for inches in sheet.size], "axes": axes, "texts": texts}

    def axes(self, ax: SheetAxes) -> dict[str, Any]:
        marks = [self.mark(mark, ax.xaxis, ax.yaxis) for mark in _texts_joined(ax.marks)]
        sides = {
            name: {"log": side.log, "span": side.span(), "label": side.label, "size": side.label_size} | side.ticks
            for name, side in (("x", ax.xaxis), ("y", ax.yaxis))
        }
        title = {"words": ax.title.words, "size": ax.title.size, "loc": ax.title.loc}
        return {"place": ax.place, "title": title, "marks": marks, **sides, **ax.look}

    def mark(self, mark: dict[str, Any], x: Side, y: Side) -> dict[str, Any]:
        packed: dict[str, Any] = {}
        for name, value in mark.items():
            if name == "image":
                packed |= self.image(value, mark)
            elif isinstance(value, np.ndarray):
                packed[name] = self.line(
                    (x if name[0] == "x" else y).scaled(value), mark.get("kind") in ("text", "mesh")
                )
            elif value not in (None, False) and name != "zorder":
                packed[name] = value
        return packed

    def line(self, values: np.ndarray, whole: bool) -> list[float]:
        """Return ``[4, place, count]``, or ``[2, place, count, low, step]`` for numbers of 16 bits."""
        if not self.side:
            return [4, self.store(values.astype("<f4")), len(values)]
        values = values if whole else values[:: max(1, math.ceil(len(values) / (POINTS * self.side)))]
        known = np.isfinite(values)
        low, high = (float(values[known].min()), float(values[known].max())) if known.any() else (0.0, 0.0)
        step = (high - low) / (GAP - 1) or 1.0
        codes = np.where(known, np.rint((np.where(known, values, low) - low) / step), GAP)
        return [2, self.store(codes.astype("<u2")), len(values), float(f"{low:.6g}"), float(f"{step:.6g}")]

    def image(self, values: np.ndarray, mark: dict[str, Any]) -> dict[str, Any]:
        """Return bytes per entry, where they begin, rows and columns before and after the reduction, and channels."""
        whole = values.shape[:2]
        if self.side and max(whole) > self.side:
            values = reduced(values, math.ceil(max(whole) / self.side), mark.get("signed", False))
        shape = [whole, values.shape[:2], values.shape[2] if values.ndim == 3 else 1]
        if values.ndim == 3:
            return {"image": [1, self.store((255 * values.clip(0, 1)).round().astype("u1")), *shape]}
        if not self.side:
            return {"image": [4, self.store(values.astype("<f4")), *shape]}
        low, high = mark["range"]
        codes = np.rint(254 * (values.clip(low, high) - low) / (high - low or 1))
        return {"image": [1, self.store(np.where(np.isfinite(values), codes, 255).astype("u1")), *shape]}

    def store(self, values: np.ndarray) -> int:
        raw = values.tobytes()
        if raw not in self.places:
            self.places[raw] = len(self.data)
            self.data += raw + bytes(-len(raw) % 4)  # numbers of four bytes begin at multiples of four
        return self.places[raw]


def _texts_joined(marks: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return marks from the lowest to the highest, neighboring texts of one look as one mark with all their words."""
    found: list[dict[str, Any]] = []
    for mark in sorted(marks, key=lambda mark: mark["zorder"]):
        last = found[-1] if found else {"kind": ""}
        if mark["kind"] == last["kind"] == "text" and _look(mark) == _look(last):
            places = {name: np.concatenate([last[name], mark[name]]) for name in ("x", "y")}
            found[-1] = last | places | {"words": [*last["words"], mark["words"]]}
        else:
            found.append(mark | {"words": [mark["words"]]} if mark["kind"] == "text" else mark)
    return found


def _look(text: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in text.items() if name not in ("x", "y", "words")}


def reduced(values: np.ndarray, factor: int, signed: bool = False) -> np.ndarray:
    """Return one entry for each block of ``factor`` by ``factor``: the one of largest magnitude, or their mean."""
    h, w, *rest = values.shape
    rows, columns = -(-h // factor), -(-w // factor)
    padded = np.full((rows * factor, columns * factor, *rest), np.nan)
    padded[:h, :w] = values
    blocks = padded.reshape(rows, factor, columns, factor, *rest).swapaxes(1, 2).reshape(rows, columns, -1, *rest)
    if not signed:
        with np.errstate(invalid="ignore"):  # a block without numbers
            return np.nansum(blocks, 2) / np.isfinite(blocks).sum(2)
    size = np.where(np.isnan(blocks), -1, np.abs(blocks))
    return np.take_along_axis(blocks, size.argmax(2)[:, :, None], 2)[:, :, 0]
