"""Runs a protocol: rates are chosen on held-out images, every cell is trained with every seed; it can be resumed."""

import functools
import itertools
import json
import shutil
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from convkit.methods.registry import METHODS
from convkit.papers.cells import run_cell
from convkit.papers.protocols import CHOOSING_SEEDS, Cell, Protocol, Scale
from convkit.papers.runs import VARIANTS, Runs

VERSION = 2  # of what a stored run means
APART = ("minutes", "seeds", "note")  # fields of a scale that no run depends on
OF_A_RUN = ("cell", "knobs", "held_out", "seed")


def run_protocol(protocol: Protocol, scale: Scale, runs: Runs, seeds: int | None = None) -> dict[str, Any]:
    """Return the stored form of all runs of a protocol, those of an earlier call included.

    Each run is appended to the results file when it ends, and training goes on from checkpoints beside that file.
    """
    folder = runs.results_file.with_suffix(".checkpoints")
    folder.mkdir(parents=True, exist_ok=True)
    one = functools.partial(protocol.run or run_cell, folder=runs.folder, checkpoints=str(folder))
    tried = runs.sweep(one, dict(_trials(protocol, scale)))
    chosen = choose(protocol, scale, [_entry(job, tried[name]) for name, job in _trials(protocol, scale)])
    runs.sweep(one, dict(_finals(protocol, scale, chosen, seeds)))
    shutil.rmtree(folder)
    return collected(scale, runs.results_file)


def choose(protocol: Protocol, scale: Scale, tried: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Return, for each cell, the knobs that are best on held-out images, by the mean over the seeds."""
    chosen = {cell.name: knobs_of(cell, scale) for cell in protocol.cells}
    for cell in protocol.cells:
        grid = _grid(cell, scale)
        own = [run for run in tried if run["cell"] == cell.name]
        means = [statistics.mean(run[scale.choose] for run in own if run["knobs"] == knobs) for knobs in grid]
        if means:
            chosen[cell.name] = grid[means.index(max(means))]
    return chosen


def collected(scale: Scale, results_file: Path) -> dict[str, Any]:
    """Return the runs that a results file holds, finished or not, in the form that is stored."""
    lines = results_file.read_text(encoding="utf-8").splitlines() if results_file.exists() else []
    entries = [json.loads(line) for line in lines]
    return {"version": VERSION, "setting": _setting(scale), "runs": [_entry(e["job"], e["result"]) for e in entries]}


def restore(protocol: Protocol, scale: Scale, stored: Mapping[str, Any], runs: Runs) -> None:
    """Write stored runs into the results file, so that they are not run again.

    Raises ``ValueError`` for runs of another version of the protocol.
    """
    ours = _setting(scale)
    if stored.get("version") != VERSION or stored["setting"] != ours:
        other = [key for key in ours if stored.get("setting", {}).get(key) != ours[key]]
        what = f"another {', '.join(other)}" if other else f"version {stored.get('version')}, not {VERSION}"
        raise ValueError(f"the stored results are those of another protocol ({what}); move the file away to start anew")
    cells = {cell.name: cell for cell in protocol.cells}
    with runs.results_file.open("w", encoding="utf-8") as file:
        for run in stored["runs"]:
            if run["cell"] in cells:
                job = _job(cells[run["cell"]], scale, run["knobs"], run["seed"], run["held_out"])
                job |= {} if runs.device == "cpu" else {"device": runs.device}
                result = {key: value for key, value in run.items() if key not in OF_A_RUN}
                file.write(json.dumps({"name": _name(job), "job": job, "result": result}) + "\n")


def finals(protocol: Protocol, stored: Mapping[str, Any]) -> dict[str, dict[int, Mapping[str, Any]]]:
    """Return the runs on test images, by cell and seed."""
    found: dict[str, dict[int, Mapping[str, Any]]] = {cell.name: {} for cell in protocol.cells}
    for run in stored["runs"]:
        if not run["held_out"] and run["cell"] in found:
            found[run["cell"]][run["seed"]] = run
    return found


def setting_of(cell: Cell, scale: Scale) -> dict[str, Any]:
    """Return the fields of the scale, with the changes of the cell."""
    setting = _setting(scale)
    for key, value in cell.changes.items():
        setting[key] = {**setting[key], **value} if isinstance(value, Mapping) else value
    return setting


def knobs_of(cell: Cell, scale: Scale) -> dict[str, Any]:
    """Return the knobs of a cell, with those of the scale that its method has."""
    own = (VARIANTS.get(cell.method) or METHODS[cell.method]).knobs
    return {**cell.knobs, **{name: value for name, value in scale.knobs.items() if name in own}}


# ---- private ---------------------------------------------------------------------------------------------------------
def _setting(scale: Scale) -> dict[str, Any]:
    """Return the fields of a scale that a run depends on, as JSON holds them."""
    return json.loads(json.dumps({key: value for key, value in asdict(scale).items() if key not in APART}))


def _grid(cell: Cell, scale: Scale) -> list[dict[str, Any]]:
    """Return the knobs of a cell that are tried on held-out images; none if there is nothing to choose."""
    axes = {"lr": scale.rates, **cell.tuned} if scale.rates else {}
    choices = itertools.product(*axes.values())
    return [{**knobs_of(cell, scale), **dict(zip(axes, choice, strict=True))} for choice in choices] if axes else []


def _job(cell: Cell, scale: Scale, knobs: Mapping[str, Any], seed: int, held_out: bool) -> dict[str, Any]:
    setting = setting_of(cell, scale)
    job = {"cell": cell.name, "method": cell.method, "knobs": dict(knobs), "setting": setting, "seed": seed}
    return {**job, "held_out": held_out}


def _name(job: Mapping[str, Any]) -> str:
    knobs = ", ".join(f"{name} {value}" for name, value in sorted(job["knobs"].items()))
    return f"{job['cell']}, {knobs}, seed {job['seed']}" + (", held out" if job["held_out"] else "")


def _trials(protocol: Protocol, scale: Scale) -> Iterator[tuple[str, dict[str, Any]]]:
    for seed in CHOOSING_SEEDS:
        for cell in protocol.cells:
            for knobs in _grid(cell, scale):
                job = _job(cell, scale, knobs, seed, held_out=True)
                yield _name(job), job


def _finals(
    protocol: Protocol, scale: Scale, chosen: Mapping[str, Mapping[str, Any]], seeds: int | None
) -> Iterator[tuple[str, dict[str, Any]]]:
    for seed in range(scale.seeds if seeds is None else seeds):  # seed by seed: a stopped sweep has whole pairs
        for cell in protocol.cells:
            job = _job(cell, scale, chosen[cell.name], seed, held_out=False)
            yield _name(job), job


def _entry(job: Mapping[str, Any], result: Mapping[str, Any]) -> dict[str, Any]:
    return {key: job[key] for key in OF_A_RUN} | dict(result)
