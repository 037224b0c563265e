"""What becomes of each method on handwritten digits: the same for three seeds."""

import pytest
import torch

from convkit.data import digits
from convkit.methods.build import network
from convkit.methods.registry import METHODS
from convkit.training.evaluation import evaluate
from convkit.training.loop import fit

pytestmark = pytest.mark.slow
CHANCE = 0.2
LEARNS = {  # accuracy after 150 steps of 64, and the learning rate where it is not 0.1
    "weight_decay": (0.95, 0.1),
    "batchnorm": (0.95, 0.1),
    "groupnorm": (0.9, 0.02),
    "weight_standardization": (0.85, 0.02),
    "weight_standardization+batchnorm": (0.95, 0.1),
    "weight_standardization+groupnorm": (0.9, 0.1),
    "spectral_norm": (0.95, 0.1),
    "operator_norm": (0.95, 0.1),
    "oni": (0.85, 0.02),
    "ocnn": (0.9, 0.1),
    "convnorm+batchnorm": (0.95, 0.1),
    "sphere": (0.85, 0.1),
    "sphere_without_noise": (0.85, 0.1),
    "norm_clip": (0.9, 0.1),
    "reshaped_clip": (0.95, 0.1),
    "norm_decay_l1": (0.95, 0.1),
    "norm_decay_linf": (0.95, 0.1),
}
STAYS = ("plain", "weight_norm", "centre_only")  # the signal of torch's default start dies out over nine layers
seeds = pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.full) for seed in (1, 2))])


def outcome(method, lr, seed, **options):
    data = digits()
    model = network("cnn9", data, method, seed=seed, widths=(16, 32, 64))
    records = list(fit(model, data, method, seed=seed, knobs={"lr": lr}, **({"steps": 150} | options)))
    return records[-1].diverged, evaluate(model, data)


def test_every_method_has_its_outcome():
    assert {*LEARNS, *STAYS, "convnorm", "sphere_only"} == set(METHODS)


@seeds
@pytest.mark.parametrize("method", LEARNS)
def test_it_learns(method, seed):
    accuracy, lr = LEARNS[method]
    diverged, reached = outcome(method, lr, seed)
    assert diverged is None
    assert reached >= accuracy


@seeds
@pytest.mark.parametrize("method", STAYS)
def test_it_stays_at_chance(method, seed):
    diverged, reached = outcome(method, 0.1, seed, steps=60)
    assert diverged is None
    assert reached <= CHANCE


@seeds
def test_convnorm_alone_learns_by_small_steps(seed):
    diverged, reached = outcome("convnorm", 0.02, seed, steps=200, schedule="constant")
    assert diverged is None
    assert reached >= 0.7


@seeds
def test_the_sphere_without_a_center_needs_more_steps(seed):
    diverged, reached = outcome("sphere_only", 0.1, seed, steps=300)
    assert diverged is None
    assert reached >= 0.8


@seeds
def test_convnorm_alone_without_gain_stays_at_chance(seed):
    data = digits()
    model = network("cnn9", data, "convnorm", seed=seed, widths=(16, 32, 64), knobs={"gain": 1.0})
    list(fit(model, data, "convnorm", steps=60, seed=seed))
    assert evaluate(model, data) <= 0.3


@seeds
def test_weight_standardization_alone_diverges_by_large_steps(seed):
    diverged, _ = outcome("weight_standardization", 1.0, seed, schedule="constant")
    assert diverged is not None


def test_an_affine_kernel_that_starts_at_random_does_not_train():
    data = digits()
    model = network("cnn9", data, "convnorm", widths=(16, 32, 64))
    torch.manual_seed(0)
    for module in model.modules():
        if getattr(module, "affine_weight", None) is not None:
            torch.nn.init.kaiming_uniform_(module.affine_weight, a=5**0.5)
    list(fit(model, data, "convnorm", steps=60))
    assert evaluate(model, data) <= CHANCE
