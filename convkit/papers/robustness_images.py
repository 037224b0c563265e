"""The experiment on attacks and norms with photographs: methods on CIFAR-10, attacked at the usual size."""

import functools
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from convkit.attacks.evaluation import robust_accuracy
from convkit.attacks.gradient import pgd
from convkit.papers.robustness import Row, norm_numbers, steepness
from convkit.papers.runs import NINE, Runs, experiment, load_part, rounded, train
from convkit.training.adversarial import get_objective

SEEDS = (0, 1, 2)
SIZES = {"1/255": 1 / 255, "2/255": 2 / 255, "8/255": 8 / 255}  # of the attacks, in every pixel
TRAINING: dict[str, Any] = {
    **{"data": "cifar10-jpeg", "images": 10_000, "tests": 300},
    **{"model": "cnn9", **NINE, "batch_size": 64, "schedule": "cosine"},
}
# learning rates from the table of all methods; in the steps of free training each batch is seen four times
ROWS: list[Row] = [
    Row("none", "batchnorm", {"lr": 0.02}, "clean", 600),
    Row("clip 1", "norm_clip", {"lr": 0.02, "bound": 1.0, "every": 90}, "clean", 600),
    Row("l∞ decay 0.001", "norm_decay_linf", {"lr": 0.02, "beta": 1e-3}, "clean", 600),
    Row("free, BatchNorm", "batchnorm", {"lr": 0.02}, "free", 800),
    Row("free, ONI", "oni", {"lr": 0.02}, "free", 800),
    Row("free, ConvNorm + BN", "convnorm+batchnorm", {"lr": 0.1}, "free", 800),
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
    device: str = "cpu",
) -> dict[str, Any]:
    """Train one network; return its accuracy under PGD on two losses at each size."""
    data = load_part(TRAINING["data"], count, tests, folder, device)
    goal = get_objective(objective, SIZES["8/255"])
    model, diverged, _ = train(data, method, seed=seed, knobs=knobs, steps=steps, objective=goal)
    if diverged:
        return {"lost": diverged}
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
    return rounded(result | steepness(model, x[:100], y[:100], SIZES["8/255"]) | norm_numbers(model, x[:2]))


def show(results: Mapping[str, Any]) -> str:
    """Return a line of text per row: accuracies in percent with their spread over seeds, and predictors."""
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


@experiment(
    "robustness-images",
    "networks with small norms or trained against attacks, then attacked, on CIFAR-10 (JPEG copy), three seeds",
    20,
    show,
    needs_folder=True,
)
def networks(
    runs: Runs,
    rows: Sequence[Row] = tuple(ROWS),
    seeds: Sequence[int] = SEEDS,
    count: int = TRAINING["images"],
    tests: int = TRAINING["tests"],
) -> dict[str, Any]:
    """Train and attack every network, seed by seed."""
    part = {"folder": runs.folder, "count": count, "tests": tests}
    done = runs.over_seeds(job, {row.name: {**row.job(), **part} for row in rows}, seeds)
    table = [{**row._asdict(), "runs": done[row.name]} for row in rows]
    return {**TRAINING, "images": count, "tests": tests, "seeds": list(seeds), "sizes": list(SIZES), "rows": table}
