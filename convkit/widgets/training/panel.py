"""`TrainingPanel`: methods side by side, steered, paused and stopped while they train."""

from __future__ import annotations

import asyncio
import functools
import html
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import ipywidgets
from torch import nn

from convkit.data.dataset import Data
from convkit.methods.registry import get_method
from convkit.plots.training import TrainingPlot
from convkit.training.plan import Record
from convkit.widgets.panel import Words
from convkit.widgets.training.choices import ABOUT, ChoicesPanel, knob_label
from convkit.widgets.training.knobs import number_text
from convkit.widgets.training.live import progress, red
from convkit.widgets.training.runner import Runner
from convkit.widgets.training.runs import PanelRun, Setting, link, records_csv, table_csv, table_html

NOTE = (
    "A norm is that of a convolution alone, with ConvNorm's affine kernel, without the factors of BatchNorm behind it; "
    "for zero padding it is that of the torus, a bound. The learning rate stays as it is set. All runs of a Start "
    "share the seed. An attack changes every pixel by at most ε; accuracy is that of unchanged images."
)


class TrainingPanel(ChoicesPanel):
    """A panel that trains two or three methods side by side, from the same seed and on the same data.

    Its first picture shows the ``first`` steps of each, which are done when the panel is made. When the cell that makes
    the panel runs again, the training of the old panel ends; panels of other cells go on.

    Args:
        methods: One to three names in ``METHODS``.
        data: A name in ``DATA``, or a data set.
        model: A name in ``MODELS``, or a network.
        steps, batch_size, seed: What the fields of these names show at first.
        first: Number of steps in the first picture.
        every: Number of steps between two test accuracies and measurements of norms.
        knobs: For each method, knobs that do not start at their defaults.
        folder: The folder of data sets that are read from files.
        options: Arguments of the builder of the network.

    Attributes:
        runs: All runs of the table; each has its trained ``model``, its ``history`` and the ``code`` that repeats it.
        history: The records of the runs in the picture.
    """

    title = "Train it live: two ways of training, side by side"
    _ready = False

    def __init__(
        self,
        methods: Sequence[str] = ("batchnorm", "sphere"),
        data: str | Data = "digits",
        model: str | nn.Module = "cnn9",
        *,
        steps: int = 300,
        first: int = 60,
        batch_size: int = 64,
        seed: int = 0,
        every: int = 10,
        knobs: Mapping[str, Mapping[str, Any]] | None = None,
        folder: str | Path | None = None,
        **options: Any,
    ) -> None:
        self.runs: list[PanelRun] = []
        self._before: list[PanelRun] = []
        self._starting, self._turn, self._notice, self._planned = False, 0, Words(""), first
        try:
            self._loop = asyncio.get_running_loop()
        except RuntimeError:
            self._loop = None  # no notebook: Start trains to the end
        self._task: asyncio.Task[None] | None = None  # the loop itself keeps only a weak reference
        numbers = {"batch size": batch_size, "steps": steps, "seed": seed}
        super().__init__(methods, data, model, numbers, every, knobs, folder, options)
        self._opening = self._shown = self.make(self.settings(first))
        Runner([run.track for run in self._opening], lambda: None).run_now()
        self.runs = list(self._opening)
        self._baseline = self.labels()
        self._below = ipywidgets.HTML()
        self._root.children = (*self._root.children, self._below)
        self._list_runs()
        self.take_place()  # not before all is well: a panel that cannot open ends nothing
        self._notice = Words(self.news)
        self._ready = True
        self._redraw()

    # ---- for code ----------------------------------------------------------------------------------------------------
    @property
    def history(self) -> dict[str, list[Record]]:
        """Return the records of the runs in the picture by method; a second run of a method adds its slot."""
        histories: dict[str, list[Record]] = {}
        for run in self._shown:
            name = run.setting.method
            histories[f"{name} ({run.setting.slot})" if name in histories else name] = run.history
        return histories

    def start(self) -> None:
        """Train the chosen methods: in a notebook on the kernel's loop, returning at once; else to the end."""
        if self._starting or (self.runner is not None and not self.runner.over):
            raise ValueError("a training is under way: press Stop first, or wait for its end")
        settings = self.settings()
        self._starting = True
        if self._loop is None or not self._loop.is_running():
            asyncio.run(self._train(settings, self._turn))
        else:  # a page's messages come on another thread, and torch's random numbers allow only one: the loop's
            self._loop.call_soon_threadsafe(self._begin, settings, self._turn)

    def pause(self) -> None:
        """Pause the training, or resume it."""
        self._going().paused = not self._going().paused

    def stop(self) -> None:
        """Stop the training after the present step."""
        self._going().stopping = True

    def clear(self) -> None:
        """Stop the training and remove all runs."""
        self._leave()
        self.runs, self._shown, self._before = [], [], []
        self._list_runs()

    def reset(self) -> None:
        """Stop the training and restore the first settings and the first picture; the table stays."""
        self._leave()
        super().reset()
        self._shown, self._before = self._opening, []
        self._baseline = self.labels()

    def give_way(self) -> str:
        """Stop the training, or one about to start, because the panel's cell ran again; return where it was."""
        if not self._starting:
            return super().give_way()
        self._leave()
        self._notice = Words("The training did not start, because its cell ran again.")
        self._paint()
        return "before its first step"

    def _going(self) -> Runner:
        if self.runner is None or self.runner.over:
            raise ValueError("nothing trains: press Start first")
        return self.runner

    def _leave(self) -> None:
        if self.runner is not None:
            self.runner.stopping = True
        self.runner, self._starting, self._turn = None, False, self._turn + 1  # what is about to start will not

    # ---- controls ----------------------------------------------------------------------------------------------------
    def layout(self, controls: dict[str, Any]) -> ipywidgets.Widget:
        buttons = []
        for name, action, tip in (
            ("Start", self.start, "train the chosen methods from the seed"),
            ("Pause", self.pause, "hold the training, or let it go on"),
            ("Stop", self.stop, "end the training; its runs stay"),
            ("Clear", self.clear, "stop, and forget all runs"),
        ):
            buttons.append(ipywidgets.Button(description=name, tooltip=tip, layout={"width": "6em"}))
            buttons[-1].on_click(functools.partial(self._pressed, action))
        buttons[0].button_style, self._pause = "primary", buttons[1]

        def row(*parts: ipywidgets.Widget) -> ipywidgets.Widget:
            return ipywidgets.Box(parts, layout={"flex_flow": "row wrap", "align_items": "center"})

        choices = [controls[name] for name in ABOUT]
        return ipywidgets.VBox([row(*choices), *self.slots.values(), row(*buttons, controls["reset"])])

    def react(self, name: str) -> None:
        """Pass a changed knob to the run of its slot, if that is training with the same method."""
        self._notice = Words("")
        if name not in self.slots or self.runner is None or self.runner.over:
            return
        now = self.slots[name].value
        for run in self._shown:
            if (run.setting.slot, run.setting.method) == (name, now["method"]):
                knobs = get_method(run.setting.method).knobs
                for knob, value in now["knobs"].items():
                    if knobs[knob].live:
                        run.track.steer(knob, value)
                        self._baseline[knob_label(name, run.setting.method, knob)] = number_text(value)

    # ---- training ----------------------------------------------------------------------------------------------------
    def _begin(self, settings: list[Setting], turn: int) -> None:
        self._task = asyncio.get_running_loop().create_task(self._train(settings, turn))

    async def _train(self, settings: list[Setting], turn: int) -> None:
        try:
            new = self.make(settings)
        except (ValueError, OSError, ImportError) as error:  # what does not fit together, files that are not there
            new, self._notice = [], red(" ".join(str(error).split()))
        except Exception as error:  # an exception in a task shows nowhere
            new, self._notice = [], red(f"this is a bug in the panel: {type(error).__name__}: {error}")
        if turn != self._turn:  # Clear or Reset has come before
            return
        self._starting = False
        if not new:
            self._paint()
            return
        table = self.runs  # another list after Clear
        runner = self.runner = Runner([run.track for run in new], lambda: self._seen(runner))
        self._before = [run for run in self._shown if run not in self._opening]
        self._shown, self._planned, self._baseline = new, settings[0].steps, self.labels()
        self._paint_running()
        await runner.run()
        table += new
        self._list_runs()

    def _seen(self, runner: Runner) -> None:
        if runner is self.runner:  # not left by Clear or Reset
            self._paint_running()

    # ---- what is seen ------------------------------------------------------------------------------------------------
    def _redraw(self) -> None:
        if self._ready:
            super()._redraw()

    def show(self, plot: TrainingPlot) -> str:
        """Draw the runs; return words on their state, on changed knobs, and on what Start would change."""
        runner = self.runner
        steps = 0 if runner is None or runner.over else self._planned
        plot.show({run.track.name: run.history for run in self._shown}, steps, [run.history for run in self._before])
        self._pause.description = "Resume" if runner is not None and runner.paused and not runner.over else "Pause"
        sentences: list[str] = [self._notice]
        alert = self._notice.alert
        if self._starting:
            sentences.append("Starting, as soon as no cell runs.")
        elif not self._shown:
            sentences.append("No runs yet: choose, and press Start.")
        elif runner is None:
            setting = self._shown[0].setting
            sentences.append(f"After {setting.steps} steps each on {setting.data}, in batches of {setting.batch_size}.")
            sentences += [run.track.status() for run in self._shown]
            sentences.append(f"Start trains for {self._numbers['steps']} steps, from the beginning.")
            alert = alert or any(run.track.failed for run in self._shown)
        else:
            words = progress(runner, self._planned)
            sentences += [words, *(sentence for run in self._shown for sentence in run.change_sentences()[-1:])]
            alert = alert or words.alert
        try:
            self.settings()
        except ValueError as error:
            return Words(" ".join(filter(None, [*sentences, f"Before the next Start: {error}."])), alert=True)
        texts = [f"{name}: {text}" for name, text in self.labels().items() if self._baseline.get(name, text) != text]
        sentences.append(f"The next Start has {', '.join(texts)}." if texts else "")
        return Words(" ".join(filter(None, sentences)), alert)

    def _list_runs(self) -> None:
        parts = [f"<p style='font-size: 85%; line-height: 1.3; margin: 0'>{NOTE}</p>", table_html(self.runs)]
        if self.runs:
            table, steps = link(table_csv(self.runs), "runs.csv"), link(records_csv(self.runs), "steps.csv")
            parts.append(f"<p>Save the table as {table}, every step of every run as {steps}.</p>")
        for number, run in list(enumerate(self.runs, start=1))[-len(self._shown or self.runs) :]:
            words = f"Run {number}, {run.track.name}: the same numbers from code"
            parts.append(
                f"<details><summary>{html.escape(words)}</summary><pre>{html.escape(run.code)}</pre></details>"
            )
        self._below.value = "".join(parts)
