"""The comparison of all methods on one data set: the better of two learning rates, then three seeds."""

import functools
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from convkit.audit.table import layer_table
from convkit.data.subsets import holdout
from convkit.methods.registry import METHODS
from convkit.normalization.convnorm import ConvNorm2d
from convkit.papers.runs import NINE, Runs, experiment, load_part, train
from convkit.training.evaluation import evaluate
from convkit.training.plan import Record

APART = ("lipschitz", "muon", "conv_muon", "layer_polar")  # have an objective, or an optimizer, of their own
COMPARED = tuple(name for name in METHODS if name not in APART)
RATES = (0.1, 0.02)
CLIP_EVERY = 90  # steps: the last clip lies before the end, so that BatchNorm's statistics follow it
SEEDS = (0, 1, 2)
MODEL = {"model": "cnn9", **NINE}
PROTOCOLS: dict[str, dict[str, Any]] = {
    "digits": {"steps": 300, "choosing_steps": 300, "choosing_seeds": (100, 101, 102), "every": 10, "goal": 0.9},
    "cifar10-jpeg": {
        **{"steps": 600, "choosing_steps": 200, "choosing_seeds": (100,), "every": 75, "goal": 0.5},
        **{"images": 10_000, "tests": 2_000},
    },
}


def job(
    data: str,
    folder: str | None,
    images: int | None,
    tests: int | None,
    choosing: bool,
    method: str,
    lr: float,
    seed: int,
    steps: int,
    every: int,
    device: str = "cpu",
) -> dict[str, Any]:
    """Run one training: return its test accuracies, the CPU seconds of its steps, and numbers of its layers at the end.

    With ``choosing`` a tenth of the training images is held out and takes the place of the test images.
    """
    part = load_part(data, images, tests, folder, device)
    part = holdout(part, 0.1) if choosing else part
    accuracies: list[tuple[int, float]] = []

    def watch(model: nn.Module, record: Record) -> None:
        if record.step % every == 0 or record.step == steps:
            accuracies.append((record.step, evaluate(model, part)))

    knobs = {"lr": lr} | ({"every": CLIP_EVERY} if "every" in METHODS[method].knobs else {})
    model, diverged, seconds = train(part, method, seed=seed, knobs=knobs, watch=watch, steps=steps)
    result = {"accuracies": accuracies, "cpu_seconds": sum(seconds), "diverged": diverged}
    return result if diverged else result | layer_numbers(model, part.train_batch([0])[0])


def layer_numbers(model: nn.Module, x: Tensor) -> dict[str, float]:
    """Return the largest norm 2 of the convolutions on their tori, and the median of their condition numbers."""
    names = [name for name, layer in model.named_modules() if isinstance(layer, nn.Conv2d | ConvNorm2d)]
    numbers = {}
    for ending, folded in (("", False), ("_folded", True)):
        table = layer_table(model, x, names, ("norm2", "channel_condition_numbers"), torus=True, folded=folded)
        medians = [statistics.median(channels) for channels in table.column("channel_condition_numbers")]
        numbers[f"largest_norm{ending}"] = max(table.column("norm2"))
        numbers[f"median_channel_condition{ending}"] = statistics.median(medians)
    return numbers


def run(data: str, runs: Runs, methods: Sequence[str] = COMPARED) -> dict[str, Any]:
    """Return the table of one data set, as JSON holds it."""
    protocol = PROTOCOLS[data]
    shared = {"data": data, "folder": runs.folder, "images": protocol.get("images"), "tests": protocol.get("tests")}
    shared |= {"every": protocol["every"]}
    held_out = choose(runs, methods, protocol, shared)
    best = {method: float(max(rates, key=rates.__getitem__)) for method, rates in held_out.items()}
    final = {"choosing": False, "steps": protocol["steps"], **shared}
    done = runs.over_seeds(job, {method: {"method": method, "lr": best[method], **final} for method in methods}, SEEDS)
    usual = statistics.median(run["cpu_seconds"] for run in done["batchnorm"])
    rows = []
    for method in methods:
        first = {"method": method, "lr": best[method], "held_out_accuracy": held_out[method]}
        time = statistics.median(run["cpu_seconds"] for run in done[method]) / usual
        rows.append({**first, **numbers_of(done[method], protocol["goal"]), "time_over_batchnorm": time})
    return {"data": data, **protocol, "rates": RATES, "seeds": SEEDS, **MODEL, "batch_size": 64, "rows": rows}


def choose(
    runs: Runs, methods: Sequence[str], protocol: Mapping[str, Any], shared: Mapping[str, Any]
) -> dict[str, dict[str, float]]:
    """Return the mean accuracy on held-out images of each method at each learning rate."""
    plan = {"choosing": True, "steps": protocol["choosing_steps"], **shared}
    pairs = [(method, lr) for method in methods for lr in RATES]
    cases = {f"{method} lr {lr} held out": {"method": method, "lr": lr, **plan} for method, lr in pairs}
    done = runs.over_seeds(job, cases, protocol["choosing_seeds"])
    held_out: dict[str, dict[str, float]] = {method: {} for method in methods}
    for (method, lr), found in zip(pairs, done.values(), strict=True):
        held_out[method][str(lr)] = statistics.mean(map(_last, found))
    return held_out


def numbers_of(runs: Sequence[Mapping[str, Any]], goal: float) -> dict[str, Any]:
    """Return the numbers of a row, seed by seed."""
    return {
        "accuracy": [_last(run) for run in runs],
        "steps_to_goal": [_steps_to(run, goal) for run in runs],
        "cpu_seconds": [run["cpu_seconds"] for run in runs],
        "diverged": [run["diverged"] for run in runs],
        "layers": [{key: run[key] for key in run if key.startswith(("largest", "median"))} for run in runs],
        "curves": [run["accuracies"] for run in runs],
    }


def show(results: dict[str, Any]) -> str:
    """Return the table as text: a line per method, means with the standard deviation over seeds."""
    goal = f"steps to {results['goal']:.0%}"
    lines = [f"{'method':<34}{'lr':>6}{'accuracy':>16}{goal:>14}{'norm':>8}{'condition':>11}{'time':>7}"]
    for row in results["rows"]:
        percent = [100 * value for value in row["accuracy"]]
        accuracy = f"{statistics.mean(percent):.1f} ± {statistics.stdev(percent):.1f}"
        steps = [s for s in row["steps_to_goal"] if s is not None]
        reached = f"{statistics.median(steps):g}" if len(steps) == len(percent) else f"{len(steps)} of {len(percent)}"
        layers = [run for run in row["layers"] if run]
        norm = f"{statistics.mean(run['largest_norm'] for run in layers):.3g}" if layers else "-"
        condition = f"{statistics.mean(run['median_channel_condition'] for run in layers):.3g}" if layers else "-"
        time_ = f"{row['time_over_batchnorm']:.2f}"
        lines.append(f"{row['method']:<34}{row['lr']:>6g}{accuracy:>16}{reached:>14}{norm:>8}{condition:>11}{time_:>7}")
    return "\n".join(lines)


def _last(result: Mapping[str, Any]) -> float:
    """Return the accuracy at the end; ``None`` for a run that diverged."""
    return 0.0 if result["diverged"] else result["accuracies"][-1][1]


def _steps_to(result: Mapping[str, Any], goal: float) -> int | None:
    return next((number for number, accuracy in result["accuracies"] if accuracy >= goal), None)


for _data, _minutes in (("digits", 8), ("cifar10-jpeg", 120)):
    experiment(
        f"methods-{_data}",
        f"every method on {_data}, the better of two learning rates, three seeds",
        _minutes,
        show,
        needs_folder=_data != "digits",
    )(functools.partial(run, _data))
