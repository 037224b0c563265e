"""Norm decay in small: what it does to the norms of all layers, and whether it generalizes (L, Table 2)."""

import math
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from convkit.audit.table import layer_table
from convkit.data.dataset import Data
from convkit.data.label_noise import noisy_labels
from convkit.data.registry import load
from convkit.data.subsets import subset
from convkit.methods.build import network
from convkit.norms import operator_norm
from convkit.operators.network import conv_operators
from convkit.papers.runs import Experiment, percents, short
from convkit.training.evaluation import evaluate
from convkit.training.loop import fit
from convkit.training.sweeps import sweep

SEEDS = (0, 1, 2)
TRAINING = {"data": "digits", "device": "cpu", "model": "cnn9", "widths": [16, 32, 64], "lr": 0.1, "momentum": 0.9}
WAYS: dict[str, tuple[str, dict[str, Any]]] = {  # of the experiment on norms
    "none": ("batchnorm", {}),
    "weight decay 0.01": ("weight_decay", {"weight_decay": 0.01}),
    "l1, β = 0.01": ("norm_decay_l1", {"beta": 0.01}),
    "l∞, β = 0.01": ("norm_decay_linf", {"beta": 0.01}),
    "l1, β/N": ("norm_decay_l1", {"beta": 0.01, "mean": True}),
}
STRENGTHS = (1e-1, 1e-2, 1e-3)
BOUNDS = (0.5, 1.0, 2.0)
COLUMNS: list[tuple[str, str | None, float | None]] = [  # of the table: method, its knob, the number
    ("batchnorm", None, None),
    *(("weight_decay", "weight_decay", strength) for strength in STRENGTHS),
    *(("norm_clip", "bound", bound) for bound in BOUNDS),
    *(("norm_decay_l1", "beta", strength) for strength in STRENGTHS),
    *(("norm_decay_linf", "beta", strength) for strength in STRENGTHS),
]
TASKS: dict[str, dict[str, Any]] = {
    "100 images": {"images": 100, "noise": 0.0},
    "400 images, 40 % of the labels wrong": {"images": 400, "noise": 0.4},
}


def task(images: int | None, noise: float) -> Data:
    """Digits: all, or as many of each class as of another; a share of the training labels made wrong."""
    data = load(TRAINING["data"])
    data = data if images is None else subset(data, images)
    return noisy_labels(data, noise, "flip") if noise else data


@torch.no_grad()
def layer_norms(model: nn.Module, x: torch.Tensor) -> dict[str, list[float]]:
    """The norms 1 and inf of every layer, exact, first layer first."""
    operators = conv_operators(model, x).values()
    return {
        name: [float(operator_norm(A, ord)) for A in operators] for name, ord in (("norm1", 1), ("norm_inf", math.inf))
    }


def job(
    method: str,
    knobs: Mapping[str, Any],
    seed: int,
    steps: int,
    look_every: int = 0,
    images: int | None = None,
    noise: float = 0.0,
    batch_size: int = 64,
) -> dict[str, Any]:
    """One run: test accuracy at the end (``None`` if it was lost), and the norms of its layers.

    On the way ``norm1`` and ``norm_inf`` are geometric means over the layers; at the end they are kept layer by layer,
    as they are and (``folded``, in norm 1) with the gains of the BatchNorm behind them.
    """
    data = task(images, noise)
    knobs = {"lr": TRAINING["lr"], "momentum": TRAINING["momentum"], **knobs}
    model = network(TRAINING["model"], data, method, seed=seed, knobs=knobs, widths=TRAINING["widths"])
    x = data.train_batch([0])[0]
    start = layer_norms(model, x)
    result: dict[str, Any] = {"steps": [0], "accuracy": None, "lost": None}
    result |= {name: [short(statistics.geometric_mean(start[name]))] for name in start}
    for record in fit(model, data, method, steps=steps, seed=seed, batch_size=batch_size, knobs=knobs):
        if record.diverged:
            return result | {"lost": record.diverged}
        if look_every and record.step % look_every == 0:
            result["steps"].append(record.step)
            for name, norms in layer_norms(model, x).items():
                result[name].append(short(statistics.geometric_mean(norms)))
    table = layer_table(model, x, torus=True, folded=True)
    layers = {name: [short(norm) for norm in norms] for name, norms in layer_norms(model, x).items()}
    layers["folded"] = [short(norm) for norm in table.column("norm1")]
    return result | {"accuracy": short(evaluate(model, data)), "layers": layers}


def norms(
    folder: str | None, keep: Path, steps: int = 240, look_every: int = 20, seeds: Sequence[int] = SEEDS
) -> dict[str, Any]:
    """The norms of all layers over training, by what pulls on them."""
    plan = {"steps": steps, "look_every": look_every}
    jobs = {
        f"{name} seed {seed}": {"method": method, "knobs": knobs, "seed": seed, **plan}
        for name, (method, knobs) in WAYS.items()
        for seed in seeds
    }
    done = sweep(job, jobs, keep)
    rows = []
    for name, (method, knobs) in WAYS.items():
        runs = [done[f"{name} seed {seed}"] for seed in seeds]
        row = {"name": name, "method": method, "knobs": knobs, "steps": runs[0]["steps"]}
        rows.append(row | {key: [run.get(key) for run in runs] for key in ("accuracy", "lost", "norm1", "norm_inf")})
        rows[-1]["layers"] = [run.get("layers") for run in runs]
    return {**TRAINING, "seeds": list(seeds), **plan, "batch_size": 64, "schedule": "cosine", "rows": rows}


def generalization(
    folder: str | None,
    keep: Path,
    steps: int = 150,
    seeds: Sequence[int] = SEEDS,
    columns: Sequence[tuple[str, str | None, float | None]] = tuple(COLUMNS),
) -> dict[str, Any]:
    """The clean columns of Table 2 on two small tasks: few images, and wrong labels."""
    jobs: dict[str, dict[str, Any]] = {}
    for name, data in TASKS.items():
        for method, knob, number in columns:
            knobs: dict[str, Any] = {} if knob is None else {knob: number}
            if method == "norm_clip":
                knobs["every"] = max(1, 2 * steps // 5)  # two clips, the last well before the end
            one = {"method": method, "knobs": knobs, "steps": steps, "batch_size": 50, **data}
            jobs |= {f"{name}: {method} {number} seed {seed}": {"seed": seed, **one} for seed in seeds}
    done = sweep(job, jobs, keep)
    rows = []
    for name in TASKS:
        for method, _, number in columns:
            runs = [done[f"{name}: {method} {number} seed {seed}"] for seed in seeds]
            row = {"task": name, "method": method, "number": number}
            row |= {key: [run[key] for run in runs] for key in ("accuracy", "lost")}
            for key in ("norm1", "folded"):
                row[key] = [_mean(run["layers"][key]) if "layers" in run else None for run in runs]
            rows.append(row)
    about = {"steps": steps, "batch_size": 50, "schedule": "cosine", "tasks": TASKS}
    return {**TRAINING, "seeds": list(seeds), **about, "rows": rows}


def show_norms(results: Mapping[str, Any]) -> str:
    """One line a row: test accuracies in percent, geometric means of the norms 1 and inf at the end, and folded."""
    lines = []
    for row in results["rows"]:
        last = {key: " ".join(f"{values[-1]:.3g}" for values in row[key]) for key in ("norm1", "norm_inf")}
        folded = " ".join("-" if run is None else f"{_mean(run['folded']):.3g}" for run in row["layers"])
        text = f"norm 1: {last['norm1']}   inf: {last['norm_inf']}   with BatchNorm's gains, 1: {folded}"
        lines.append(f"{row['name']:<20} accuracy {percents(row['accuracy'])}   {text}")
    return "\n".join(lines)


def show_generalization(results: Mapping[str, Any]) -> str:
    """One line a row: test accuracies in percent with mean and standard deviation, the geometric mean of the norms."""
    lines = []
    for row in results["rows"]:
        number = "" if row["number"] is None else f" {row['number']:g}"
        values = [100 * value for value in row["accuracy"] if value is not None]
        text = " ".join(f"{value:5.1f}" for value in values) + " lost" * row["accuracy"].count(None)
        if len(values) > 1:
            text += f"   {statistics.mean(values):.1f} ± {statistics.stdev(values):.1f}"
        norms = " ".join("-" if norm is None else f"{norm:.3g}" for norm in row["norm1"])
        lines.append(f"{row['task']}: {row['method']}{number:<8} {text}   norm 1: {norms}")
    return "\n".join(lines)


def _mean(norms: Sequence[float]) -> float:
    return short(statistics.geometric_mean(norms)) if min(norms) > 0 else 0.0


EXPERIMENTS = {
    "decay-norms": Experiment(
        "the norms of all layers under weight decay and norm decay, on digits, three seeds", 1, norms, show_norms
    ),
    "decay-generalization": Experiment(
        "batch norm, weight decay, clips and norm decay on 100 digits and with wrong labels, three seeds",
        3,
        generalization,
        show_generalization,
    ),
}
