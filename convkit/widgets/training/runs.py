"""The runs of the panel: code that repeats them, their table, and CSV files of both."""

from __future__ import annotations

import base64
import csv
import html
import io
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from convkit.methods.registry import get_method
from convkit.training.adversarial import OBJECTIVES
from convkit.training.plan import Record
from convkit.widgets.training.knobs import knob_text, number_text
from convkit.widgets.training.runner import Track

FACTORS = 45  # changes of the rate in the exponential schedule, as in 90 epochs with one after every second
SILENT = {"momentum": 0.9, "weight_decay": 0.0}  # not worth a word in the table
SHARED = ("schedule", "data", "model", "batch size", "steps")  # told once above the table if the same in all runs


@dataclass(frozen=True)
class Setting:
    """The settings of one run.

    ``model`` is a name or a network; ``data_code`` is empty for data that the panel was given. ``alone`` says that
    there is one seed; otherwise the other seeds have the same ``name`` and ``slot``.
    """

    name: str
    slot: str
    method: str
    knobs: Mapping[str, Any]
    objective: str
    eps: float
    data: str
    data_code: str
    model: str | nn.Module
    options: Mapping[str, Any]
    steps: int
    batch_size: int
    schedule: str
    seed: int
    alone: bool
    every: int

    @property
    def label(self) -> str:
        """Return the name, with the letters that papers use for the method."""
        method = get_method(self.method)
        return f"{method.short}: {self.name}" if method.short else self.name

    @property
    def plan(self) -> dict[str, Any]:
        """Return the keyword arguments of ``fit`` besides the knobs."""
        factors = {"factor_steps": self.steps / FACTORS} if self.schedule == "exponential" else {}
        return {
            "steps": self.steps,
            "seed": self.seed,
            "batch_size": self.batch_size,
            "schedule": self.schedule,
            **factors,
            "evaluate_every": self.every,
            "measure_every": self.every,
        }


@dataclass
class PanelRun:
    """A run of the panel: its settings at the start, its track, its network, and the number of its Start.

    It enters the table when it has finished; ``end`` is ``"running"`` until then.
    """

    setting: Setting
    track: Track
    model: nn.Module
    start: int = 0

    @property
    def history(self) -> list[Record]:
        """Return its records, one per step."""
        return self.track.history

    @property
    def steered(self) -> Mapping[int, Mapping[str, Any]]:
        """Return the knobs that were changed while it trained, by the number of steps done before."""
        return self.track.steered

    @property
    def end(self) -> str:
        """Return how it ended, or ``"running"``."""
        if self.history and self.history[-1].diverged:
            return f"diverged: {self.history[-1].diverged}"
        return self.track.ended or "running"

    @property
    def code(self) -> str:
        """Return code that computes ``history`` again, to be copied into a cell."""
        s = self.setting
        plan = "".join(f", {name}={value!r}" for name, value in s.plan.items())
        options = "".join(f", {name}={value!r}" for name, value in s.options.items())
        given = repr(s.model) if isinstance(s.model, str) else "model"
        adversarial = s.objective != "clean"
        plan += f", objective=get_objective({s.objective!r}, {s.eps!r})" if adversarial else ""
        lines = [
            *(["from convkit.training import get_objective"] if adversarial else []),
            "from convkit.data import load, subset",
            "from convkit.methods import network",
            "from convkit.training import fit",
            "",
            f"data = {s.data_code}" if s.data_code else "# data: what the panel was given",
            *([] if isinstance(s.model, str) else ["# model: what the panel was given"]),
            f"knobs = {dict(s.knobs)!r}",
            f"trained = network({given}, data, {s.method!r}, seed={s.seed}, knobs=knobs{options})",
            f"run = fit(trained, data, {s.method!r}, knobs=knobs{plan})",
        ]
        moved = {step: dict(changes) for step, changes in self.steered.items()}
        if not moved and (self.end == "done" or self.end.startswith("diverged")):
            return "\n".join([*lines, "history = list(run)"])
        lines += [f"moved = {moved!r}  # by the number of steps done", "history = []"]
        lines += [f"while len(history) < {len(self.history)}:", "    knobs |= moved.get(len(history), {})"]
        return "\n".join([*lines, "    history.append(next(run))"])

    def change_sentences(self) -> list[str]:
        """Return a sentence for each step before which knobs were changed."""
        knobs = get_method(self.setting.method).knobs
        sentences = []
        for step, changes in self.steered.items():
            texts = [f"{knobs[name].words} {knob_text(knobs[name], value)}" for name, value in changes.items()]
            sentences.append(f"From step {step + 1} on {self.track.group} has {', '.join(texts)}.")
        return sentences

    def row(self) -> dict[str, str]:
        """Return the run as a row of the table, by the heading of the column."""
        s, method = self.setting, get_method(self.setting.method)
        norms = next((r.norms for r in reversed(self.history) if r.norms), None)
        conditions = next((r.conditions for r in reversed(self.history) if r.conditions), None)
        accuracy = next((r.test_accuracy for r in reversed(self.history) if r.test_accuracy is not None), None)
        silent = {"residual_start": method.settings().get("residual_start"), **SILENT}
        own = {name: value for name, value in s.knobs.items() if name != "lr" and value != silent.get(name)}
        return {
            "method": method.label,
            "learning rate": number_text(s.knobs["lr"]),
            "schedule": s.schedule,
            "other knobs": "; ".join(
                f"{method.knobs[name].words} {knob_text(method.knobs[name], v)}" for name, v in own.items()
            ),
            "moved while training": " ".join(self.change_sentences()),
            "trained on": "" if s.objective == "clean" else f"{OBJECTIVES[s.objective].words}, ε {number_text(s.eps)}",
            "data": s.data,
            "model": model_name(s.model, s.options),
            "batch size": str(s.batch_size),
            "seed": str(s.seed),
            "steps": str(len(self.history)),
            "loss": f"{self.history[-1].loss:.3g}" if self.history else "",
            "test accuracy": "" if accuracy is None else f"{100 * accuracy:.1f} %",
            "largest norm": f"{max(norms.values()):.3g}" if norms else "",
            "median condition": f"{statistics.median(conditions.values()):.3g}" if conditions else "",
            "seconds": f"{self.history[-1].seconds:.1f}" if self.history else "",
            "end": self.end,
        }


def model_name(model: str | nn.Module, options: Mapping[str, Any]) -> str:
    """Return the label of a network in lists."""
    if not isinstance(model, str):
        return f"your {type(model).__name__}"
    formats = {"widths": "{} channels", "width": "{} times as wide"}
    texts = ["-".join(map(str, v)) if isinstance(v, tuple | list) else str(v) for v in options.values()]
    details = [formats.get(name, f"{name} {{}}").format(text) for name, text in zip(options, texts, strict=True)]
    return ", ".join([model, *details])


def table_csv(runs: Sequence[PanelRun]) -> str:
    """Return the table of runs as CSV, a line per run."""
    return _csv([{"run": str(number)} | run.row() for number, run in enumerate(runs, start=1)])


def records_csv(runs: Sequence[PanelRun]) -> str:
    """Return the records of all runs as CSV, a line per step, with the layers' norms and condition numbers."""
    rows = []
    for number, run in enumerate(runs, start=1):
        knobs = dict(run.setting.knobs)
        for record in run.history:
            knobs |= run.steered.get(record.step - 1, {})
            row = {"run": number, "method": run.setting.method, "step": record.step, "loss": record.loss}
            row |= {"accuracy of the batch": record.accuracy, "learning rate": record.lr}
            row |= {"test accuracy": "" if record.test_accuracy is None else record.test_accuracy}
            row |= {f"knob {name}": value for name, value in knobs.items()}
            row |= {f"norm {name}": value for name, value in (record.norms or {}).items()}
            row |= {f"condition {name}": value for name, value in (record.conditions or {}).items()}
            rows.append(row | {"diverged": record.diverged or ""})
    return _csv(rows)


def _csv(rows: Sequence[Mapping[str, Any]]) -> str:
    columns = list(dict.fromkeys(column for row in rows for column in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def link(text: str, name: str) -> str:
    """Return HTML for a link that saves ``text`` as a file; the text is in the page, nothing is fetched."""
    code = base64.b64encode(text.encode()).decode()
    look = "color: #0072B2; text-decoration: underline"
    return f'<a download="{name}" style="{look}" href="data:text/csv;base64,{code}">{name}</a>'


def table_html(runs: Sequence[PanelRun]) -> str:
    """Return the table of runs as HTML, the latest first, without columns that are empty in all of them.

    What is the same in all stands above.
    """
    if not runs:
        return ""
    rows = [{"run": str(number)} | run.row() for number, run in enumerate(runs, start=1)]
    columns = [name for name in rows[0] if any(row[name] for row in rows)]
    same = {name: rows[0][name] for name in SHARED if name in columns and len({row[name] for row in rows}) == 1}
    columns = [name for name in columns if name not in same]
    told = html.escape("; ".join(f"{name} {text}" for name, text in same.items()))
    look = "text-align: left; vertical-align: top; padding: 2px 10px 2px 0; line-height: 1.3"

    def line(kind: str, texts: Sequence[str]) -> str:
        looks = [f"{look}; min-width: 15em" if name == "other knobs" else look for name in columns]
        cells = (f"<{kind} style='{one}'>{html.escape(text)}</{kind}>" for one, text in zip(looks, texts, strict=True))
        return f"<tr>{''.join(cells)}</tr>"

    body = "".join(line("td", [row[name] for name in columns]) for row in reversed(rows))
    box = "overflow-x: auto; width: 0; min-width: 100%"  # as wide as the panel, however wide the table
    return (
        f"<div style='{box}'><table class='convkit-runs' style='font-size: 85%; margin: 8px 0'>"
        f"<caption style='text-align: left'><b>Finished runs</b>{f' (in all: {told})' if told else ''}</caption>"
        f"<thead>{line('th', columns)}</thead><tbody>{body}</tbody></table></div>"
    )
