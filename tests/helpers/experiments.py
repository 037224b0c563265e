"""The experiments of ``convkit.papers`` in a few steps, in this process, and the files of results that are stored."""

import contextlib
import json
from functools import partial
from pathlib import Path

from convkit.papers import certified, separation, spectra, starts
from convkit.papers.runs import Runs, load_experiments
from tests import RESULTS

EXPERIMENTS = load_experiments()


class Serial(Runs):
    """Runs one after the other, through JSON as in processes."""

    def sweep(self, job, jobs):
        return {name: json.loads(json.dumps(job(**arguments))) for name, arguments in jobs.items()}


class Planned(Runs):
    """Runs that are listed in ``seen`` and not carried out."""

    def sweep(self, job, jobs):
        self.seen.update(jobs)
        return {name: {} for name in jobs}


def planned(name: str) -> dict:
    """The jobs of an experiment as it is meant, by name; those of its first sweep if a second depends on it."""
    runs = Planned(Path("unused"))
    object.__setattr__(runs, "seen", {})
    with contextlib.suppress(KeyError):  # there are no results
        EXPERIMENTS[name].run(runs)
    assert runs.seen
    for run, job in runs.seen.items():
        assert run.endswith(f" seed {job['seed']}")
    return runs.seen


def stored(name: str) -> dict:
    """The results that a notebook reads."""
    return json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))


HERE = Serial(Path("unused"))
TINY = {
    "certified": partial(certified.run, HERE, seeds=(0,), steps=2, choosing_seeds=(7,), rates=(0.1, 0.05), images=40),
    "separation": partial(separation.run, HERE, [("digits", "training"), ("digits", "test")]),
    "spectra-methods": partial(spectra.methods, HERE, (0,), ("BatchNorm", "sphere, no BatchNorm")),
    "spectra-depths": partial(spectra.depths, HERE, (0,), (10,)),
    "spectra-bounds": partial(spectra.bounds, HERE, (0,), (None, 0.5)),
    "starts": partial(starts.run, HERE, (0,), ("sphere, wrn28_10, from one",)),
}
