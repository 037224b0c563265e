"""The experiments of ``convkit.papers`` in a few steps, in this process, and the files of results that are stored."""

import contextlib
import json
from functools import partial
from pathlib import Path

from convkit.papers import (
    certified,
    clipping,
    convnorm,
    decay,
    methods,
    robustness,
    robustness_images,
    separation,
    spectra,
    sphere,
)
from convkit.papers.robustness import Row
from convkit.papers.runs import Runs, load_experiments
from tests import RESULTS

EXPERIMENTS = load_experiments()


class Serial(Runs):
    """Runs one after the other, through JSON as in processes."""

    def sweep(self, job, jobs):
        return {name: json.loads(json.dumps(job(**arguments))) for name, arguments in jobs.items()}


class Planned(Runs):
    """Runs that are listed in ``seen`` and not carried out."""

    def sweep(self, job, jobs):
        self.seen.update(jobs)
        return {name: {} for name in jobs}


def planned(name: str) -> dict:
    """The jobs of an experiment as it is meant, by name; those of its first sweep if a second depends on it."""
    runs = Planned(Path("unused"))
    object.__setattr__(runs, "seen", {})
    with contextlib.suppress(KeyError):  # there are no results
        EXPERIMENTS[name].run(runs)
    assert runs.seen
    for run, job in runs.seen.items():
        assert run.endswith(f" seed {job['seed']}")
    return runs.seen


def stored(name: str) -> dict:
    """The results that a notebook reads."""
    return json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))


HERE = Serial(Path("unused"))
BRIEF = {True: {"steps": 3, "clip_every": 2}, False: {"steps": 3, "clip_every": 2, "model": "resnet32"}}
GROUPS = {
    "norms": [Row("none", "batchnorm", {}, "clean", 2)],
    "free": [Row("ConvNorm", "convnorm", {}, "free", 2)],
    "without BatchNorm": [Row("sphere", "sphere_without_noise", {}, "clean", 2)],
    "objectives": [Row("trades", "batchnorm", {}, "trades", 2)],
}
PHOTOGRAPHS = [Row("none", "batchnorm", {"lr": 0.02}, "clean", 2), Row("free", "oni", {"lr": 0.02}, "free", 2)]
TINY = {
    "certified": partial(certified.run, HERE, seeds=(0,), steps=2, choosing_seeds=(7,), rates=(0.1, 0.05), images=40),
    "clipping-training": partial(clipping.training, HERE, 4, 2, 2, seeds=(0,), images=20, batch_size=10),
    "clipping-rates": partial(clipping.rates, HERE, seeds=(0,), rates=(0.1,), plans=BRIEF),
    "convnorm-training": partial(convnorm.training, HERE, steps=5, seeds=(0,)),
    "convnorm-race": partial(convnorm.race, HERE, steps=15, seeds=(0,)),
    "convnorm-noise": partial(convnorm.noise, HERE, steps=5, seeds=(0,)),
    "convnorm-noise-rates": partial(convnorm.noise_rates, HERE, steps=5, seeds=(0,)),
    "convnorm-affine": partial(convnorm.affine, HERE, steps=5, seeds=(0,)),
    "decay-norms": partial(decay.norms, HERE, steps=2, look_every=1, seeds=(0,)),
    "decay-generalization": partial(decay.generalization, HERE, steps=2, seeds=(0,)),
    "methods-digits": partial(methods.run, "digits", HERE, ["batchnorm", "sphere"]),
    "robustness-networks": partial(robustness.networks, HERE, GROUPS, seeds=(0,), tests=8, ensemble=4),
    "robustness-images": partial(robustness_images.networks, HERE, PHOTOGRAPHS, seeds=(0,), count=70, tests=10),
    "separation": partial(separation.run, HERE, [("digits", "training"), ("digits", "test")]),
    "spectra-methods": partial(spectra.methods, HERE, (0,), ("BatchNorm", "sphere, no BatchNorm")),
    "spectra-depths": partial(spectra.depths, HERE, (0,), (10,)),
    "spectra-bounds": partial(spectra.bounds, HERE, (0,), (None, 0.5)),
    "sphere-row-norms": partial(sphere.row_norms, HERE, steps=2, seeds=(0, 1)),
    "sphere-weight-decay": partial(sphere.weight_decay, HERE, steps=2, seeds=(0,)),
    "sphere-small-batches": partial(sphere.small_batches, HERE, images=8, seeds=(0,), batches=(2, 4)),
    "sphere-ablation": partial(sphere.ablation, HERE, steps=2, seeds=(0,), images=100),
}
PROTOCOL = {"steps": 4, "choosing_steps": 2, "choosing_seeds": (7,), "every": 2, "goal": 0.05}
