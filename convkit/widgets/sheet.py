"""A stand-in for Matplotlib's figure that draws nothing and keeps the numbers, for a page that draws them itself.

It knows the part of Matplotlib's interface that panels use; whatever else a plot calls is an ``AttributeError`` or a
``TypeError``.
"""

import functools
from collections.abc import Iterable, Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.colors import to_hex

from convkit.plots.numbers import numbers
from convkit.plots.style import BLUE, INK, SIGNED

Place = tuple[float, float, float, float]
DASHES = {"-": (), "--": (3.7, 1.6), ":": (1, 1.65), "none": None}  # in line widths, as Matplotlib has them
MARGIN = 0.05  # of the range of the numbers, around them
STOPS = 21  # colors that stand for a color map; PuOr_r is straight between them


class Sheet:
    """What ``Panel.draw`` takes for a figure of ``size`` inches: its axes keep what is drawn on them."""

    dpi = 96

    def __init__(self, size: tuple[float, float]) -> None:
        self.size = size
        self.axes: list[SheetAxes] = []
        self.texts: list[dict[str, Any]] = []

    def add_axes(self, place: Place) -> "SheetAxes":
        """Return new axes; ``place`` is left, bottom, width and height in parts of the figure."""
        self.axes.append(SheetAxes(self, place))
        return self.axes[-1]

    def text(self, x: float, y: float, words: str, linespacing: float = 1.2, **look: Any) -> None:
        """Keep words at a place in parts of the figure."""
        self.texts.append(_text(x, y, words, **look) | {"leading": linespacing})


class Side:
    """The horizontal or the vertical axis of `SheetAxes`: its scale, limits, ticks and words."""

    def __init__(self) -> None:
        self.log, self.label, self.label_size = False, "", 10.0
        self.limits: tuple[float | None, float | None] = None, None
        self.ticks: dict[str, Any] = {"size_ticks": 10, "length": 3.5}
        self.numbers: list[np.ndarray] = []  # what must be seen
        self.edges: list[float] = []  # without a margin beyond them

    def set_ticks(self, places: Iterable[float], labels: Iterable[Any] | None = None, fontsize: float = 10) -> None:
        self.ticks |= {"at": [float(place) for place in places], "size_ticks": fontsize}
        if labels is not None:
            self.ticks["labels"] = [str(label) for label in labels]

    def set_tick_params(self, **look: Any) -> None:
        for name, value in look.items():
            self.ticks[{"labelbottom": "shown", "labelleft": "shown", "labelsize": "size_ticks"}.get(name, name)] = (
                value
            )

    def scaled(self, values: Any) -> np.ndarray:
        """Return places along the axis: the numbers, or their decimal logarithms (NaN where there is none)."""
        values = np.asarray(values, dtype=float)
        if not self.log:
            return values
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.where(values > 0, np.log10(values), np.nan)

    def span(self) -> tuple[float, float]:
        """Return the limits, with a margin around the numbers where none is set, as ``scaled`` has them."""
        seen = [self.scaled(values).ravel() for values in self.numbers] or [np.zeros(1)]
        finite = np.concatenate(seen)
        finite = finite[np.isfinite(finite)] if np.isfinite(finite).any() else np.zeros(1)
        low, high = float(finite.min()), float(finite.max())
        room = MARGIN * (high - low) or 0.055 * (abs(low) or 1.0)
        edges = [float(edge) for edge in self.scaled(self.edges)]
        found = low if low in edges else low - room, high if high in edges else high + room
        given = [None if limit is None else float(self.scaled(limit)) for limit in self.limits]
        return tuple(one if two is None else two for one, two in zip(found, given, strict=True))  # pyright: ignore[reportReturnType]


class SheetAxes:
    """What a plot takes for Matplotlib's axes: ``marks`` has all that is drawn, in numbers."""

    transAxes = "axes"  # the name of Matplotlib

    def __init__(self, figure: Sheet, place: Place) -> None:
        self.figure, self.place = figure, place
        width, height = (part * inches * figure.dpi for part, inches in zip(place[2:], figure.size, strict=True))
        self.bbox = SimpleNamespace(width=width, height=height)
        self.xaxis, self.yaxis = Side(), Side()
        self.marks: list[dict[str, Any]] = []
        self.look: dict[str, Any] = {}
        self.title = SimpleNamespace(words="", size=12.0, loc="center", set_fontsize=self._size_title)
        self.spines = _Spines(self.look)

    @property
    def lines(self) -> list[dict[str, Any]]:
        """Return the curves and the straight lines across the axes."""
        return [mark for mark in self.marks if mark["kind"] in ("line", "rule")]

    # ---- marks ------------------------------------------------------------------------------------------------------
    def plot(
        self,
        *args: Any,
        color: Any = BLUE,
        marker: Any = "",
        ls: Any = None,
        lw: float = 1.5,
        ms: float = 6,
        mfc: Any = None,
        mec: Any = None,
        mew: float = 1,
        alpha: float = 1,
        zorder: float = 2,
        label: str | None = None,
        markevery: int = 1,
        clip_on: bool = True,
    ) -> None:
        marker = args[-1] if isinstance(args[-1], str) else marker
        *xs, y = (np.atleast_1d(numbers(values, float)) for values in args if not isinstance(values, str))
        x = xs[0] if xs else np.arange(len(y))
        dash = None if isinstance(args[-1], str) and ls is None else _dash("-" if ls is None else ls)
        look: dict[str, Any] = {"color": _hex(color), "width": lw, "dash": dash, "free": not clip_on}
        if alpha != 1:
            look["alpha"] = alpha
        if marker:
            look |= {"marker": _marker(marker), "size": ms, "border": mew, "every": markevery}
            look |= {"fill": _hex(color if mfc is None else mfc), "edge": _hex(color if mec is None else mec)}
        for number, column in enumerate(y.reshape(len(y), -1).T if y.size else [y]):
            self._see(x, column)
            self._mark("line", zorder, x=x, y=column, name=label if number == 0 else None, **look)

    def bar(self, x: Any, height: Any, width: float = 0.8, color: Any = BLUE) -> None:
        self._bars(numbers(x, float) - width / 2, 0.0, numbers(x, float) + width / 2, height, color)
        self.yaxis.edges.append(0)

    def barh(self, y: Any, width: Any, height: float = 0.8, left: float = 0, color: Any = BLUE) -> None:
        y = numbers(y, float)
        self._bars(left, y - height / 2, left + numbers(width, float), y + height / 2, color)
        self.xaxis.edges.append(left)

    def _bars(self, x0: Any, y0: Any, x1: Any, y1: Any, color: Any) -> None:
        corners = [
            np.array(part) for part in np.broadcast_arrays(*map(np.atleast_1d, (x0, y0, x1, numbers(y1, float))))
        ]
        x0, y0, x1, y1 = corners
        self._see(np.concatenate([x0, x1]), np.concatenate([y0, y1]))
        colors = [_hex(one) for one in color] if isinstance(color, list) else [_hex(color)]
        self._mark("bars", 1, x=x0, y=y0, x1=x1, y1=y1, colors=colors)

    def hlines(self, y: Any, xmin: float, xmax: float, **look: Any) -> None:
        self._segments(*(values.ravel() for values in np.broadcast_arrays(*_pairs(xmin, xmax, y))), **look)

    def vlines(self, x: Any, ymin: float, ymax: float, **look: Any) -> None:
        y, x = (values.ravel() for values in np.broadcast_arrays(*_pairs(ymin, ymax, x)))
        self._segments(x, y, **look)

    def _segments(self, x: np.ndarray, y: np.ndarray, **look: Any) -> None:
        if len(x):
            self.plot(x, y, **{"lw": 1, **look})

    def axhline(self, y: float, **look: Any) -> None:
        self._rule("y", self.yaxis, y, **look)

    def axvline(self, x: float, **look: Any) -> None:
        self._rule("x", self.xaxis, x, **look)

    def _rule(
        self, along: str, side: Side, at: float, color: Any, lw: float = 1.5, ls: Any = "-", label: str | None = None
    ) -> None:
        side.numbers.append(np.array([float(at)]))
        self._mark("rule", 2, **{along: np.array([float(at)])}, color=_hex(color), width=lw, dash=_dash(ls), name=label)

    def axhspan(self, low: float, high: float, color: Any, zorder: float = 1) -> None:
        self._mark("span", zorder, y=np.array([low, high], float), color=_hex(color))

    def fill(
        self,
        x: Any,
        y: Any,
        color: Any,
        alpha: float = 1,
        lw: float = 0,
        zorder: float = 1,
        label: str | None = None,
    ) -> None:
        x, y = numbers(x, float), numbers(y, float)
        self._see(x, y)
        self._mark("area", zorder, x=x, y=y, color=_hex(color), alpha=alpha, width=lw, name=label)

    def imshow(
        self,
        values: Any,
        cmap: str = "viridis",
        vmin: float | None = None,
        vmax: float | None = None,
        extent: tuple[float, float, float, float] | None = None,
        aspect: str = "equal",
        origin: str = "upper",
        interpolation: str = "nearest",
    ) -> None:
        shown = numbers(values, float)
        h, w = shown.shape[:2]
        left, right, bottom, top = extent or (-0.5, w - 0.5, h - 0.5, -0.5)
        self.look["equal"] = aspect == "equal"
        if origin == "lower" and not extent:
            shown, bottom, top = shown[::-1], top, bottom
        self.xaxis.limits, self.yaxis.limits = (left, right), (bottom, top)
        self._image(shown, cmap, vmin, vmax, (left, right, bottom, top))

    def pcolormesh(
        self, x: Any, y: Any, values: Any, cmap: str, vmin: float, vmax: float, edgecolors: str, linewidth: float
    ) -> None:
        extent = float(x[0]), float(x[-1]), float(y[-1]), float(y[0])
        self._image(numbers(values, float), cmap, vmin, vmax, extent)
        self.marks[-1] |= {"grid": edgecolors, "width": linewidth}

    def mesh(self, corners: Any, colors: Sequence[str], codes: Any) -> None:
        """Keep a surface of colored faces (Matplotlib's axes have none): the page hides what is behind, and shades.

        ``corners``, ``(rows + 1, columns + 1, 3)``, go right, up and towards the reader; ``codes``, ``(rows,
        columns)``, say which color each face has.
        """
        corners, codes = numbers(corners, float), numbers(codes)
        x, y, z = corners.reshape(-1, 3).T
        self._see(x, y)
        palette, letters = [_hex(color) for color in colors], "".join(map(str, codes.ravel()))
        self._mark("mesh", 0, x=x, y=y, z=z, columns=codes.shape[1], colors=palette, codes=letters)

    def _image(
        self, values: np.ndarray, cmap: str, vmin: float | None, vmax: float | None, extent: Sequence[float]
    ) -> None:
        self._see(np.array(extent[:2]), np.array(extent[2:]))
        mark = self._mark("image", 0, image=values, extent=[float(end) for end in extent])
        if values.ndim == 2:
            seen = values[np.isfinite(values)]
            low, high = (float(seen.min()), float(seen.max())) if len(seen) else (0.0, 1.0)
            mark |= {"range": [low if vmin is None else vmin, high if vmax is None else vmax]}
            mark |= {"colors": _stops(cmap), "signed": cmap == SIGNED}

    def text(self, x: float, y: float, words: str, transform: Any = None, zorder: float = 3, **look: Any) -> None:
        self._mark("text", zorder, **_text(x, y, words, **look), framed=transform is not None)

    def annotate(
        self,
        words: str,
        xy: tuple[Any, Any],
        xytext: tuple[Any, Any],
        textcoords: str = "data",
        arrowprops: Mapping[str, Any] | None = None,
        zorder: float = 3,
        bbox: Mapping[str, Any] | None = None,
        **look: Any,
    ) -> None:
        x, y = map(float, xy)
        if arrowprops:
            ends = {"x": np.array([float(xytext[0]), x]), "y": np.array([float(xytext[1]), y])}
            self._mark("arrow", zorder, **ends, color=_hex(arrowprops["color"]), width=arrowprops["lw"])
        else:
            shift = [float(part) for part in xytext]
            self._mark("text", zorder, **_text(x, y, words, **look), shift=shift, halo=bbox is not None)

    def _mark(self, kind: str, zorder: float, **parts: Any) -> dict[str, Any]:
        self.marks.append({"kind": kind, "zorder": zorder, **parts})
        return self.marks[-1]

    def _see(self, x: np.ndarray, y: np.ndarray) -> None:
        self.xaxis.numbers.append(x)
        self.yaxis.numbers.append(y)

    # ---- around them ------------------------------------------------------------------------------------------------
    def set(self, **properties: Any) -> None:
        for name, value in properties.items():
            if name in ("xticklabels", "yticklabels"):
                getattr(self, f"{name[0]}axis").ticks["labels"] = [str(label) for label in value]
            else:
                getattr(self, f"set_{name}")(value)

    def set_title(self, words: str, fontsize: float = 12, loc: str = "center") -> None:
        vars(self.title).update(words=words, size=fontsize, loc=loc)

    def _size_title(self, size: float) -> None:
        self.title.size = size

    def set_xlabel(self, words: str | None, fontsize: float = 10) -> None:
        self.xaxis.label, self.xaxis.label_size = words or "", fontsize

    def set_ylabel(self, words: str | None, fontsize: float = 10) -> None:
        self.yaxis.label, self.yaxis.label_size = words or "", fontsize

    def set_xlim(self, low: Any, high: float | None = None) -> None:
        self.xaxis.limits = low if isinstance(low, tuple) else (low, high)

    def set_ylim(self, low: Any, high: float | None = None) -> None:
        self.yaxis.limits = low if isinstance(low, tuple) else (low, high)

    def get_ylim(self) -> tuple[float, float]:
        low, high = self.yaxis.span()
        return (10**low, 10**high) if self.yaxis.log else (low, high)

    def set_xscale(self, scale: str) -> None:
        self.xaxis.log = scale == "log"

    def set_yscale(self, scale: str) -> None:
        self.yaxis.log = scale == "log"

    def set_xticks(self, places: Iterable[float], labels: Iterable[Any] | None = None, **look: Any) -> None:
        self.xaxis.set_ticks(places, labels, **look)

    def set_yticks(self, places: Iterable[float], labels: Iterable[Any] | None = None, **look: Any) -> None:
        self.yaxis.set_ticks(places, labels, **look)

    def locator_params(self, axis: str = "both", nbins: int | None = None, integer: bool = False) -> None:
        for side in self._sides(axis):
            side.ticks |= {"most": nbins, "integer": integer}

    def tick_params(self, axis: str = "both", **look: Any) -> None:
        for name, side in (("x", self.xaxis), ("y", self.yaxis)):
            mine = {key: value for key, value in look.items() if key != ("labelleft" if name == "x" else "labelbottom")}
            if axis in (name, "both"):
                side.set_tick_params(**mine)

    def _sides(self, axis: str) -> list[Side]:
        return {"x": [self.xaxis], "y": [self.yaxis], "both": [self.xaxis, self.yaxis]}[axis]

    def set_aspect(self, aspect: str) -> None:
        self.look["equal"] = aspect == "equal"

    def set_facecolor(self, color: str) -> None:
        self.look["face"] = _hex(color)

    def set_axis_off(self) -> None:
        self.look["bare"] = True

    def minorticks_off(self) -> None:
        """Do nothing: there are none."""

    def grid(self, color: str, lw: float, axis: str = "both") -> None:
        self.look["grid"] = axis

    def legend(
        self,
        handles: Sequence[dict[str, Any]] | None = None,
        names: Sequence[str] = (),
        frameon: bool = False,
        loc: str = "best",
        ncols: int = 1,
        fontsize: float = 10,
        handletextpad: float = 0,
        borderpad: float = 0,
    ) -> None:
        for mark, name in zip(handles or (), names, strict=True):
            mark["name"] = name
        self.look["legend"] = {"loc": loc, "columns": ncols, "size": fontsize}
        if handles is not None:
            self.look["legend"]["names"] = list(names)


class _Spines:
    """The lines around axes; panels only switch those at the top and at the right off."""

    def __init__(self, look: dict[str, Any]) -> None:
        self._look = look

    def __getitem__(self, sides: list[str]) -> "_Spines":
        return self

    def set_visible(self, visible: bool) -> None:
        self._look["open"] = not visible


def _text(
    x: float,
    y: float,
    words: str,
    ha: str = "left",
    va: str = "baseline",
    fontsize: float = 10,
    color: Any = INK,
    style: str = "normal",
    weight: str = "normal",
) -> dict[str, Any]:
    place = {"x": np.array([float(x)]), "y": np.array([float(y)]), "words": words, "color": _hex(color)}
    return place | {"ha": ha, "va": va, "size": float(fontsize), "style": style, "weight": weight}


def _pairs(low: float, high: float, places: Any) -> tuple[np.ndarray, np.ndarray]:
    """Return the ends of lines and a gap, ``(1, 3)``, and where each of them is, ``(lines, 1)``."""
    return np.array([[low, high, np.nan]]), np.atleast_1d(numbers(places, float))[:, None]


def _dash(style: Any) -> list[float] | None:
    """Return the lengths of strokes and gaps in line widths, ``[]`` for a whole line, ``None`` for no line."""
    lengths = DASHES[style] if isinstance(style, str) else style[1]
    return None if lengths is None else [float(length) for length in lengths]


def _marker(marker: Any) -> str:
    return f"star{marker[0]}" if isinstance(marker, tuple) else marker


def _hex(color: Any) -> str:
    return "none" if isinstance(color, str) and color == "none" else to_hex(color)


@functools.lru_cache(maxsize=64)
def _stops(cmap: str) -> list[str]:
    """Return some colors of a color map, evenly spaced; all of them if it has few."""
    colors = colormaps[cmap]
    return [to_hex(colors(place)) for place in np.linspace(0, 1, min(STOPS, colors.N))]
