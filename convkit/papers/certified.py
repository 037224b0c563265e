"""The experiment on certificates: what is proven, what survives attacks, and what is right, of networks on digits."""

import functools
import statistics
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import nn

from convkit.attacks.evaluation import robust_accuracy
from convkit.attacks.gradient import pgd
from convkit.audit.product.bound import product_bound
from convkit.data.subsets import holdout
from convkit.papers.runs import Runs, experiment, load_part, short, train
from convkit.randomness import seeded
from convkit.robustness.lipschitz import certified_radius
from convkit.statistics import Verdict, compare
from convkit.training.evaluation import evaluate
from convkit.training.loop import cross_entropy
from convkit.training.margin import Margin

SEEDS = tuple(range(8))
CHOOSING_SEEDS = (100, 101, 102)
RATES = (0.02, 0.05, 0.1)
EPS = 0.25  # 2-norm, of the objective with margins and of the comparisons
ATTACKED = (0.125, EPS, 0.5, 1.0)  # sizes of the attacks
CERTIFIED = tuple(round(0.05 * place, 2) for place in range(21))  # sizes at which the certificates are counted
TRAINING: dict[str, Any] = {"data": "digits", "steps": 300, "batch_size": 64, "schedule": "cosine", "width": 16}
PAIRS = [
    ("true norm", "free"),
    ("true norm", "free, margins"),
    ("true norm", "flattened norm"),
    ("free, margins", "free"),
]


class Way(NamedTuple):
    """One way to train: a method, its knobs besides the learning rate, and an objective, ``"ce"`` or ``"margin"``."""

    name: str
    method: str
    knobs: dict[str, Any]
    objective: str


WAYS: list[Way] = [
    Way("free", "plain", {}, "ce"),
    Way("free, margins", "plain", {}, "margin"),
    Way("flattened norm", "spectral_norm", {"batchnorm": False}, "ce"),
    Way("true norm", "lipschitz", {"bound": 1.0}, "margin"),
]


def small(seed: int, width: int) -> nn.Sequential:
    """Return a network of three 3 x 3 convolutions, one pooling and a linear layer for 8 x 8 digits."""
    with seeded(seed):
        return nn.Sequential(
            *(nn.Conv2d(1, width, 3, padding=1), nn.ReLU()),
            *(nn.Conv2d(width, 2 * width, 3, padding=1), nn.ReLU(), nn.AvgPool2d(2)),
            *(nn.Conv2d(2 * width, 2 * width, 3, padding=1), nn.ReLU()),
            *(nn.Flatten(), nn.Linear(2 * width * 4 * 4, 10)),
        )


def job(
    method: str,
    knobs: Mapping[str, Any],
    objective: str,
    seed: int,
    steps: int,
    choosing: bool = False,
    images: int | None = None,
    device: str = "cpu",
) -> dict[str, Any]:
    """Train one network; return its accuracy on held-out images if ``choosing``, otherwise the numbers of a run."""
    data = load_part(TRAINING["data"], images, images, device=device)
    data = holdout(data, 0.1) if choosing else data
    goal = Margin(EPS) if objective == "margin" else cross_entropy
    model = small(seed, TRAINING["width"])
    plan = {"steps": steps, "batch_size": min(TRAINING["batch_size"], len(data)), "schedule": TRAINING["schedule"]}
    model, diverged = train(
        data, method, seed=seed, model=model.to(device), options={}, knobs=knobs, objective=goal, **plan
    )
    if choosing:
        return {"lost": diverged, "accuracy": 0.0 if diverged else short(evaluate(model, data))}
    if diverged:
        return {"lost": diverged}
    model.eval()
    x, y = data.test_batch(torch.arange(len(data.test_labels)))
    bound = product_bound(model, x[:1])
    radii = certified_radius(model, x, y, bound)
    result: dict[str, Any] = {"lost": None, "bound": short(bound)}
    result["certified"] = [short((radii > eps).double().mean()) for eps in CERTIFIED]
    result["attacked"] = []
    for eps in ATTACKED:  # an image is left if it survives both losses
        found = robust_accuracy(model, [(x, y)], attacks(eps), progress=False)
        result["clean"] = short(found.clean)  # the same each time
        result["attacked"].append(short(found.worst))
    return result


def attacks(eps: float) -> dict[str, Any]:
    """Return PGD in 2-norm on two losses, each with its own random numbers."""
    ascent = {"eps": eps, "step": eps / 4, "steps": 20, "norm": 2, "until_wrong": True}
    return {
        loss: functools.partial(pgd, **ascent, loss=loss, generator=torch.Generator().manual_seed(number))
        for number, loss in enumerate(("ce", "margin"))
    }


def at_eps(results: Mapping[str, Any], name: str, what: str, eps: float = EPS) -> list[float]:
    """Return the clean, attacked or certified accuracy of one way at ``eps`` in percent, seed by seed."""
    (row,) = [row for row in results["rows"] if row["name"] == name]
    places = {"attacked": results["attacked_at"], "certified": results["certified_at"]}
    values = [run[what] if what == "clean" else run[what][places[what].index(eps)] for run in row["runs"]]
    return [100 * value for value in values]


def verdicts(results: Mapping[str, Any], eps: float = EPS) -> dict[tuple[str, str, str], Verdict]:
    """Return what paired seeds say of certified, attacked and clean accuracy, for each pair in ``PAIRS``."""
    whole = {row["name"] for row in results["rows"] if all(run["lost"] is None for run in row["runs"])}
    return {
        (what, ours, theirs): compare(at_eps(results, ours, what, eps), at_eps(results, theirs, what, eps))
        for what in ("certified", "attacked", "clean")
        for ours, theirs in PAIRS
        if {ours, theirs} <= whole and len(results["seeds"]) > 1
    }


def show(results: Mapping[str, Any]) -> str:
    """Return a line of text per way, in percent at ``EPS`` with the standard deviation over seeds."""
    lines = []
    for row in results["rows"]:
        text = f"{row['name']:<16} lr {row['lr']:<5g}"
        lost = sum(run["lost"] is not None for run in row["runs"])
        for what in ("certified", "attacked", "clean") if not lost else ():
            values = at_eps(results, row["name"], what)
            spread = statistics.stdev(values) if len(values) > 1 else 0.0
            text += f"  {what} {statistics.mean(values):5.1f} ± {spread:3.1f}"
        if not lost:
            text += f"  bound {statistics.geometric_mean(run['bound'] for run in row['runs']):.3g}"
        lines.append(text + (f"  ({lost} lost)" if lost else ""))
    return "\n".join(lines)


@experiment(
    "certified",
    "certified, attacked and clean accuracy of free, flattened and bounded networks on digits, eight seeds",
    8,
    show,
)
def run(
    runs: Runs,
    ways: Sequence[Way] = tuple(WAYS),
    seeds: Sequence[int] = SEEDS,
    steps: int = TRAINING["steps"],
    choosing_seeds: Sequence[int] = CHOOSING_SEEDS,
    rates: Sequence[float] = RATES,
    images: int | None = None,
) -> dict[str, Any]:
    """Choose a learning rate for each way on held-out images, then train and attack it with every seed."""
    shared = {"steps": steps, "images": images}

    def case(way: Way, lr: float) -> dict[str, Any]:
        return {"method": way.method, "knobs": {**way.knobs, "lr": lr}, "objective": way.objective, **shared}

    trials = {f"{way.name} lr {lr:g} held out": {**case(way, lr), "choosing": True} for way in ways for lr in rates}
    tried = runs.over_seeds(job, trials, choosing_seeds)
    rows: list[dict[str, Any]] = []
    for way in ways:
        held_out = {
            f"{lr:g}": short(statistics.mean(one["accuracy"] for one in tried[f"{way.name} lr {lr:g} held out"]))
            for lr in rates
        }
        rows.append({**way._asdict(), "lr": float(max(held_out, key=held_out.__getitem__)), "held_out": held_out})
    done = runs.over_seeds(job, {way.name: case(way, row["lr"]) for way, row in zip(ways, rows, strict=True)}, seeds)
    for row in rows:
        row["runs"] = done[row["name"]]
    header = {**TRAINING, "steps": steps, "seeds": list(seeds), "choosing_seeds": list(choosing_seeds)}
    return {**header, "eps": EPS, "attacked_at": list(ATTACKED), "certified_at": list(CERTIFIED), "rows": rows}
