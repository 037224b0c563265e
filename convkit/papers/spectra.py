"""How far product bounds are from the slopes that are found: ways of training, depths and clips, on digits."""

import copy
import itertools
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import skip_init
from torch.nn.utils.fusion import fuse_conv_bn_eval

from convkit.audit.product import product_bound
from convkit.audit.table import fourier_relative, layer_table
from convkit.data.registry import digits
from convkit.methods.build import network
from convkit.methods.registry import get_method
from convkit.operators.network import conv_operators
from convkit.papers.clipping import CLIP_ALONE
from convkit.papers.runs import Experiment, rounded
from convkit.randomness import seeded
from convkit.robustness.lipschitz import certified_radius, empirical_radius, jacobian_norm, local_lipschitz, margins
from convkit.training.evaluation import evaluate
from convkit.training.loop import fit
from convkit.training.sweeps import sweep

SEEDS = (0, 1, 2)
SMALL: dict[str, Any] = {"data": "digits", "device": "cpu", "batch_size": 64, "steps": 200, "images": 32}
NINE = {"model": "cnn9", "options": {"widths": [16, 32, 64]}}
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
    """Slopes from below, bounds from above; ``sampled`` is the steepest of all pairs among ``others``."""
    draws = torch.Generator().manual_seed(0)
    bound = product_bound(model, x[:1])
    with torch.no_grad():
        model.eval()
        change = torch.pdist(model(others).double())
        distance = torch.pdist(others.flatten(1).double())
    result: dict[str, Any] = {
        "bound": bound,
        "folded_bound": product_bound(folded(model), x[:1]),
        "sampled": (change[distance > 0] / distance[distance > 0]).max(),
        "jacobian": jacobian_norm(model, x, generator=draws),
        "radius": radius,
        "local": local_lipschitz(model, x, radius, generator=draws),
        "margins": margins(model, x, y),
        "certified": certified_radius(model, x, y, bound),
        "empirical": empirical_radius(model, x, y, largest, generator=draws),
    }
    return rounded(result)


@torch.no_grad()
def folded(model: nn.Module) -> nn.Module:
    """A copy whose convolutions hold the gains and shifts of the BatchNorm behind them: the same function."""
    model = copy.deepcopy(model).eval()
    for part in list(model.modules()):
        if isinstance(part, nn.Sequential):
            names = list(dict(part.named_children()))
            for name, behind in itertools.pairwise(names):
                conv, norm = part.get_submodule(name), part.get_submodule(behind)
                if isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
                    setattr(part, name, fuse_conv_bn_eval(_unparametrized(conv), norm))
                    setattr(part, behind, nn.Identity())
    return model


def _unparametrized(conv: nn.Conv2d) -> nn.Conv2d:
    """The same layer whose weight is a parameter. (To take a parametrization off a copy would harm the original.)"""
    geometry = (conv.kernel_size, conv.stride, conv.padding, conv.dilation, conv.groups, False, conv.padding_mode)
    new: Any = skip_init(nn.Conv2d, conv.in_channels, conv.out_channels, *geometry).eval()
    new.weight, new.bias = nn.Parameter(conv.weight.clone()), conv.bias
    return new


# ---- ways of training, and depths, in small --------------------------------------------------------------------------
def job(
    model: str, options: Mapping[str, Any], method: str, knobs: Mapping[str, Any], seed: int, steps: int, images: int
) -> dict[str, Any]:
    """One run on digits: its accuracy, what is ``measured``, and the numbers of its layers.

    The model ``"shallow"`` has no BatchNorm, and the method ``"clip_alone"`` clips its convolutions.
    """
    data = digits()
    way = CLIP_ALONE if method == "clip_alone" else get_method(method)
    start = shallow(seed) if model == "shallow" else model
    net = network(start, data, way, seed=seed, knobs=knobs, **options)
    for record in fit(net, data, way, steps=steps, seed=seed, batch_size=SMALL["batch_size"], knobs=knobs):
        if record.diverged:
            return {"accuracy": None, "lost": record.diverged}
    x, y = data.test_batch(slice(0, images))
    result = {"accuracy": evaluate(net, data), "lost": None}
    every = data.test_batch(slice(0, 300))[0]
    result |= measured(net, x, y, every, radius=0.5, largest=8.0)
    return rounded(result | {"layers": layer_numbers(net, x[:1])})


def layer_numbers(model: nn.Module, x: Tensor) -> dict[str, list[float]]:
    """Of each layer's torus: the norm 2, the mean condition number of its channels, and, whatever its scale, the norm
    over the root mean square of its singular values (1: all are equal); ``folded`` with the gains of BatchNorm.
    """
    table, with_gains = (layer_table(model, x, torus=True, folded=on) for on in (False, True))
    relatives = [fourier_relative(A)[0] for A in conv_operators(model, x).values()]
    counts = [min(math.prod(B.in_shape), math.prod(B.out_shape)) for B in relatives]
    over_mean, folded_over_mean = (
        [math.sqrt(count / rank) for count, rank in zip(counts, one.column("stable_rank"), strict=True)]
        for one in (table, with_gains)
    )
    conditions = [sum(c) / len(c) for c in table.column("channel_condition_numbers")]
    norms = {"norm2": table.column("norm2"), "folded_norm2": with_gains.column("norm2"), "condition": conditions}
    return norms | {"over_mean": over_mean, "folded_over_mean": folded_over_mean}


def shallow(seed: int = 0) -> nn.Module:
    """Three convolutions and a linear layer, without BatchNorm, for images of 8 x 8 pixels."""
    with seeded(seed):
        first, second = nn.Conv2d(1, 16, 3, padding=1), nn.Conv2d(16, 32, 3, stride=2, padding=1)
        third, head = nn.Conv2d(32, 32, 3, padding=1), nn.Linear(512, 10)
    return nn.Sequential(first, nn.ReLU(), second, nn.ReLU(), third, nn.ReLU(), nn.Flatten(), head)


def methods(folder: str | None, keep: Path, seeds: Sequence[int] = SEEDS, ways: Sequence[str] = tuple(WAYS)) -> Any:
    """The nine-layer network on digits, by what steers its norms."""
    jobs = {
        f"{way} seed {seed}": {**NINE, "method": WAYS[way][0], "knobs": WAYS[way][1], "seed": seed, **_plan()}
        for way in ways
        for seed in seeds
    }
    done = sweep(job, jobs, keep)
    rows = [
        {"name": way, "method": WAYS[way][0], "knobs": WAYS[way][1]}
        | {"runs": [done[f"{way} seed {seed}"] for seed in seeds]}
        for way in ways
    ]
    return {**SMALL, **NINE, "seeds": list(seeds), "rows": rows}


def depths(folder: str | None, keep: Path, seeds: Sequence[int] = SEEDS, sizes: Sequence[int] = DEPTHS) -> Any:
    """Residual networks of more and more layers on digits."""
    how = {"model": "wrn28_10", "method": "batchnorm", "knobs": {}, **_plan()}
    jobs = {
        f"{size} layers seed {seed}": {**how, "options": {"depth": size, "widening": 1}, "seed": seed}
        for size in sizes
        for seed in seeds
    }
    done = sweep(job, jobs, keep)
    rows = [{"depth": size, "runs": [done[f"{size} layers seed {seed}"] for seed in seeds]} for size in sizes]
    return {**SMALL, "model": "wrn28_10", "widening": 1, "method": "batchnorm", "seeds": list(seeds), "rows": rows}


def bounds(folder: str | None, keep: Path, seeds: Sequence[int] = SEEDS, sizes: Sequence[Any] = BOUNDS) -> Any:
    """A shallow network without BatchNorm on digits, its convolutions clipped every 10 steps at some bound."""
    jobs = {}
    for size in sizes:
        knobs = {} if size is None else {"bound": size, "every": 10, "rounds": 3}
        one = {"model": "shallow", "options": {}, "method": "plain" if size is None else "clip_alone", "knobs": knobs}
        jobs |= {f"clipped at {size} seed {seed}": {**one, "seed": seed, **_plan()} for seed in seeds}
    done = sweep(job, jobs, keep)
    rows = [{"clip": size, "runs": [done[f"clipped at {size} seed {seed}"] for seed in seeds]} for size in sizes]
    return {**SMALL, "model": "shallow", "every": 10, "rounds": 3, "seeds": list(seeds), "rows": rows}


# ---- in words --------------------------------------------------------------------------------------------------------
def show_runs(results: Mapping[str, Any]) -> str:
    """One line a run."""
    lines = []
    for row in results["rows"]:
        for run in row["runs"]:
            text = f"lost: {run['lost']}" if run["lost"] else f"accuracy {run['accuracy']:.1%}   {summary(run)}"
            name = row.get("name") or (f"{row['depth']} layers" if "depth" in row else f"clipped at {row['clip']}")
            lines.append(f"{name:<28} {text}")
    return "\n".join(lines)


def summary(run: Mapping[str, Any]) -> str:
    """Slopes and bounds of a network, and how much of its radii is certified."""
    steep = f"sampled {run['sampled']:.3g}, derivative {max(run['jacobian']):.3g}, searched {max(run['local']):.3g}"
    bounds = f"folded bound {run['folded_bound']:.3g}, bound {run['bound']:.3g}"
    radii = [(c, e) for c, e in zip(run["certified"], run["empirical"], strict=True) if c and e]
    parts = sorted(c / e for c, e in radii)
    return f"{steep}, {bounds}; certified of the radius found: {parts[len(parts) // 2]:.2g}" if parts else steep


def _plan() -> dict[str, int]:
    return {"steps": SMALL["steps"], "images": SMALL["images"]}


EXPERIMENTS = {
    "spectra-methods": Experiment(
        "slopes, radii and bounds by way of training, on digits, three seeds", 2, methods, show_runs
    ),
    "spectra-depths": Experiment(
        "slopes and bounds of residual networks of 10 to 28 layers, on digits, three seeds", 2, depths, show_runs
    ),
    "spectra-bounds": Experiment(
        "a shallow network clipped at five bounds, on digits, three seeds", 1, bounds, show_runs
    ),
}
