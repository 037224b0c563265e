"""Norm decay against Algorithm 1 of Liang & Huang written out on dense matrices."""

import copy
import math

import pytest
import torch
from torch import nn, optim
from torch.nn.utils import parametrizations
from torch.testing import assert_close

from convkit.constraints import norm_decay
from convkit.operators.network import conv_operators, input_shapes
from convkit.operators.operator import ConvOperator
from convkit.penalties import mean_norm
from tests.helpers.refusals import refused
from tests.helpers.small_network import batch, network, sgd, train
from tests.helpers.unchanged import unchanged

LAYERS = ("0", "2", "4", "6", "8")


def loss(model: nn.Module, step: int = 0) -> torch.Tensor:
    x = batch(next(model.parameters()).device, next(model.parameters()).dtype, seed=step)
    return (model(x) - 1).square().mean()


def dense_gradient(model: nn.Module, ord: float) -> dict[str, torch.Tensor]:
    """p of each layer's weight: the gradient of the largest column or row sum of its dense matrix."""
    gradients = {}
    for name, A in conv_operators(model, batch(model[0].weight.device, torch.float64)).items():
        norm = torch.linalg.matrix_norm(A.matrix(), ord)
        (gradients[f"{name}.weight"],) = torch.autograd.grad(norm, [model.get_submodule(name).weight])
    return gradients


def handle_for(optimizer: optim.Optimizer, model: nn.Module, beta: float, **options):
    weight = next(model.parameters())
    return norm_decay(optimizer, model, input_shapes(model, batch(weight.device, weight.dtype)), beta, **options)


@pytest.mark.parametrize("ord", [1, math.inf])
@pytest.mark.parametrize("mean", [True, False])
@pytest.mark.parametrize("momentum", [0.5, 0.0, 0.9])
def test_the_steps_are_those_of_algorithm_1(device, ord, mean, momentum):
    model = network(device, torch.float64)
    twin = copy.deepcopy(model)
    lr, beta = 0.05, 0.4
    optimizer = optim.SGD(model.parameters(), lr=lr)
    handle = handle_for(optimizer, model, beta, ord=ord, momentum=momentum, mean=mean)
    h = {f"{name}.weight": torch.zeros_like(twin.get_submodule(name).weight) for name in LAYERS}
    for step in range(4):
        if step == 2:
            handle.beta = beta = 1.5
        train(model, optimizer, 1, step)
        p = dense_gradient(twin, ord)
        slopes = torch.autograd.grad(loss(twin, step), twin.parameters())
        g = dict(zip(dict(twin.named_parameters()), slopes, strict=True))
        with torch.no_grad():
            for name, weight in twin.named_parameters():
                if name in h:
                    h[name] = momentum * h[name] + (1 - momentum) * p[name]
                    g[name] = g[name] + beta / (len(LAYERS) if mean else 1) * h[name]
                weight -= lr * g[name]
        assert_close(model.state_dict(), twin.state_dict())


@pytest.mark.parametrize("ord", [1, math.inf])
def test_padding_that_reflects_or_replicates_has_the_gradient_of_its_dense_norm(device, ord):
    modes = ({"padding": 2, "padding_mode": "reflect"}, {"padding": 1, "padding_mode": "replicate", "stride": 2})
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, (3, 5), **modes[0]), nn.Conv2d(4, 5, 3, **modes[1])).to(device, torch.float64)
    before, p = copy.deepcopy(model), dense_gradient(model, ord)
    optimizer = sgd(model, 1.0)
    handle_for(optimizer, model, 0.1, ord=ord, momentum=0.0, mean=False)
    sum(0 * weight.sum() for weight in model.parameters()).backward()
    optimizer.step()
    for name, weight in model.named_parameters():
        wanted = before.get_parameter(name) - 0.1 * p[name] if name in p else before.get_parameter(name)
        assert_close(weight, wanted)


def test_it_is_the_mean_norm_in_the_loss_where_nothing_is_smoothed(device):
    model = network(device, torch.float64)
    twin = copy.deepcopy(model)
    shapes = input_shapes(model, batch(device, torch.float64))
    optimizer, other = (optim.Adam(m.parameters(), lr=0.01) for m in (model, twin))
    norm_decay(optimizer, model, shapes, beta=0.3, ord=1, momentum=0.0)
    for step in range(3):
        train(model, optimizer, 1, step)
        other.zero_grad()
        (loss(twin, step) + 0.3 * mean_norm(twin, shapes, 1)).backward()
        other.step()
        assert_close(model.state_dict(), twin.state_dict())


def test_a_shared_weight_gets_the_gradients_of_all_its_layers_once(device):
    model = nn.Sequential(nn.Conv2d(3, 3, 3), nn.ReLU(), nn.Conv2d(3, 3, 3, padding=1)).to(device, torch.float64)
    model[2].weight = model[0].weight
    shapes = {"0": (5, 6), "2": (3, 4)}
    (wanted,) = torch.autograd.grad(mean_norm(model, shapes, math.inf), [model[0].weight])
    optimizer = optim.SGD([model[0].weight], lr=1.0)
    norm_decay(optimizer, model, shapes, beta=0.1, ord=math.inf, momentum=0.0)
    before = model[0].weight.detach().clone()
    model[0].weight.grad = torch.zeros_like(before)
    optimizer.step()
    assert_close(before - model[0].weight.detach(), 0.1 * wanted)


def test_an_optimizer_that_ascends_is_given_the_other_sign(device):
    up = network(device, torch.float64)
    down = copy.deepcopy(up)
    for sign, model, optimizer in ((-1, up, sgd(up, maximize=True)), (1, down, sgd(down))):
        handle_for(optimizer, model, 0.5)
        (sign * loss(model)).backward()
        optimizer.step()
    assert_close(up.state_dict(), down.state_dict())


@pytest.mark.parametrize("fused", [False, True])
def test_scaled_gradients_of_mixed_precision_get_the_same_decay(device, fused):
    scaled = network(device)
    plain = copy.deepcopy(scaled)
    optimizers = [sgd(m, fused=fused) for m in (scaled, plain)]
    for model, optimizer in zip((scaled, plain), optimizers, strict=True):
        handle_for(optimizer, model, 0.5)
    scaler = torch.amp.GradScaler(device.type, init_scale=4096.0)
    for step in range(2):
        scaler.scale(loss(scaled, step)).backward()
        with torch.autocast(device.type, torch.bfloat16):  # the norms are computed in full precision all the same
            scaler.step(optimizers[0])
        scaler.update()
        loss(plain, step).backward()
        optimizers[1].step()
        for optimizer in optimizers:
            optimizer.zero_grad()
    assert_close(scaled.state_dict(), plain.state_dict(), rtol=1e-4, atol=1e-6)


def test_parametrized_weights_and_layers_with_an_operator_get_the_gradient_of_what_they_do(device):
    class Twice(nn.Module):  # a layer that is more than its weight says
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.Conv2d(3, 3, 3, padding=1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return 2 * self.inner(x)

        def operator(self, input_shape):
            return ConvOperator(2 * self.inner.weight, input_shape, padding=1, padding_mode="zeros")

    model = nn.Sequential(parametrizations.spectral_norm(nn.Conv2d(3, 3, (1, 2))), Twice()).to(device, torch.float64)
    shapes = input_shapes(model, batch(device, torch.float64))
    assert shapes.keys() == {"0", "1"}
    optimizer = sgd(model, 1.0)
    norm_decay(optimizer, model, shapes, beta=0.3, momentum=0.0)
    twin = copy.deepcopy(model).eval()
    slopes = torch.autograd.grad(0.3 * mean_norm(twin, shapes), list(twin.parameters()), materialize_grads=True)
    for p in model.parameters():
        p.grad = torch.zeros_like(p)
    optimizer.step()
    expected = [p.detach() - slope for p, slope in zip(twin.parameters(), slopes, strict=True)]
    assert_close([p.detach() for p in model.parameters()], expected)
    assert [bool(slope.norm() > 0) for slope in slopes] == ["bias" not in name for name, _ in twin.named_parameters()]
    assert_close(list(model.buffers()), list(twin.buffers()), rtol=0, atol=0)  # no power iteration was taken on the way
    assert model[0].parametrizations.weight.training


def test_frozen_weights_and_those_without_a_gradient_are_left_as_weight_decay_leaves_them(device):
    model = network(device, torch.float64)
    p = dense_gradient(model, 1)["4.weight"]
    model[0].weight.requires_grad_(False)
    optimizer = optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    handle = handle_for(optimizer, model, 1.0, momentum=0.0)
    before = copy.deepcopy(model.state_dict())
    model[4].weight.grad, model[0].bias.grad = torch.zeros_like(model[4].weight), torch.zeros_like(model[0].bias)
    optimizer.step()
    changed = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert changed == {"4.weight"}
    assert_close(model[4].weight.detach(), before["4.weight"] - 0.1 / 5 * p)  # N counts every layer
    assert handle.state_dict()["h"].keys() == {"2.weight", "4.weight", "6.weight", "8.weight"}


# ---- what is refused -----------------------------------------------------------------------------------------------
def test_numbers_and_layers_that_make_no_decay_are_refused(device):
    model = network(device)
    shapes = input_shapes(model, batch(device))
    optimizer = sgd(model)
    for options, words in (
        ({"beta": -0.1}, "beta must be a finite number of at least 0, got -0.1"),
        ({"momentum": 1.0}, r"momentum in \[0, 1\), got 1.0"),
        ({"ord": 2}, "ord 1 or torch.inf, got 2"),
        ({"shapes": {}}, "at least one layer"),
        ({"shapes": {"nine": (3, 3)}}, "'nine', which Sequential does not have"),
        ({"shapes": {"1": (8, 8)}}, "layer '1': from_layer needs"),
    ):
        refused(words, norm_decay, optimizer, model, **{"shapes": shapes, "beta": 0.1} | options)
    refused("parameters of the optimizer, got '0.weight'", norm_decay, sgd(model[8]), model, shapes, 0.1)
    refused("unfreeze one", norm_decay, optimizer, model.requires_grad_(False), shapes, 0.1)
    optimizer.step()  # and no hook was left behind


def test_a_closure_and_bad_numbers_during_training_are_refused_and_change_no_gradient(device):
    model = network(device)
    optimizer = sgd(model)
    handle = handle_for(optimizer, model, 0.1)
    refused("a closure", optimizer.step, lambda: loss(model))  # it makes the gradients too late
    refused("a closure", optimizer.step, closure=lambda: loss(model))
    loss(model).backward()
    handle.beta = -1.0
    with unchanged(model):
        refused("got -1", optimizer.step)
    handle.beta = 0.1
    with torch.no_grad():
        model[6].weight[0, 0, 0, 0] = math.nan
    with unchanged(model):
        refused("layer '6': kernel must be finite", optimizer.step)
    model[6].weight.requires_grad_(False)  # one that is frozen, too
    with unchanged(model):
        refused("layer '6': kernel must be finite", optimizer.step)
    assert (handle.steps, handle.state_dict()["h"]) == (0, {})


def test_a_state_for_weights_of_another_shape_is_refused(device):
    model = network(device)
    optimizer = sgd(model)
    handle = handle_for(optimizer, model, 0.1)
    train(model, optimizer, 1)
    state = handle.state_dict()
    h = state["h"] | {"0.weight": torch.zeros(1, device=device)}
    words = r"h for the parameters of these layers, got '0.weight' of shape \(1,\)"
    refused(words, handle.load_state_dict, state | {"steps": 7, "h": h})
    assert handle.steps == 1
