"""Experiments of Ikami et al. 2021: row norms, weight decay, small batches, and an ablation, on the centered sphere."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from convkit.papers.runs import NINE, Runs, append, columns, experiment, load_part, percents, short, train
from convkit.training.evaluation import evaluate
from convkit.training.plan import Record

SEEDS = (0, 1, 2)
DIGITS = 5  # of the numbers that are kept
TRAINING = {"data": "digits", "model": "cnn9", **NINE, "lr": 0.1, "momentum": 0.9}
NORMS = (0.3, 0.577, 2**0.5, 4.0)
RADII = (2.0, 2 / (1 - 1 / math.pi))  # squared: the paper's c, and the one that keeps the variance
DECAYS = (0.0, 1e-3, 1e-2, 5e-2)
BATCHES = (4, 16, 64)
SIGMAS = (0.0, 0.2, 0.4, 0.8)
PARTS = {"neither": (False, False), "centre_only": (True, False), "sphere_only": (False, True), "sphere": (True, True)}


def trained_weights(model: nn.Module) -> list[Tensor]:
    """Return the convolution weights that the optimizer steps: the originals where they are parametrized."""
    weights = []
    for layer in model.modules():
        if isinstance(layer, nn.Conv2d):
            named = dict(layer.named_parameters())
            parametrized = parametrize.is_parametrized(layer, "weight")
            weights.append(named["parametrizations.weight.original" if parametrized else "weight"])
    return weights


@torch.no_grad()
def scale_rows(model: nn.Module, norm: float) -> None:
    """Give every row of every convolution the mean 0 and this norm, in its own direction."""
    for weight in trained_weights(model):
        rows = weight.flatten(1)
        rows = rows - rows.mean(1, keepdim=True)
        weight.copy_((norm * rows / rows.norm(dim=1, keepdim=True)).view(weight.shape))


def job(
    method: str,
    seed: int,
    steps: int,
    every: int,
    batch_size: int = 64,
    knobs: Mapping[str, float] | None = None,
    norm: float | None = None,
    schedule: str = "constant",
    images: int | None = None,
    reference_batch: int | None = None,
    device: str = "cpu",
) -> dict[str, Any]:
    """Run one training: return its test accuracy (``None`` if it diverged) and what was measured every ``every`` steps.

    That is the loss, the mean norm of the trained rows of the convolutions, and the norm of their gradient.
    """
    data = load_part(TRAINING["data"], images, device=device)
    result: dict[str, Any] = {"steps": [], "loss": [], "row_norm": [], "gradient": [], "accuracy": None, "lost": None}

    def begin(model: nn.Module) -> None:
        if norm is not None:
            scale_rows(model, norm)

    def watch(model: nn.Module, record: Record) -> None:
        if record.step == 1 or record.step % every == 0 or record.step == steps:
            weights = trained_weights(model)
            gradients = torch.cat([w.grad.flatten() for w in weights if w.grad is not None])
            rows = torch.cat([w.detach().flatten(1).norm(dim=1) for w in weights])
            numbers = {"loss": record.loss, "row_norm": rows.mean(), "gradient": gradients.norm()}
            append(result, {"steps": record.step, **numbers}, DIGITS)

    knobs = {"lr": TRAINING["lr"], "momentum": TRAINING["momentum"], **(knobs or {})}
    plan: dict[str, Any] = {"steps": steps, "batch_size": batch_size, "schedule": schedule, "seed": seed}
    plan["reference_batch"] = reference_batch
    model, diverged, _ = train(data, method, knobs=knobs, start=begin, watch=watch, **plan)
    return result | ({"lost": diverged} if diverged else {"accuracy": short(evaluate(model, data), DIGITS)})


def show(results: Mapping[str, Any]) -> str:
    """Return a line of text per row: its label, accuracies in percent, gradients and row norms if stored."""
    lines = []
    for row in results["rows"]:
        text = percents(row["accuracy"], mean=True)
        if "gradient" in row:
            text += f"   first gradient {row['gradient'][0][0]:.3g}, last row norm {row['row_norm'][0][-1]:.3g}"
        lines.append(f"{row['name']:<40}{text}")
    return "\n".join(lines)


@experiment(
    "sphere-row-norms",
    "weight standardization from rows of several norms, and the sphere, on digits, three seeds",
    1,
    show,
)
def row_norms(runs: Runs, steps: int = 200, seeds: Sequence[int] = SEEDS) -> dict[str, Any]:
    """Compare weight standardization from rows of several norms, at equal outputs, with the sphere."""
    plan = {"steps": steps, "every": max(1, steps // 40), "schedule": "cosine"}
    standardized = {f"from {norm:.4g}": {"method": "weight_standardization", "norm": norm} for norm in NORMS}
    spheres = {f"sphere, c = {c:.4g}": {"method": "sphere_without_noise", "knobs": {"radius": c**0.5}} for c in RADII}
    done = runs.over_seeds(job, {name: plan | case for name, case in (standardized | spheres).items()}, seeds)
    rows = [_row(name, done[name]) | {"norm": short(case["norm"], DIGITS)} for name, case in standardized.items()]
    rows += [_row(name, done[name]) for name in spheres]
    return {**TRAINING, "seeds": list(seeds), **plan, "batch_size": 64, "rows": rows}


@experiment(
    "sphere-weight-decay", "how weight decay moves the norm of standardized rows, on digits, three seeds", 1, show
)
def weight_decay(runs: Runs, steps: int = 600, seeds: Sequence[int] = SEEDS) -> dict[str, Any]:
    """Compare weight standardization from rows of norm sqrt 2 under weight decay with the sphere."""
    plan = {"steps": steps, "every": max(1, steps // 30), "schedule": "constant"}
    standardized = {"method": "weight_standardization", "norm": 2**0.5, **plan}
    cases: dict[str, dict[str, Any]] = {
        f"weight standardization, decay {decay:g}": {"knobs": {"weight_decay": decay}, **standardized}
        for decay in DECAYS
    }
    last = {"method": "sphere_without_noise", "knobs": {"weight_decay": DECAYS[-1]}, **plan}
    cases[f"sphere, decay {DECAYS[-1]:g}"] = last
    rows = [_row(name, found) for name, found in runs.over_seeds(job, cases, seeds).items()]
    return {**TRAINING, "seeds": list(seeds), **plan, "batch_size": 64, "rows": rows}


@experiment(
    "sphere-small-batches",
    "the sphere, with noise and without, and BatchNorm with batches of 4, 16 and 64, on digits, three seeds",
    3,
    show,
)
def small_batches(
    runs: Runs, images: int = 12_800, seeds: Sequence[int] = SEEDS, batches: Sequence[int] = BATCHES
) -> dict[str, Any]:
    """Compare the sphere, with and without noise, and BatchNorm at several batch sizes (Table 2)."""
    cases: dict[str, dict[str, Any]] = {}
    for batch in batches:
        steps = max(2, images // batch)
        plan = {"steps": steps, "every": steps, "batch_size": batch, "schedule": "cosine", "reference_batch": 64}
        for method in ("sphere", "sphere_without_noise", "batchnorm"):
            cases[f"{method} batch {batch}"] = {"method": method, **plan}
    done = runs.over_seeds(job, cases, seeds)
    rows = [
        _row(name, done[name], brief=True) | {"method": case["method"], "batch": case["batch_size"]}
        for name, case in cases.items()
    ]
    header = {"images_seen": images, "schedule": "cosine", "rate": "lr at batches of 64, else in proportion"}
    return {**TRAINING, "seeds": list(seeds), **header, "rows": rows}


@experiment("sphere-ablation", "centering, sphere and noise, alone and together, on digits, three seeds", 1, show)
def ablation(runs: Runs, steps: int = 200, seeds: Sequence[int] = SEEDS, images: int = 1437) -> dict[str, Any]:
    """Run centering, sphere and noise, alone and together (Table 3), and several noise levels (Table 4)."""
    pairs = [(part, sigma) for part in PARTS for sigma in (0.0, 0.2)]
    pairs += [("sphere", sigma) for sigma in SIGMAS if ("sphere", sigma) not in pairs]
    plan = {"steps": steps, "every": steps, "norm": 2**0.5, "schedule": "cosine", "images": images}
    cases: dict[str, dict[str, Any]] = {
        f"{part} {sigma:g} constant {images}": {"method": part, "knobs": {"sigma": sigma, "noise": "constant"}, **plan}
        for part, sigma in pairs
    }
    done = runs.over_seeds(job, cases, seeds)
    rows = []
    for (name, found), (part, sigma) in zip(done.items(), pairs, strict=True):
        center, scale = PARTS[part]
        rows.append(_row(name, found, brief=True) | {"center": center, "scale": scale, "sigma": sigma})
    header = {"steps": steps, "images": images, "batch_size": 64, "schedule": "cosine"}
    return {**TRAINING, "seeds": list(seeds), **header, "rows": rows}


def _row(name: str, runs: Sequence[Mapping[str, Any]], brief: bool = False) -> dict[str, Any]:
    """Return the runs of one name, seed by seed; with ``brief`` without the measurements during training."""
    names = ("accuracy", "lost") if brief else ("accuracy", "lost", "steps", "loss", "row_norm", "gradient")
    return {"name": name, **columns(runs, names)}
