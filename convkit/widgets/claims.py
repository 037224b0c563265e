"""The panel of notebook 15: the claims of the papers, what our runs say of them, and how sure that is."""

import textwrap
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from convkit.papers.runs import load_experiments
from convkit.papers.scoreboard import NAMES, NOT_TESTED, Line, claims
from convkit.plots.style import BLUE, FAINT, GREEN, INK, VERMILION
from convkit.widgets.controls import choice, slider
from convkit.widgets.drawing import DrawnPanel
from convkit.widgets.panel import Words

ALL = "all"
AGREE, DISAGREE, OPEN = ("same sign", "agrees"), ("opposite sign", "disagrees"), ("cannot say",)
VERDICTS = {"as printed": AGREE, "the other way": DISAGREE, "cannot say": OPEN}
COLORS = {**dict.fromkeys(AGREE, GREEN), **dict.fromkeys(DISAGREE, VERMILION), "cannot say": BLUE}
ROWS, REACH = 10, 20.0  # claims on one page; percentage points to either side
_PLACE = (0.43, 0.12, 0.55, 0.8)


class ClaimsPanel(DrawnPanel):
    """A panel with one line for each claim that was tested: the difference and its 95 % interval.

    Args:
        folder: Where the results lie.
    """

    title = "What the papers claim, and what our runs say"
    size = (10.5, 5)

    def __init__(self, folder: str | Path = "results/papers") -> None:
        load_experiments()  # every paper's rows register themselves
        self._lines = sorted(claims(folder), key=lambda line: [*NAMES].index(line.key[0]))
        if not Path(folder).is_dir():
            raise ValueError(f"ClaimsPanel needs a folder with results of `convkit papers`, got {str(folder)!r}")
        super().__init__()

    def controls(self) -> dict[str, Any]:
        letters = [(f"{letter}, {name.partition(':')[0]}", letter) for letter, name in NAMES.items()]
        tested = sum(line.points is not None for line in self._lines)
        return {
            "paper": choice("paper", [(ALL, ALL), *letters]),
            "verdict": choice("verdict", [ALL, *VERDICTS]),
            "page": slider("page", 1, 1, max(2, -(-tested // ROWS))),
        }

    def react(self, name: str) -> None:
        if name != "page":
            self.control("page").value = 1

    def draw(self, figure: Figure, paper: str, verdict: str, page: int) -> str:
        own = [line for line in self._lines if paper in (ALL, line.key[0])]
        found = [line for line in own if verdict == ALL or line.verdict in VERDICTS[verdict]]
        drawn = [line for line in found if line.points is not None]
        pages = max(1, -(-len(drawn) // ROWS))
        if page > pages:
            raise ValueError(f"there are {pages} pages of such claims, got page {page}; move the slider back")
        ax = figure.add_axes(_PLACE)
        ax.axvline(0, color=INK, lw=0.8)
        shown = drawn[ROWS * (page - 1) : ROWS * page]
        for place, line in enumerate(shown):
            _draw(ax, place, line)
        names = ["\n".join(textwrap.wrap(line.claim, 62)[:2]) for line in shown]
        ax.set_yticks(range(len(shown)), names, fontsize=8)
        ax.set(ylim=(ROWS - 0.4, -0.6), xlim=(-REACH, REACH))
        ax.set_xlabel("difference in percentage points, with its 95 % interval", fontsize=9)
        ax.grid(color=FAINT, lw=0.4, axis="x")
        return _words(own, found, len(shown), page, pages)


def _draw(ax: Any, place: int, line: Line) -> None:
    """Draw one claim: its interval and its difference, or an arrow where they lie outside of the picture."""
    assert line.points is not None
    value, low, high = line.points
    color = COLORS[line.verdict]
    if abs(value) > REACH:
        side = 1 if value > 0 else -1
        words = f"{value:+.0f} ▶" if value > 0 else f"◀ {value:+.0f}"
        ax.text(0.97 * REACH * side, place, words, ha="right" if value > 0 else "left", va="center", color=color)
        return
    ax.plot([max(low, -REACH), min(high, REACH)], [place, place], color=color, lw=3)
    ax.plot([value], [place], "o", color=color, ms=7)


def _words(own: list[Line], found: list[Line], shown: int, page: int, pages: int) -> Words:
    tested = [line for line in own if line.verdict != NOT_TESTED]
    counts = {name: sum(line.verdict in words for line in tested) for name, words in VERDICTS.items()}
    parts = ", ".join(f"{count} {name}" for name, count in counts.items())
    state = f"{len(tested)} of {len(own)} claims are tested: {parts} (green, red, blue)."
    single = sum(line.points is None and line.verdict != NOT_TESTED for line in found)
    rest = f" {single} of one seed, or not of an accuracy, are in the table alone." if single else ""
    if not shown:
        return Words(f"{state} None of these can be drawn.{rest}")
    return Words(f"{state} Page {page} of {pages}, {shown} claims.{rest}")
