"""How often a step of training makes the host wait for a GPU, counted on the pretended one."""

import copy

import pytest
import torch
from torch import nn

from convkit.data import digits, subset
from convkit.data.augmentation import augment
from convkit.data.policies import Policy
from convkit.methods.build import network
from convkit.methods.registry import METHODS
from convkit.training.adversarial import get_objective
from convkit.training.evaluation import evaluate
from convkit.training.loop import fit

fakecuda = pytest.importorskip(
    "fakecuda", reason="needs the pretended CUDA device: python3 -m convkit test --pretend-gpu"
)

pytestmark = pytest.mark.slow

DATA = subset(digits(), 200)
SMALL = {"widths": (4, 6, 8)}
PUBLISHED = "crop+flip+published cutout"
READS = {  # what a step waits for besides its record: the one check of a hook or a penalty
    **dict.fromkeys(("sphere", "sphere_without_noise", "sphere_only", "centre_only"), 1),
    **dict.fromkeys(("norm_decay_l1", "norm_decay_linf", "ocnn"), 1),
}


@pytest.fixture
def data():
    return DATA.to("cuda")


def counts_of(run, warm=2):
    """What the next record of a run takes, after some others."""
    for _ in range(warm):
        next(run)
    with fakecuda.counted() as counts:
        assert next(run).diverged is None
    return counts


@pytest.mark.parametrize("record_every", [1, 4])
@pytest.mark.parametrize("precision", ["float32", "bfloat16", "float16"])
def test_resnet_waits_once_per_record_on_cuda(data, record_every, precision):
    model = network("resnet18", data, "batchnorm", width=0.0625)
    assert len(list(model.parameters())) == 62
    options = {"augmentation": "crop+flip", "channels_last": True, "precision": precision, "record_every": record_every}
    counts = counts_of(fit(model, data, "batchnorm", steps=99, batch_size=8, **options), warm=1)
    assert counts.waits == {"copy device to host": 1}
    assert counts.ops.get("copy host to device", 0) == 0
    assert counts.ops["aten::_fused_sgd_"] == 2 * record_every  # two groups of weights
    assert counts.ops["aten::linalg_vector_norm.out"] == 62  # once per record; one launch for all of them on a GPU


READING = {"conv_muon": 37, "layer_polar": 73}  # their norms and decompositions of nine layers
APART = {"operator_norm", "lipschitz", *READING}


@pytest.mark.parametrize("method", READING)
def test_methods_of_polar_factors_wait_for_the_norms_and_decompositions_of_nine_layers(data, method):
    model = network("cnn9", data, method, **SMALL)
    assert counts_of(fit(model, data, method, steps=9, batch_size=8)).waited <= READING[method]


@pytest.mark.parametrize("method", [name for name in METHODS if name not in APART])
def test_every_method_waits_at_most_twice_a_step_on_cuda(data, method):
    knobs = {"groups": 2} if "groups" in METHODS[method].knobs else {}
    model = network("cnn9", data, method, knobs=knobs, **SMALL)
    counts = counts_of(fit(model, data, method, steps=9, batch_size=8, knobs=knobs))
    assert counts.waited == 1 + READS.get(method, 0)


def test_the_operator_norm_waits_for_its_two_decompositions_per_layer_alone_on_cuda(data):
    model = network("cnn9", data, "operator_norm", **SMALL)
    counts = counts_of(fit(model, data, "operator_norm", steps=9, batch_size=8))
    assert counts.waits == {"copy device to host": 1, "aten::_linalg_eigh.eigenvalues": 2 * 9}


def test_objectives_wait_for_their_attack_alone_on_cuda(data):
    waited = {}
    for name in ("clean", "free", "trades", "c-free", "l-trades", "pgd", "l-pgd-at", "l-alp"):
        model = network("cnn9", data, "batchnorm", **SMALL)
        run = fit(model, data, "batchnorm", steps=9, batch_size=8, objective=get_objective(name, 0.1))
        waited[name] = counts_of(run).waited
    assert waited == dict.fromkeys(("clean", "free", "trades", "c-free", "l-trades"), 1) | dict.fromkeys(
        ("pgd", "l-pgd-at", "l-alp"), 2
    )  # pgd reads once whether images, labels and logits are in range


def test_augmentation_waits_for_nothing_but_the_policy_on_cuda(data):
    x, _ = data.train_batch(slice(0, 20))
    for name, waits in (("none", 0), ("crop+flip", 0), ("crop+flip+cutout", 0), ("auto", 1), (PUBLISHED, 0)):
        generator = torch.Generator("cuda").manual_seed(0)
        changed = augment(name, data)
        changed(x, generator)
        with fakecuda.counted() as counts:
            changed(x, generator)
        assert counts.waited == waits
        assert counts.ops.get("copy host to device", 0) == 0


def test_a_policy_of_pillow_waits_twice_a_batch_on_cuda(data):
    x, _ = data.train_batch(slice(0, 20))
    policy, generator = Policy([[("Invert", 0.5, 0.5), ("Rotate", 0.5, 0.1)]] * 3), torch.Generator("cuda")
    policy(x, generator)
    with fakecuda.counted() as counts:
        policy(x, generator)
    assert counts.waited == 2  # for the numbers that are drawn, and for the images


def test_evaluation_and_recalibration_wait_once_on_cuda(data):
    model = network("cnn9", data, "batchnorm", **SMALL)
    with fakecuda.counted() as counts:
        evaluate(model, data, batch_size=30)
    assert counts.waited == 1
    model = network("cnn9", data, "norm_clip", knobs={"bound": 1e3}, **SMALL)
    knobs = {"bound": 1e3, "every": 2}
    with pytest.MonkeyPatch.context() as patch:
        waited = []
        for batches in (1, 10):
            patch.setattr("convkit.training.run.RECALIBRATION_BATCHES", batches)
            run = fit(copy.deepcopy(model), data, "norm_clip", steps=9, batch_size=8, knobs=knobs)
            waited.append(counts_of(run, warm=3).waited)
    assert waited[0] == waited[1]  # the norms of the clip alone


def test_a_compiled_network_trains_as_it_does_uncompiled_and_waits_once_on_cuda(data):
    layers = (nn.Conv2d(1, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 10))
    model = nn.Sequential(*layers).to("cuda")
    compiled = torch.compile(copy.deepcopy(model), backend="aot_eager")
    losses, counts = [], None
    for one in (model, compiled):
        run = fit(one, data, "batchnorm", steps=4, batch_size=8, evaluate_every=4)
        first = next(run)
        counts = counts_of(run, warm=1)
        losses.append([first.loss, next(run).loss])
    assert counts is not None
    assert counts.waited == 1
    assert losses[1] == pytest.approx(losses[0], rel=1e-5)
