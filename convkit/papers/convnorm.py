"""ConvNorm in small: conditioning and speed (Figures 2 and 4 of C), noisy and scarce labels (Figure 3), its affine."""

import copy
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from convkit.audit.gains import channel_gains, with_gain
from convkit.data.dataset import Data
from convkit.data.label_noise import noisy_labels
from convkit.data.registry import load
from convkit.data.subsets import scarce
from convkit.methods.build import network
from convkit.normalization.convnorm import ConvNorm2d
from convkit.norms import operator_norm
from convkit.operators.network import conv_operators, input_shapes
from convkit.operators.operator import ConvOperator
from convkit.papers.runs import Experiment, percents, short
from convkit.randomness import seeded
from convkit.spectra import channel_condition_numbers
from convkit.training.evaluation import evaluate, recalibrate_batchnorm
from convkit.training.loop import fit
from convkit.training.sweeps import sweep

SEEDS = (0, 1, 2)
DIGITS = 5  # of the numbers that are kept
TRAINING = {"data": "digits", "device": "cpu", "model": "cnn9", "widths": [16, 32, 64], "momentum": 0.9}
RIVALS = ("batchnorm", "convnorm+batchnorm")
RATES = (0.02, 0.1)
HE = 6**0.5  # torch's default start draws from +-1/sqrt(fan-in), He's variance of 2/fan-in is 6 times that


def job(
    method: str,
    seed: int,
    steps: int,
    at: Sequence[int] = (),
    knobs: Mapping[str, Any] | None = None,
    schedule: str = "constant",
    batch_size: int = 64,
    noise: tuple[str, float] | None = None,
    share: float | None = None,
    start: str = "",
    layers: bool = False,
    steady: bool = False,
) -> dict[str, Any]:
    """One run: test accuracies after the steps ``at`` and at the end, why it was lost if it was, its layers if asked.

    With ``steady`` every accuracy is taken once more after BatchNorm's statistics were, too. ``start`` is "He" for
    kernels at He's scale, or "random" for affine kernels drawn as torch draws any convolution.
    """
    data = load(TRAINING["data"])
    data = data if share is None else scarce(data, share, seed)
    data = data if noise is None else noisy_labels(data, noise[1], noise[0], seed)
    model = network(TRAINING["model"], data, method, seed=seed, knobs=knobs, widths=TRAINING["widths"])
    restart(model, start, seed)
    result: dict[str, Any] = {"at": [], "accuracy": [], "lost": None}
    if layers:
        result["start"] = layers_of(model, data)
    plan = {"seed": seed, "batch_size": batch_size, "schedule": schedule}
    for record in fit(model, data, method, steps=steps, knobs=knobs or {}, **plan):
        if record.diverged:
            return result | {"lost": record.diverged}
        if record.step in at or record.step == steps:
            result["at"].append(record.step)
            result["accuracy"].append(short(evaluate(model, data), DIGITS))
            if steady:
                result.setdefault("steady", []).append(
                    short(evaluate(with_steady_statistics(model, data), data), DIGITS)
                )
    return result | ({"end": layers_of(model, data)} if layers else {})


@torch.no_grad()
def with_steady_statistics(model: nn.Module, data: Data) -> nn.Module:
    """A copy whose BatchNorm layers hold the mean statistics of all training images under the weights as they are.

    The running averages that training leaves lag behind: with torch's momentum of 0.1 by about ten steps.
    """
    model = copy.deepcopy(model).train()
    recalibrate_batchnorm(model, (data.train_batch(some)[0] for some in torch.arange(len(data)).split(480)))
    return model


@torch.no_grad()
def restart(model: nn.Module, start: str, seed: int) -> None:
    """Another start of the kernels ("He") or of ConvNorm's affine kernels ("random")."""
    with seeded(seed):
        for layer in model.modules():
            if start == "He" and isinstance(layer, nn.Conv2d):
                layer.weight *= HE
            if start == "random" and isinstance(layer, ConvNorm2d) and layer.affine_weight is not None:
                bound = layer.affine_weight[0].numel() ** -0.5  # torch's start of a convolution of one channel each
                layer.affine_weight.uniform_(-bound, bound)
                layer.affine_bias.uniform_(-bound, bound)


@torch.no_grad()
def layers_of(model: nn.Module, data: Data) -> dict[str, list[float]]:
    """Of every convolution on its torus: norms, row norms, and condition numbers of its channels (their median).

    ``norm`` and ``condition`` count ConvNorm's affine kernel, ``norm_bare`` and ``condition_bare`` do not (the same
    numbers for other layers); ``norm_folded`` counts the gains of a BatchNorm behind the layer instead. ``row`` is the
    root mean square norm of the rows of the layer's matrix.
    """
    x, gains = data.train_batch(torch.arange(2))[0], channel_gains(model)
    sizes, found = input_shapes(model, x), {}
    for name, operator in conv_operators(model, x).items():
        layer, A = model.get_submodule(name), operator.torus()
        if isinstance(layer, nn.Linear):
            continue
        bare = layer.operator(sizes[name], affine=False) if isinstance(layer, ConvNorm2d) else A
        _, gain = gains.get(name, ("", None))
        folded = A if gain is None else with_gain(A, gain)
        numbers = {
            "norm": operator_norm(A, 2),
            "norm_bare": operator_norm(bare, 2),
            "norm_folded": operator_norm(folded, 2),
            "row": row_norm(A),
            "condition": channel_condition_numbers(A).median(),
            "condition_bare": channel_condition_numbers(bare).median(),
        }
        for key, value in numbers.items():
            found.setdefault(key, []).append(short(float(value), DIGITS))
    return found


def row_norm(A: ConvOperator) -> Tensor:
    """The root mean square norm of the rows of ``A.matrix()``, for a circular operator: that of its channels."""
    return A.kernel.flatten(1).norm(dim=1).square().mean().sqrt()


def training(
    folder: str | None, keep: Path, steps: int = 300, seeds: Sequence[int] = SEEDS, rates: Sequence[float] = RATES
) -> dict[str, Any]:
    """Test accuracy step by step at a constant rate, and every layer at the start and at the end (Figures 2 and 4)."""
    at = sorted({s for s in (*range(5, 61, 5), *range(80, steps + 1, 20)) if s <= steps})
    plan = {"steps": steps, "at": at, "schedule": "constant", "layers": True}
    cases = {f"{method}, lr {lr:g}": {"method": method, "knobs": {"lr": lr}} for method in RIVALS for lr in rates}
    cases["plain, He's start, lr 0.02"] = {"method": "plain", "knobs": {"lr": 0.02}, "start": "He"}
    return _table(cases, plan, seeds, keep, at=at)


def race(
    folder: str | None, keep: Path, steps: int = 60, seeds: Sequence[int] = SEEDS, rates: Sequence[float] = RATES
) -> dict[str, Any]:
    """The first steps at a constant rate: test accuracy as the network runs, and with steady statistics."""
    at = [s for s in (5, 10, 15, 20, 25, 30, 40, 50, 60) if s <= steps]
    plan = {"steps": steps, "at": at, "schedule": "constant", "steady": True}
    cases = {f"{method}, lr {lr:g}": {"method": method, "knobs": {"lr": lr}} for method in RIVALS for lr in rates}
    return _table(cases, plan, seeds, keep, at=at)


def noise(
    folder: str | None,
    keep: Path,
    steps: int = 100,
    seeds: Sequence[int] = SEEDS,
    noises: Sequence[tuple[str, float]] = (("uniform", 0.8), ("flip", 0.8)),
    shares: Sequence[float] = (0.2, 0.05),
) -> dict[str, Any]:
    """Wrong labels in a known share, and few images (Figure 3)."""
    plan = {"steps": steps, "schedule": "cosine", "knobs": {"lr": 0.1}}
    cases: dict[str, dict[str, Any]] = {}
    for method in RIVALS:
        cases[f"{method}, all labels right"] = {"method": method}
        cases |= {f"{method}, {kind} {rate:g}": {"method": method, "noise": [kind, rate]} for kind, rate in noises}
        few = {"method": method, "batch_size": 32}
        cases |= {f"{method}, {share:g} of the images": {**few, "share": share} for share in shares}
    return _table(cases, plan, seeds, keep, batch_size_of_few_images=32)


def noise_rates(
    folder: str | None,
    keep: Path,
    steps: int = 100,
    seeds: Sequence[int] = range(8),
    rates: Sequence[float] = (0.03, 0.1),
) -> dict[str, Any]:
    """Four of five labels flipped, at two learning rates: who is ahead depends on the rate."""
    flips = ["flip", 0.8]
    cases = {
        f"{method}, lr {rate:g}": {"method": method, "knobs": {"lr": rate}, "noise": flips}
        for rate in rates
        for method in RIVALS
    }
    return _table(cases, {"steps": steps, "schedule": "cosine"}, seeds, keep, noise=flips)


def affine(folder: str | None, keep: Path, steps: int = 100, seeds: Sequence[int] = SEEDS) -> dict[str, Any]:
    """How the affine kernels start, whether they are there, and whether the gradient goes through the normalization."""
    alone, beside = {"method": "convnorm"}, {"method": "convnorm+batchnorm"}
    slow, fast = {"lr": 0.02}, {"lr": 0.1}
    cases = {
        "alone, identity times √2": {**alone, "knobs": slow},
        "alone, identity": {**alone, "knobs": {**slow, "gain": 1.0}},
        "alone, random": {**alone, "knobs": slow, "start": "random"},
        "alone, identity times √2, full gradient": {**alone, "knobs": {**slow, "through": True}},
        "with BatchNorm, identity": {**beside, "knobs": fast},
        "with BatchNorm, random": {**beside, "knobs": fast, "start": "random"},
        "with BatchNorm, no affine": {**beside, "knobs": {**fast, "affine": False}},
        "with BatchNorm, identity, full gradient": {**beside, "knobs": {**fast, "through": True}},
    }
    at = [*(s for s in (20, 50) if s < steps), steps]
    return _table(cases, {"steps": steps, "at": at, "schedule": "constant"}, seeds, keep, at=at)


def show(results: Mapping[str, Any]) -> str:
    """One line a case: the accuracies of its seeds at the end, in percent."""
    lines = []
    for row in results["rows"]:
        text = percents(row["accuracy"], mean=True)
        lines.append(f"{row['name']:<46}{text}")
    return "\n".join(lines)


def _table(
    cases: Mapping[str, Mapping[str, Any]], plan: Mapping[str, Any], seeds: Sequence[int], keep: Path, **about: Any
) -> dict[str, Any]:
    """All cases at all seeds, as rows of ``name``, final ``accuracy`` and ``lost`` by seed, and what else was kept."""
    done = sweep(job, {f"{n} seed {s}": {"seed": s, **plan, **one} for n, one in cases.items() for s in seeds}, keep)
    rows = []
    for name, one in cases.items():
        runs = [done[f"{name} seed {seed}"] for seed in seeds]
        row = {"name": name, "method": one["method"], "lost": [run["lost"] for run in runs]}
        row["accuracy"] = [None if run["lost"] else run["accuracy"][-1] for run in runs]
        if len(plan.get("at", ())) > 0:
            row["accuracies"] = [run["accuracy"] for run in runs]
        for key, asked in (("start", "layers"), ("end", "layers"), ("steady", "steady")):
            if plan.get(asked):
                row[key] = [run.get(key) for run in runs]
        rows.append(row)
    plan = {"steps": plan["steps"], "schedule": plan["schedule"]}
    return {**TRAINING, "seeds": list(seeds), "batch_size": 64, **plan, **about, "rows": rows}


EXPERIMENTS = {
    "convnorm-training": Experiment(
        "ConvNorm with BatchNorm against BatchNorm: accuracy step by step, layers before and after, on digits",
        2,
        training,
        show,
    ),
    "convnorm-race": Experiment(
        "the first 60 steps of ConvNorm with BatchNorm and of BatchNorm, with lagging and steady statistics, on digits",
        1,
        race,
        show,
    ),
    "convnorm-noise": Experiment(
        "ConvNorm with BatchNorm against BatchNorm under label noise and few images, on digits, three seeds",
        1,
        noise,
        show,
    ),
    "convnorm-noise-rates": Experiment(
        "the same with four of five labels flipped, at two learning rates, on digits, eight seeds", 4, noise_rates, show
    ),
    "convnorm-affine": Experiment(
        "how ConvNorm's affine kernel starts, and its gradient, on digits, three seeds", 1, affine, show
    ),
}
