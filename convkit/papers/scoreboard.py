"""The scoreboard: what the papers print, what our runs measured, and what that allows one to say."""

import html
import json
import math
import re
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scipy.stats import t as student

from convkit.papers.protocols import NORMS, PAPERS, SCORES, Claim, Protocol, Scale
from convkit.papers.tables import finals
from convkit.statistics import Verdict, compare

NAMES = {
    "S": "Sedghi et al. 2019",
    "C": "Liu et al. 2021",
    "W": "Ikami et al. 2021",
    "L": "Liang & Huang 2021",
    "M": "beside the papers: Muon (Jordan et al. 2024) in the true operator norm",
}
HEADS = ("claim", "printed", "measured: difference [95 % interval] (seeds)", "where", "verdict", "command")
NOT_TESTED = "not tested at this scale"


@dataclass(frozen=True)
class Line:
    """One claim at one scale: what was printed, what was measured, where, and the verdict."""

    key: str
    claim: str
    printed: str
    measured: str
    where: str
    verdict: str
    command: str
    points: tuple[float, float, float] | None = None  # the difference and its interval, where it is one of accuracies

    @property
    def texts(self) -> tuple[str, ...]:
        """Return the columns of the line, in the order of ``HEADS``."""
        return self.claim, self.printed, self.measured, self.where, self.verdict, self.command


class Scoreboard(list[Line]):
    """The lines of some claims; a notebook shows them as a table, with those not tested folded below it.

    ``print`` shows them as Markdown.
    """

    def __repr__(self) -> str:
        return markdown(HEADS, [line.texts for line in self])

    def _repr_html_(self) -> str:
        tested, others = ([line for line in self if (line.verdict == NOT_TESTED) == no] for no in (False, True))
        if not tested or not others:
            return _html(self)
        return (
            f"{_html(tested)}<details><summary>Not tested yet: {len(others)} claims</summary>{_html(others)}</details>"
        )


def claims(folder: str | Path, *keys: str) -> Scoreboard:
    """Return the claims of some protocols, by key or first letters of it, with the results stored in a folder.

    >>> from convkit.papers import claims
    >>> claims("results/papers", "L-table2")[0].verdict
    'not tested at this scale'
    """
    lines = Scoreboard()
    for key, protocol in PAPERS.items():
        if not keys or key.startswith(keys):
            for claim in protocol.claims:
                lines += _lines(key, protocol, claim, Path(folder))
    return lines


def stored_results(folder: Path, key: str, protocol: Protocol) -> dict[str, dict[str, Any]]:
    """Return the stored results of a protocol by scale, the largest scale first."""
    files = {name: folder / f"{key}-{name}.json" for name in reversed([*protocol.scales]) if name != "tiny"}
    return {name: json.loads(file.read_text(encoding="utf-8")) for name, file in files.items() if file.exists()}


def paired(claim: Claim, protocol: Protocol, stored: Mapping[str, Any]) -> tuple[list[float], list[float]]:
    """Return the numbers of both sides of a claim, seed by seed: percent, logarithms of norms, or queries.

    A run that diverged has accuracy 0.
    """
    runs = finals(protocol, stored)
    ours, theirs = list[float](), list[float]()
    for seed in sorted(set.intersection(*(set(runs[name]) for name in (*claim.ours, *claim.theirs)))):
        values = [[_number(runs[name][seed], claim.metric) for name in side] for side in (claim.ours, claim.theirs)]
        if all(value is not None for side in values for value in side):
            ours.append(_of_cells(claim, values[0]))
            theirs.append(_of_cells(claim, values[1]))
    return ours, theirs


def judged(claim: Claim, protocol: Protocol, stored: Mapping[str, Any]) -> Verdict | None:
    """Return what the stored runs say of a claim; ``None`` for fewer than two seeds."""
    ours, theirs = paired(claim, protocol, stored)
    return compare(ours, theirs) if len(ours) > 1 else None


def word(claim: Claim, found: Verdict | None, scale: Scale) -> str:
    """Return the verdict on a claim.

    *Agrees* and *disagrees* are kept for the paper's network on its data; elsewhere only the sign is compared.
    """
    if found is None or found.word == "cannot say":
        return "cannot say"
    same = (found.word == "higher") == (claim.printed != "lower")
    return ("agrees" if same else "disagrees") if scale.paper else ("same sign" if same else "opposite sign")


def page(folder: Path) -> str:
    """Return the page of all claims and all tables and figures, in Markdown."""
    parts = [INTRODUCTION]
    for letter, name in NAMES.items():
        own = {key: protocol for key, protocol in PAPERS.items() if protocol.paper == letter}
        lines = claims(folder, *own)
        tested, others = ([line for line in lines if (line.verdict == NOT_TESTED) == no] for no in (False, True))
        parts.append(f"## {letter}: {name}\n")
        if tested:
            parts.append(f"{Scoreboard(tested)}\n")
        if others:
            rows = [(line.claim, line.printed, line.command) for line in others]
            parts.append(f"Not tested yet:\n\n{markdown(('claim', 'printed', 'command'), rows)}\n")
        rows = [(p.item, p.words, _cost(p), _command(key, p, None)) for key, p in own.items()]
        parts.append(markdown(("table or figure", "what it shows", "scales, minutes", "how it is made"), rows) + "\n")
        for key, protocol in own.items():
            for scale, stored in stored_results(folder, key, protocol).items():
                size, made = protocol.scales[scale], stored["versions"]
                where = f"{_where(scale, size)}; {made['device']}, torch {made['torch']}. {size.note}".rstrip()
                text = f"{protocol.item}, {where} In parentheses what is printed."
                parts.append(f"### {key} {scale}\n\n{text}\n\n{table(protocol, size, stored)}\n")
    return "\n".join(parts)


def table(protocol: Protocol, scale: Scale, stored: Mapping[str, Any]) -> str:
    """Return the cells of a table with their printed and measured numbers, in Markdown."""
    runs = finals(protocol, stored)
    found = [run for cell in runs.values() for run in cell.values()]
    metrics = [name for name in dict.fromkeys(name for run in found for name in run) if name not in _NOT_METRICS]
    rows = []
    for cell in protocol.cells:
        own = [run for _, run in sorted(runs[cell.name].items())]
        numbers = {name: value for name, value in (own[0]["knobs"] if own else {}).items() if _plain(value)}
        knobs = ", ".join(f"{name} {value:g}" for name, value in numbers.items())
        lost = sum(run["lost"] is not None for run in own)
        rows.append([cell.name, knobs, f"{len(own)}" + (f", {lost} lost" if lost else "")])
        for metric in metrics:
            printed = f" ({cell.printed[metric]:g})" if metric in cell.printed else ""
            rows[-1].append(_mean([run[metric] for run in own if run.get(metric) is not None], metric) + printed)
    return markdown(("cell", "knobs", "seeds", *metrics), rows)


def markdown(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table in Markdown."""
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join("| " + " | ".join(text.replace("|", "\\|") for text in line) + " |" for line in lines)


INTRODUCTION = """# Scoreboard

What the four papers print, what our runs measured, and what that allows one to say. Under M a question of this kit's
own is treated in the same way: what is "printed" there was expected before the runs. `python3 -m convkit papers
scoreboard` writes this page from the results in this folder; no word of it is written by hand.

- The difference is that of the means over the named cells (of the highest where a claim says *the highest*), paired
  seed by seed, in percentage points of accuracy (a factor for norms, a plain number for IS, FID and their like). Its
  95 % interval is Student's t; a verdict needs an interval without 0. Of twenty comparisons of equals one is expected
  to give a verdict.
- *Same sign* and *opposite sign* compare the direction alone: a narrow network on digits is not the paper's experiment.
  *Agrees* and *disagrees* are kept for the paper's network on its data, or on their JPEG copy, and need its seeds.
- Where learning rates (and strengths of penalties) were chosen, each cell had its own grid, on training images that the
  runs do not use (with right labels; a tenth of them where all are used), by three other seeds. A run that diverged
  counts as accuracy 0.
"""


# ---- private ---------------------------------------------------------------------------------------------------------
def _html(lines: Iterable[Line]) -> str:
    """Return lines as a table in HTML, the code between backticks set as code."""
    rows = ("".join(f"<td>{_CODE.sub(_SET, html.escape(text))}</td>" for text in line.texts) for line in lines)
    head = "".join(f"<th>{html.escape(text)}</th>" for text in HEADS)
    return f"<table><tr>{head}</tr>{''.join(f'<tr>{row}</tr>' for row in rows)}</table>"


def _number(run: Mapping[str, Any], metric: str) -> float | None:
    """Return a number of a run as it is compared: percent, the logarithm of a norm, or itself."""
    value = run.get(metric)
    if value is None:
        return None
    if metric in NORMS:
        return math.log(value)
    return float(value) if metric.startswith(("queries", *SCORES)) else 100 * value


def _of_cells(claim: Claim, values: Iterable[float | None]) -> float:
    """Return the one number of a side that is compared; ``None`` in the values counts for nothing."""
    known = [value for value in values if value is not None]
    return max(known) if claim.over_cells == "highest" else statistics.mean(known)


def _lines(key: str, protocol: Protocol, claim: Claim, folder: Path) -> list[Line]:
    """Return a line for each scale at which a claim was tested, or one that says that it was not."""
    words, printed = f"{claim.words} ({protocol.item})", _printed(claim, protocol)
    lines = []
    for name, stored in stored_results(folder, key, protocol).items():
        scale, (ours, theirs) = protocol.scales[name], paired(claim, protocol, stored)
        if ours:
            found = judged(claim, protocol, stored)
            result = _measured(claim, ours, theirs, found), _where(name, scale), word(claim, found, scale)
            accuracy = found is not None and claim.metric not in NORMS and not claim.metric.startswith("queries")
            points = (found.difference, *found.interval) if found and accuracy else None
            lines.append(Line(key, words, printed, *result, _command(key, protocol, name), points))
    return lines or [Line(key, words, printed, "", "", NOT_TESTED, _command(key, protocol, None))]


def _printed(claim: Claim, protocol: Protocol) -> str:
    """Return the paper's numbers of both sides, where it prints them for every cell."""
    cells = {cell.name: cell.printed.get(claim.metric) for cell in protocol.cells}
    sides = [[cells[name] for name in side] for side in (claim.ours, claim.theirs)]
    if any(value is None for side in sides for value in side):
        return claim.printed
    numbers = [_of_cells(claim, side) for side in sides]
    return f"{claim.printed}: {numbers[0]:.2f} against {numbers[1]:.2f}"


def _measured(claim: Claim, ours: Sequence[float], theirs: Sequence[float], found: Verdict | None) -> str:
    """Return the difference with its interval and the number of seeds."""

    def text(value: float) -> str:
        if claim.metric in NORMS:
            return f"× {math.exp(value):.3g}"
        return f"{value:+.2f}" if claim.metric.startswith(SCORES) else f"{value:+.1f}"

    if found is None:
        return f"{text(ours[0] - theirs[0])} (1)"
    return f"{text(found.difference)} [{text(found.interval[0])}, {text(found.interval[1])}] ({found.pairs})"


def _where(name: str, scale: Scale) -> str:
    kind = "clouds" if scale.data in ("solids", "modelnet40") else "images"
    images = "" if scale.images is None else f"{scale.images:,} {kind} of "
    own = "" if not scale.paper else ", the paper's network"
    return f"{name}: {scale.model} on {images}{scale.data}{own}"


def _command(key: str, protocol: Protocol, scale: str | None) -> str:
    if not protocol.cells:
        return protocol.instead
    chosen = scale or next(iter(name for name in protocol.scales if name != "tiny"))
    data = "" if protocol.scales[chosen].data in ("digits", "shapes", "solids") else " --data DIR"
    return f"`python3 -m convkit papers {key} --scale {chosen}{data}`"


def _cost(protocol: Protocol) -> str:
    return ", ".join(f"{name} {scale.minutes:g}" for name, scale in protocol.scales.items() if name != "tiny")


_CODE, _SET = re.compile("`(.*?)`"), r"<code>\1</code>"
_NOT_METRICS = ("cell", "knobs", "held_out", "seed", "lost")


def _plain(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _mean(values: Sequence[float], metric: str) -> str:
    """Return a mean, and the half width of its 95 % interval where there are two values or more."""
    if not values:
        return "-"
    factor = 1.0 if metric in NORMS or metric.startswith(("queries", *SCORES)) else 100.0
    numbers = [factor * value for value in values]
    text = f"{statistics.mean(numbers):.3g}" if factor == 1 else f"{statistics.mean(numbers):.1f}"
    if len(numbers) < 2:
        return text
    half = float(student.ppf(0.975, len(numbers) - 1)) * statistics.stdev(numbers) / len(numbers) ** 0.5
    return f"{text} ± {half:.2g}"
