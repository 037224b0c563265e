"""Attacks and norms on photographs: a few ways of training on CIFAR-10, attacked at the usual size."""

import functools
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from convkit.attacks.evaluation import robust_accuracy
from convkit.attacks.gradient import pgd
from convkit.methods.build import network
from convkit.papers.methods import images
from convkit.papers.robustness import layer_norms, steepness
from convkit.papers.runs import Experiment, rounded
from convkit.training.adversarial import get_objective
from convkit.training.loop import fit
from convkit.training.sweeps import sweep

SEEDS = (0, 1, 2)
SIZES = {"1/255": 1 / 255, "2/255": 2 / 255, "8/255": 8 / 255}  # of the attacks, in every pixel
TRAINING: dict[str, Any] = {
    **{"data": "cifar10-jpeg", "images": 10_000, "tests": 300, "device": "cpu"},
    **{"model": "cnn9", "widths": [16, 32, 64], "batch_size": 64, "schedule": "cosine"},
}
# name, method, its knobs (learning rates from the table of all methods), objective, steps: of free training, four
# steps to a batch
Row = tuple[str, str, dict[str, Any], str, int]
ROWS: list[Row] = [
    ("none", "batchnorm", {"lr": 0.02}, "clean", 600),
    ("clip 1", "norm_clip", {"lr": 0.02, "bound": 1.0, "every": 90}, "clean", 600),
    ("l∞ decay 0.001", "norm_decay_linf", {"lr": 0.02, "beta": 1e-3}, "clean", 600),
    ("free, BatchNorm", "batchnorm", {"lr": 0.02}, "free", 800),
    ("free, ONI", "oni", {"lr": 0.02}, "free", 800),
    ("free, ConvNorm + BN", "convnorm+batchnorm", {"lr": 0.1}, "free", 800),
]


def job(
    method: str,
    knobs: Mapping[str, Any],
    objective: str,
    steps: int,
    seed: int,
    folder: str | None,
    count: int,
    tests: int,
) -> dict[str, Any]:
    """Train one network and attack it at each size: what is left after PGD on two losses, of the test images."""
    data = images(TRAINING["data"], folder, count, tests)
    model = network(TRAINING["model"], data, method, seed=seed, knobs=knobs, widths=TRAINING["widths"])
    how = {"batch_size": TRAINING["batch_size"], "schedule": TRAINING["schedule"], "seed": seed, "knobs": knobs}
    for record in fit(model, data, method, objective=get_objective(objective, SIZES["8/255"]), steps=steps, **how):
        if record.diverged:
            return {"lost": record.diverged}
    model.eval()
    x, y = data.test_batch(torch.arange(len(data.test_labels)))
    torch.manual_seed(seed)
    result: dict[str, Any] = {"lost": None}
    for name, eps in SIZES.items():  # an image is left if it survives both losses
        attacks = {
            loss: functools.partial(pgd, eps=eps, step=eps / 4, steps=20, loss=loss, until_wrong=True)
            for loss in ("ce", "margin")
        }
        left = robust_accuracy(model, [(x, y)], attacks, progress=False)
        result |= {"clean": left.clean, name: left.worst}  # clean is the same each time
    return rounded(result | steepness(model, x[:100], y[:100], SIZES["8/255"]) | layer_norms(model, x[:2]))


def networks(
    folder: str | None,
    keep: Path,
    rows: Sequence[Row] = tuple(ROWS),
    seeds: Sequence[int] = SEEDS,
    count: int = TRAINING["images"],
    tests: int = TRAINING["tests"],
) -> dict[str, Any]:
    """Every way of training, seed by seed."""
    sizes = {"folder": folder, "count": count, "tests": tests}
    jobs = {
        f"{name} seed {seed}": {
            **{"method": method, "knobs": knobs, "objective": objective, "steps": steps, "seed": seed},
            **sizes,
        }
        for name, method, knobs, objective, steps in rows
        for seed in seeds
    }
    done = sweep(job, jobs, keep)
    table = [
        {
            **{"name": name, "method": method, "knobs": knobs, "objective": objective, "steps": steps},
            "runs": [done[f"{name} seed {seed}"] for seed in seeds],
        }
        for name, method, knobs, objective, steps in rows
    ]
    return {**TRAINING, "images": count, "tests": tests, "seeds": list(seeds), "sizes": list(SIZES), "rows": table}


def show(results: Mapping[str, Any]) -> str:
    """One line a row: accuracies in percent with their spread over seeds, and what may predict them."""
    lines = []
    for row in results["rows"]:
        runs = [run for run in row["runs"] if run["lost"] is None]
        text = f"{row['name']:<20}"
        for name in ("clean", *results["sizes"]) if runs else ():
            percent = [100 * run[name] for run in runs]
            spread = statistics.stdev(percent) if len(percent) > 1 else 0.0
            text += f"  {name} {statistics.mean(percent):5.1f} ± {spread:3.1f}"
        for name in ("product", "local", "reach") if runs else ():
            text += f"  {name} {statistics.mean(run[name] for run in runs):.2g}"
        lost = len(row["runs"]) - len(runs)
        lines.append(text + (f"  ({lost} lost)" if lost else ""))
    return "\n".join(lines)


EXPERIMENTS = {
    "robustness-images": Experiment(
        "networks with small norms or trained against attacks, then attacked, on CIFAR-10 (JPEG copy), three seeds",
        20,
        networks,
        show,
        needs_folder=True,
    ),
}
