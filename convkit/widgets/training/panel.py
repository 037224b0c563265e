"""`TrainingPanel`: methods side by side, steered, paused and stopped while they train."""

from __future__ import annotations

import asyncio
import copy
import functools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import ipywidgets
from matplotlib.figure import Figure
from torch import nn

from convkit.data.dataset import Data
from convkit.methods.registry import get_method
from convkit.plots.training import plot_training
from convkit.training.plan import Record
from convkit.widgets.attacks import AttackPanel
from convkit.widgets.controls import aligned
from convkit.widgets.panel import Words
from convkit.widgets.training.choices import ABOUT, SLOTS, ChoicesPanel, FaultError, knob_label, knob_value
from convkit.widgets.training.live import plot_progress, progress, red
from convkit.widgets.training.runner import Runner, statuses
from convkit.widgets.training.runs import PanelRun, Setting
from convkit.widgets.training.verdicts import groups, listing_html


class TrainingPanel(ChoicesPanel):
    """A panel that trains two or three methods side by side, from the same seeds and on the same data.

    Its first picture shows the ``first`` steps of each, which are done when the panel is made. When the cell that makes
    the panel runs again, the training of the old panel ends, and so does one that no page shows any more; panels of
    other cells go on. A table below has all runs that have ended, and what ``compare`` says of their test accuracies
    where there are several seeds.

    Args:
        methods: One to three names in ``METHODS``.
        data: A name in ``DATA``, or a data set.
        model: A name in ``MODELS``, or a network.
        objectives: For each method a name in ``OBJECTIVES``: what it is trained on at first.
        steps, batch_size, seed, eps: What the fields of these names show at first.
        seeds: How many seeds each method is trained with, from ``seed`` on, one to eight.
        schedule: How the learning rate changes: see ``Plan``.
        first: Number of steps in the first picture.
        every: Number of steps between two test accuracies and measurements of norms.
        knobs: For each method, knobs that do not start at their defaults.
        folder: The folder of data sets that are read from files.
        attack: A panel that a button gives the networks of the picture.
        options: Arguments of the builder of the network.

    Attributes:
        runs: All runs of the table; each has its trained ``model``, its ``history`` and the ``code`` that repeats it.
        history: The records of the runs in the picture.
    """

    title = "Train it live: two ways of training, side by side"
    _ready = False
    _misfit: Mapping[str, str] = {}  # what the last Start could not take, by control, until something moves

    def __init__(
        self,
        methods: Sequence[str] = ("batchnorm", "sphere"),
        data: str | Data = "digits",
        model: str | nn.Module = "cnn9",
        *,
        objectives: Sequence[str] = (),
        steps: int = 300,
        first: int = 60,
        batch_size: int = 64,
        seed: int = 0,
        seeds: int = 1,
        eps: float = 0.1,
        schedule: str = "cosine",
        every: int = 10,
        knobs: Mapping[str, Mapping[str, Any]] | None = None,
        folder: str | Path | None = None,
        attack: AttackPanel | None = None,
        **options: Any,
    ) -> None:
        self.runs: list[PanelRun] = []
        self._before: list[PanelRun] = []
        self._asked = self._sure = False  # Clear was pressed once, and just before
        self._attack = attack
        self._starting, self._turn, self._notice, self._planned = False, 0, Words(""), first
        try:
            self._loop = asyncio.get_running_loop()
        except RuntimeError:
            self._loop = None  # no notebook: Start trains to the end
        self._task: asyncio.Task[None] | None = None  # the loop itself keeps only a weak reference
        numbers = {"attack ε": eps, "batch size": batch_size, "steps": steps, "seed": seed, "seeds": seeds}
        super().__init__(methods, objectives, data, model, numbers, schedule, every, knobs, folder, options)
        self._opening = self._pictured = self.make(self.settings(first))
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
        """Return the records of the runs in the picture by method, with the slot and the seed where there are more."""
        histories: dict[str, list[Record]] = {}
        for run in self._pictured:
            name, setting = run.setting.method, run.setting
            if any(other.setting.method == name and other.setting.slot < setting.slot for other in self._pictured):
                name = f"{name} ({setting.slot})"
            histories[name if setting.alone else f"{name}, seed {setting.seed}"] = run.history
        return histories

    def start(self) -> None:
        """Train the chosen methods: in a notebook on the kernel's loop, returning at once; else to the end."""
        if self._starting or (self.runner is not None and not self.runner.over):
            raise ValueError("a training is under way: press Stop first, or wait for its end")
        try:
            settings = self.settings()
        except FaultError as error:
            raise ValueError(f"nothing was started: {error.pointer}") from error
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
        self.runs, self._pictured, self._before = [], [], []
        self._list_runs()

    def hand_over(self) -> None:
        """Give copies of the first two networks in the picture, as they are now, to the attack panel."""
        if self._attack is None:
            raise ValueError("no attack panel was given; make this one as TrainingPanel(attack=AttackPanel())")
        if self._starting or self.busy:
            raise ValueError("the networks are being trained: press Pause or Stop first")
        if not self._pictured:
            raise ValueError("there are no networks yet: press Start first")
        first = {run.setting.slot: run for run in reversed(self._pictured)}  # the first seed of each method
        chosen = [first[slot] for slot in SLOTS if slot in first][:2]
        names = [get_method(run.setting.method).short or run.setting.name for run in chosen]
        if len({*names}) < len(names):
            names = [f"{run.setting.slot}, {run.setting.objective}" for run in chosen]
        networks = {name: copy.deepcopy(run.model).eval() for name, run in zip(names, chosen, strict=True)}
        self._attack.take(networks, self._loaded(chosen[0].setting.data))
        self._notice = Words(f"The attack panel has {' and '.join(networks)} now.")

    def reset(self) -> None:
        """Stop the training and restore the first settings and the first picture; the table stays."""
        self._leave()
        super().reset()
        self._pictured, self._before = self._opening, []
        self._asked, self._misfit = False, {}
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
            ("Start", self.start, "train the chosen methods from the seeds"),
            ("Pause", self.pause, "hold the training, or let it go on"),
            ("Stop", self.stop, "end the training; its runs stay"),
            ("Clear", self._clear_if_sure, "stop, and forget all runs; asks first"),
            ("Attack these", self.hand_over, "put the networks of the picture into the attack panel"),
        ):
            buttons.append(ipywidgets.Button(description=name, tooltip=tip, layout={"width": f"{len(name) / 2 + 4}em"}))
            buttons[-1].on_click(functools.partial(self._pressed, action))
        buttons[0].button_style, self._pause, self._clear = "primary", buttons[1], buttons[3]
        buttons = buttons if self._attack else buttons[:-1]
        row = ipywidgets.Box([*buttons, controls["reset"]], layout={"flex_flow": "row wrap", "align_items": "center"})
        choices = aligned({name: controls[name] for name in ABOUT}, {}, f"{96 * self.size[0]:.0f}px")
        return ipywidgets.VBox([choices, *self.slots.values(), row])

    def _pressed(self, action: Callable[[], None], button: Any) -> None:
        self._sure, self._asked, self._misfit = self._asked, False, {}
        super()._pressed(action, button)

    def _clear_if_sure(self) -> None:
        """Clear at the second press in a row."""
        if self._sure or not self.runs:
            self.clear()
            return
        count = len(self.runs)
        self._asked, self._clear.description = True, "Clear all?"  # the next picture of a training comes later
        self._notice = Words(
            f"Press Clear again to forget {'the run' if count == 1 else f'all {count} runs'} for good."
        )

    def react(self, name: str) -> None:
        """Pass a changed knob to the runs of its slot, if they are training with the same method."""
        self._notice, self._asked, self._misfit = Words(""), False, {}
        if name not in self.slots or self.runner is None or self.runner.over:
            return
        now = self.slots[name].value
        for run in self._pictured:
            if (run.setting.slot, run.setting.method) == (name, now["method"]):
                knobs = get_method(run.setting.method).knobs
                for knob, value in now["knobs"].items():
                    if knobs[knob].live:
                        run.track.steer(knob, value)
                        label = knob_label(name, run.setting.method, knob)
                        self._baseline[label] = knob_value(run.setting.method, knob, value)

    # ---- training ----------------------------------------------------------------------------------------------------
    def _begin(self, settings: list[Setting], turn: int) -> None:
        self._task = asyncio.get_running_loop().create_task(self._train(settings, turn))

    async def _train(self, settings: list[Setting], turn: int) -> None:
        try:
            new = self.make(settings)
        except FaultError as error:  # what does not fit together
            new, self._misfit, self._notice = [], error.fields, red(f"nothing was started: {error.pointer}")
        except (ValueError, OSError, ImportError) as error:  # files that are not there
            words = " ".join(str(error).split())
            new, self._misfit, self._notice = [], {"data": words}, red("nothing was started: see data")
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
        self._before = [run for run in self._pictured if run not in self._opening]
        self._pictured, self._planned, self._baseline = new, settings[0].steps, self.labels()
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

    def draw(self, figure: Figure, **values: Any) -> str:
        """Draw the runs; return words on their state, on changed knobs, and on what Start would change."""
        runner = self.runner
        steps = 0 if runner is None or runner.over else self._planned
        before = [[run.history for run in group.runs] for group in groups(self._before)]
        shown = {group.runs[0].setting.label: [run.history for run in group.runs] for group in groups(self._pictured)}
        plot_training(shown, figure, steps, before)
        if runner is not None and steps:
            plot_progress(runner, steps, figure)
        self._pause.description = "Resume" if runner is not None and runner.paused and not runner.over else "Pause"
        self._clear.description = "Clear all?" if self._asked else "Clear"
        sentences: list[str] = [self._notice]
        alert = self._notice.alert
        if self._starting:
            sentences.append("Starting, as soon as no cell runs.")
        elif not self._pictured:
            sentences.append("No runs yet: choose, and press Start.")
        elif runner is None:
            setting = self._pictured[0].setting
            sentences.append(f"After {setting.steps} steps each on {setting.data}, in batches of {setting.batch_size}.")
            sentences += statuses([run.track for run in self._pictured])
            sentences.append(f"Start trains for {self._numbers['steps']} steps, from the beginning.")
            alert = alert or any(run.track.failed for run in self._pictured)
        else:
            words = progress(runner, self._planned)
            moved = (run.change_sentences()[-1:] for run in self._pictured)
            sentences += [words, *dict.fromkeys(sentence for one in moved for sentence in one)]
            alert = alert or words.alert
        try:
            self.settings()
        except FaultError as error:
            sentences.append("" if self._notice.alert else f"The next Start waits: {error.pointer}.")
            return Words(" ".join(filter(None, sentences)), alert)
        texts = [f"{name}: {text}" for name, text in self.labels().items() if self._baseline.get(name, text) != text]
        sentences.append(f"The next Start has {', '.join(texts)}." if texts else "")
        return Words(" ".join(filter(None, sentences)), alert)

    def faults(self) -> dict[str, Any]:
        """Return the sentences that stand beside the fields of the next Start."""
        try:
            self.settings()
            fields = self._misfit
        except FaultError as error:
            fields = error.fields
        places = list(self._controls)
        return {"fields": [[places.index(name), words] for name, words in fields.items()]} if fields else {}

    def _list_runs(self) -> None:
        self._below.value = listing_html(self.runs, len(self._pictured or self.runs))
