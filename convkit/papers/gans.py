"""Table 3 of Liu et al. 2021 as protocols, the paper's own and one on digits: what normalizing a discriminator does."""

import copy
import functools
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from convkit.methods.pair import gan_pair
from convkit.models.network import Network
from convkit.papers.cells import checkpoint_of, data_of
from convkit.papers.protocols import PAPERS, Cell, Claim, Protocol, Scale
from convkit.papers.runs import load_part, rounded, train
from convkit.training.gan import fit_gan
from convkit.training.generation import generation_scores, inception_metrics, make_images

INCEPTION = "inception-2015-12-05.pt"  # TorchScript, in the folder of the data; the reader brings it
JUDGE: dict[str, Any] = {"steps": 300, "schedule": "cosine", "seed": 0}  # how cnn9 is trained that judges images


def run_gan(
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
    """Train one pair and return the numbers that judge the images of the averaged generator.

    A run that ended early, ``lost``, is judged where it ended; pixels that are not numbers count as gray.
    """
    options = dict(setting["options"])
    shown, sets, inception = (options.pop(name) for name in ("images", "sets", "inception"))
    network = _inception(folder) if inception else None  # before a long training: it may not be there
    data = data_of(setting, seed, held_out, folder, device)
    rates = options.pop("knobs")
    generator, discriminator = gan_pair(data, method, seed=seed, knobs=knobs, **options)
    averaged = copy.deepcopy(generator)
    plan, place = dict(setting["plan"]), checkpoint_of(cell, knobs, seed, held_out, checkpoints)
    if place is not None:
        plan |= {"checkpoint": place, "checkpoint_every": max(100, plan["steps"] // 10)}
    pair, knobs = (generator, discriminator), {**rates, **knobs}
    *_, last = fit_gan(*pair, data, method, seed=seed, knobs=knobs, averaged=averaged, **plan)
    made = [make_images(averaged, shown, seed=1 + seed * sets + number).nan_to_num(0.5) for number in range(sets)]
    if network is not None:
        real, (features, logits) = data.train_batch(slice(0, shown))[0], (part.to(device) for part in network)
        found = [inception_metrics(real, images, features, logits) for images in made]
    else:
        model = judge(setting["data"], folder, device)
        found = [generation_scores(model, data, images) for images in made]
    if place is not None:
        place.unlink(missing_ok=True)
    means = {name: sum(one[name] for one in found) / sets for name in found[0]}
    return rounded({"lost": last.diverged, **means})


@functools.lru_cache(1)
def judge(name: str, folder: str | None, device: str) -> Network:
    """Return cnn9, trained to classify all images of a data set: the numbers of made images are computed by it."""
    trained = train(load_part(name, folder=folder, device=device), "batchnorm", **JUDGE).model
    assert isinstance(trained, Network)
    return trained


class Answers(nn.Module):
    """Features, or logarithms of probabilities, of the Inception network in TorchScript."""

    def __init__(self, network: nn.Module, features: bool) -> None:
        super().__init__()
        self.network, self.features = network, features

    def forward(self, x: Tensor) -> Tensor:
        """Return them for uint8 images ``(N, 3, height, width)``."""
        if self.features:
            return self.network(x, return_features=True)
        return self.network(x, no_output_bias=True).clamp(min=1e-30).log()


def _inception(folder: str | None) -> tuple[nn.Module, nn.Module]:
    file = Path(folder or "") / INCEPTION
    if not file.is_file():
        raise ValueError(
            f"FID and IS need the Inception network of the published numbers, {INCEPTION}, in the folder of the data, "
            f"got {folder!r} without it; put it there, or take the protocol on digits, C-table3-digits"
        )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of TorchScript, in which the published file is
        network = torch.jit.load(file, map_location="cpu").eval()
    return Answers(network, True), Answers(network, False)


# ---- Table 3 ---------------------------------------------------------------------------------------------------------
PRINTED = {
    "SN": {"IS": 8.12, "FID": 14.53},
    "ONI": {"IS": 7.07, "FID": 29.49},
    "OCNN": {"IS": 7.54, "FID": 22.15},
    "Vanilla": {"IS": 7.13, "FID": 29.47},
    "ConvNorm": {"IS": 7.62, "FID": 21.37},
}
CELLS = {
    "SN": ("spectral_norm", {}),
    "ConvNorm": ("convnorm", {"gain": 1.0, "residual_start": "one"}),
    "Vanilla": ("plain", {}),
    "ONI": ("oni", {}),
    "OCNN": ("ocnn", {"batchnorm": False}),
    "operator norm": ("operator_norm", {"batchnorm": False}),
}


def cells(*names: str, printed: bool = False) -> list[Cell]:
    """Return the cells of these names."""
    return [Cell(name, *CELLS[name], printed=PRINTED[name] if printed else {}) for name in names]


def order(names: Sequence[str], higher: str, lower: str) -> list[Claim]:
    """Return the claims that SN is best and ConvNorm second, by two numbers: one is better high, the other low."""
    pairs = [("SN", "ConvNorm"), *(("ConvNorm", name) for name in names)]
    return [
        claim
        for ours, theirs in pairs
        for claim in (
            Claim(f"{lower}: {ours} better than {theirs}", (ours,), (theirs,), lower, "lower"),
            Claim(f"{higher}: {ours} better than {theirs}", (ours,), (theirs,), higher, "higher"),
        )
    ]


OWN = {"lr": 2e-4, "discriminator_lr": 2e-4, "discriminator_steps": 5}
FULL = Scale(
    minutes=1000,
    seeds=1,
    data="cifar10-jpeg",
    model="sngan",
    options={"knobs": OWN, "images": 50_000, "sets": 10, "inception": True},
    plan={"steps": 50_000, "batch_size": 64, "record_every": 100},
    paper=True,
    note=f"FID against the training images; needs {INCEPTION} beside the data.",
)
SMALL = Scale(
    minutes=15,
    seeds=8,
    data="digits",
    model="sngan",
    options={
        **{"channels": [32, 16], "latent": 16, "images": 360, "sets": 1, "inception": False},
        "knobs": {"lr": 1e-3, "discriminator_lr": 1e-3, "discriminator_steps": 2},
    },
    plan={"steps": 300, "batch_size": 32, "ema": 0.99},
    note="Features of cnn9 in place of Inception's; narrow networks, rates of 0.001, two steps of the discriminator.",
)
TINY = replace(
    SMALL,
    minutes=0.1,
    seeds=1,
    options={**SMALL.options, "channels": [4, 4], "images": 20},
    plan={**SMALL.plan, "steps": 3, "batch_size": 8},
    images=60,
    tests=20,
)
METRICS = {
    "C-table3": ("IS", "FID"),
    "C-table3-digits": tuple(f"{name}-cnn9" for name in ("IS", "FD", "precision", "recall", "classes")),
}
PAPERS.register(
    "C-table3",
    Protocol(
        "C",
        "Table 3",
        "images of GANs, by the normalization of the discriminator",
        cells("SN", "ConvNorm", "OCNN", "Vanilla", "ONI", printed=True),
        {"full": FULL},
        order(("OCNN", "Vanilla", "ONI"), "IS", "FID"),
        run=run_gan,
    ),
)
PAPERS.register(
    "C-table3-digits",
    Protocol(
        "C",
        "Table 3, on digits",
        "images of narrow GANs, by the normalization of the discriminator",
        cells("SN", "ConvNorm", "Vanilla", "operator norm"),
        {"tiny": TINY, "small": SMALL},
        order(("Vanilla",), "IS-cnn9", "FD-cnn9"),
        run=run_gan,
    ),
)
