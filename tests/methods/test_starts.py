"""How weights and gains start: `residual_start` in residual networks, and Xavier's start."""

import math

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrize

from convkit.data import digits, subset
from convkit.methods.build import network
from convkit.methods.registry import METHODS, read_knobs
from convkit.models.residual import Residual
from convkit.normalization.convnorm import ConvNorm2d
from convkit.normalization.noisy_affine import NoisyAffine
from convkit.papers.starts import CONVNORM, RATES, SPHERE, WIDE_SPHERE
from convkit.training.evaluation import evaluate
from convkit.training.loop import fit
from tests.helpers.refusals import refused

pytestmark = pytest.mark.slow

DATA = subset(digits(), 60)
WITH = [name for name in METHODS if "residual_start" in METHODS[name].knobs]
ZERO = ["convnorm", "sphere", "sphere_without_noise", "sphere_only", "centre_only"]
FACTOR = {"zero": 0.0, "blocks": 15**-0.5, "one": 1.0}  # of ResNet-32


def made(method, model="resnet32", width=0.5, **knobs):
    knobs |= {"groups": 4} if "groups" in METHODS[method].knobs else {}
    return network(model, DATA, method, knobs=knobs, **({"width": width} if model == "resnet32" else {}))


def gains(model):
    """The gain of each layer that has one, by name; that of ConvNorm's affine at its center, zero around it."""
    found = {}
    for name, module in model.named_modules():
        if isinstance(module, ConvNorm2d) and module.affine_weight is not None:
            found[name] = module.affine_weight.detach()[:, 0].flatten(1)[:, module.affine_weight[0, 0].numel() // 2]
            assert torch.equal(found[name], module.affine_weight.sum((1, 2, 3)))
        elif isinstance(module, NoisyAffine | nn.BatchNorm2d | nn.GroupNorm):
            found[name] = module.weight.detach()
    return found


# ---- residual_start ------------------------------------------------------------------------------------------------
def test_the_start_is_zero_for_layers_with_a_gain_and_without_batchnorm_and_one_for_the_others():
    assert {name for name in WITH if METHODS[name].knobs["residual_start"].default == "zero"} == set(ZERO)
    assert {name for name in WITH if METHODS[name].knobs["residual_start"].default == "one"} == {
        *("batchnorm", "weight_decay", "groupnorm", "spectral_norm", "operator_norm", "ocnn", "convnorm+batchnorm"),
        *("weight_standardization+batchnorm", "weight_standardization+groupnorm"),
        *("norm_clip", "reshaped_clip", "norm_decay_l1", "norm_decay_linf"),
    }


@pytest.mark.parametrize("start", FACTOR)
@pytest.mark.parametrize("method", [name for name in WITH if name not in ("operator_norm", "spectral_norm")])
def test_the_last_gain_of_each_block_starts_as_the_knob_says_and_the_others_at_one(method, start):
    found = gains(made(method, residual_start=start))
    gain = 2**0.5 if method == "convnorm" else 1.0
    both = method == "convnorm+batchnorm"  # the affine starts as everywhere: the last gain is BatchNorm's
    last = [name for name in found if name.startswith("block") and ".conv2" in name and not (both and name[-1] == "0")]
    assert len(last) == 15
    assert len(found) == 31 * (1 + both)
    for name, values in found.items():
        wanted = gain * (FACTOR[start] if name in last else 1)
        assert values.tolist() == pytest.approx([wanted] * len(values))


def test_shortcuts_with_weights_and_networks_without_blocks_start_at_one():
    model = network("wrn28_10", DATA, "sphere", widening=1, depth=10)
    assert {name: float(gain.max()) for name, gain in gains(model).items() if "conv2" not in name} == {
        **{"stem.1": 1, "block1.conv1.1": 1, "block2.conv1.1": 1, "block3.conv1.1": 1},
        **{"block2.shortcut.1": 1, "block3.shortcut.1": 1},
    }
    assert all(not block.conv2[1].weight.any() for block in model.modules() if isinstance(block, Residual))
    for method in ("sphere", "convnorm"):
        one, zero = (
            network("cnn9", DATA, method, knobs={"residual_start": start}, widths=(4, 6, 8))
            for start in ("one", "zero")
        )
        assert all(map(torch.equal, one.parameters(), zero.parameters()))


def test_a_block_that_starts_at_zero_hands_on_what_it_gets_and_its_gains_learn_first():
    model = made("sphere", sigma=0.0)
    x = torch.rand(2, 8, 8, 8)
    assert torch.equal(model.block2(x), x)
    model(DATA.train_batch([0, 1])[0]).square().sum().backward()
    assert model.block2.conv2[1].weight.grad.any()
    assert not model.block2.conv1[0].weight.grad.any()


def test_it_is_no_layer_of_its_own_so_that_fit_takes_a_network_of_any_start():
    for start in FACTOR:
        assert "residual_start" not in read_knobs(made("sphere", residual_start=start), METHODS["sphere"])
    record = next(fit(made("sphere", residual_start="blocks"), DATA, "sphere", steps=1, batch_size=20))
    assert record.diverged is None


def test_gains_in_front_of_a_relu_cannot_start_at_zero_and_layers_without_a_gain_not_at_all():
    words = "residual_start='zero' needs networks whose blocks end with a normalization, .* use 'blocks' or 'one'"
    refused(words, network, "wrn28_10", DATA, "sphere", depth=10, widening=1, norm_first=True)
    words = "residual_start='blocks' needs layers with a gain.* use batchnorm=True, or residual_start='one'"
    refused(words, made, "ocnn", batchnorm=False, residual_start="blocks")
    model = network(
        "wrn28_10", DATA, "sphere", depth=10, widening=1, norm_first=True, knobs={"residual_start": "blocks"}
    )
    assert {name: float(gain.max()) for name, gain in gains(model).items()} == pytest.approx(
        {**{f"block{i}.norm{j}": (1.0, 3**-0.5)[j - 1] for i in (1, 2, 3) for j in (1, 2)}, "norm": 1.0}
    )


def test_the_noise_of_a_residual_network_grows_with_depth_whatever_the_start():
    for start in FACTOR:
        model = made("sphere", sigma=0.3, residual_start=start)
        depths = [layer.depth for layer in model.modules() if isinstance(layer, NoisyAffine)]
        assert depths == pytest.approx([layer / 31 for layer in range(1, 32)])  # eq. 8 of Ikami et al.
        assert {layer.sigma for layer in model.modules() if isinstance(layer, NoisyAffine)} == {0.3}
    published = network("resnet32", DATA, "sphere", knobs={"residual_start": "one"}, width=0.5, norm_first=True)
    noises = {name: layer.depth for name, layer in published.named_modules() if isinstance(layer, NoisyAffine)}
    assert noises.pop("norm") == 1
    assert sorted(noises.values()) == pytest.approx([layer / 31 for layer in range(1, 31)])
    assert noises["block1.norm1"] == pytest.approx(1 / 31)  # behind the stem, on the sum of no block yet


# ---- what it is for ------------------------------------------------------------------------------------------------
NARROW = {"wrn28_10": {"widening": 1}, "resnet18": {"width": 0.25}}


def outcome(method, model, steps, seed=0, **knobs):
    data = digits()
    net = network(model, data, method, seed=seed, knobs=knobs, **NARROW.get(model, {}))
    *_, last = fit(net, data, method, seed=seed, knobs=knobs, steps=steps, batch_size=64)
    return last.diverged, evaluate(net, data)


@pytest.mark.parametrize(
    "method, model, knobs",
    [("sphere", "resnet32", SPHERE), ("sphere", "wrn28_10", WIDE_SPHERE), ("convnorm", "resnet18", CONVNORM)],
)
def test_the_papers_rates_lose_a_network_that_starts_at_one_and_train_one_from_zero(method, model, knobs):
    lost, _ = outcome(method, model, 20, **knobs, residual_start="one")
    assert lost is not None
    lost, accuracy = outcome(method, model, 60, **knobs)
    assert lost is None
    assert accuracy >= 0.3  # chance is 0.1


@pytest.mark.full
@pytest.mark.parametrize("method, model", RATES)
def test_the_papers_networks_train_at_the_papers_rates(method, model):
    steps = 60 if model == "resnet110" else 200  # a step of ResNet-110 takes up to a second
    lost, accuracy = outcome(method, model, steps, **RATES[method, model])
    assert lost is None
    assert accuracy >= 0.8


# ---- Xavier and He --------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("start", ["xavier", "he"])
@pytest.mark.parametrize(
    "method", ["plain", "convnorm", "sphere", "spectral_norm", "weight_norm", "oni", "layer_polar"]
)
def test_a_start_draws_every_weight_anew_and_leaves_biases_and_gains(method, start):
    usual, model = (network("senet18", DATA, method, width=0.25, seed=3, start=name) for name in ("default", start))
    others = dict(usual.named_parameters())
    drawn = 0
    for name, weight in model.named_parameters():
        kernel = name.endswith(("original", "original1")) or (name.endswith(".weight") and weight.ndim > 1)
        if not kernel:
            assert torch.equal(weight, others[name]) or (method, name[-9:]) == ("weight_norm", "original0")
            continue
        drawn += 1
        fans = weight.shape[0] * weight[0, 0].numel() + weight[0].numel()
        std = (2 / fans) ** 0.5 if start == "xavier" else (2 / weight[0].numel()) ** 0.5
        if start == "xavier":
            assert float(weight.detach().abs().max()) <= 3**0.5 * std
        if weight.numel() > 500:
            assert float(weight.detach().std()) == pytest.approx(std, rel=0.1)
    assert drawn == 17 + 3 + 2 * 8 + 1  # on the path, shortcuts, gates, the head
    if method == "spectral_norm":
        parametrized = [m for m in model.eval().modules() if parametrize.is_parametrized(m)]
        norms = [float(torch.linalg.matrix_norm(m.weight.detach().flatten(1), 2)) for m in parametrized]
        assert norms == pytest.approx([1] * 20, abs=0.2)


def test_xavier_follows_the_seed_and_other_starts_are_refused():
    first, again, other = (
        network("cnn9", DATA, "batchnorm", seed=seed, start="xavier", widths=(4, 6, 8)) for seed in (1, 1, 2)
    )
    assert torch.equal(first.head.weight, again.head.weight)
    assert not torch.equal(first.head.weight, other.head.weight)
    assert math.isfinite(next(fit(first, DATA, "batchnorm", steps=1, batch_size=20)).loss)
    refused("start must be 'default', 'xavier' or 'he', got 'one'", network, "cnn9", DATA, "batchnorm", start="one")


# ---- with and without BatchNorm ------------------------------------------------------------------------------------
@pytest.mark.parametrize("method", ["ocnn", "norm_clip", "reshaped_clip", "norm_decay_l1", "norm_decay_linf"])
def test_penalties_clips_and_decays_have_layers_with_and_without_batchnorm(method):
    for batchnorm in (True, False):
        model = network("cnn9", DATA, method, knobs={"batchnorm": batchnorm}, widths=(4, 6, 8))
        twin = network("cnn9", DATA, "batchnorm" if batchnorm else "plain", widths=(4, 6, 8))
        assert model.state_dict().keys() == twin.state_dict().keys()
        assert all(map(torch.equal, model.parameters(), twin.parameters()))
        assert read_knobs(model, METHODS[method]) == {"batchnorm": batchnorm}
        every = {"every": 1} if "every" in METHODS[method].knobs else {}
        knobs = every | ({"bound": 0.1} if every else {"beta": 1.0})
        for net, name, own in ((model, method, knobs), (twin, "batchnorm" if batchnorm else "plain", {})):
            assert list(fit(net, DATA, name, steps=3, batch_size=20, knobs=own))[-1].diverged is None
        assert not torch.equal(model.conv5[0].weight, twin.conv5[0].weight)
