"""Every method on one data set under one protocol: the better of two learning rates, then three seeds."""

import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from convkit.audit.table import LayerTable, layer_table
from convkit.data.dataset import Data
from convkit.data.registry import cifar10, load
from convkit.data.subsets import holdout, subset
from convkit.methods.build import network
from convkit.methods.registry import METHODS
from convkit.papers.runs import Experiment
from convkit.training.evaluation import evaluate
from convkit.training.loop import fit
from convkit.training.sweeps import sweep

RATES = (0.1, 0.02)
CLIP_EVERY = 90  # steps: the last clip lies before the end, so that BatchNorm's statistics follow it
SEEDS = (0, 1, 2)
MODEL = {"model": "cnn9", "widths": (16, 32, 64)}
PROTOCOLS: dict[str, dict[str, Any]] = {
    "digits": {"steps": 300, "choosing_steps": 300, "choosing_seeds": (100, 101, 102), "every": 10, "goal": 0.9},
    "cifar10-jpeg": {
        **{"steps": 600, "choosing_steps": 200, "choosing_seeds": (100,), "every": 75, "goal": 0.5},
        **{"images": 10_000, "tests": 2_000},
    },
}


def images(name: str, folder: str | None, count: int | None, tests: int | None) -> Data:
    """The data by name; stratified parts of its training and test images where counts are given."""
    data = cifar10(folder, name) if name == "cifar10-jpeg" else load(name, folder)
    return data if count is None else subset(data, count, test_count=tests)


def train(
    data: Data, method: str, *, lr: float, seed: int, steps: int, every: int, batch_size: int = 64
) -> dict[str, Any]:
    """One run: the test accuracies on the way, CPU seconds of its steps, and the layers it ends with."""
    accuracies, cpu, diverged = [], 0.0, None
    model = network(MODEL["model"], data, method, seed=seed, widths=MODEL["widths"])
    knobs = {"lr": lr} | ({"every": CLIP_EVERY} if "every" in METHODS[method].knobs else {})
    run = fit(model, data, method, steps=steps, seed=seed, batch_size=batch_size, knobs=knobs)
    for number in range(1, steps + 1):
        began = time.process_time()
        record = next(run)
        cpu += time.process_time() - began
        if record.diverged:
            diverged = record.diverged
            break
        if number % every == 0 or number == steps:
            accuracies.append((number, evaluate(model, data)))
    result: dict[str, Any] = {"accuracies": accuracies, "cpu_seconds": cpu, "diverged": diverged}
    if diverged is None:
        x = data.train_batch([0])[0]
        result |= _of_layers(layer_table(model, x, torus=True), "")
        result |= _of_layers(layer_table(model, x, torus=True, folded=True), "_folded")
    return result


def job(name: str, folder: str | None, choosing: bool, images_: int | None, tests: int | None, **how: Any) -> Any:
    """One run in a process of its own; ``choosing`` holds a tenth of the training images out and tests on these."""
    data = images(name, folder, images_, tests)
    return train(holdout(data, 0.1) if choosing else data, **how)


def run(name: str, folder: str | None, keep: Path, methods: Sequence[str] = tuple(METHODS)) -> dict[str, Any]:
    """The table of one data set, as JSON holds it."""
    protocol = PROTOCOLS[name]
    how = {key: protocol[key] for key in ("steps", "every")}
    shorter = how | {"steps": protocol["choosing_steps"]}
    where = {"name": name, "folder": folder, "images_": protocol.get("images"), "tests": protocol.get("tests")}
    choices = {
        f"{method} lr {lr} held out {seed}": {
            **where,
            "choosing": True,
            "method": method,
            "lr": lr,
            "seed": seed,
            **shorter,
        }
        for method in methods
        for lr in RATES
        for seed in protocol["choosing_seeds"]
    }
    tried = sweep(job, choices, keep)
    held_out = {
        m: {
            lr: statistics.mean(_last(tried[f"{m} lr {lr} held out {seed}"]) for seed in protocol["choosing_seeds"])
            for lr in RATES
        }
        for m in methods
    }
    best = {method: max(RATES, key=lambda lr, method=method: held_out[method][lr]) for method in methods}
    finals = {
        f"{method} lr {best[method]} seed {seed}": {
            **where,
            "choosing": False,
            "method": method,
            "lr": best[method],
            "seed": seed,
            **how,
        }
        for method in methods
        for seed in SEEDS
    }
    done = sweep(job, finals, keep)
    rows = []
    for method in methods:
        runs = [done[f"{method} lr {best[method]} seed {seed}"] for seed in SEEDS]
        rows.append(
            {
                "method": method,
                "lr": best[method],
                "held_out_accuracy": {str(lr): value for lr, value in held_out[method].items()},
                "accuracy": [_last(r) for r in runs],
                "steps_to_goal": [_steps_to(r, protocol["goal"]) for r in runs],
                "cpu_seconds": [r["cpu_seconds"] for r in runs],
                "diverged": [r["diverged"] for r in runs],
                "layers": [{k: v for k, v in r.items() if k.startswith(("largest", "median"))} for r in runs],
                "curves": [r["accuracies"] for r in runs],
            }
        )
    normal = statistics.median(next(row for row in rows if row["method"] == "batchnorm")["cpu_seconds"])
    for row in rows:
        row["time_over_batchnorm"] = statistics.median(row["cpu_seconds"]) / normal
    return {"data": name, **protocol, "rates": RATES, "seeds": SEEDS, **MODEL, "batch_size": 64, "rows": rows}


def show(results: dict[str, Any]) -> str:
    """The table in words: one line a method, means with the spread over seeds (standard deviation)."""
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


def _of_layers(table: LayerTable, ending: str) -> dict[str, float]:
    """Of the convolutions on their tori: the largest norm 2, and the median over layers of the channels' median."""
    convolutions = [record for record in table if record.kind != "Linear"]
    medians = [statistics.median(record.channel_condition_numbers) for record in convolutions]
    return {
        f"largest_norm{ending}": max(record.norm2 for record in convolutions),
        f"median_channel_condition{ending}": statistics.median(medians),
    }


def _last(result: dict[str, Any]) -> float:
    """The accuracy at the end; none for a run that diverged."""
    return 0.0 if result["diverged"] else result["accuracies"][-1][1]


def _steps_to(result: dict[str, Any], goal: float) -> int | None:
    return next((number for number, accuracy in result["accuracies"] if accuracy >= goal), None)


def _experiment(data: str, minutes: float) -> Experiment:
    return Experiment(
        f"every method on {data}, the better of two learning rates, three seeds",
        minutes,
        lambda folder, keep: run(data, folder, keep),
        show,
        needs_folder=data != "digits",
    )


EXPERIMENTS = {
    f"methods-{data}": _experiment(data, minutes) for data, minutes in (("digits", 8), ("cifar10-jpeg", 120))
}
