"""Training on the centered sphere in small: row norms, weight decay, small batches, and what each part brings (W)."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from convkit.data.registry import load
from convkit.data.subsets import subset
from convkit.methods.build import network
from convkit.methods.method import Method
from convkit.methods.registry import METHODS
from convkit.papers.runs import Experiment, percents, short
from convkit.training.evaluation import evaluate
from convkit.training.loop import fit
from convkit.training.sweeps import sweep

SEEDS = (0, 1, 2)
DIGITS = 5  # of the numbers that are kept
TRAINING = {"data": "digits", "device": "cpu", "model": "cnn9", "widths": [16, 32, 64], "lr": 0.1, "momentum": 0.9}
NORMS = (0.3, 0.577, 2**0.5, 4.0)
RADII = (2.0, 2 / (1 - 1 / math.pi))  # squared: the paper's c, and the one that keeps the variance
DECAYS = (0.0, 1e-3, 1e-2, 5e-2)
BATCHES = (4, 16, 64)
SIGMAS = (0.0, 0.2, 0.4, 0.8)
PARTS = {"neither": (False, False), "centre_only": (True, False), "sphere_only": (False, True), "sphere": (True, True)}
# The fourth corner of Table 3: scale, bias and noise as for the sphere, and no constraint.
NEITHER = replace(METHODS["centre_only"], name="neither", words="no constraint", constrain=None)


def method_of(name: str) -> Method:
    """A method of the kit, or ``neither``: the layers of the sphere without its constraints."""
    return NEITHER if name == "neither" else METHODS[name]


def trained_weights(model: nn.Module) -> list[Tensor]:
    """The weights of the convolutions that the optimizer steps: the unnormalized ones where they are parametrized."""
    weights = []
    for layer in model.modules():
        if isinstance(layer, nn.Conv2d):
            named = dict(layer.named_parameters())
            parametrized = parametrize.is_parametrized(layer, "weight")
            weights.append(named["parametrizations.weight.original" if parametrized else "weight"])
    return weights


@torch.no_grad()
def scale_rows(model: nn.Module, norm: float) -> None:
    """Give every row of every convolution this norm, its direction as it is, its mean taken away."""
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
) -> dict[str, Any]:
    """One run: its test accuracy, ``None`` if it was lost, and what was seen every so many steps and at the end.

    That is the loss, the mean norm of the trained rows of the convolutions, and the norm of their gradient.
    """
    data = load(TRAINING["data"])
    data = data if images is None else subset(data, images)
    knobs = {"lr": TRAINING["lr"], "momentum": TRAINING["momentum"], **(knobs or {})}
    model = network(TRAINING["model"], data, method_of(method), seed=seed, knobs=knobs, widths=TRAINING["widths"])
    if norm is not None:
        scale_rows(model, norm)
    result: dict[str, Any] = {"steps": [], "loss": [], "row_norm": [], "gradient": [], "accuracy": None, "lost": None}
    plan = {"seed": seed, "batch_size": batch_size, "schedule": schedule, "reference_batch": reference_batch}
    for record in fit(model, data, method_of(method), steps=steps, knobs=knobs, **plan):
        if record.diverged:
            return result | {"lost": record.diverged}
        if record.step == 1 or record.step % every == 0 or record.step == steps:
            weights = trained_weights(model)
            gradients = torch.cat([w.grad.flatten() for w in weights if w.grad is not None])
            rows = torch.cat([w.detach().flatten(1).norm(dim=1) for w in weights])
            result["steps"].append(record.step)
            result["loss"].append(short(record.loss, DIGITS))
            result["row_norm"].append(short(float(rows.mean()), DIGITS))
            result["gradient"].append(short(float(gradients.norm()), DIGITS))
    return result | {"accuracy": short(evaluate(model, data), DIGITS)}


def row_norms(folder: str | None, keep: Path, steps: int = 200, seeds: Sequence[int] = SEEDS) -> dict[str, Any]:
    """Weight standardization from rows of several norms, at equal outputs, beside the sphere."""
    plan = {"steps": steps, "every": max(1, steps // 40), "schedule": "cosine"}
    jobs: dict[str, dict[str, Any]] = {}
    for seed in seeds:
        for norm in NORMS:
            one = {"method": "weight_standardization", "norm": norm, "seed": seed, **plan}
            jobs[f"from {norm:.4g} seed {seed}"] = one
        for c in RADII:
            one = {"method": "sphere_without_noise", "knobs": {"radius": c**0.5}, "seed": seed, **plan}
            jobs[f"sphere, c = {c:.4g} seed {seed}"] = one
    done = sweep(job, jobs, keep)
    rows = [_row(done, f"from {norm:.4g}", seeds) | {"norm": short(norm, DIGITS)} for norm in NORMS]
    rows += [_row(done, f"sphere, c = {c:.4g}", seeds) for c in RADII]
    return _about(seeds, **plan, batch_size=64) | {"rows": rows}


def weight_decay(folder: str | None, keep: Path, steps: int = 600, seeds: Sequence[int] = SEEDS) -> dict[str, Any]:
    """Weight standardization from rows of norm sqrt 2 under weight decay, beside the sphere."""
    plan = {"steps": steps, "every": max(1, steps // 30), "schedule": "constant"}
    jobs: dict[str, dict[str, Any]] = {}
    for seed in seeds:
        for decay in DECAYS:
            one = {"knobs": {"weight_decay": decay}, "seed": seed, **plan}
            jobs[f"weight standardization, decay {decay:g} seed {seed}"] = {
                "method": "weight_standardization",
                "norm": 2**0.5,
                **one,
            }
        one = {"knobs": {"weight_decay": DECAYS[-1]}, "seed": seed, **plan}
        jobs[f"sphere, decay {DECAYS[-1]:g} seed {seed}"] = {"method": "sphere_without_noise", **one}
    done = sweep(job, jobs, keep)
    names = [f"weight standardization, decay {decay:g}" for decay in DECAYS] + [f"sphere, decay {DECAYS[-1]:g}"]
    return _about(seeds, **plan, batch_size=64) | {"rows": [_row(done, name, seeds) for name in names]}


def small_batches(
    folder: str | None, keep: Path, images: int = 12_800, seeds: Sequence[int] = SEEDS, batches: Sequence[int] = BATCHES
) -> dict[str, Any]:
    """The sphere, with and without noise, and BatchNorm at several batch sizes, the rate in proportion (Table 2)."""
    names = [(method, batch) for batch in batches for method in ("sphere", "sphere_without_noise", "batchnorm")]
    jobs: dict[str, dict[str, Any]] = {}
    for method, batch in names:
        steps = max(2, images // batch)
        plan = {"steps": steps, "every": steps, "batch_size": batch, "schedule": "cosine", "reference_batch": 64}
        for seed in seeds:
            jobs[f"{method} batch {batch} seed {seed}"] = {"method": method, "seed": seed, **plan}
    done = sweep(job, jobs, keep)
    rows = [_row(done, f"{m} batch {b}", seeds, brief=True) | {"method": m, "batch": b} for m, b in names]
    about = {"images_seen": images, "schedule": "cosine", "rate": "lr at batches of 64, else in proportion"}
    return _about(seeds, **about) | {"rows": rows}


def ablation(
    folder: str | None, keep: Path, steps: int = 200, seeds: Sequence[int] = SEEDS, images: int = 1437
) -> dict[str, Any]:
    """Centering, sphere and noise, alone and together (Table 3), and how much noise (Table 4)."""
    cases = [(part, sigma) for part in PARTS for sigma in (0.0, 0.2)]
    cases += [("sphere", sigma) for sigma in SIGMAS if ("sphere", sigma) not in cases]
    jobs: dict[str, dict[str, Any]] = {}
    plan = {"steps": steps, "every": steps, "norm": 2**0.5, "schedule": "cosine"}
    for part, sigma in cases:
        one = {"method": part, "images": images, "knobs": {"sigma": sigma, "noise": "constant"}, **plan}
        jobs |= {f"{part} {sigma:g} constant {images} seed {seed}": {"seed": seed, **one} for seed in seeds}
    done = sweep(job, jobs, keep)
    rows = []
    for part, sigma in cases:
        center, scale = PARTS[part]
        row = _row(done, f"{part} {sigma:g} constant {images}", seeds, brief=True)
        rows.append(row | {"center": center, "scale": scale, "sigma": sigma})
    return _about(seeds, steps=steps, images=images, batch_size=64, schedule="cosine") | {"rows": rows}


def show(results: Mapping[str, Any]) -> str:
    """One line a row: what it is, the test accuracies of its seeds in percent, gradients and row norms where kept."""
    lines = []
    for row in results["rows"]:
        text = percents(row["accuracy"], mean=True)
        if "gradient" in row:
            text += f"   first gradient {row['gradient'][0][0]:.3g}, last row norm {row['row_norm'][0][-1]:.3g}"
        lines.append(f"{row['name']:<40}{text}")
    return "\n".join(lines)


def _row(done: Mapping[str, Any], name: str, seeds: Sequence[int], brief: bool = False) -> dict[str, Any]:
    """The runs of one name, seed by seed; without what was seen on the way if ``brief``."""
    runs = [done[f"{name} seed {seed}"] for seed in seeds]
    row: dict[str, Any] = {"name": name} | {key: [run[key] for run in runs] for key in ("accuracy", "lost")}
    return (
        row if brief else row | {key: [run[key] for run in runs] for key in ("steps", "loss", "row_norm", "gradient")}
    )


def _about(seeds: Sequence[int], **plan: Any) -> dict[str, Any]:
    return {**TRAINING, "seeds": list(seeds), **plan}


EXPERIMENTS = {
    "sphere-row-norms": Experiment(
        "weight standardization from rows of several norms, and the sphere, on digits, three seeds", 1, row_norms, show
    ),
    "sphere-weight-decay": Experiment(
        "how weight decay moves the norm of standardized rows, on digits, three seeds", 1, weight_decay, show
    ),
    "sphere-small-batches": Experiment(
        "the sphere, with noise and without, and BatchNorm with batches of 4, 16 and 64, on digits, three seeds",
        3,
        small_batches,
        show,
    ),
    "sphere-ablation": Experiment(
        "centering, sphere and noise, alone and together, on digits, three seeds", 1, ablation, show
    ),
}
