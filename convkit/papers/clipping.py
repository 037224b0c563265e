"""Training with clipped singular values in small: accuracy and norms on the way, and learning rates (S)."""

import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from torch import nn

from convkit.audit.measurement import measure
from convkit.data.registry import load
from convkit.data.subsets import subset
from convkit.methods.build import network
from convkit.methods.layers import layers
from convkit.methods.method import Method
from convkit.methods.registry import METHODS
from convkit.papers.runs import Experiment, percents, short
from convkit.training.evaluation import evaluate
from convkit.training.loop import fit
from convkit.training.sweeps import sweep

SEEDS = (0, 1, 2)
BOUNDS = (None, 0.5, 1.0, 2.0)
RATES = (0.003, 0.01, 0.03, 0.1, 0.3, 1.0)
RESHAPED = (0.2, 0.5, 1.0)
OPTIONS: dict[str, dict[str, Any]] = {
    "cnn9": {"widths": [16, 32, 64]},
    "resnet32": {"width": 0.5, "preactivation": True},
}
TRAINING = {"data": "digits", "device": "cpu", "momentum": 0.9}
PLANS: dict[bool, dict[str, Any]] = {  # of the learning rates, with and without BatchNorm
    True: {"steps": 110, "clip_every": 30},
    False: {"steps": 70, "clip_every": 20, "model": "resnet32"},  # S's; without its shortcuts a clip leaves no signal
}
# S's own comparison without BatchNorm: the same clip on layers with a bias and nothing behind them.
CLIP_ALONE = replace(METHODS["norm_clip"], name="clip_alone", words="operator norm clipped", layer=layers())


def method_of(name: str) -> Method:
    """A method of the kit, or ``clip_alone``: the clip without BatchNorm."""
    return CLIP_ALONE if name == "clip_alone" else METHODS[name]


def largest_norm(model: nn.Module, x: torch.Tensor) -> float:
    """The largest norm 2 of a convolution, on its torus: what the clip bounds."""
    norms, _ = measure(model, x)
    return max(norm for name, norm in norms.items() if isinstance(model.get_submodule(name), nn.Conv2d))


def job(
    method: str,
    bound: float | None,
    lr: float,
    seed: int,
    steps: int,
    clip_every: int,
    look_every: int = 0,
    images: int | None = None,
    batch_size: int = 64,
    model: str = "cnn9",
) -> dict[str, Any]:
    """One run: test accuracy at the end (``None`` if it was lost), the largest norm, and what was seen on the way.

    ``seconds`` is the median CPU time of a step; ``clip_seconds`` the mean of what a step with a clip takes longer,
    the batches from which BatchNorm's statistics are taken anew among it.
    """
    data = load(TRAINING["data"])
    data = data if images is None else subset(data, images)
    knobs: dict[str, Any] = {"lr": lr, "momentum": TRAINING["momentum"]}
    if bound is not None:
        knobs |= {"bound": bound, "every": clip_every}
    net = network(model, data, method_of(method), seed=seed, knobs=knobs, **OPTIONS[model])
    x = data.train_batch([0])[0]
    result: dict[str, Any] = {"steps": [], "loss": [], "norm": [], "test": [], "accuracy": None, "lost": None}
    losses: list[float] = []
    usual: list[float] = []
    clips: list[float] = []
    run = fit(net, data, method_of(method), steps=steps, seed=seed, batch_size=batch_size, knobs=knobs)
    for number in range(1, steps + 1):
        began = time.process_time()
        record = next(run)
        (clips if bound is not None and number % clip_every == 0 else usual).append(time.process_time() - began)
        if record.diverged:
            return result | {"lost": record.diverged}
        losses.append(record.loss)
        if look_every and number % look_every == 0:
            result["steps"].append(number)
            result["loss"].append(short(statistics.mean(losses[-look_every:])))
            result["norm"].append(short(largest_norm(net, x)))
            result["test"].append(short(evaluate(net, data)))
    seconds = statistics.median(usual or clips)
    result |= {"seconds": short(seconds), "clip_seconds": short(statistics.mean(clips) - seconds if clips else 0.0)}
    return result | {"accuracy": short(evaluate(net, data)), "last_norm": short(largest_norm(net, x))}


def training(
    folder: str | None,
    keep: Path,
    steps: int = 165,
    clip_every: int = 45,
    look_every: int = 15,
    seeds: Sequence[int] = SEEDS,
    images: int = 200,
    batch_size: int = 50,
) -> dict[str, Any]:
    """Bounds of the operator norm, and of the flattened kernel, against none (Figures 2 and 4, section 4.4)."""
    plan = {"steps": steps, "clip_every": clip_every, "look_every": look_every, "images": images}
    plan |= {"lr": 0.1, "batch_size": batch_size}
    cases = [("batchnorm" if bound is None else "norm_clip", bound) for bound in BOUNDS]
    cases += [("reshaped_clip", bound) for bound in RESHAPED]
    jobs = {
        f"{method} {bound} seed {seed}": {"method": method, "bound": bound, "seed": seed, **plan}
        for method, bound in cases
        for seed in seeds
    }
    done = sweep(job, jobs, keep)
    kept = ("accuracy", "lost", "last_norm", "seconds", "clip_seconds", "loss", "norm", "test")
    rows = []
    for method, bound in cases:
        runs = [done[f"{method} {bound} seed {seed}"] for seed in seeds]
        rows.append({"method": method, "bound": bound, "steps": runs[0]["steps"]} | _columns(runs, kept))
    about = {"model": "cnn9", **OPTIONS["cnn9"], "schedule": "cosine"}
    return {**TRAINING, "seeds": list(seeds), **plan, **about, "rows": rows}


def rates(
    folder: str | None,
    keep: Path,
    seeds: Sequence[int] = SEEDS[:2],
    rates: Sequence[float] = RATES,
    plans: Mapping[bool, Mapping[str, Any]] = MappingProxyType(PLANS),
) -> dict[str, Any]:
    """Learning rates against bounds, with BatchNorm and, in a residual network, without (Figure 3)."""
    cases = [(batchnorm, bound, lr) for batchnorm in (False, True) for bound in BOUNDS for lr in rates]
    names = {False: ("plain", "clip_alone"), True: ("batchnorm", "norm_clip")}
    jobs = {}
    for batchnorm, bound, lr in cases:
        one = {"method": names[batchnorm][bound is not None], "bound": bound, "lr": lr, **plans[batchnorm]}
        some = seeds if batchnorm else seeds[:1]  # a step of the residual network takes twice as long
        jobs |= {f"{batchnorm} {bound} {lr:g} seed {seed}": {"seed": seed, **one} for seed in some}
    done = sweep(job, jobs, keep)
    rows = []
    for batchnorm, bound, lr in cases:
        runs = [done[f"{batchnorm} {bound} {lr:g} seed {seed}"] for seed in (seeds if batchnorm else seeds[:1])]
        rows.append({"batchnorm": batchnorm, "bound": bound, "lr": lr} | _columns(runs, ("accuracy", "lost")))
    about = {"with_batchnorm": dict(plans[True]), "without": dict(plans[False]), "models": OPTIONS, "batch_size": 64}
    about |= {"schedule": "cosine", "rates": list(rates), "bounds": list(BOUNDS)}
    return {**TRAINING, "seeds": list(seeds), **about, "rows": rows}


def show_training(results: Mapping[str, Any]) -> str:
    """One line a row: test accuracies in percent, the largest norm at the end, what a clip costs in steps."""
    lines = []
    for row in results["rows"]:
        name = row["method"] if row["bound"] is None else f"{row['method']} {row['bound']:g}"
        percent, norms = percents(row["accuracy"]), _numbers(row["last_norm"])
        cost = statistics.mean(c / s for c, s in zip(row["clip_seconds"], row["seconds"], strict=True) if s)
        lines.append(f"{name:<20} accuracy {percent}   largest norm {norms}   a clip takes {cost:.1f} steps")
    return "\n".join(lines)


def show_rates(results: Mapping[str, Any]) -> str:
    """One line for each bound: mean accuracies in percent over the learning rates, ``lost`` where a seed was."""
    lines = []
    for batchnorm in (False, True):
        for bound in results["bounds"]:
            rows = [r for r in results["rows"] if (r["batchnorm"], r["bound"]) == (batchnorm, bound)]
            cells = ["lost" if None in r["accuracy"] else f"{100 * statistics.mean(r['accuracy']):.1f}" for r in rows]
            name = f"{'with' if batchnorm else 'without'} BatchNorm, bound {'none' if bound is None else f'{bound:g}'}"
            lines.append(f"{name:<32}" + "".join(f"{cell:>7}" for cell in cells))
    return "\n".join(lines)


def _columns(runs: Sequence[Mapping[str, Any]], keys: Sequence[str]) -> dict[str, list[Any]]:
    return {key: [run.get(key) for run in runs] for key in keys}


def _numbers(values: Sequence[float | None]) -> str:
    return " ".join("lost" if value is None else f"{value:.2f}" for value in values)


EXPERIMENTS = {
    "clipping-training": Experiment(
        "clipped operator norms and flattened kernels beside none, on 200 digits, three seeds",
        2,
        training,
        show_training,
    ),
    "clipping-rates": Experiment(
        "learning rates against bounds, on digits, with BatchNorm (two seeds) and without (one)", 2, rates, show_rates
    ),
}
