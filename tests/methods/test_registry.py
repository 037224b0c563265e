"""Each name of METHODS does what it says, and only it does."""

import math

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrize
from torch.testing import assert_close

from convkit.data import digits, subset
from convkit.methods.build import network
from convkit.methods.registry import METHODS, get_method
from convkit.normalization.convnorm import ConvNorm2d
from convkit.normalization.noisy_affine import NoisyAffine
from convkit.norms import operator_norm
from convkit.operators.network import conv_operators
from convkit.operators.operator import ConvOperator
from convkit.training.loop import fit
from tests.helpers.refusals import refused

pytestmark = pytest.mark.slow

DATA = subset(digits(), 200)
WIDTHS = (16, 32, 16)


def made(method, **options):
    return network("cnn9", DATA, method, widths=WIDTHS, **options)


def trained(method, steps=3, **options):
    model = made(method)
    list(fit(model, DATA, method, steps=steps, batch_size=32, schedule="constant", **options))
    return model


def kinds(model):
    return {type(module) for module in model.modules()}


def convolutions(model):
    return [m for m in model.modules() if isinstance(m, nn.Conv2d | ConvNorm2d)]


def test_each_method_says_what_it_does_and_an_unknown_name_brings_the_nearest():
    for name, method in METHODS.items():
        assert method.name == name
        assert method.words
        assert method.settings() == {knob: method.knobs[knob].default for knob in method.knobs}
    refused(r"METHODS has no 'norm_decay'; near it: .*norm_decay_l1", get_method, "norm_decay")


@pytest.mark.parametrize("method", METHODS)
def test_every_parameter_gets_a_gradient_and_moves(method):
    model = made(method)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    records = list(fit(model, DATA, method, steps=2, batch_size=32, schedule="constant"))
    assert all(math.isfinite(record.loss) and record.diverged is None for record in records)
    still = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    assert still == []
    assert any(not torch.equal(p, before[name]) for name, p in model.named_parameters())


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("model", ["resnet18", "vgg11"])
def test_every_method_reaches_other_models(method, model):
    out = network(model, DATA, method, width=0.25)(DATA.train_batch(torch.arange(4))[0])
    assert out.shape == (4, 10)
    assert out.isfinite().all()


@pytest.mark.parametrize("method", METHODS)
def test_every_method_reaches_networks_in_the_published_order(method):
    knobs = {"residual_start": "blocks"} if "residual_start" in METHODS[method].knobs else {}
    model = network("wrn28_10", DATA, method, knobs=knobs, depth=10, widening=1, norm_first=True)
    assert not isinstance(model.stem, nn.Sequential)
    record = next(fit(model, DATA, method, steps=1, batch_size=16))
    assert math.isfinite(record.loss)


# ---- each told from its neighbors ------------------------------------------------------------------------------------
def test_layers_behind_the_convolutions_and_weights_that_are_functions_of_others():
    behind = {nn.BatchNorm2d, nn.GroupNorm, NoisyAffine}
    expected = {name: {nn.BatchNorm2d} for name in METHODS}
    bare = "plain", "weight_standardization", "weight_norm", "oni", "convnorm", "lipschitz"
    expected |= {name: set() for name in (*bare, "muon", "conv_muon", "layer_polar")}
    expected |= {name: {nn.GroupNorm} for name in ("groupnorm", "weight_standardization+groupnorm")}
    expected |= {name: {NoisyAffine} for name in METHODS if name.startswith(("sphere", "centre"))}
    models = {name: made(name) for name in METHODS}
    assert {name: kinds(model) & behind for name, model in models.items()} == expected
    changed = {name for name, model in models.items() if any(map(parametrize.is_parametrized, model.modules()))}
    assert changed == {
        *("weight_standardization", "weight_standardization+batchnorm", "weight_standardization+groupnorm"),
        *("weight_norm", "spectral_norm", "operator_norm", "lipschitz", "oni"),
    }
    assert [name for name, model in models.items() if ConvNorm2d in kinds(model)] == ["convnorm", "convnorm+batchnorm"]


def test_rows_are_centered_or_orthogonal_and_convnorm_has_its_gain_where_their_methods_say_so():
    for name, centered in (("weight_standardization", True), ("weight_norm", False)):
        rows = convolutions(made(name))[1].weight.flatten(1)
        assert (rows.mean(1).abs().max() < 1e-6) == centered
    rows = convolutions(trained("oni"))[1].weight.flatten(1)
    gram = rows @ rows.mT
    assert_close(gram / gram.diagonal().mean(), torch.eye(len(rows)), rtol=0, atol=0.05)
    for name, gain in (("convnorm", 2**0.5), ("convnorm+batchnorm", 1.0)):
        affine = convolutions(made(name))[1].affine_weight
        assert affine[:, 0].sum((1, 2)).tolist() == pytest.approx([gain] * len(affine))


def test_operator_norm_is_one_for_the_layer_and_spectral_norm_for_the_reshaped_kernel():
    x = DATA.train_batch([0])[0]
    for name in ("operator_norm", "spectral_norm"):
        for layer, A in conv_operators(trained(name, 20).eval(), x).items():
            if "head" in layer:
                continue
            if name == "operator_norm":
                assert operator_norm(A.torus(), 2).item() == pytest.approx(1, abs=1e-4)
            else:
                assert torch.linalg.matrix_norm(A.kernel.flatten(1), 2).item() == pytest.approx(1, abs=0.1)
                assert operator_norm(A.torus(), 2) > 1.02


@pytest.mark.parametrize(
    "name, centered, scaled",
    [("sphere", 1, 1), ("sphere_without_noise", 1, 1), ("sphere_only", 0, 1), ("centre_only", 1, 0)],
)
def test_rows_after_training(name, centered, scaled):
    rows = [m.weight.detach().flatten(1) for m in convolutions(trained(name))]
    assert all(bool(r.mean(1).abs().max() < 1e-6) == bool(centered) for r in rows)
    assert all(bool((r.norm(dim=1) - 2**0.5).abs().max() < 1e-5) == bool(scaled) for r in rows)


def test_noise_constant_or_growing_with_depth():
    def deviations(**knobs):
        return [m.sigma * m.depth for m in made("sphere", knobs=knobs).modules() if isinstance(m, NoisyAffine)]

    assert deviations(sigma=0.3) == [0.3] * 9
    assert deviations(sigma=0.3, noise="constant") == [0.3] * 9
    residual = [m for m in network("resnet18", DATA, "sphere", width=0.25).modules() if isinstance(m, NoisyAffine)]
    assert residual[0].depth < residual[-1].depth
    linear = deviations(sigma=0.3, noise="linear")
    assert linear == sorted(linear)
    assert linear[0] < linear[-1] <= 0.3
    assert set(m.sigma for m in made("sphere_without_noise").modules() if isinstance(m, NoisyAffine)) == {0.0}


def test_clips_bound_the_layer_or_the_reshaped_kernel():
    x, norms = DATA.train_batch([0])[0], {}
    for name in ("batchnorm", "norm_clip", "reshaped_clip"):
        knobs = {} if name == "batchnorm" else {"bound": 0.3, "every": 1}
        operators = [A for A in conv_operators(trained(name, knobs=knobs), x).values() if max(A.input_shape) > 1]
        norms[name] = [operator_norm(A.torus(), 2).item() for A in operators]
        norms[f"{name}, reshaped"] = [torch.linalg.matrix_norm(A.kernel.flatten(1), 2).item() for A in operators]
    assert max(norms["reshaped_clip, reshaped"]) <= 0.3 + 1e-6
    assert max(norms["reshaped_clip"]) > 0.36
    assert max(norms["norm_clip"]) <= 0.3 * 1.4  # one clip and crop leaves a part above the bound
    assert max(norms["batchnorm, reshaped"]) > 0.31


def test_decays_and_penalties_lower_what_they_are_about():
    x = DATA.train_batch([0])[0]

    def total(name, ord, **knobs):
        return sum(operator_norm(A, ord).item() for A in conv_operators(trained(name, 20, knobs=knobs), x).values())

    plain = {ord: total("batchnorm", ord) for ord in (1, math.inf)}
    assert total("norm_decay_l1", 1, beta=0.05) < 0.95 * plain[1]
    assert total("norm_decay_linf", math.inf, beta=0.05) < 0.95 * plain[math.inf]
    assert total("norm_decay_l1", 1, beta=0.0) == plain[1]

    def size(name, **knobs):
        return sum(m.weight.square().sum().item() for m in convolutions(trained(name, 20, knobs=knobs)))

    assert size("weight_decay", weight_decay=0.1) < 0.9 * size("batchnorm")


def test_ocnn_brings_the_circular_operators_nearer_to_orthogonal_rows():
    def distance(name, **knobs):
        layer = convolutions(trained(name, 30, knobs=knobs))[4]
        M = ConvOperator(layer.weight.detach(), (5, 5)).matrix()
        gram = M @ M.T if len(M) <= M.shape[1] else M.T @ M
        return (gram - torch.eye(len(gram))).norm().item()

    assert distance("ocnn", beta=1.0) < 0.7 * distance("batchnorm")


# ---- building --------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "method, knobs, words",
    [
        ("sphere", {"sigma": -0.1}, "sigma must be a number from 0 to 5, got -0.1"),
        ("sphere", {"noise": "square"}, "noise must be one of 'as in W', 'constant', 'linear', got 'square'"),
        ("convnorm", {"affine": 3}, "affine must be one of True, False, got 3"),
        ("norm_clip", {"bound": True}, "bound must be a number from 0.001 to 1000, got True"),
        ("norm_clip", {"every": 2.5}, r"every must be a whole number from 1 to 1e\+09, got 2\.5"),
        ("plain", {"sigma": 0.1}, "plain has no knob 'sigma'"),
    ],
)
def test_knobs_out_of_range_are_refused(method, knobs, words):
    refused(words, made, method, knobs=knobs)


def test_groups_that_do_not_divide_are_refused_before_any_training():
    words = "GroupNorm needs groups that divide the channels, got 16 groups and 24 channels"
    refused(words, network, "cnn9", DATA, "groupnorm", widths=(24, 32, 32))
    assert network("cnn9", DATA, "groupnorm", widths=(24, 32, 32), knobs={"groups": 8}) is not None


def test_the_seed_draws_the_weights_and_leaves_others_alone():
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    first = made("batchnorm", seed=1).state_dict()
    assert torch.equal(torch.rand(2), expected)
    assert_close(made("batchnorm", seed=1).state_dict(), first, rtol=0, atol=0)
