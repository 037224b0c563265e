"""Experiments on product bounds and the slopes that are found, for methods, depths and clips, on digits."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from convkit.audit.product.bound import product_bound
from convkit.audit.table import fourier_relative, layer_table
from convkit.normalization.folding import fold_batchnorm
from convkit.operators.network import conv_operators
from convkit.papers.runs import NINE, Runs, experiment, load_part, rounded, train
from convkit.randomness import seeded
from convkit.robustness.lipschitz import certified_radius, empirical_radius, jacobian_norm, local_lipschitz, margins
from convkit.training.evaluation import evaluate

SEEDS = (0, 1, 2)
SMALL: dict[str, Any] = {"data": "digits", "batch_size": 64, "steps": 200, "images": 32}
MODEL = {"model": "cnn9", "options": NINE}
WAYS: dict[str, tuple[str, dict[str, Any]]] = {
    "BatchNorm": ("batchnorm", {}),
    "weight decay 0.01": ("weight_decay", {"weight_decay": 0.01}),
    "l1 norm decay 0.01": ("norm_decay_l1", {"beta": 0.01}),
    "clipped at 1": ("norm_clip", {"bound": 1.0, "every": 40}),
    "clipped at 0.5": ("norm_clip", {"bound": 0.5, "every": 40}),
    "ConvNorm, no BatchNorm": ("convnorm", {}),
    "sphere, no BatchNorm": ("sphere_without_noise", {}),
    "norm divided out, BatchNorm": ("operator_norm", {}),
}
DEPTHS = (10, 16, 22, 28)
BOUNDS = (None, 2.0, 1.0, 0.7, 0.5)


# ---- what is measured of a network -----------------------------------------------------------------------------------
def measured(model: nn.Module, x: Tensor, y: Tensor, others: Tensor, radius: float, largest: float) -> dict[str, Any]:
    """Return slopes, from below, and bounds, from above; ``sampled`` is the steepest over pairs among ``others``."""
    draws = torch.Generator().manual_seed(0)
    bound = product_bound(model, x[:1], folded=False)
    with torch.no_grad():
        model.eval()
        change = torch.pdist(model(others).double())
        distance = torch.pdist(others.flatten(1).double())
    result: dict[str, Any] = {
        "bound": bound,
        "folded_bound": product_bound(fold_batchnorm(model), x[:1]),
        "sampled": (change[distance > 0] / distance[distance > 0]).max(),
        "jacobian": jacobian_norm(model, x, generator=draws),
        "radius": radius,
        "local": local_lipschitz(model, x, radius, generator=draws),
        "margins": margins(model, x, y),
        "certified": certified_radius(model, x, y, bound),
        "empirical": empirical_radius(model, x, y, largest, generator=draws),
    }
    return rounded(result)


# ---- ways of training, and depths, in small --------------------------------------------------------------------------
def job(
    model: str,
    options: Mapping[str, Any],
    method: str,
    knobs: Mapping[str, Any],
    seed: int,
    steps: int,
    images: int,
    device: str = "cpu",
) -> dict[str, Any]:
    """Run one training on digits: return its accuracy, slopes and bounds (see ``measured``), and numbers of its layers.

    The model ``"shallow"`` has no BatchNorm.
    """
    data = load_part(SMALL["data"], device=device)
    start = shallow(seed) if model == "shallow" else model
    network, diverged = train(data, method, model=start, options=options, seed=seed, knobs=knobs, steps=steps)
    if diverged:
        return {"accuracy": None, "lost": diverged}
    x, y = data.test_batch(slice(0, images))
    result = {"accuracy": evaluate(network, data), "lost": None}
    others = data.test_batch(slice(0, 300))[0]
    result |= measured(network, x, y, others, radius=0.5, largest=8.0)
    return rounded(result | {"layers": layer_numbers(network, x[:1])})


def layer_numbers(model: nn.Module, x: Tensor) -> dict[str, list[float]]:
    """Return numbers of each layer on its torus: norm 2, mean channel condition number, and a scale-free norm.

    The last is the norm over the root mean square of the singular values, 1 where all are equal. ``folded`` numbers
    include the gains of BatchNorm.
    """
    names = ("norm2", "stable_rank", "channel_condition_numbers")
    table = layer_table(model, x, columns=names, torus=True)
    with_gains = layer_table(model, x, columns=names[:2], torus=True, folded=True)
    relatives = [fourier_relative(A)[0] for A in conv_operators(model, x).values()]
    counts = [min(math.prod(B.in_shape), math.prod(B.out_shape)) for B in relatives]
    over_mean, folded_over_mean = (
        [math.sqrt(count / rank) for count, rank in zip(counts, numbers.column("stable_rank"), strict=True)]
        for numbers in (table, with_gains)
    )
    conditions = [sum(c) / len(c) for c in table.column("channel_condition_numbers")]
    norms = {"norm2": table.column("norm2"), "folded_norm2": with_gains.column("norm2"), "condition": conditions}
    return norms | {"over_mean": over_mean, "folded_over_mean": folded_over_mean}


def shallow(seed: int = 0) -> nn.Module:
    """Return a network of three convolutions and a linear layer, without BatchNorm, for images of 8 x 8 pixels."""
    with seeded(seed):
        first, second = nn.Conv2d(1, 16, 3, padding=1), nn.Conv2d(16, 32, 3, stride=2, padding=1)
        third, head = nn.Conv2d(32, 32, 3, padding=1), nn.Linear(512, 10)
    return nn.Sequential(first, nn.ReLU(), second, nn.ReLU(), third, nn.ReLU(), nn.Flatten(), head)


# ---- in words --------------------------------------------------------------------------------------------------------
def show_runs(results: Mapping[str, Any]) -> str:
    """Return a line of text per run."""
    lines = []
    for row in results["rows"]:
        for run in row["runs"]:
            text = f"lost: {run['lost']}" if run["lost"] else f"accuracy {run['accuracy']:.1%}   {summary(run)}"
            name = row.get("name") or (f"{row['depth']} layers" if "depth" in row else f"clipped at {row['clip']}")
            lines.append(f"{name:<28} {text}")
    return "\n".join(lines)


def summary(run: Mapping[str, Any]) -> str:
    """Return slopes and bounds of a network, and the part of its radii that is certified."""
    steep = f"sampled {run['sampled']:.3g}, derivative {max(run['jacobian']):.3g}, searched {max(run['local']):.3g}"
    bounds = f"folded bound {run['folded_bound']:.3g}, bound {run['bound']:.3g}"
    radii = [(c, e) for c, e in zip(run["certified"], run["empirical"], strict=True) if c and e]
    parts = sorted(c / e for c, e in radii)
    return f"{steep}, {bounds}; certified of the radius found: {parts[len(parts) // 2]:.2g}" if parts else steep


# ---- the experiments -------------------------------------------------------------------------------------------------
@experiment("spectra-methods", "slopes, radii and bounds by way of training, on digits, three seeds", 2, show_runs)
def methods(runs: Runs, seeds: Sequence[int] = SEEDS, ways: Sequence[str] = tuple(WAYS)) -> dict[str, Any]:
    """Run the nine-layer network on digits with several methods."""
    cases = {way: {"method": WAYS[way][0], "knobs": WAYS[way][1]} for way in ways}
    done = runs.over_seeds(job, {way: {**MODEL, **case, **_plan()} for way, case in cases.items()}, seeds)
    rows = [{"name": way, **case, "runs": done[way]} for way, case in cases.items()]
    return {**SMALL, **MODEL, "seeds": list(seeds), "rows": rows}


@experiment(
    "spectra-depths", "slopes and bounds of residual networks of 10 to 28 layers, on digits, three seeds", 2, show_runs
)
def depths(runs: Runs, seeds: Sequence[int] = SEEDS, sizes: Sequence[int] = DEPTHS) -> dict[str, Any]:
    """Run residual networks of increasing depth on digits."""
    plan = {"model": "wrn28_10", "method": "batchnorm", "knobs": {}, **_plan()}
    cases = {f"{size} layers": {"options": {"depth": size, "widening": 1}, **plan} for size in sizes}
    done = runs.over_seeds(job, cases, seeds)
    rows = [{"depth": size, "runs": found} for size, found in zip(sizes, done.values(), strict=True)]
    return {**SMALL, "model": "wrn28_10", "widening": 1, "method": "batchnorm", "seeds": list(seeds), "rows": rows}


@experiment("spectra-bounds", "a shallow network clipped at five bounds, on digits, three seeds", 1, show_runs)
def bounds(runs: Runs, seeds: Sequence[int] = SEEDS, sizes: Sequence[Any] = BOUNDS) -> dict[str, Any]:
    """Run a shallow network without BatchNorm on digits, its convolutions clipped every 10 steps at several bounds."""
    cases = {}
    for size in sizes:
        clip = {"method": "norm_clip", "knobs": {"bound": size, "every": 10, "rounds": 3, "batchnorm": False}}
        case = {"method": "plain", "knobs": {}} if size is None else clip
        cases[f"clipped at {size}"] = {"model": "shallow", "options": {}, **case, **_plan()}
    done = runs.over_seeds(job, cases, seeds)
    rows = [{"clip": size, "runs": found} for size, found in zip(sizes, done.values(), strict=True)]
    return {**SMALL, "model": "shallow", "every": 10, "rounds": 3, "seeds": list(seeds), "rows": rows}


def _plan() -> dict[str, int]:
    return {"steps": SMALL["steps"], "images": SMALL["images"]}
