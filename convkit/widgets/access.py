"""What the page must do for readers who use a keyboard or a screen reader: names of controls, and where a fault is."""

from pathlib import Path

import anywidget
import traitlets


class Access(anywidget.AnyWidget):
    """An unseen part of a panel that names its controls for a screen reader and marks a fault beside its control.

    ``fault`` is empty, or has the number of the ``control`` (-1: none) and the ``words``, and the picture is pale; or
    it has ``fields``, pairs of both, and the picture stays as it is. With ``counted`` the page sends ``{"views": 1}``
    when it shows the panel and ``{"views": -1}`` when it no longer does. When the kernel is lost, the panel says so.
    """

    _esm = (Path(__file__).parent / "access.js").read_text(encoding="utf-8")
    fault = traitlets.Dict().tag(sync=True)
    counted = traitlets.Bool().tag(sync=True)
