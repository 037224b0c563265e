"""`LivePanel` shows training in progress; `run` trains and watches in a cell."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import ipywidgets
from matplotlib.figure import Figure

from convkit.plots.style import BLUE, FAINT, INK
from convkit.plots.training import plot_training
from convkit.training.plan import Record
from convkit.widgets.drawing import DrawnPanel
from convkit.widgets.kernel import Cell, running_cell
from convkit.widgets.panel import Panel, Words
from convkit.widgets.training.runner import Runner, Track, statuses

_live: weakref.WeakSet[LivePanel] = weakref.WeakSet()  # those made in a notebook's cell


def red(text: str) -> Words:
    """Return a sentence as red words."""
    return Words(f"{text.rstrip('.')}.", alert=True)


class LivePanel(DrawnPanel):
    """A panel that shows training in progress.

    While ``runner`` is at work it draws; what the reader does in between shows in its next picture. When a cell runs
    again, its new panels end the training of the old ones; ``news`` says which. A training that no page shows any more
    ends, too.
    """

    size = (10.5, 5.2)
    runner: Runner | None = None
    cell: Cell | None = None
    news: str = ""
    views = 0  # of the panel, in all pages
    _notice = Words("")  # what is said in place of the usual words

    def __init__(self) -> None:
        super().__init__()
        self._access.counted = True
        self._access.on_msg(self._viewed)

    def _viewed(self, _: Any, content: Any, __: Any) -> None:
        """Count the views that pages open and close; without any the training is unseen."""
        self.views = max(0, self.views + content["views"])
        if self.runner is not None:
            self.runner.look(self.views > 0)

    @property
    def busy(self) -> bool:
        """Return whether the runner will draw soon, also if it was paused in the middle of a step."""
        runner = self.runner
        return runner is not None and not runner.over and (not runner.paused or runner.stepping)

    def _assign(self, values: dict[str, Any]) -> None:
        self._notice = Words("")
        super()._assign(values)

    def _pressed(self, action: Callable[[], None], _: Any) -> None:
        """Do what a button asks for, and say why if that is refused."""

        def act() -> None:
            self._notice = Words("")
            try:
                action()
            except ValueError as error:
                self._notice = red(str(error))

        self._paint(act)

    def take_place(self) -> None:
        """End the training that earlier runs of this panel's cell have left; panels of other cells go on."""
        self.cell = running_cell()
        if self.cell is None:
            return
        panels = [(panel, panel.cell) for panel in list(_live) if panel.cell and panel.cell.name == self.cell.name]
        ended = [panel.give_way() for panel, cell in panels if cell.run != self.cell.run]
        places = [place for place in ended if place]
        if places:
            what = "training that it had started was" if len(places) == 1 else "trainings that it had started were"
            self.news = f"This cell ran again: the {what} stopped {' and '.join(places)}."
        else:  # what the first panel of a cell has ended, its second says, too
            self.news = next((panel.news for panel, cell in panels if cell == self.cell and panel.news), "")
        _live.add(self)

    def give_way(self) -> str:
        """End the training because the panel's cell ran again; return at which step, ``""`` if none was going on."""
        if self.runner is None or self.runner.over or self.runner.stopping:
            return ""
        self.runner.why, self.runner.stopping = ", because its cell ran again", True
        self._paint_running()
        return f"at step {self.runner.step}"

    def _redraw(self) -> None:
        if not self.busy or not self.words:
            super()._redraw()

    def _paint_running(self) -> None:
        try:
            super()._redraw()
        except Exception as error:  # a run goes on without pictures
            self._say(Words(f"this is a bug in the panel: {type(error).__name__}: {error}", alert=True))


class _Watch(LivePanel):
    """The panel of ``run``: the given controls, Pause and Stop, the picture and the words."""

    runner: Runner

    def __init__(self, tracks: Sequence[Track], given: Sequence[Any], title: str) -> None:
        self.title, self._given = title, given
        self.runner = Runner(tracks, self._paint_running)
        self.take_place()
        super().__init__()
        self._root.remove_class("convkit-panel").add_class("convkit-live")  # no panel: it rests when the run is over

    def controls(self) -> dict[str, Any]:
        return {str(number): control for number, control in enumerate(self._given)}

    def layout(self, controls: dict[str, Any]) -> ipywidgets.Widget:
        self._pause = ipywidgets.Button(description="Pause", layout={"width": "6em"})
        self._stop = ipywidgets.Button(description="Stop", layout={"width": "6em"})
        self._pause.on_click(lambda _: self._paint(self._toggle))
        self._stop.on_click(lambda _: setattr(self.runner, "stopping", True))
        row = ipywidgets.Box(self._given, layout={"flex_flow": "row wrap", "align_items": "center"})
        return ipywidgets.VBox([row, ipywidgets.HBox([self._pause, self._stop])])

    def _toggle(self) -> None:
        self.runner.paused = not self.runner.paused

    def draw(self, figure: Figure, **values: Any) -> str:
        runner = self.runner
        plot_training({track.name: track.history for track in runner.tracks}, figure)
        self._pause.description = "Resume" if runner.paused and not runner.over else "Pause"
        self._pause.disabled = self._stop.disabled = runner.over
        words = progress(runner)
        return Words(f"{self.news} {words}".lstrip(), words.alert)


def progress(runner: Runner, steps: int = 0) -> Words:
    """Return a sentence on the state of the runs and on the latest numbers of each, red if one has failed."""
    of = f" of {steps}" if steps else ""
    if runner.why or (runner.over and any(track.ended == "stopped" for track in runner.tracks)):
        start = f"Stopped at step {runner.step}{of}{runner.why}."
    elif not runner.over:
        left = "" if runner.paused else time_left(runner, steps)
        start = f"{'Paused at' if runner.paused else 'Training:'} step {runner.step}{of}{left}."
    else:
        start = f"After {runner.step} steps."
    alert = any(track.failed for track in runner.tracks)
    return Words(" ".join([start, *statuses(runner.tracks)]), alert)


def time_left(runner: Runner, steps: int) -> str:
    """Return ", about ... left" for runs of so many steps, or nothing where that is not known."""
    left = runner.seconds_left(steps) if steps else None
    if left is None:
        return ""
    return f", about {left / 60:.0f} min left" if left > 99 else f", about {max(1, left):.0f} s left"


def plot_progress(runner: Runner, steps: int, figure: Figure) -> None:
    """Draw a bar of the part of the steps that is done, and its words, above all else."""
    bar = figure.add_axes((0.06, 0.965, 0.3, 0.025))
    bar.barh([0], [1.0], color=FAINT)
    bar.barh([0], [min(1.0, runner.step / steps)], color=BLUE)
    bar.set(xlim=(0, 1), ylim=(-0.5, 0.5))
    bar.set_axis_off()
    paused = ", paused" if runner.paused else time_left(runner, steps)
    figure.text(0.37, 0.968, f"step {runner.step} of {steps}{paused}", fontsize=10, color=INK)


async def run(records: Any, *, controls: Sequence[Any] = (), title: str = "Training") -> Any:
    """Train and watch in a notebook, ``history = await run(fit(...))``; return the list of records. Stop ends it early.

    ``records`` is an iterator of records, or a mapping of names to iterators, which advance in turn; the result is then
    a mapping of lists. ``controls`` are widgets shown above the picture, such as those of ``knob_sliders``. The records
    are those of ``list(fit(...))``. The cells after it wait for its end; the toolbar's interrupt ends it as Stop does.
    Run as a task beside the cells, it ends when its cell runs again.
    """
    named: Mapping[str, Iterator[Record]] = records if isinstance(records, Mapping) else {"the run": records}
    tracks = [Track(name, iter(one)) for name, one in named.items()]
    view = _Watch(tracks, controls, title)
    handle = _display(view)
    await view.runner.run()
    if handle is not None:
        handle.update(view)  # the stored notebook keeps the last picture, not the first
    failures = [track for track in tracks if track.failed and not (track.history and track.history[-1].diverged)]
    if failures:
        raise ValueError("; ".join(f"{track.name}: {track.ended}" for track in failures))
    histories = {track.name: track.history for track in tracks}
    return histories if isinstance(records, Mapping) else histories["the run"]


def _display(view: Panel) -> Any:
    try:
        from IPython import get_ipython  # pyright: ignore[reportPrivateImportUsage]
        from IPython.display import display
    except ImportError:
        return None
    return display(view, display_id=True) if get_ipython() is not None else None
