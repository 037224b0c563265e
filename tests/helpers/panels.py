"""What the tests of all panels share: the panels of the kit, their buttons, and what is drawn without its pixels."""

import importlib
import pkgutil
from collections.abc import Iterator

import ipywidgets
import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import Collection
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.text import Text

from convkit import widgets
from convkit.widgets.drawing import DrawnPanel
from convkit.widgets.panel import Panel

for found in pkgutil.iter_modules(widgets.__path__, "convkit.widgets."):
    importlib.import_module(found.name)


def kinds(panel: type[Panel] = Panel) -> Iterator[type[Panel]]:
    """All panels of the kit that draw, in an order that does not depend on which was imported first.

    Those of live training have tests of their own.
    """
    for kind in sorted(panel.__subclasses__(), key=lambda kind: kind.__name__):
        if kind.__module__.startswith("convkit"):
            yield from kinds(kind)
            if "draw" in vars(kind) and not kind.__module__.startswith("convkit.widgets.training."):
                yield kind


def parts(widget: ipywidgets.Widget) -> Iterator[ipywidgets.Widget]:
    yield widget
    for child in getattr(widget, "children", ()):
        yield from parts(child)


def press(panel: Panel, name: str) -> None:
    """Click the button with this name."""
    buttons = [part for part in parts(panel._root) if isinstance(part, ipywidgets.Button)]
    next(button for button in buttons if button.description == name).click()


def mouse(panel: DrawnPanel, **content: object) -> None:
    """What the page sends for a drag or a click; it is answered once."""
    answers: list[object] = []
    panel._drawing.send = answers.append
    panel._steer(None, content, [])
    assert answers == [{"done": True}]


def drawn(figure: Figure) -> bytes:
    """In place of a PNG: all that is drawn, in numbers. More than half of a panel's time would go into pixels."""
    seen: list[object] = []
    for artist in figure.findobj():
        if isinstance(artist, Line2D):
            looks = artist.get_color(), artist.get_marker(), artist.get_linestyle(), artist.get_linewidth()
            seen += [artist.get_xydata(), looks] if len(artist.get_xydata()) else []
        elif isinstance(artist, AxesImage):
            seen += [np.ma.filled(artist.get_array(), np.nan), artist.get_clim()]
        elif isinstance(artist, Text):
            seen += [artist.get_text(), artist.get_position(), artist.get_color()] if artist.get_text() else []
        elif isinstance(artist, Patch):
            seen += [artist.get_path().vertices, artist.get_patch_transform().get_matrix(), artist.get_facecolor()]
        elif isinstance(artist, Axes):
            seen += [artist.get_xlim(), artist.get_ylim(), artist.get_xscale(), artist.get_yscale()]
        elif isinstance(artist, Collection):
            seen += [artist.get_offsets(), artist.get_facecolor(), *(path.vertices for path in artist.get_paths())]
    return bytes(24) + b"".join(
        np.asarray(one).tobytes() if hasattr(one, "shape") else repr(one).encode() for one in seen
    )
