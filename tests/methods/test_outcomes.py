"""What becomes of each method on handwritten digits: the same for three seeds."""

import pytest

from convkit.data import digits
from convkit.methods.build import network
from convkit.methods.registry import METHODS
from convkit.training.evaluation import evaluate
from convkit.training.loop import fit

pytestmark = pytest.mark.slow
CHANCE = 0.2
LEARNS = {  # accuracy after 150 steps of 64, the learning rate, and what else is not as usual
    **dict.fromkeys(("weight_decay", "batchnorm", "weight_standardization+batchnorm"), (0.95, 0.1, {})),
    **dict.fromkeys(("spectral_norm", "operator_norm", "convnorm+batchnorm"), (0.95, 0.1, {})),
    **dict.fromkeys(("reshaped_clip", "norm_decay_l1", "norm_decay_linf"), (0.95, 0.1, {})),
    **dict.fromkeys(("weight_standardization+groupnorm", "ocnn", "norm_clip"), (0.9, 0.1, {})),
    **dict.fromkeys(("sphere", "sphere_without_noise"), (0.85, 0.1, {})),
    **dict.fromkeys(("weight_standardization", "oni"), (0.85, 0.02, {})),
    "groupnorm": (0.9, 0.02, {}),
    "muon": (0.9, 0.05, {}),
    "conv_muon": (0.9, 0.15, {"widths": (8, 16, 16)}),
    "layer_polar": (0.75, 0.05, {"widths": (8, 16, 16)}),
    "convnorm": (0.7, 0.02, {"steps": 200, "schedule": "constant"}),  # alone it learns by small steps
    "lipschitz": (0.6, 0.02, {"steps": 300}),  # no layer may stretch anything
    "sphere_only": (0.8, 0.1, {"steps": 300}),  # without a center it needs more steps
}
STAYS = ("plain", "weight_norm", "centre_only")  # the signal of torch's default start dies out over nine layers
seeds = pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.full) for seed in (1, 2))])


def outcome(method, lr, seed, **options):
    data = digits()
    widths, knobs = options.pop("widths", (16, 32, 64)), options.pop("made_with", {})
    model = network("cnn9", data, method, seed=seed, widths=widths, knobs=knobs)
    records = list(fit(model, data, method, seed=seed, knobs={"lr": lr}, **({"steps": 150} | options)))
    return records[-1].diverged, evaluate(model, data)


def test_every_method_has_its_outcome():
    assert {*LEARNS, *STAYS} == set(METHODS)


@seeds
@pytest.mark.parametrize("method", LEARNS)
def test_it_learns(method, seed):
    accuracy, lr, options = LEARNS[method]
    diverged, reached = outcome(method, lr, seed, **options)
    assert diverged is None
    assert reached >= accuracy


@seeds
@pytest.mark.parametrize("method", STAYS)
def test_it_stays_at_chance(method, seed):
    diverged, reached = outcome(method, 0.1, seed, steps=60)
    assert diverged is None
    assert reached <= CHANCE


@seeds
def test_convnorm_alone_without_gain_stays_at_chance_and_weight_standardization_diverges_by_large_steps(seed):
    lr = METHODS["convnorm"].knobs["lr"].default
    diverged, reached = outcome("convnorm", lr, seed, steps=60, made_with={"gain": 1.0})
    assert diverged is None
    assert reached <= 0.3
    diverged, _ = outcome("weight_standardization", 1.0, seed, schedule="constant")
    assert diverged is not None
