"""One run of a protocol: trains a network and returns its accuracies, under attacks too, and its norms."""

import functools
import statistics
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from convkit.attacks.blackbox import simba
from convkit.attacks.evaluation import robust_accuracy
from convkit.attacks.registry import ATTACKS
from convkit.audit.table import layer_table
from convkit.data.clouds import Clouds
from convkit.data.dataset import Data
from convkit.data.label_noise import noisy_labels
from convkit.data.subsets import holdout, subset, unused
from convkit.papers.protocols import NORMS
from convkit.papers.runs import load_part, rounded, train
from convkit.training.adversarial import get_objective
from convkit.training.evaluation import evaluate, mean_class_accuracy
from convkit.training.plan import Plan, Record

HELD_OUT = 0.1  # of the training images, on which runs are stopped, and rates chosen where no others are left
STATES = 20  # among which early stopping chooses


def run_cell(
    cell: str,
    method: str,
    knobs: Mapping[str, Any],
    setting: Mapping[str, Any],
    seed: int,
    held_out: bool = False,
    folder: str | None = None,
    checkpoints: str | None = None,
    device: str = "cpu",
) -> dict[str, Any]:
    """Train one network and return what the setting, the fields of a ``Scale``, asks for; ``lost`` if it diverged.

    With ``held_out`` it is tested on training images that it does not see, by the metric ``choose`` alone.
    """
    data = data_of(setting, seed, held_out, folder, device)
    plan = dict(setting["plan"])
    plan["batch_size"] = min(plan["batch_size"], len(data))
    steps = Plan.of(len(data), seed=seed, **plan).steps
    result: dict[str, Any] = {"lost": None}
    watches: list[Callable[[nn.Module, Record], None]] = []
    looks = {f"after {100 * part:g} %": max(1, round(part * steps)) for part in setting["looks"]}

    def look(model: nn.Module, record: Record) -> None:
        for metric, step in looks.items():
            if record.step == step:
                result[metric] = evaluate(model, data)

    watches += [look] if looks else []
    best = Best(data, steps) if setting["early_stop"] else None
    watches += [best.look] if best is not None else []
    place = checkpoint_of(cell, knobs, seed, held_out, checkpoints) if not watches else None
    if place is not None:
        plan |= {"checkpoint": place, "checkpoint_every": max(100, steps // 10)}
    goal = get_objective(setting["objective"], setting["eps"])
    network = {"model": setting["model"], "options": setting["options"], "knobs": knobs, "objective": goal}
    watch = functools.partial(_each, watches) if watches else None
    trained = train(data if best is None else best.data, method, seed=seed, watch=watch, **network, **plan)
    if trained.diverged:
        metrics = ("clean", *setting["attacks"], *(["mean class"] if isinstance(data, Clouds) else []))
        result |= {"lost": trained.diverged} | dict.fromkeys(metrics, 0.0)
    else:
        model = trained.model if best is None else best.restore(trained.model)
        result["clean"] = evaluate(model, data)
        if isinstance(data, Clouds):  # papers on clouds print both
            result["mean class"] = mean_class_accuracy(model, data)
        wanted = {setting["choose"]} if held_out else set(setting["attacks"])
        for metric, attack in setting["attacks"].items():
            if metric in wanted:
                result |= _attacked(model, data, metric, attack, seed)
        if setting["norms"] and not held_out:
            table = layer_table(model, data.test_batch([0])[0], columns=NORMS)
            result |= {norm: statistics.geometric_mean(table.column(norm)) for norm in NORMS}
    if place is not None:
        place.unlink(missing_ok=True)
    return rounded(result)


def data_of(setting: Mapping[str, Any], seed: int, held_out: bool, folder: str | None, device: str) -> Data:
    """Return the data of a setting; the seed draws which images are left and which labels are wrong.

    With ``held_out`` other training images are in the place of the test images: those that are not used, if there are
    any, otherwise a tenth of all.
    """
    data, count = load_part(setting["data"], None, None, folder, device), setting["images"]
    if setting["tests"] is not None:
        data = subset(data, len(data), test_count=setting["tests"])
    if held_out:
        data = holdout(data, HELD_OUT) if count is None else unused(data, count, seed)
    elif count is not None:
        data = subset(data, count, seed)
    return noisy_labels(data, setting["noise"], "uniform", seed) if setting["noise"] else data


class Best:
    """Early stopping: keeps the weights of the state that is best on held-out images."""

    def __init__(self, data: Data, steps: int) -> None:
        self.data, self.every = holdout(data, HELD_OUT), max(1, steps // STATES)
        self.accuracy, self.state = -1.0, dict[str, Tensor]()

    def look(self, model: nn.Module, record: Record) -> None:
        """Keep the weights if they are better on the held-out images than those before."""
        if record.step % self.every == 0:
            accuracy = evaluate(model, self.data)
            if accuracy > self.accuracy:
                self.accuracy = accuracy
                self.state = {name: tensor.clone() for name, tensor in model.state_dict().items()}

    def restore(self, model: nn.Module) -> nn.Module:
        """Return the model with the best weights."""
        model.load_state_dict(self.state)
        return model


def checkpoint_of(cell: str, knobs: Mapping[str, Any], seed: int, held_out: bool, folder: str | None) -> Path | None:
    """Return the file in which an interrupted run goes on; its name tells the runs of a protocol apart."""
    if folder is None:
        return None
    chosen = " ".join(f"{name} {value}" for name, value in sorted(knobs.items()))
    name = f"{cell}, {chosen}, seed {seed}{', held out' if held_out else ''}.pt"
    return Path(folder) / name.replace("/", " of ")


# ---- private ---------------------------------------------------------------------------------------------------------
def _each(watches: list[Callable[[nn.Module, Record], None]], model: nn.Module, record: Record) -> None:
    for watch in watches:
        watch(model, record)


def _attacked(model: nn.Module, data: Data, metric: str, given: Mapping[str, Any], seed: int) -> dict[str, float]:
    """Return the share of the first test images that a model gets right under an attack; for SimBA also its queries."""
    model.eval()
    options = dict(given)
    name, count = options.pop("attack"), options.pop("images")
    if name != "fgsm":
        options["generator"] = torch.Generator().manual_seed(seed)
    x, y = data.test_batch(slice(0, count))
    if name == "simba":  # only images that the network gets right are attacked, as published
        right = model(x).argmax(1) == y
        x, y = x[right], y[right]
        if not len(x):
            return {metric: 0.0}
        found, queries = simba(model, x, y, **options)
        wrong = (model(found).argmax(1) != y).double().mean().item()
        return {metric: 1 - wrong, f"queries of {metric}": queries.double().mean().item()}
    found = robust_accuracy(model, [(x, y)], functools.partial(ATTACKS[name], **options), progress=False)
    return {metric: found.worst}
