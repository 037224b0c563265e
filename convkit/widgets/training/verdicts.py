"""What stands below the panel: its runs, and what those over several seeds allow one to say."""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import dataclass

from convkit.statistics import Verdict, compare
from convkit.widgets.training.runs import PanelRun, link, records_csv, table_csv, table_html

HEADS = ("test accuracy of", "against", "seeds", "difference in points [95 % interval]", "verdict")
ONE_SEED = "one seed says nothing: take two or more"
NOTE = (
    "Colors are those of the places (first, second, third), not of the methods. A norm is that of a convolution alone, "
    "with ConvNorm's affine kernel, without the factors of BatchNorm behind it; for zero padding it is that of the "
    "torus, a bound. The schedule multiplies the learning rate. All methods of a Start have the same seeds, and a seed "
    "gives all of them the same batches: the runs are paired. Where there are several seeds, a line is their mean, and "
    "its band reaches from the lowest to the highest. An attack changes every pixel by at most ε; accuracy is that of "
    "unchanged images."
)


@dataclass(frozen=True)
class Group:
    """The runs of one method in one Start, which differ in their seeds alone; ``first`` is the number of the first."""

    runs: Sequence[PanelRun]
    first: int

    @property
    def name(self) -> str:
        """Return the label of the method and the numbers of its runs in the table."""
        last = self.first + len(self.runs) - 1
        numbers = f"runs {self.first} to {last}" if last > self.first else f"run {self.first}"
        return f"{self.runs[0].setting.label} ({numbers})"

    @property
    def seeds(self) -> list[int]:
        """Return the seeds, in the order of the runs."""
        return [run.setting.seed for run in self.runs]

    @property
    def accuracies(self) -> list[float] | None:
        """Return the last test accuracies in percent, 0 for a run that diverged; ``None`` unless all have finished."""
        found: list[float] = []
        for run in self.runs:
            last = run.history[-1] if run.history else None
            if last is not None and last.diverged:
                found.append(0.0)
            elif run.end == "done" and last is not None and last.test_accuracy is not None:
                found.append(100 * last.test_accuracy)
            else:
                return None
        return found


def groups(runs: Sequence[PanelRun]) -> list[Group]:
    """Return the runs of a table by Start and method."""
    found: dict[tuple[int, str], tuple[int, list[PanelRun]]] = {}
    for number, run in enumerate(runs, start=1):
        found.setdefault((run.start, run.setting.slot), (number, []))[1].append(run)
    return [Group(own, first) for first, own in found.values()]


def pairs(runs: Sequence[PanelRun]) -> list[tuple[Group, Group]]:
    """Return what is worth comparing, on the same data with the same seeds.

    These are the methods of the last Start with each other and, where there are several seeds, each of them with that
    of its place in the Start before.
    """
    own = groups(runs)
    starts = sorted({group.runs[0].start for group in own})[-2:]
    last = [group for group in own if group.runs[0].start == starts[-1]] if starts else []
    before = [group for group in own if len(starts) > 1 and group.runs[0].start == starts[0] > 0]  # 0: the opening
    found = [(one, two) for number, one in enumerate(last) for two in last[number + 1 :]]
    found += [(one, two) for one in last for two in before if len(one.runs) > 1 and _slot(one) == _slot(two)]
    return [(one, two) for one, two in found if _alike(one, two) and one.accuracies and two.accuracies]


def verdict(ours: Group, theirs: Group) -> Verdict | None:
    """Return what ``compare`` says of the test accuracies, in points; ``None`` for a single seed."""
    one, two = ours.accuracies or [], theirs.accuracies or []
    return compare(one, two) if len(one) > 1 else None


def verdicts_html(runs: Sequence[PanelRun]) -> str:
    """Return the table of verdicts as HTML, empty where there is nothing to compare."""
    found = pairs(runs)
    if not found:
        return ""
    look = "text-align: left; vertical-align: top; padding: 2px 10px 2px 0; line-height: 1.3"

    def line(kind: str, texts: Sequence[str]) -> str:
        cells = (f"<{kind} style='{look}'>{html.escape(text)}</{kind}>" for text in texts)
        return f"<tr>{''.join(cells)}</tr>"

    rows = "".join(line("td", [one.name, two.name, *_texts(one, two)]) for one, two in found)
    return (
        "<table class='convkit-verdicts' style='font-size: 85%; margin: 8px 0'><caption style='text-align: left'>"
        f"<b>Verdicts</b></caption><thead>{line('th', HEADS)}</thead><tbody>{rows}</tbody></table>"
    )


def listing_html(runs: Sequence[PanelRun], last: int) -> str:
    """Return verdicts, a note, the table of runs, links to files, and code for the last runs, so many, as HTML."""
    note = f"<p style='font-size: 85%; line-height: 1.3; margin: 0'>{NOTE}</p>"
    parts = [verdicts_html(runs), note, table_html(runs)]
    if runs:
        table, steps = link(table_csv(runs), "runs.csv"), link(records_csv(runs), "steps.csv")
        parts.append(f"<p>Save the table as {table}, every step of every run as {steps}.</p>")
    for number, run in list(enumerate(runs, start=1))[-last:]:
        words = f"Run {number}, {run.track.name}: the same numbers from code"
        parts.append(f"<details><summary>{html.escape(words)}</summary><pre>{html.escape(run.code)}</pre></details>")
    return "".join(parts)


def _texts(one: Group, two: Group) -> list[str]:
    seeds, found = ", ".join(map(str, one.seeds)), verdict(one, two)
    if found is None:
        return [seeds, "", ONE_SEED]
    low, high = found.interval
    return [seeds, f"{found.difference:+.1f} [{low:+.1f}, {high:+.1f}]", found.word]


def _slot(group: Group) -> str:
    return group.runs[0].setting.slot


def _alike(one: Group, two: Group) -> bool:
    return one.seeds == two.seeds and one.runs[0].setting.data == two.runs[0].setting.data
