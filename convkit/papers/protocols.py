"""`PAPERS`: the papers' tables as data, each at several scales, and the function that trains and tests one cell."""

import functools
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from convkit.attacks.evaluation import robust_accuracy
from convkit.attacks.registry import ATTACKS
from convkit.audit.table import layer_table
from convkit.checks import Registry
from convkit.data.dataset import Data
from convkit.data.label_noise import noisy_labels
from convkit.data.subsets import holdout
from convkit.papers.runs import Runs, load_part, rounded, short, train
from convkit.training.adversarial import get_objective
from convkit.training.evaluation import evaluate

VERSION = 1  # of what a stored run means; results of another version are not mixed with these
HELD_OUT = 0.1  # of the training images, on which learning rates are chosen
CHOOSING_SEEDS = (100, 101, 102)
NORMS = ("norm1", "norm2", "norm_inf")


@dataclass(frozen=True)
class Claim:
    """A sentence of a paper on two cells of a table: ``ours`` is higher, or lower, than ``theirs`` in a number."""

    words: str
    ours: str
    theirs: str
    metric: str
    printed: Literal["higher", "lower"]


@dataclass(frozen=True)
class Cell:
    """One trained network of a table: its method and knobs, what differs from the scale, and the printed numbers."""

    name: str
    method: str
    knobs: Mapping[str, Any] = field(default_factory=dict)
    printed: Mapping[str, float] = field(default_factory=dict)  # percent, by metric
    changes: Mapping[str, Any] = field(default_factory=dict)  # of fields of the scale


@dataclass(frozen=True)
class Scale:
    """How large a table is run: network, data, plan, seeds, and the attacks on the trained networks.

    Attributes:
        minutes: On two cores, or on one GPU where it needs one.
        data: A name of ``DATA``, or ``"cifar10-jpeg"``.
        images, tests: Stratified parts of the training and test images; ``None`` for all.
        plan: Arguments of ``fit``, with ``epochs`` in place of ``steps`` where it counts those.
        rates: The learning rates that are tried on held-out images, for each cell; none leaves that of the cell.
        attacks: By metric, the arguments of an attack of ``ATTACKS``, its name, and the number of attacked images.
        paper: Whether network and data are the paper's own (a JPEG copy of its data included).
    """

    minutes: float
    data: str
    model: str
    options: Mapping[str, Any]
    plan: Mapping[str, Any]
    seeds: Sequence[int]
    images: int | None = None
    tests: int | None = None
    noise: float = 0.0
    objective: str = "clean"
    eps: float = 8 / 255
    rates: Sequence[float] = ()
    attacks: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    paper: bool = False


@dataclass(frozen=True)
class Protocol:
    """One table or figure of a paper: its cells, the scales at which it runs, and what the paper says of it."""

    paper: str
    item: str
    words: str
    cells: Sequence[Cell]
    scales: Mapping[str, Scale]
    claims: Sequence[Claim] = ()


PAPERS: Registry[Protocol] = Registry("PAPERS")


def data_of(setting: Mapping[str, Any], folder: str | None = None, device: str = "cpu") -> Data:
    """Return the data of a cell, on the device."""
    data = load_part(setting["data"], setting["images"], setting["tests"], folder, device)
    return noisy_labels(data, setting["noise"], "flip") if setting["noise"] else data


def job(
    name: str,
    method: str,
    knobs: Mapping[str, Any],
    setting: Mapping[str, Any],
    seed: int,
    choosing: bool = False,
    folder: str | None = None,
    checkpoints: str | None = None,
    device: str = "cpu",
) -> dict[str, Any]:
    """Train one network and return its accuracies, clean and under each attack, and geometric means of its norms.

    If ``choosing``, it is trained on nine tenths of the training images and tested on the others.
    """
    data = data_of(setting, folder, device)
    data = holdout(data, HELD_OUT) if choosing else data
    plan = dict(setting["plan"])
    plan["batch_size"] = min(plan["batch_size"], len(data))
    if "epochs" in plan:
        plan["steps"] = round(plan.pop("epochs") * len(data) / plan["batch_size"])
    place = None
    if checkpoints is not None:
        lr = f" lr {knobs['lr']:g} held out" if choosing else ""
        place = Path(checkpoints) / f"{name}{lr} seed {seed}.pt".replace("/", " of ")
        plan |= {"checkpoint": place, "checkpoint_every": max(100, plan["steps"] // 10)}
    goal = get_objective(setting["objective"], setting["eps"])
    how = {"model": setting["model"], "options": setting["options"], "knobs": knobs, "objective": goal}
    model, diverged, _ = train(data, method, seed=seed, **how, **plan)
    result: dict[str, Any] = {"lost": diverged, "clean": 0.0 if diverged else short(evaluate(model, data))}
    if not diverged and not choosing:
        result |= attacked(model, data, setting["attacks"], seed) | mean_norms(model, data)
    if place is not None:
        place.unlink(missing_ok=True)
    return rounded(result)


def attacked(model: nn.Module, data: Data, attacks: Mapping[str, Mapping[str, Any]], seed: int) -> dict[str, float]:
    """Return the share of the first test images that a model still gets right, for each attack."""
    model.eval()
    result: dict[str, float] = {}
    for metric, given in attacks.items():
        options = dict(given)
        attack, count = ATTACKS[options.pop("attack")], options.pop("images")
        options["generator"] = torch.Generator().manual_seed(seed)
        x, y = data.test_batch(slice(0, count))
        found = robust_accuracy(model, [(x, y)], functools.partial(attack, **options), progress=False)
        result[metric] = found.worst
    return result


def mean_norms(model: nn.Module, data: Data) -> dict[str, float]:
    """Return the geometric means, over the layers, of three operator norms."""
    table = layer_table(model, data.test_batch(slice(0, 1))[0], columns=NORMS)
    return {norm: statistics.geometric_mean(table.column(norm)) for norm in NORMS}


def run(protocol: Protocol, scale: Scale, runs: Runs) -> dict[str, Any]:
    """Choose the learning rates on held-out images, train and test each cell with each seed, and return all numbers."""
    checkpoints = runs.results_file.with_suffix(".checkpoints")
    checkpoints.mkdir(parents=True, exist_ok=True)
    one = functools.partial(job, folder=runs.folder, checkpoints=str(checkpoints))

    def case(cell: Cell, **knobs: Any) -> dict[str, Any]:
        setting = {key: value for key, value in asdict(scale).items() if key not in ("minutes", "seeds", "rates")}
        knobs = {**cell.knobs, **knobs}
        return {"name": cell.name, "method": cell.method, "knobs": knobs, "setting": setting | dict(cell.changes)}

    trials = {
        f"{cell.name} lr {lr:g} held out": {**case(cell, lr=lr), "choosing": True}
        for cell in protocol.cells
        for lr in scale.rates
    }
    tried = runs.over_seeds(one, trials, CHOOSING_SEEDS) if trials else {}
    cells: dict[str, Any] = {}
    for cell in protocol.cells:
        held_out = {
            f"{lr:g}": short(statistics.mean(run["clean"] for run in tried[f"{cell.name} lr {lr:g} held out"]))
            for lr in scale.rates
        }
        best = {"lr": float(max(held_out, key=held_out.__getitem__))} if held_out else {}
        cells[cell.name] = {**case(cell, **best), "printed": dict(cell.printed), "held_out": held_out}
    jobs = {name: {key: cell[key] for key in ("name", "method", "knobs", "setting")} for name, cell in cells.items()}
    done = runs.over_seeds(one, jobs, scale.seeds)
    checkpoints.rmdir()
    for name, cell in cells.items():
        cell["setting"] = {key: value for key, value in cell["setting"].items() if key in protocol_changes(protocol)}
        cell["runs"] = done[name]
    return {"version": VERSION, "paper": scale.paper, "setting": asdict(scale), "cells": cells}


def protocol_changes(protocol: Protocol) -> set[str]:
    """Return the fields of the scale in which the cells of a table differ."""
    return {key for cell in protocol.cells for key in cell.changes}
