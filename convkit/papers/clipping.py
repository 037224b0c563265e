"""Experiments of Sedghi et al. 2019: training with clipped singular values, and learning rates."""

import statistics
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import torch
from torch import nn

from convkit.audit.measurement import measure
from convkit.papers.runs import NINE, Runs, append, columns, experiment, load_part, percents, short, train
from convkit.training.evaluation import evaluate
from convkit.training.plan import Record

SEEDS = (0, 1, 2)
BOUNDS = (None, 0.5, 1.0, 2.0)
RATES = (0.003, 0.01, 0.03, 0.1, 0.3, 1.0)
RESHAPED = (0.2, 0.5, 1.0)
OPTIONS: dict[str, dict[str, Any]] = {
    "cnn9": NINE,
    "resnet32": {"width": 0.5, "preactivation": True},
}
TRAINING = {"data": "digits", "momentum": 0.9}
PLANS: dict[bool, dict[str, Any]] = {  # of the learning rates, with and without BatchNorm
    True: {"steps": 110, "clip_every": 30},
    False: {"steps": 70, "clip_every": 20, "model": "resnet32"},  # S's; without its shortcuts a clip leaves no signal
}


def largest_norm(model: nn.Module, x: torch.Tensor) -> float:
    """Return the largest norm 2 of a convolution, on its torus: the number that the clip bounds."""
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
    batchnorm: bool = True,
    device: str = "cpu",
) -> dict[str, Any]:
    """Run one training: return the test accuracy (``None`` if it diverged), the largest norm and what was measured.

    ``seconds`` is the median CPU time of a step; ``clip_seconds`` is how much longer a step with a clip takes on
    average, including the batches from which BatchNorm is recalibrated.
    """
    data = load_part(TRAINING["data"], images, device=device)
    knobs: dict[str, Any] = {"lr": lr, "momentum": TRAINING["momentum"]}
    if bound is not None:
        knobs |= {"bound": bound, "every": clip_every, "batchnorm": batchnorm}
    x = data.train_batch([0])[0]
    result: dict[str, Any] = {"steps": [], "loss": [], "norm": [], "test": [], "accuracy": None, "lost": None}
    losses: list[float] = []

    def watch(network: nn.Module, record: Record) -> None:
        losses.append(record.loss)
        if look_every and record.step % look_every == 0:
            numbers = {"norm": largest_norm(network, x), "test": evaluate(network, data)}
            append(result, {"steps": record.step, "loss": statistics.mean(losses[-look_every:]), **numbers})

    plan: dict[str, Any] = {"steps": steps, "batch_size": batch_size, "seed": seed}
    network, diverged, times = train(
        data, method, model=model, options=OPTIONS[model], knobs=knobs, watch=watch, **plan
    )
    if diverged:
        return result | {"lost": diverged}
    clips = [] if bound is None else times[clip_every - 1 :: clip_every]
    usual = [time for step, time in enumerate(times, 1) if bound is None or step % clip_every]
    seconds = statistics.median(usual or clips)
    result |= {"seconds": short(seconds), "clip_seconds": short(statistics.mean(clips) - seconds if clips else 0.0)}
    return result | {"accuracy": short(evaluate(network, data)), "last_norm": short(largest_norm(network, x))}


def show_training(results: Mapping[str, Any]) -> str:
    """Return a line of text per row: test accuracies in percent, the largest norm, the cost of a clip in steps."""
    lines = []
    for row in results["rows"]:
        name = row["method"] if row["bound"] is None else f"{row['method']} {row['bound']:g}"
        percent, norms = percents(row["accuracy"]), _numbers(row["last_norm"])
        cost = statistics.mean(c / s for c, s in zip(row["clip_seconds"], row["seconds"], strict=True) if s)
        lines.append(f"{name:<20} accuracy {percent}   largest norm {norms}   a clip takes {cost:.1f} steps")
    return "\n".join(lines)


def show_rates(results: Mapping[str, Any]) -> str:
    """Return a line of text per bound: mean accuracies in percent by learning rate; ``lost`` if a seed diverged."""
    lines = []
    for batchnorm in (False, True):
        for bound in results["bounds"]:
            rows = [r for r in results["rows"] if (r["batchnorm"], r["bound"]) == (batchnorm, bound)]
            cells = ["lost" if None in r["accuracy"] else f"{100 * statistics.mean(r['accuracy']):.1f}" for r in rows]
            name = f"{'with' if batchnorm else 'without'} BatchNorm, bound {'none' if bound is None else f'{bound:g}'}"
            lines.append(f"{name:<32}" + "".join(f"{cell:>7}" for cell in cells))
    return "\n".join(lines)


def _numbers(values: Sequence[float | None]) -> str:
    return " ".join("lost" if value is None else f"{value:.2f}" for value in values)


@experiment(
    "clipping-training",
    "clipped operator norms and flattened kernels beside none, on 200 digits, three seeds",
    2,
    show_training,
)
def training(
    runs: Runs,
    steps: int = 165,
    clip_every: int = 45,
    look_every: int = 15,
    seeds: Sequence[int] = SEEDS,
    images: int = 200,
    batch_size: int = 50,
) -> dict[str, Any]:
    """Compare bounds of the operator norm, and of the flattened kernel's, with none (Figures 2 and 4, section 4.4)."""
    plan = {"steps": steps, "clip_every": clip_every, "look_every": look_every, "images": images}
    plan |= {"lr": 0.1, "batch_size": batch_size}
    pairs = [("batchnorm" if bound is None else "norm_clip", bound) for bound in BOUNDS]
    pairs += [("reshaped_clip", bound) for bound in RESHAPED]
    cases = {f"{method} {bound}": {"method": method, "bound": bound} for method, bound in pairs}
    done = runs.over_seeds(job, {name: case | plan for name, case in cases.items()}, seeds)
    names = ("accuracy", "lost", "last_norm", "seconds", "clip_seconds", "loss", "norm", "test")
    rows = [case | {"steps": done[name][0]["steps"]} | columns(done[name], names) for name, case in cases.items()]
    header = {"model": "cnn9", **OPTIONS["cnn9"], "schedule": "cosine"}
    return {**TRAINING, "seeds": list(seeds), **plan, **header, "rows": rows}


@experiment(
    "clipping-rates",
    "learning rates against bounds, on digits, with BatchNorm (two seeds) and without (one)",
    2,
    show_rates,
)
def rates(
    runs: Runs,
    seeds: Sequence[int] = SEEDS[:2],
    rates: Sequence[float] = RATES,
    plans: Mapping[bool, Mapping[str, Any]] = MappingProxyType(PLANS),
) -> dict[str, Any]:
    """Compare learning rates and bounds, with BatchNorm and, in a residual network, without (Figure 3)."""
    rows = []
    for batchnorm in (False, True):
        cases = [{"bound": bound, "lr": lr} for bound in BOUNDS for lr in rates]
        named = {
            f"{batchnorm} {case['bound']} {case['lr']:g}": {
                "method": "norm_clip" if case["bound"] is not None else "batchnorm" if batchnorm else "plain",
                "batchnorm": batchnorm,
                **case,
                **plans[batchnorm],
            }
            for case in cases
        }
        # a step of the residual network takes twice as long: one seed
        done = runs.over_seeds(job, named, seeds if batchnorm else seeds[:1])
        for case, found in zip(cases, done.values(), strict=True):
            rows.append({"batchnorm": batchnorm, **case} | columns(found, ("accuracy", "lost")))
    header = {"with_batchnorm": dict(plans[True]), "without": dict(plans[False]), "models": OPTIONS, "batch_size": 64}
    header |= {"schedule": "cosine", "rates": list(rates), "bounds": list(BOUNDS)}
    return {**TRAINING, "seeds": list(seeds), **header, "rows": rows}
