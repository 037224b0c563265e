"""Experiments of Liang & Huang 2021: norm decay, its effect on all layers, and generalization (Table 2)."""

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from convkit.audit.table import layer_table
from convkit.data.dataset import Data
from convkit.data.label_noise import noisy_labels
from convkit.papers.runs import NINE, Runs, append, columns, experiment, load_part, percents, rounded, short, train
from convkit.training.evaluation import evaluate
from convkit.training.plan import Record

SEEDS = (0, 1, 2)
TRAINING = {"data": "digits", "model": "cnn9", **NINE, "lr": 0.1, "momentum": 0.9}
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


def task(images: int | None, noise: float, device: str = "cpu") -> Data:
    """Return the digits, all or equally many per class, with a fraction of the training labels replaced."""
    data = load_part(TRAINING["data"], images, device=device)
    return noisy_labels(data, noise, "flip") if noise else data


def job(
    method: str,
    knobs: Mapping[str, Any],
    seed: int,
    steps: int,
    look_every: int = 0,
    images: int | None = None,
    noise: float = 0.0,
    batch_size: int = 64,
    device: str = "cpu",
) -> dict[str, Any]:
    """Run one training: return the test accuracy at the end (``None`` if it diverged) and the norms of the layers.

    In the course of the run, ``norm1`` and ``norm_inf`` are geometric means over the layers; at the end they are stored
    layer by layer, without and (``folded``, in norm 1) with the gains of the BatchNorm after them.
    """
    data = task(images, noise, device)
    x = data.train_batch([0])[0]
    result: dict[str, Any] = {"accuracy": None, "lost": None}

    def look(model: nn.Module, step: int) -> None:
        table = layer_table(model, x, columns=("norm1", "norm_inf"))
        means = {name: statistics.geometric_mean(table.column(name)) for name in ("norm1", "norm_inf")}
        append(result, {"steps": step, **means})

    def watch(model: nn.Module, record: Record) -> None:
        if look_every and record.step % look_every == 0:
            look(model, record.step)

    knobs = {"lr": TRAINING["lr"], "momentum": TRAINING["momentum"], **knobs}
    plan: dict[str, Any] = {"steps": steps, "batch_size": batch_size, "seed": seed}
    model, diverged, _ = train(data, method, knobs=knobs, start=lambda model: look(model, 0), watch=watch, **plan)
    if diverged:
        return result | {"lost": diverged}
    alone = layer_table(model, x, columns=("norm1", "norm_inf"))
    folded = layer_table(model, x, columns=("norm1",), folded=True)
    layers = {"norm1": alone.column("norm1"), "norm_inf": alone.column("norm_inf"), "folded": folded.column("norm1")}
    return result | {"accuracy": short(evaluate(model, data)), "layers": rounded(layers)}


def show_norms(results: Mapping[str, Any]) -> str:
    """Return a line of text per row: accuracies in percent and geometric means of the norms at the end."""
    lines = []
    for row in results["rows"]:
        last = {key: " ".join(f"{values[-1]:.3g}" for values in row[key]) for key in ("norm1", "norm_inf")}
        folded = " ".join("-" if run is None else f"{_mean(run['folded']):.3g}" for run in row["layers"])
        text = f"norm 1: {last['norm1']}   inf: {last['norm_inf']}   with BatchNorm's gains, 1: {folded}"
        lines.append(f"{row['name']:<20} accuracy {percents(row['accuracy'])}   {text}")
    return "\n".join(lines)


def show_generalization(results: Mapping[str, Any]) -> str:
    """Return a line of text per row: accuracies in percent with mean and standard deviation, and norms."""
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


@experiment(
    "decay-norms", "the norms of all layers under weight decay and norm decay, on digits, three seeds", 1, show_norms
)
def norms(runs: Runs, steps: int = 240, look_every: int = 20, seeds: Sequence[int] = SEEDS) -> dict[str, Any]:
    """Measure the norms of all layers during training with different penalties and constraints."""
    plan = {"steps": steps, "look_every": look_every}
    cases = {name: {"method": method, "knobs": knobs} for name, (method, knobs) in WAYS.items()}
    done = runs.over_seeds(job, {name: case | plan for name, case in cases.items()}, seeds)
    rows = [
        {"name": name, **case, "steps": done[name][0]["steps"]}
        | columns(done[name], ("accuracy", "lost", "norm1", "norm_inf", "layers"))
        for name, case in cases.items()
    ]
    return {**TRAINING, "seeds": list(seeds), **plan, "batch_size": 64, "schedule": "cosine", "rows": rows}


@experiment(
    "decay-generalization",
    "batch norm, weight decay, clips and norm decay on 100 digits and with wrong labels, three seeds",
    3,
    show_generalization,
)
def generalization(runs: Runs, steps: int = 150, seeds: Sequence[int] = SEEDS) -> dict[str, Any]:
    """Run the clean columns of Table 2 on two small tasks: few images, and label noise."""
    headers, cases = {}, {}
    for task_name, data in TASKS.items():
        for method, knob, number in COLUMNS:
            knobs: dict[str, Any] = {} if knob is None else {knob: number}
            if method == "norm_clip":
                knobs["every"] = max(1, 2 * steps // 5)  # two clips, the last well before the end
            name = f"{task_name}: {method} {number}"
            headers[name] = {"task": task_name, "method": method, "number": number}
            cases[name] = {"method": method, "knobs": knobs, "steps": steps, "batch_size": 50, **data}
    rows = []
    for name, found in runs.over_seeds(job, cases, seeds).items():
        means = {
            key: [_mean(run["layers"][key]) if "layers" in run else None for run in found]
            for key in ("norm1", "folded")
        }
        rows.append(headers[name] | columns(found, ("accuracy", "lost")) | means)
    header = {"steps": steps, "batch_size": 50, "schedule": "cosine", "tasks": TASKS}
    return {**TRAINING, "seeds": list(seeds), **header, "rows": rows}
