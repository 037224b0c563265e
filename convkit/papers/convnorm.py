"""Experiments of Liu et al. 2021: conditioning and speed (Figures 2 and 4), label noise and scarce data (Figure 3)."""

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from convkit.audit.measurement import measure
from convkit.data.dataset import Data
from convkit.data.label_noise import noisy_labels
from convkit.data.subsets import scarce
from convkit.normalization.convnorm import ConvNorm2d
from convkit.operators.network import conv_operators
from convkit.operators.operator import ConvOperator
from convkit.papers.runs import NINE, Runs, append, columns, experiment, load_part, percents, train
from convkit.randomness import seeded
from convkit.training.evaluation import evaluate, recalibrate_batchnorm
from convkit.training.plan import Record

SEEDS = (0, 1, 2)
DIGITS = 5  # of the numbers that are kept
TRAINING = {"data": "digits", "model": "cnn9", **NINE, "momentum": 0.9}
METHODS = ("batchnorm", "convnorm+batchnorm")
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
    device: str = "cpu",
) -> dict[str, Any]:
    """Run one training: return the accuracies after the steps ``at`` and at the end, and, if asked, numbers of the
    layers.

    With ``steady`` each accuracy is also measured with recalibrated BatchNorm. ``start`` is ``"He"`` for kernels of
    He's scale, or ``"random"`` for affine kernels drawn as torch draws any convolution.
    """
    data = load_part(TRAINING["data"], device=device)
    data = data if share is None else scarce(data, share, seed)
    data = data if noise is None else noisy_labels(data, noise[1], noise[0], seed)
    result: dict[str, Any] = {"at": [], "accuracy": [], "lost": None}

    def begin(model: nn.Module) -> None:
        restart(model, start, seed)
        if layers:
            result["start"] = layers_of(model, data)

    def watch(model: nn.Module, record: Record) -> None:
        if record.step in at or record.step == steps:
            append(result, {"at": record.step, "accuracy": evaluate(model, data)}, DIGITS)
            if steady:
                append(result, {"steady": evaluate(with_steady_statistics(model, data), data)}, DIGITS)

    plan: dict[str, Any] = {"steps": steps, "batch_size": batch_size, "schedule": schedule, "seed": seed}
    model, diverged, _ = train(data, method, knobs=knobs, start=begin, watch=watch, **plan)
    if diverged:
        return result | {"lost": diverged}
    return result | ({"end": layers_of(model, data)} if layers else {})


@torch.no_grad()
def with_steady_statistics(model: nn.Module, data: Data) -> nn.Module:
    """Return a copy whose BatchNorm layers hold the mean statistics of all training images.

    The running averages of training lag behind the weights, with torch's momentum of 0.1 by about ten steps.
    """
    model = copy.deepcopy(model).train()
    recalibrate_batchnorm(model, (data.train_batch(batch)[0] for batch in torch.arange(len(data)).split(480)))
    return model


@torch.no_grad()
def restart(model: nn.Module, start: str, seed: int) -> None:
    """Multiply the kernels by He's factor (``"He"``), or draw ConvNorm's affine kernels at random (``"random"``)."""
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
    """Return norms, row norms and median channel condition numbers of every convolution on its torus.

    ``norm`` and ``condition`` include ConvNorm's affine kernel; ``norm_bare`` and ``condition_bare`` do not (they are
    the same for other layers); ``norm_folded`` includes the gains of a BatchNorm after the layer instead. ``row`` is
    the root mean square norm of the rows of the layer's matrix.
    """
    x = data.train_batch(torch.arange(2))[0]
    norms, conditions = measure(model, x)
    bare_norms, bare_conditions = measure(without_affine(model), x)
    folded_norms, _ = measure(model, x, folded=True)
    rows = {name: float(row_norm(A.torus())) for name, A in conv_operators(model, x).items()}
    numbers = {
        "norm": norms,
        "norm_bare": bare_norms,
        "norm_folded": folded_norms,
        "row": rows,
        "condition": conditions,
        "condition_bare": bare_conditions,
    }
    found: dict[str, list[float]] = {}
    for layer in conditions:  # the convolutions
        append(found, {name: values[layer] for name, values in numbers.items()}, DIGITS)
    return found


def without_affine(model: nn.Module) -> nn.Module:
    """Return a copy whose ConvNorm layers have no affine kernel."""
    model = copy.deepcopy(model)
    for layer in model.modules():
        if isinstance(layer, ConvNorm2d):
            layer.register_parameter("affine_weight", None)
            layer.register_parameter("affine_bias", None)
    return model


def row_norm(A: ConvOperator) -> Tensor:
    """Return the root mean square norm of the rows of ``A.matrix()`` for a circular operator."""
    return A.kernel.flatten(1).norm(dim=1).square().mean().sqrt()


def show(results: Mapping[str, Any]) -> str:
    """Return a line of text per case: the final accuracies of its seeds in percent."""
    lines = []
    for row in results["rows"]:
        text = percents(row["accuracy"], mean=True)
        lines.append(f"{row['name']:<46}{text}")
    return "\n".join(lines)


@experiment(
    "convnorm-training",
    "ConvNorm with BatchNorm against BatchNorm: accuracy step by step, layers before and after, on digits",
    2,
    show,
)
def training(
    runs: Runs, steps: int = 300, seeds: Sequence[int] = SEEDS, rates: Sequence[float] = RATES
) -> dict[str, Any]:
    """Measure the accuracy of each step at a constant rate, and the layers before and after (Figures 2 and 4)."""
    at = sorted({s for s in (*range(5, 61, 5), *range(80, steps + 1, 20)) if s <= steps})
    plan = {"steps": steps, "at": at, "schedule": "constant", "layers": True}
    cases = {f"{method}, lr {lr:g}": {"method": method, "knobs": {"lr": lr}} for method in METHODS for lr in rates}
    cases["plain, He's start, lr 0.02"] = {"method": "plain", "knobs": {"lr": 0.02}, "start": "He"}
    return _table(cases, plan, seeds, runs, at=at)


@experiment(
    "convnorm-race",
    "the first 60 steps of ConvNorm with BatchNorm and of BatchNorm, with lagging and steady statistics, on digits",
    1,
    show,
)
def race(runs: Runs, steps: int = 60, seeds: Sequence[int] = SEEDS, rates: Sequence[float] = RATES) -> dict[str, Any]:
    """Measure accuracy in the first steps at a constant rate, with running and with recalibrated statistics."""
    at = [s for s in (5, 10, 15, 20, 25, 30, 40, 50, 60) if s <= steps]
    plan = {"steps": steps, "at": at, "schedule": "constant", "steady": True}
    cases = {f"{method}, lr {lr:g}": {"method": method, "knobs": {"lr": lr}} for method in METHODS for lr in rates}
    return _table(cases, plan, seeds, runs, at=at)


@experiment(
    "convnorm-noise",
    "ConvNorm with BatchNorm against BatchNorm under label noise and few images, on digits, three seeds",
    1,
    show,
)
def noise(
    runs: Runs,
    steps: int = 100,
    seeds: Sequence[int] = SEEDS,
    noises: Sequence[tuple[str, float]] = (("uniform", 0.8), ("flip", 0.8)),
    shares: Sequence[float] = (0.2, 0.05),
) -> dict[str, Any]:
    """Train with label noise and with scarce data (Figure 3)."""
    plan = {"steps": steps, "schedule": "cosine", "knobs": {"lr": 0.1}}
    cases: dict[str, dict[str, Any]] = {}
    for method in METHODS:
        cases[f"{method}, all labels right"] = {"method": method}
        cases |= {f"{method}, {kind} {rate:g}": {"method": method, "noise": [kind, rate]} for kind, rate in noises}
        few = {"method": method, "batch_size": 32}
        cases |= {f"{method}, {share:g} of the images": {**few, "share": share} for share in shares}
    return _table(cases, plan, seeds, runs, batch_size_of_few_images=32)


@experiment(
    "convnorm-noise-rates",
    "the same with four of five labels flipped, at two learning rates, on digits, eight seeds",
    4,
    show,
)
def noise_rates(
    runs: Runs,
    steps: int = 100,
    seeds: Sequence[int] = range(8),
    rates: Sequence[float] = (0.03, 0.1),
) -> dict[str, Any]:
    """Train with four of five labels flipped, at two learning rates."""
    flips = ["flip", 0.8]
    cases = {
        f"{method}, lr {rate:g}": {"method": method, "knobs": {"lr": rate}, "noise": flips}
        for rate in rates
        for method in METHODS
    }
    return _table(cases, {"steps": steps, "schedule": "cosine"}, seeds, runs, noise=flips)


@experiment("convnorm-affine", "how ConvNorm's affine kernel starts, and its gradient, on digits, three seeds", 1, show)
def affine(runs: Runs, steps: int = 100, seeds: Sequence[int] = SEEDS) -> dict[str, Any]:
    """Compare initial affine kernels, none, and the gradient through the normalization."""
    alone, with_batchnorm = {"method": "convnorm"}, {"method": "convnorm+batchnorm"}
    slow, fast = {"lr": 0.02}, {"lr": 0.1}
    cases = {
        "alone, identity times √2": {**alone, "knobs": slow},
        "alone, identity": {**alone, "knobs": {**slow, "gain": 1.0}},
        "alone, random": {**alone, "knobs": slow, "start": "random"},
        "alone, identity times √2, full gradient": {**alone, "knobs": {**slow, "through": True}},
        "with BatchNorm, identity": {**with_batchnorm, "knobs": fast},
        "with BatchNorm, random": {**with_batchnorm, "knobs": fast, "start": "random"},
        "with BatchNorm, no affine": {**with_batchnorm, "knobs": {**fast, "affine": False}},
        "with BatchNorm, identity, full gradient": {**with_batchnorm, "knobs": {**fast, "through": True}},
    }
    at = [*(s for s in (20, 50) if s < steps), steps]
    return _table(cases, {"steps": steps, "at": at, "schedule": "constant"}, seeds, runs, at=at)


def _table(
    cases: Mapping[str, Mapping[str, Any]], plan: Mapping[str, Any], seeds: Sequence[int], runs: Runs, **header: Any
) -> dict[str, Any]:
    """Return all cases at all seeds as rows of ``name``, final ``accuracy``, ``lost`` by seed, and other numbers."""
    done = runs.over_seeds(job, {name: {**plan, **case} for name, case in cases.items()}, seeds)
    rows = []
    for name, case in cases.items():
        row = {"name": name, "method": case["method"], **columns(done[name], ("lost",))}
        row["accuracy"] = [None if run["lost"] else run["accuracy"][-1] for run in done[name]]
        if len(plan.get("at", ())) > 0:
            row["accuracies"] = [run["accuracy"] for run in done[name]]
        row |= columns(done[name], ("start", "end") if plan.get("layers") else ())
        row |= columns(done[name], ("steady",) if plan.get("steady") else ())
        rows.append(row)
    plan = {"steps": plan["steps"], "schedule": plan["schedule"]}
    return {**TRAINING, "seeds": list(seeds), "batch_size": 64, **plan, **header, "rows": rows}
