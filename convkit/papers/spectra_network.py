"""The experiment with a narrow ResNet-18 on real images: its training, its weights, its slopes and bounds."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from convkit.audit.product.bound import product_bound
from convkit.data.dataset import Data
from convkit.models.layers import batchnorm_layer
from convkit.models.registry import build_model
from convkit.normalization.folding import fold_batchnorm
from convkit.papers.runs import Runs, experiment, load_part, rounded, short, train
from convkit.papers.spectra import measured, summary
from convkit.robustness.lipschitz import jacobian_norm
from convkit.training.evaluation import evaluate
from convkit.training.plan import Record

NETWORK: dict[str, Any] = {  # trained on real images
    **{"data": "cifar10-jpeg", "model": "resnet18", "width": 0.11, "method": "weight_decay"},
    **{"knobs": {"lr": 0.1, "weight_decay": 5e-4}, "batch_size": 64, "augmentation": "crop+flip", "seed": 0},
}


def show_training(results: Mapping[str, Any]) -> str:
    """Return the losses and the final accuracy as text."""
    looks = results["looks"]
    lines = [f"step {step:>5}: loss {loss:.3f}" for step, loss in zip(looks["steps"], looks["loss"], strict=True)]
    return "\n".join([*lines, f"test accuracy {results['accuracy']:.1%}"])


def show_slopes(results: Mapping[str, Any]) -> str:
    """Return a line of text per part of the network, then one for all of it."""
    lines = [
        f"{part['name']:<10} bound {part['bound']:<9.3g} folded {part['folded_bound']:<9.3g} "
        f"steepest derivative {max(part['jacobian']):.3g}"
        for part in results["parts"]
    ]
    return "\n".join([*lines, summary(results)])


@experiment("spectra-network", "a narrow ResNet-18 on CIFAR-10, its weights kept", 7, show_training, needs_folder=True)
def training(runs: Runs, steps: int = 4000, look_every: int = 100) -> dict[str, Any]:
    """Train a narrow ResNet-18 on real images and store its weights, in float16, beside the results (``.pt``)."""
    data = load_part(NETWORK["data"], folder=runs.folder, device=runs.device)
    return train_on(data, runs.results_file, steps, look_every)


def train_on(data: Data, results_file: Path, steps: int, look_every: int) -> dict[str, Any]:
    """Train the network on this data and return the results."""
    looks: dict[str, list[float]] = {"steps": [], "loss": []}
    losses: list[float] = []

    def watch(_: nn.Module, record: Record) -> None:
        losses.append(record.loss)
        if record.step % look_every == 0:
            looks["steps"].append(record.step)
            looks["loss"].append(short(sum(losses[-look_every:]) / look_every))
            print(f"step {record.step}: loss {looks['loss'][-1]:.3f}", flush=True)

    checkpoint = results_file.with_suffix(".checkpoint")
    model, diverged = train(
        data,
        NETWORK["method"],
        model=NETWORK["model"],
        options={"width": NETWORK["width"]},
        watch=watch,
        steps=steps,
        checkpoint=checkpoint,
        checkpoint_every=500,
        channels_last=True,
        **{name: NETWORK[name] for name in ("knobs", "batch_size", "augmentation", "seed")},
    )
    if diverged:
        raise ValueError(f"the training of {NETWORK['model']} was lost: {diverged}")
    names = narrow_resnet(data).state_dict()  # the same layers in the same order
    weights = {
        name: (tensor.half() if tensor.is_floating_point() else tensor).cpu().contiguous()
        for name, tensor in zip(names, model.state_dict().values(), strict=True)
    }
    torch.save(weights, results_file.with_suffix(".pt"))
    model = narrow_resnet(data, results_file.with_suffix(".pt"))  # rounded, as whoever reads the file has it
    checkpoint.unlink(missing_ok=True)
    return {**NETWORK, "steps": steps, "looks": looks, "accuracy": short(evaluate(model, data))}


def narrow_resnet(data: Data, weights: Path | None = None) -> nn.Module:
    """Return the network of the stored weights, for images in the shape of the data."""
    header = {"in_channels": data.in_channels, "classes": data.classes, "image_size": data.image_size}
    header |= {"mean": data.mean, "std": data.std}
    model = build_model(NETWORK["model"], layer=batchnorm_layer, width=NETWORK["width"], **header)
    if weights is not None:
        model.load_state_dict(torch.load(weights, weights_only=True))
    return model.to(data.device).eval()


@experiment("spectra-slopes", "slopes, radii and bounds of that network", 2, show_slopes, needs_folder=True)
def slopes(runs: Runs, images: int = 64, pairs: int = 1000) -> dict[str, Any]:
    """Measure what the trained network does to real images: slopes, radii and bounds, also by depth."""
    weights = runs.results_file.with_name("spectra-network.pt")
    return slopes_of(load_part(NETWORK["data"], folder=runs.folder, device=runs.device), weights, images, pairs)


def slopes_of(data: Data, weights: Path, images: int, pairs: int) -> dict[str, Any]:
    """Return slopes, radii and bounds of a network on these images."""
    model = narrow_resnet(data, weights)
    x, y = data.test_batch(slice(0, images))
    result = measured(model, x, y, data.test_batch(slice(0, pairs))[0], radius=0.5, largest=4.0)
    flat, parts = fold_batchnorm(model), []
    for place, (name, _) in enumerate(model.named_children(), start=1):
        if name.startswith(("normalize", "stem", "block", "head")):
            start, plain = (nn.Sequential(*list(m.children())[:place], nn.Flatten()) for m in (model, flat))
            steep = jacobian_norm(start, x[:16], generator=torch.Generator().manual_seed(0))
            bounds = {"bound": product_bound(start, x[:1], folded=False), "folded_bound": product_bound(plain, x[:1])}
            parts.append({"name": name, **rounded(bounds), "jacobian": rounded(steep)})
    return {"data": NETWORK["data"], "images": images, "pairs": pairs, **result, "parts": parts}
