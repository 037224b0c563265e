"""Attacks and norms in small: Table 2 of L, Tables 1 and 2 of C, Fig. 2 of L, and what predicts robustness."""

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
from convkit.audit.product import product_bound
from convkit.audit.table import layer_table
from convkit.papers.runs import NINE, Runs, experiment, load_part, rounded, short, train
from convkit.robustness.lipschitz import local_lipschitz, margins
from convkit.training.adversarial import ALP, TRADES, get_objective

SEEDS = (0, 1, 2)
EPS = 0.1  # of all attacks in the ball and of all adversarial training: 1.6 of the 16 levels of gray
STEP = 0.2  # of SimBA as in C: it is not held in that ball
CLIP_EVERY = 90  # steps: twice, the last well before the end
TRAINING = {"data": "digits", "device": "cpu", "model": "cnn9", **NINE, "batch_size": 64}
ENSEMBLE = ("apgd-ce", "apgd-t")  # of AutoAttack: the other two found nothing more here and take five times as long


class Row(NamedTuple):
    """A network of the tables."""

    name: str
    method: str
    knobs: dict[str, Any]
    objective: str
    steps: int

    def job(self) -> dict[str, Any]:
        """The arguments of its runs."""
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
    """What is tried within ``eps`` of every pixel, each with random numbers of its own: ``worst`` is their union."""
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
    """SimBA on the images that the model gets right, every pixel once: the share that falls, and the mean queries."""
    with torch.no_grad():
        right = model(x).argmax(1) == y
        if not right.any():
            return {"success": 0.0, "queries": 0.0}  # nothing to break
        found, queries = simba(model, x[right], y[right], step, generator=_seeded(5))
        fell = model(found).argmax(1) != y[right]
    return {"success": short(fell.double().mean()), "queries": short(queries.double().mean())}


def steepness(model: nn.Module, x: Tensor, y: Tensor, eps: float, steps: int = 20) -> dict[str, float]:
    """Medians over the images: the margin, the local Lipschitz estimate within ``eps`` (both norms infinity), and the
    margin over twice that estimate: a change below this cannot close a margin that shrinks no faster."""
    margin = margins(model, x, y)
    local = local_lipschitz(model, x, eps, "inf", steps, generator=_seeded(6))
    ratio = margin / (2 * local.clamp(min=torch.finfo(local.dtype).tiny))
    return {"margin": short(margin.median()), "local": short(local.median()), "reach": short(ratio.median())}


def norm_numbers(model: nn.Module, x: Tensor) -> dict[str, Any]:
    """The norms infinity of all layers, as they are and with BatchNorm's gains; the largest norm 2 (of the torus, with
    the gains); and two upper bounds of the whole network's, in the norms 2 and infinity."""
    alone = layer_table(model, x, columns=("norm_inf",))
    folded = layer_table(model, x, columns=("norm_inf", "norm2"), torus=True, folded=True)
    std = float(model.get_buffer("normalize.std").min())  # the network's first step divides by it
    numbers = {
        "norm_inf": alone.column("norm_inf"),
        "folded_inf": folded.column("norm_inf"),
        "largest": max(folded.column("norm2")),
        "product": product_bound(model, x, torus=True),
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
) -> dict[str, Any]:
    """Train one network and attack it; ``ensemble`` test images also meet AutoAttack. ``lost`` says why if it ended."""
    data = load_part(TRAINING["data"])
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
    """One line per row: means over seeds in percent, the worst attack's with its spread, and what may predict it."""
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
    """All networks of the four tables, seed by seed; AutoAttack where norms are kept small."""
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
