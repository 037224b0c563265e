"""Training runs side by side in slices of the kernel's loop: watched, steered, paused and stopped meanwhile."""

from __future__ import annotations

import asyncio
import time
import weakref
from collections import deque
from collections.abc import Awaitable, Callable, Generator, Iterator, Mapping, MutableMapping, Sequence
from typing import Any

import ipywidgets

from convkit.plots.training import TrainingPlot
from convkit.training.plan import Record
from convkit.widgets.kernel import Cell, running_cell
from convkit.widgets.panel import Panel, Words

SLICE = 0.03  # seconds of training after which messages of the page are let in
PAINTS, SHARE = 6, 0.2  # pictures a second, and the part of the time for them: at most
_POLL = 0.02  # seconds between two looks of a paused run


class Track:
    """One run: its name, its records so far, the knobs that were changed, and how it ended.

    ``knobs`` is the mapping that the run reads at each step. ``steer`` changes it between two steps, from any thread;
    ``steered`` holds the changes by the number of steps done before them.
    """

    def __init__(self, name: str, records: Iterator[Record], knobs: MutableMapping[str, Any] | None = None) -> None:
        self.name, self.records, self.knobs = name, records, knobs if knobs is not None else {}
        self.history: list[Record] = []
        self.steered: dict[int, dict[str, Any]] = {}
        self.ended = ""  # "done", "stopped", or a sentence: why it went wrong
        self._waiting: deque[tuple[str, Any]] = deque()

    @property
    def failed(self) -> bool:
        """Return whether the run has ended for a reason that needs a sentence."""
        return self.ended not in ("", "done", "stopped")

    def steer(self, name: str, value: Any) -> None:
        """Change a knob before the next step."""
        self._waiting.append((name, value))

    def step(self) -> None:
        """Do one step; an exception of the run becomes a sentence in ``ended``."""
        while self._waiting:
            name, value = self._waiting.popleft()
            if self.knobs.get(name) != value:
                self.knobs[name] = value
                self.steered.setdefault(len(self.history), {})[name] = value
        try:
            record = next(self.records)
        except StopIteration:
            self.ended = "done"
        except ValueError as error:
            self.ended = str(error)
        except Exception as error:  # an exception in a task of the loop shows nowhere
            self.ended = f"this is a bug: {type(error).__name__}: {error}"
        else:
            self.history.append(record)
            self.ended = record.diverged or ""

    def close(self) -> None:
        """End the run; the records stay."""
        self.ended = self.ended or "stopped"
        if isinstance(self.records, Generator):
            self.records.close()

    def status(self) -> str:
        """Return a sentence with the latest numbers, or with the reason why the run ended."""
        name = self.name[:1].upper() + self.name[1:]
        if self.failed:
            return f"{name}: the run has ended, {self.ended.rstrip('.')}."
        last = {
            "loss": next((f"{r.loss:.2g}" for r in reversed(self.history)), None),
            "test accuracy": next(
                (f"{100 * r.test_accuracy:.1f} %" for r in reversed(self.history) if r.test_accuracy is not None), None
            ),
            "largest norm": next((f"{max(r.norms.values()):.3g}" for r in reversed(self.history) if r.norms), None),
        }
        return f"{name}: " + (", ".join(f"{name} {text}" for name, text in last.items() if text) or "no step yet") + "."


class Runner:
    """Trains several tracks in turn, step by step, so that they stay side by side, and draws now and then.

    Each track's records are those of its own loop: runs share nothing (see ``fit``), whatever their order. ``paused``
    and ``stopping`` may be set from any thread. ``paint`` is called on the loop, and once more at the end. ``why`` is
    added to the words that say that it was stopped.
    """

    def __init__(
        self,
        tracks: Sequence[Track],
        paint: Callable[[], None],
        clock: Callable[[], float] = time.perf_counter,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self.tracks, self.paint, self._clock, self._sleep = list(tracks), paint, clock, sleep
        self.paused = self.stopping = self.over = self.stepping = False
        self.why = ""
        self._next_paint = 0.0

    @property
    def step(self) -> int:
        """Return the number of steps of the slowest unfinished track, or of the longest finished one."""
        steps = [len(track.history) for track in self.tracks if not track.ended]
        return min(steps) if steps else max((len(track.history) for track in self.tracks), default=0)

    async def run(self) -> None:
        """Train until all tracks have ended or ``stopping`` is set; a cancelled task (an interrupt) ends it, too."""
        try:
            while self._going():
                if self.paused:
                    await self._sleep(_POLL)
                    continue
                self._slice()
                if self.paused or self._clock() >= self._next_paint:
                    self._timed_paint()
                await self._sleep(0)  # messages get in: a slider, Pause, Stop
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is not None:
                task.uncancel()
        finally:
            self._finish()

    def run_now(self) -> None:
        """Train to the end at once, where there is no event loop."""
        try:
            while self._going():
                self._slice()
        finally:
            self._finish()

    def _going(self) -> bool:
        return not self.stopping and any(not track.ended for track in self.tracks)

    def _slice(self) -> None:
        self.stepping = True
        until = self._clock() + SLICE
        while self._going() and not self.paused:
            min((track for track in self.tracks if not track.ended), key=lambda track: len(track.history)).step()
            if self._clock() >= until:
                break
        self.stepping = False

    def _timed_paint(self) -> None:
        began = self._clock()
        self.paint()
        ended = self._clock()
        self._next_paint = max(began + 1 / PAINTS, ended + (ended - began) * (1 / SHARE - 1))

    def _finish(self) -> None:
        for track in self.tracks:
            track.close()
        self.over = True
        self.paint()


_live: weakref.WeakSet[LivePanel] = weakref.WeakSet()  # those made in a notebook's cell


class LivePanel(Panel):
    """A panel that shows training in progress, whose picture ``show`` updates without new artists.

    While ``runner`` is at work it draws; what the reader does in between shows in its next picture. When a cell runs
    again, its new panels end the training of the old ones; ``news`` says which.
    """

    size = (10.5, 4.9)
    runner: Runner | None = None
    cell: Cell | None = None
    news: str = ""
    _plot: TrainingPlot | None = None

    @property
    def busy(self) -> bool:
        """Return whether the runner will draw soon, also if it was paused in the middle of a step."""
        runner = self.runner
        return runner is not None and not runner.over and (not runner.paused or runner.stepping)

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

    def show(self, plot: TrainingPlot) -> str:
        """Update the picture and return the words."""
        raise NotImplementedError

    def _drawn(self) -> str:
        if self._plot is None:
            self._plot = TrainingPlot(self.figure)
        return self.show(self._plot)

    def _redraw(self) -> None:
        if not self.busy or self._plot is None:
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

    def show(self, plot: TrainingPlot) -> str:
        runner = self.runner
        plot.show({track.name: track.history for track in runner.tracks})
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
        start = f"{'Paused at' if runner.paused else 'Training:'} step {runner.step}{of}."
    else:
        start = f"After {runner.step} steps."
    alert = any(track.failed for track in runner.tracks)
    return Words(" ".join([start, *(track.status() for track in runner.tracks)]), alert)


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
