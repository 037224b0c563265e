"""Panels whose picture moves: the page plays all moments of it from numbers that it gets once."""

from __future__ import annotations

from typing import Any, cast

import ipywidgets
import traitlets
from matplotlib.figure import Figure

from convkit.widgets.drawing import Drawing, DrawnPanel, film, merged
from convkit.widgets.panel import Words
from convkit.widgets.sheet import Sheet


class Film(Drawing):
    """A drawing with several moments, a slider for them, and a Play button; ``value`` is the moment that is shown.

    The page steps through the moments without the kernel, and tells it where it stopped.
    """

    description = traitlets.Unicode().tag(sync=True)
    value = traitlets.Int().tag(sync=True)
    min = traitlets.Int().tag(sync=True)
    max = traitlets.Int().tag(sync=True)


class AnimationPanel(DrawnPanel):
    """A panel with a picture for each moment, from 0 to the last, which the page plays.

    A subclass defines ``moments`` and ``draw``, which is called once for each ``time``, and may have ``settings``,
    controls in the order of the layout. Each change of a setting sends all moments in one message. Between two moments
    the page moves points, curves and colors evenly, so the same marks must be drawn in the same order at each of them.
    Nothing moves before the reader presses Play, and it stops at the last moment; where the system asks for reduced
    motion, pictures follow each other without a movement. At first the last moment is shown.
    """

    clock: str = "moment"  # what the slider counts

    def settings(self) -> dict[str, Any]:
        """Return the controls by name, without the slider for time."""
        return {}

    def moments(self, **settings: Any) -> int:
        """Return the number of pictures."""
        raise NotImplementedError

    def pace(self, **settings: Any) -> float:
        """Return how many moments pass in a second; where they are less than two, the picture rests at each."""
        return 1.2

    def controls(self) -> dict[str, Any]:
        settings = self.settings()
        last = self.moments(**{name: control.value for name, control in settings.items()}) - 1
        return {**settings, "time": Film(description=self.clock, value=last, max=last)}

    def layout(self, controls: dict[str, Any]) -> ipywidgets.Widget:
        return super().layout({name: control for name, control in controls.items() if name != "time"})

    def _views(self) -> list[ipywidgets.DOMWidget]:
        self._drawing, self._painted = self._controls["time"], False
        self._settings: dict[str, Any] | None = None
        return [self._drawing]

    def _drawn(self) -> str:
        settings = self.values
        time = settings.pop("time")
        if settings != self._settings:
            last = self.moments(**settings) - 1
            sheets = [Sheet(self.size) for _ in range(last + 1)]
            drawn = [self.draw(cast("Figure", sheet), time=at, **settings) for at, sheet in enumerate(sheets)]
            self._told = [words if isinstance(words, Words) else Words(words) for words in drawn]
            told = {"words": merged([*map(str, self._told)]), "alert": merged([words.alert for words in self._told])}
            pace = self.pace(**settings)
            self._scene = film(sheets) | told | {"moments": last + 1, "pace": pace, "rests": pace < 2}
            time = last if time == self._drawing.max else min(time, last)
            self._quietly(lambda: self._drawing.set_trait("max", last))
            self._quietly(lambda: self._drawing.set_trait("value", time))
            self._settings = settings
        self._shown, self._painted = {**settings, "time": time}, False
        return self._told[time]

    def _show(self, words: str) -> None:
        self.words = cast("Words", words)
        self._drawing.scene = self._scene
