"""Whether residual networks train at the rates that W, C and L print, by the start of the last gain of each block."""

from collections.abc import Mapping, Sequence
from typing import Any

from convkit.papers.runs import Runs, experiment, load_part, rounded, train
from convkit.training.evaluation import evaluate

SEEDS = (0, 1, 2)
PLAN: dict[str, Any] = {"data": "digits", "batch_size": 64, "steps": 200}
NETWORKS: dict[str, dict[str, Any]] = {"resnet32": {}, "wrn28_10": {"widening": 1}, "resnet110": {}}
SPHERE, CONVNORM = {"lr": 0.2, "weight_decay": 1e-3}, {"lr": 0.1, "weight_decay": 1e-4}
WIDE_SPHERE = {"lr": 0.2, "weight_decay": 5e-3, "sigma": 1.0}  # of WRN-28-10
KNOBS: dict[str, dict[str, Any]] = {  # what W, C and L print; L also clips
    **{"sphere": SPHERE, "convnorm": CONVNORM},
    **{"norm_clip": {"lr": 0.01}, "norm_decay_l1": {"lr": 0.01}},  # with BatchNorm, whose gains start at 1
}
RATES = {(method, model): KNOBS[method] for model in NETWORKS for method in KNOBS} | {
    ("sphere", "wrn28_10"): WIDE_SPHERE
}


def job(
    model: str, method: str, knobs: Mapping[str, Any], seed: int, steps: int, device: str = "cpu"
) -> dict[str, Any]:
    """Run one training on digits and return its test accuracy, or why it was lost."""
    data, plan = load_part(PLAN["data"], device=device), {"steps": steps, "batch_size": PLAN["batch_size"]}
    network, lost = train(data, method, seed=seed, model=model, options=NETWORKS[model], knobs=knobs, **plan)
    return rounded({"accuracy": None if lost else evaluate(network, data), "lost": lost})


def cases() -> dict[str, dict[str, Any]]:
    """Return the trainings: each method on each network from its usual start, and, if that is 0, also from 1."""
    found = {}
    for (method, model), knobs in RATES.items():
        found[f"{method}, {model}"] = {"model": model, "method": method, "knobs": knobs}
        if method in ("sphere", "convnorm"):
            one = {**knobs, "residual_start": "one"}
            found[f"{method}, {model}, from one"] = {"model": model, "method": method, "knobs": one}
    return found


def show(results: Mapping[str, Any]) -> str:
    """Return a line of text per case: the accuracy of each seed, or the reason why it was lost."""
    lines = []
    for row in results["rows"]:
        texts = [f"lost: {run['lost']}" if run["lost"] else f"{run['accuracy']:.1%}" for run in row["runs"]]
        lines.append(f"{row['name']:<32} {'; '.join(texts)}")
    return "\n".join(lines)


@experiment(
    "starts", "the papers' methods on residual networks at W's, C's and L's rates, digits, three seeds", 20, show
)
def run(runs: Runs, seeds: Sequence[int] = SEEDS, only: Sequence[str] | None = None) -> dict[str, Any]:
    """Train every case, or ``only`` the named ones."""
    chosen = {name: case for name, case in cases().items() if only is None or name in only}
    done = runs.over_seeds(job, {name: {**case, "steps": PLAN["steps"]} for name, case in chosen.items()}, seeds)
    rows = [{"name": name, **case, "runs": done[name]} for name, case in chosen.items()]
    return {**PLAN, "networks": NETWORKS, "seeds": list(seeds), "rows": rows}
