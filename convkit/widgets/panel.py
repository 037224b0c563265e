"""The base class of all panels: a few controls, one picture, and words that describe it."""

from __future__ import annotations

import html
import threading
from collections.abc import Callable, Mapping
from typing import Any, Literal, Self

import ipywidgets
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from convkit.teaching.pictures import DPI, few_colors, picture_bundle, picture_html, png_bytes
from convkit.widgets.access import Access
from convkit.widgets.controls import aligned
from convkit.widgets.kernel import prepare

_drawing = threading.RLock()  # a subshell is a thread, and matplotlib's font cache is not made for two of them
_RED = "; color: #b3001b; background-color: #fff"  # 7 to 1 in every theme: a stored page has no variables


class Words(str):
    """The words below a picture; with ``alert=True`` they are red, for a theorem that is broken on purpose."""

    alert: bool

    def __new__(cls, text: str, alert: bool = False) -> Words:
        words = super().__new__(cls, text)
        words.alert = alert
        return words


def new_figure(size: tuple[float, float], layout: Literal["constrained"] | None = "constrained") -> Figure:
    """Return a figure of Matplotlib for a panel's picture, its size in inches."""
    figure = Figure(figsize=size, dpi=DPI, facecolor="white", layout=layout)
    FigureCanvasAgg(figure)
    return figure


class Panel:
    """Controls around a plot.

    A subclass defines ``title``, ``size`` (inches), ``controls()`` and ``draw(figure, **values)``. As the last
    expression of a cell a panel is interactive; the stored notebook shows its first picture and words. Each picture is
    a PNG; derive from ``DrawnPanel`` where the picture should follow the mouse.
    """

    title: str = ""
    size: tuple[float, float] = (9, 4)
    headings: Mapping[str, str] = {}  # words above the control of this name

    def __init__(self) -> None:
        prepare()
        self._controls = self.controls()
        for name, control in self._controls.items():
            if not getattr(control, "description", ""):
                raise ValueError(f"control {name!r} needs a description in plain words, got none; give it a label")
        self._quiet = False  # set while several controls change at once: they are painted once
        self._first = {name: control.value for name, control in self._controls.items()}
        self._moved = -1  # the number of the control that was moved last
        self._access, self.words = Access(), Words("")
        self.ready: dict[str, Mapping[str, Any]] = {}  # states of ``with_states``
        for number, (name, control) in enumerate(self._controls.items()):
            control.add_class(f"convkit-control-{number}")
            control.observe(self._observer(name), names=getattr(control, "watched", "value"))
        reset = ipywidgets.Button(description="Reset", tooltip="back to the first values", layout={"width": "5em"})
        reset.on_click(lambda _: self._paint(self.reset))
        heading = ipywidgets.HTML(f"<b>{html.escape(self.title)}</b>")
        self._root = ipywidgets.VBox(
            [heading, self.layout({**self._controls, "reset": reset}), *self._views(), self._access]
        )
        self._root.add_class("convkit-panel")
        self._redraw()  # a first state that cannot be drawn is the author's mistake: raise it here

    def controls(self) -> dict[str, Any]:
        """Return the controls by name, in the order of the layout; each has a description and a ``value``."""
        raise NotImplementedError

    def draw(self, figure: Figure, **values: Any) -> str:
        """Draw on the cleared figure; return one or two sentences that describe the picture (also its alt text).

        A ``ValueError`` raised here is shown as a sentence, and the picture before it stays.
        """
        raise NotImplementedError

    def layout(self, controls: dict[str, Any]) -> ipywidgets.Widget:
        """Return the layout of the controls, the last of which, ``reset``, is a button: columns, with ``headings``."""
        return aligned(controls, self.headings, f"{96 * self.size[0]:.0f}px")

    def react(self, name: str) -> None:
        """Adjust other controls after control ``name`` has changed, before drawing (a preset fills a grid)."""

    def faults(self) -> dict[str, Any]:
        """Return what is wrong with controls although the picture is right (see ``Access``)."""
        return {}

    def control(self, name: str) -> Any:
        """The control called ``name`` in ``values``."""
        return self._controls[name]

    @property
    def values(self) -> dict[str, Any]:
        """Return the values of the controls; raise ``ValueError`` where one is invalid."""
        return {name: control.value for name, control in self._controls.items()}

    def set(self, **values: Any) -> None:
        """Change controls from code, with one picture for all of them."""
        self._known(values)
        self._assign(values)
        self._paint()

    def with_states(self, states: Mapping[str, Mapping[str, Any]]) -> Self:
        """Return the panel with a button for each state that a text speaks of, between the controls and the picture.

        A press gives every control its first value, and then those of the state.

        Args:
            states: The values of controls, by the words on the button.

        Raises ``ValueError`` for a control that the panel does not have.
        """
        buttons, self.ready = [], {**states}
        for words, values in states.items():
            self._known(values)
            told = ", ".join(f"{self._controls[name].description}: {value}" for name, value in values.items())
            button = ipywidgets.Button(description=words, tooltip=told, layout={"width": "auto"})
            button.on_click(lambda _, values=values: self._paint(lambda: (self.reset(), self._assign(values))))
            buttons.append(button)
        heading, controls, *others = self._root.children
        row = ipywidgets.HBox([ipywidgets.Label("show:"), *buttons], layout={"flex_flow": "row wrap"})
        self._root.children = (heading, controls, row, *others)
        return self

    def _known(self, values: Mapping[str, Any]) -> None:
        unknown = values.keys() - self._controls.keys()
        if unknown:
            raise ValueError(f"{type(self).__name__} has controls {list(self._controls)}, got {sorted(unknown)}")

    def reset(self) -> None:
        """Give every control its first value; the Reset button calls this before it draws."""
        self._assign(self._first)

    def _assign(self, values: Mapping[str, Any]) -> None:
        self._quietly(lambda: [setattr(self._controls[name], "value", value) for name, value in values.items()])

    def _quietly(self, change: Callable[[], Any]) -> None:
        before, self._quiet = self._quiet, True
        try:
            change()
        finally:
            self._quiet = before

    def _observer(self, name: str) -> Callable[[Any], None]:
        # Painting inside the message that brought the change is what keeps dragging smooth: ipywidgets sends the next
        # value of a control only when the message before it is done, and then only the latest one.
        def changed(_: Any) -> None:
            if not self._quiet:
                self._moved = list(self._controls).index(name)
                self._paint(lambda: self._quietly(lambda: self.react(name)))

        return changed

    def _redraw(self) -> None:
        with _drawing:
            words = self._drawn()
            if not isinstance(words, str) or not words.strip():
                raise TypeError(f"draw must return words that say what is to be seen, got {words!r}")
            self._show(words)
            self._access.fault = self.faults()

    # ---- the picture as a PNG; `DrawnPanel` has its page draw it ----------------------------------------------------
    def _views(self) -> list[ipywidgets.DOMWidget]:
        self._figure, self._png = new_figure(self.size), b""
        self._picture, self._line = ipywidgets.HTML(), ipywidgets.HTML()
        self._picture.add_class("convkit-picture")
        return [self._picture, self._line]

    @property
    def figure(self) -> Figure:
        """Return the figure of the picture."""
        return self._figure

    @property
    def png(self) -> bytes:
        """Return the picture."""
        return self._png

    def _drawn(self) -> str:
        values = self.values
        self.figure.clear()
        return self.draw(self.figure, **values)

    def _show(self, words: str) -> None:
        self._png = png_bytes(self.figure)
        self._picture.value = picture_html(self._png, words)
        self._say(words)

    def _say(self, words: str) -> None:
        self.words = words if isinstance(words, Words) else Words(words)
        self._line.value = self._caption()

    # ------------------------------------------------------------------------------------------------------------------

    def _paint(self, before: Callable[[], Any] = lambda: None) -> None:
        try:
            before()
            self._redraw()
        except ValueError as error:
            self._fail(str(error))
        except Exception as error:  # an exception in a callback shows nowhere
            self._fail(f"this is a bug in the panel: {type(error).__name__}: {error}")
        finally:
            self._moved = -1

    def _fail(self, sentence: str) -> None:
        self._say(Words(sentence, alert=True))
        self._access.fault = {"control": self._moved, "words": sentence}

    def _caption(self) -> str:
        role, color = ("alert", _RED) if self.words.alert else ("status", "")
        style = f"margin: 0; line-height: 1.4; max-width: {96 * self.size[0]:.0f}px{color}"
        return f'<p class="convkit-words" role="{role}" style="{style}">{html.escape(self.words)}</p>'

    def _repr_mimebundle_(self, **_: Any) -> dict[str, Any]:
        # JupyterLab shows the live view wherever its model lives. The picture is for all others: a page made by
        # nbconvert, GitHub, and JupyterLab before the first run (seen: picture and words, with the alt text).
        live = getattr(self._root, "_repr_mimebundle_", dict)() or {}  # ipywidgets 7 has no such method
        hint = "<p><em>Run this cell to move the controls.</em></p>"
        return {**live, **picture_bundle(few_colors(self.png), self.words, self._caption() + hint)}
