"""Judges of notebook 15: how many claims hold, how many seeds a verdict needs, luck, and what a rate decides."""

import json
import statistics
from functools import cache
from pathlib import Path
from typing import Any

from scipy.stats import nct
from scipy.stats import t as student

from convkit.loading import ROOT
from convkit.papers.runs import load_experiments
from convkit.papers.scoreboard import NOT_TESTED, claims
from convkit.teaching.checks import hints
from convkit.teaching.judges.numbers import array, number, whole

_NEAR, _ENOUGH, _MOST = 10, 0.8, 10_000  # percentage points of the bet; a chance; seeds
_RATES, _CLOSE = (0.02, 0.05, 0.1), 1e-6
_PAPERS = "SCWL"  # what stands under M nobody printed
_PLACES = (ROOT / "convkit" / "notebooks", ROOT / "notebooks", Path())  # in a wheel, in a clone, beside the notebook


@hints(
    "There are three kinds of verdicts, and only one of them counts here.",
    "Eight seeds and narrow networks: for how many differences does the interval leave out 0 at all?",
)
def bet(percent: Any) -> str | None:
    """Judge the part of the papers' tested claims that have the printed sign, in percent."""
    found = number(percent, "one number, of percent")
    if not 0 <= found <= 100:
        return "a part of all claims lies between 0 and 100 percent"
    tested = [line.verdict for line in _tested()]
    true = 100 * sum(word in ("same sign", "agrees") for word in tested) / len(tested)
    if abs(found - true) <= _NEAR:
        return None
    return "it is less than that" if found > true else "it is more than that: some claims do hold"


def _chance(pairs: int) -> float:
    """Return how often ``pairs`` seeds give the verdict "higher", where mean and deviation are equal."""
    return float(nct.sf(float(student.ppf(0.975, pairs - 1)), pairs - 1, pairs**0.5))


@hints(
    "Simulate: draw n normal numbers with mean 1 and deviation 1, many times, and count how often (1) leaves out 0.",
    "The count rises with n. Begin with 5 seeds, and raise n until the part of verdicts is large enough.",
)
def seeds(n: Any) -> str | None:
    """Judge the least number of pairs that gives a verdict in four of five cases, for a difference of one deviation."""
    found = whole(n, "one whole number, of seeds")
    if found < 2:
        return "an interval needs two seeds or more"
    if found > _MOST:
        return "so many are not needed"
    reached = _chance(found)
    if reached < _ENOUGH:
        return f"{found} seeds give a verdict in {reached:.0%} of the cases: too seldom"
    if _chance(found - 1) >= _ENOUGH:
        return f"{found} seeds give a verdict in {reached:.0%} of the cases, and fewer seeds are enough"
    return None


@hints(
    "One comparison of equals gives no verdict with probability 0.95. And twenty of them, all of them?",
    "The probabilities of independent events multiply. The event that is asked for is the opposite one.",
)
def luck(percent: Any) -> str | None:
    """Judge the chance of at least one verdict among twenty comparisons of equals, in percent."""
    found = number(percent, "one number, of percent")
    if not 0 <= found <= 100:
        return "a probability lies between 0 and 100 percent"
    true = 100 * (1 - 0.95**20)
    if abs(found - true) <= 1:
        return None
    if found in (5, 100):
        return f"{found:g} % is the tempting answer: " + (
            "that is the chance of one comparison alone" if found == 5 else "20 times 5 counts some cases twice"
        )
    if abs(found - (100 - true)) <= 1:
        return "that is the chance that none of the twenty gives a verdict"
    return "it is less than that" if found > true else "it is more than that"


@hints(
    "The picture shows both curves. Where is ConvNorm's curve above a point of BatchNorm's curve?",
    "Give ConvNorm its best rate, and be unfair to BatchNorm.",
)
def reverses(rates: Any) -> str | None:
    """Judge a pair of rates, of ConvNorm and of BN, for which ConvNorm's mean accuracy is the higher one."""
    wanted = array(rates, "a pair of rates, of ConvNorm and of BN", (2,)).tolist()
    pair = [next((known for known in _RATES if abs(known - rate) < _CLOSE), None) for rate in wanted]
    if None in pair:
        return f"both rates must be among {', '.join(map(str, _RATES))}"
    found = _held_out()
    ours, theirs = (found[cell, rate] for cell, rate in zip(("ConvNorm", "BN"), pair, strict=True))
    if ours > theirs:
        return None
    return f"at these rates ConvNorm has {ours:.1%} and BN {theirs:.1%}: BN is still ahead"


@cache
def _held_out() -> dict[tuple[str, float | None], float]:
    """Return the mean accuracy on held-out images, by cell and rate, of C's Figure 3 with 80 % wrong labels."""
    stored = json.loads((_results() / "C-figure3-noise80-small.json").read_text(encoding="utf-8"))
    found: dict[tuple[str, float | None], list[float]] = {}
    for run in stored["runs"]:
        if run["held_out"]:
            found.setdefault((run["cell"], run["knobs"]["lr"]), []).append(run["clean"])
    return {key: statistics.mean(values) for key, values in found.items()}


@cache
def _tested() -> list[Any]:
    """Return the claims of the four papers that were tested with two seeds or more."""
    load_experiments()
    lines = [line for line in claims(_results()) if line.key[0] in _PAPERS and line.verdict != NOT_TESTED]
    return [line for line in lines if not line.measured.endswith("(1)")]  # in brackets: the number of seeds


def _results() -> Path:
    places = [place / "results" / "papers" for place in _PLACES]
    return next(place for place in places if place.exists())
