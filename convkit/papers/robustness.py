"""Experiments on attacks and norms: tables of Liang & Huang 2021 and Liu et al. 2021, predictors of robustness."""

import functools
import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from convkit.attacks.blackbox import simba
from convkit.attacks.ensemble import autoattack
from convkit.attacks.evaluation import robust_accuracy
from convkit.attacks.gradient import fgsm, pgd
from convkit.audit.product.bound import product_bound
from convkit.audit.table import layer_table
from convkit.papers.runs import NINE, Runs, experiment, load_part, rounded, short, train
from convkit.robustness.lipschitz import local_lipschitz, margins
from convkit.training.adversarial import ALP, TRADES, get_objective

SEEDS = (0, 1, 2)
EPS = 0.1  # of all attacks in the ball and of all adversarial training: 1.6 of the 16 levels of gray
STEP = 0.2  # of SimBA as in Liu et al.: its result may leave that ball
CLIP_EVERY = 90  # steps: twice, the last well before the end
TRAINING = {"data": "digits", "model": "cnn9", **NINE, "batch_size": 64}
ENSEMBLE = ("apgd-ce", "apgd-t")  # of AutoAttack: the other two found nothing more here and take five times as long


class Row(NamedTuple):
    """A row of the tables: one kind of network and how it is trained."""

    name: str
    method: str
    knobs: dict[str, Any]
    objective: str
    steps: int

    def job(self) -> dict[str, Any]:
        """Return the arguments of the row's runs."""
        return {key: value for key, value in self._asdict().items() if key != "name"}


NORMS: list[Row] = [
    Row("none", "batchnorm", {}, "clean", 240),
    *(Row(f"weight decay {b:g}", "weight_decay", {"weight_decay": b}, "clean", 240) for b in (1e-2, 1e-3)),
    *(Row(f"clip {b:g}", "norm_clip", {"bound": b, "every": CLIP_EVERY}, "clean", 240) for b in (0.5, 1.0)),
    *(Row(f"l1 decay {b:g}", "norm_decay_l1", {"beta": b}, "clean", 240) for b in (1e-2, 1e-3)),
    *(Row(f"l∞ decay {b:g}", "norm_decay_linf", {"beta": b}, "clean", 240) for b in (1e-2, 1e-3)),
]
FREE: list[Row] = [  # four replays: 120 batches are seen four times each
    Row(name, method, {}, "free", 480)
    for name, method in (
        ("BatchNorm", "batchnorm"),
        ("reshaped norm", "spectral_norm"),
        ("operator norm", "operator_norm"),
        ("ONI", "oni"),
        ("OCNN", "ocnn"),
        ("ConvNorm + BN", "convnorm+batchnorm"),
    )
]
WITHOUT_BATCHNORM: list[Row] = [  # they learn more slowly
    Row("standardized", "weight_standardization", {"lr": 0.02}, "clean", 600),
    Row("sphere", "sphere_without_noise", {}, "clean", 600),
    Row("ONI", "oni", {}, "clean", 600),
    Row("ConvNorm", "convnorm", {}, "clean", 600),
]
OBJECTIVES: list[Row] = [Row(name, "batchnorm", {}, name, 240) for name in ("pgd", "alp", "trades")]
JOINT = {"alp": ALP, "trades": TRADES}  # clean and attacked images in one batch: the stored numbers were made so
GROUPS = {"norms": NORMS, "free": FREE, "without BatchNorm": WITHOUT_BATCHNORM, "objectives": OBJECTIVES}


def attacks(eps: float) -> dict[str, Callable[..., Any]]:
    """Return the attacks within ``eps`` per pixel, each with its own random numbers; ``worst`` is their union."""
    ascent = {"eps": eps, "step": eps / 4}
    return {
        "FGSM": functools.partial(fgsm, eps=eps),
        "PGD-10": functools.partial(pgd, **ascent, steps=10, generator=_seeded(1)),
        "PGD-20": functools.partial(pgd, **ascent, steps=20, generator=_seeded(2)),
        "PGD margin": functools.partial(
            pgd, **ascent, steps=20, restarts=5, loss="margin", until_wrong=True, generator=_seeded(3)
        ),
        "SimBA": functools.partial(simba, step=eps, generator=_seeded(4)),  # each pixel once: it stays in the ball
    }


def black_box(model: nn.Module, x: Tensor, y: Tensor, step: float) -> dict[str, float]:
    """Return the fraction of correctly classified images that SimBA changes, and its mean number of queries."""
    with torch.no_grad():
        right = model(x).argmax(1) == y
        if not right.any():
            return {"success": 0.0, "queries": 0.0}  # nothing to break
        found, queries = simba(model, x[right], y[right], step, generator=_seeded(5))
        fell = model(found).argmax(1) != y[right]
    return {"success": short(fell.double().mean()), "queries": short(queries.double().mean())}


def steepness(model: nn.Module, x: Tensor, y: Tensor, eps: float, steps: int = 20) -> dict[str, float]:
    """Return medians over the images: margin, local Lipschitz estimate within ``eps``, and margin over twice it.

    Both are in the norm inf. A change below that ratio cannot close a margin that shrinks no faster than estimated.
    """
    margin = margins(model, x, y)
    local = local_lipschitz(model, x, eps, "inf", steps, generator=_seeded(6))
    ratio = margin / (2 * local.clamp(min=torch.finfo(local.dtype).tiny))
    return {"margin": short(margin.median()), "local": short(local.median()), "reach": short(ratio.median())}


def norm_numbers(model: nn.Module, x: Tensor) -> dict[str, Any]:
    """Return the layers' norms and bounds of the whole network.

    These are the norms inf of all layers, without and with BatchNorm's gains; the largest norm 2, on the torus and with
    the gains; and upper bounds of the network's Lipschitz constant in the norms 2 and inf.
    """
    alone = layer_table(model, x, columns=("norm_inf",))
    folded = layer_table(model, x, columns=("norm_inf", "norm2"), torus=True, folded=True)
    std = float(model.get_buffer("normalize.std").min())  # the network's first step divides by it
    numbers = {
        "norm_inf": alone.column("norm_inf"),
        "folded_inf": folded.column("norm_inf"),
        "largest": max(folded.column("norm2")),
        "product": product_bound(model, x, torus=True, folded=False),
        "product_inf": math.prod(folded.column("norm_inf")) / std,
    }
    return rounded(numbers)


def job(
    method: str,
    knobs: Mapping[str, Any],
    objective: str,
    steps: int,
    seed: int,
    eps: float = EPS,
    tests: int | None = None,
    ensemble: int = 0,
    device: str = "cpu",
) -> dict[str, Any]:
    """Train one network and attack it; ``ensemble`` is the number of test images that AutoAttack gets."""
    data = load_part(TRAINING["data"], device=device)
    joint = JOINT.get(objective)
    goal = joint(eps, eps / 4, joint=True) if joint else get_objective(objective, eps)
    model, diverged, _ = train(data, method, seed=seed, knobs=knobs, steps=steps, objective=goal)
    if diverged:
        return {"lost": diverged}
    model.eval()
    x, y = data.test_batch(torch.arange(len(data.test_labels))[:tests])
    reached = robust_accuracy(model, [(x, y)], attacks(eps), progress=False)
    result: dict[str, Any] = {"lost": None, "clean": short(reached.clean), "worst": short(reached.worst)}
    result |= {name: short(value) for name, value in reached.attacks.items()}
    result |= black_box(model, x, y, STEP)
    result |= steepness(model, x[:100], y[:100], eps) | norm_numbers(model, x[:2])
    if ensemble:
        few = [(x[:ensemble], y[:ensemble])]
        strong = {"AutoAttack": functools.partial(autoattack, eps=eps, attacks=ENSEMBLE, generator=_seeded(7))}
        result["AutoAttack"] = short(robust_accuracy(model, few, strong, progress=False).worst)
        result["on the same"] = short(robust_accuracy(model, few, attacks(eps), progress=False).worst)
    return result


def show(results: Mapping[str, Any]) -> str:
    """Return a line of text per row: mean accuracies in percent, that under the worst attack with its spread,
    predictors.
    """
    lines = []
    for row in results["rows"]:
        runs = [run for run in row["runs"] if run["lost"] is None]
        if len(runs) < len(row["runs"]):
            lines.append(f"{row['group']}: {row['name']} lost {len(row['runs']) - len(runs)} of {len(row['runs'])}")
            continue
        mean = {key: statistics.mean(run[key] for run in runs) for key in runs[0] if isinstance(runs[0][key], float)}
        spread = statistics.stdev(100 * run["worst"] for run in runs) if len(runs) > 1 else 0.0
        text = f"clean {100 * mean['clean']:5.1f}  FGSM {100 * mean['FGSM']:5.1f}  PGD-20 {100 * mean['PGD-20']:5.1f}"
        text += f"  worst {100 * mean['worst']:5.1f} ± {spread:4.1f}  SimBA {100 * mean['success']:5.1f} % fall, "
        text += f"{mean['queries']:.0f} queries  largest {mean['largest']:.3g}  product {mean['product']:.2g}"
        lines.append(f"{row['group']}: {row['name']:<18} {text}  local {mean['local']:.3g}  reach {mean['reach']:.3f}")
        if "AutoAttack" in mean:
            lines[-1] += f"  AutoAttack {100 * mean['AutoAttack']:.1f} ({100 * mean['on the same']:.1f})"
    return "\n".join(lines)


@experiment(
    "robustness-networks",
    "networks kept small or trained against attacks, then attacked, on digits, three seeds",
    9,
    show,
)
def networks(
    runs: Runs,
    groups: Mapping[str, Sequence[Row]] = GROUPS,
    seeds: Sequence[int] = SEEDS,
    tests: int | None = None,
    ensemble: int = 100,
) -> dict[str, Any]:
    """Train and attack all networks of Table 2 of Liang & Huang 2021 and Tables 1 and 2 of Liu et al. 2021."""
    named = {f"{group}: {row.name}": (group, row) for group, rows in groups.items() for row in rows}
    cases = {
        name: {**row.job(), "tests": tests, "ensemble": ensemble if group == "norms" else 0}
        for name, (group, row) in named.items()
    }
    done = runs.over_seeds(job, cases, seeds)
    rows = [{"group": group, **row._asdict(), "runs": done[name]} for name, (group, row) in named.items()]
    attacked = {"eps": EPS, "simba_step": STEP, "ensemble": list(ENSEMBLE), "ensemble_images": ensemble}
    return {**TRAINING, "schedule": "cosine", "seeds": list(seeds), **attacked, "rows": rows}


# ---- private ---------------------------------------------------------------------------------------------------------
def _seeded(number: int) -> torch.Generator:
    return torch.Generator().manual_seed(number)
