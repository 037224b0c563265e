"""Rows on the centered sphere: what holds at the start and after every step of any optimizer."""

import copy
import math
from functools import partial

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn, optim
from torch.nn.utils import parametrizations
from torch.testing import assert_close

from convkit.constraints import centered_sphere
from convkit.projections.clipping import project_centered_sphere
from tests.helpers.geometries import normal
from tests.helpers.refusals import refused
from tests.helpers.small_network import batch, kernels, network, sgd, train
from tests.helpers.unchanged import unchanged

OPTIMIZERS = {
    "momentum, decay": partial(optim.SGD, lr=0.3, momentum=0.9, weight_decay=0.05),
    "Nesterov, not foreach": partial(optim.SGD, lr=0.1, momentum=0.9, nesterov=True, foreach=False),
    "fused": partial(optim.SGD, lr=0.1, momentum=0.9, fused=True),
    "Adam": partial(optim.Adam, lr=0.1, amsgrad=True),
    "AdamW": partial(optim.AdamW, lr=0.1, weight_decay=0.5),
    "Rprop": partial(optim.Rprop, lr=0.1),
    "ASGD": partial(optim.ASGD, lr=0.1),
    "Adafactor": partial(optim.Adafactor, lr=0.1),
}


def assert_on_sphere(weight: torch.Tensor, radius: float = 2**0.5) -> None:
    rows = weight.detach().double().flatten(1)
    tolerance = 1e-6 if weight.dtype == torch.float32 else 1e-14
    assert_close(rows.mean(1), torch.zeros_like(rows[:, 0]), atol=tolerance, rtol=0)
    assert_close(rows.norm(dim=1), torch.full_like(rows[:, 0], radius), atol=tolerance * max(1, radius), rtol=0)


# ---- the projection ------------------------------------------------------------------------------------------------
@given(seed=st.integers(0, 99), columns=st.integers(2, 60), exponent=st.integers(-25, 30), offset=st.floats(-1e3, 1e3))
def test_projection_is_on_the_set_whatever_the_scale_and_the_mean(device, seed, columns, exponent, offset):
    weight = normal(4, columns, 1, device=device, dtype=torch.float32, seed=seed) + offset
    projected = project_centered_sphere(weight * 10.0**exponent, 1.7)
    assert projected.shape == weight.shape
    assert_on_sphere(projected, 1.7)


def test_projection_is_the_nearest_point_of_the_set(device):
    weight = normal(3, 2, 4, device=device)
    nearest = project_centered_sphere(weight, 0.8)
    others = normal(500, 3, 2, 4, device=device, seed=3)
    for other in torch.cat([others, nearest + 0.01 * others]):
        assert (weight - nearest).norm() <= (weight - project_centered_sphere(other, 0.8)).norm()
    assert_close(project_centered_sphere(3 * weight + 2, 0.8), nearest)
    assert torch.autograd.gradcheck(lambda w: project_centered_sphere(w, 0.8), weight.requires_grad_())


@pytest.mark.parametrize(
    "weight, radius, words",
    [
        (torch.full((2, 3, 3), 0.1), 1.0, "row 0 of 9 entries"),
        (torch.tensor([[0.1, 0.1 + 1e-8, 0.1]]), 1.0, "row 0 of 3 entries"),  # only rounding tells them apart
        (torch.tensor([[1.0, 2.0], [math.nan, 0.0]]), 1.0, "row 1"),
        (torch.tensor([[1.0], [2.0]]), 1.0, "rows of one entry"),
        (torch.ones(3), 1.0, "at least 2 axes"),
        (torch.ones(3, 2), 0.0, "radius must be a positive number"),
    ],
)
def test_projection_refuses_what_has_none(weight, radius, words):
    refused(words, project_centered_sphere, weight, radius)


# ---- the hook ------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("make", OPTIMIZERS.values(), ids=OPTIMIZERS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
def test_rows_are_on_the_sphere_at_the_start_and_after_every_step_of_any_optimizer(device, make, dtype):
    model = network(device, dtype)
    optimizer = make(model.parameters())
    centered_sphere(optimizer, kernels(model))
    for step in range(6):
        for weight in kernels(model).values():
            assert_on_sphere(weight)
        before = model[0].weight.detach().clone()
        train(model, optimizer, 1, step)
        assert not torch.equal(model[0].weight, before)


def test_an_optimizer_that_calls_a_closure_is_constrained_too(device):
    model = network(device)
    optimizer = optim.LBFGS(model.parameters(), lr=0.1, max_iter=3)
    centered_sphere(optimizer, kernels(model))

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = model(batch(device)).square().mean()
        loss.backward()
        return loss

    for _ in range(3):
        optimizer.step(closure)
        for weight in kernels(model).values():
            assert_on_sphere(weight)


def test_wide_rows_and_a_great_step_keep_the_accuracy(device):
    layer = nn.Conv2d(512, 8, 3).to(device)
    optimizer = sgd(layer, 10.0)
    centered_sphere(optimizer, {"weight": layer.weight})
    for step in range(3):
        layer.weight.grad = 100 + normal(*layer.weight.shape, device=device, dtype=torch.float32, seed=step)
        optimizer.step()
        assert_on_sphere(layer.weight)


@pytest.mark.parametrize("channels_last", [False, True])
def test_rows_stay_on_the_sphere_in_mixed_precision_and_for_channels_last(device, channels_last):
    model = network(device)
    model = model.to(memory_format=torch.channels_last) if channels_last else model
    optimizer = sgd(model, momentum=0.9)
    centered_sphere(optimizer, kernels(model))
    scaler = torch.amp.GradScaler(device.type, init_scale=1024.0)
    for step in range(5):
        optimizer.zero_grad()
        with torch.autocast(device.type, torch.bfloat16):
            loss = model(batch(device, seed=step)).float().square().mean()
            scaler.scale(loss).backward()
            scaler.step(optimizer)  # inside autocast, too
        scaler.update()
        for weight in kernels(model).values():
            assert_on_sphere(weight)
    before = copy.deepcopy(model.state_dict())
    scaler.scale(model(batch(device)).square().mean() * math.inf).backward()
    scaler.step(optimizer)  # which the scaler skips
    assert_close(model.state_dict(), before, rtol=0, atol=0)


@pytest.mark.parametrize("decay", [0.0, 0.3])
def test_one_step_of_sgd_is_algorithm_1_and_weight_decay_only_changes_its_length(device, decay):
    model = network(device, torch.float64)
    lr = 0.2
    optimizer = sgd(model, lr, weight_decay=decay)
    centered_sphere(optimizer, kernels(model), radius=1.3)
    for step in range(3):
        before = {name: weight.detach().clone() for name, weight in kernels(model).items()}
        train(model, optimizer, 1, step)
        for name, weight in kernels(model).items():
            w, g = before[name].flatten(1), weight.grad.flatten(1)  # torch adds its decay to a copy
            alpha = lr / (1 - lr * decay)
            tilde = w - alpha * (g - g.sum(1, keepdim=True) / g.shape[1])
            assert_close(weight.detach().flatten(1), 1.3 * tilde / tilde.norm(dim=1, keepdim=True))


@pytest.mark.parametrize("radius", [1.0, 1.3])
def test_the_step_of_autograd_is_equations_12_to_14_times_the_radius_and_turns_along_the_sphere(device, radius):
    model, lr = network(device, torch.float64), 0.2
    optimizer = sgd(model, lr)
    centered_sphere(optimizer, kernels(model), radius=radius)
    before = {name: weight.detach().clone().flatten(1) for name, weight in kernels(model).items()}
    train(model, optimizer, 1)
    for name, weight in kernels(model).items():
        w, g = before[name], weight.grad.flatten(1)
        Pg = g - g.sum(1, keepdim=True) / g.shape[1]

        def printed(alpha, w=w, Pg=Pg):  # equation 12 with the beta of 13 and the rate of 14
            length = (w - alpha * Pg).norm(dim=1, keepdim=True)
            return (1 - (1 - 1 / length)) * w - alpha / length * Pg

        alpha = torch.tensor(lr, dtype=torch.float64, device=device)
        assert_close(printed(alpha).norm(dim=1), torch.ones_like(w[:, 0]))  # as printed: norm 1, whatever c is
        assert_close(weight.detach().flatten(1), radius * printed(alpha))
        turn = torch.autograd.functional.jacobian(lambda a: radius * printed(a), torch.zeros_like(alpha))
        assert_close(turn, (w * Pg).sum(1, keepdim=True) * w / radius**2 - Pg)  # minus the gradient within the sphere


@pytest.mark.parametrize("center, scale", [(True, False), (False, True)])
def test_each_half_can_be_left_out(device, center, scale):
    model = network(device)
    with torch.no_grad():
        model[0].weight += 1
    optimizer = optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    centered_sphere(optimizer, list(kernels(model).values()), radius=1.5, center=center, scale=scale)
    train(model, optimizer, 3)
    for weight in kernels(model).values():
        rows = weight.detach().flatten(1)
        assert (rows.mean(1).abs().max() < 1e-6) == center
        assert ((rows.norm(dim=1) - 1.5).abs().max() < 2e-6) == scale


def test_the_radius_can_be_changed_while_training(device):
    model = network(device)
    optimizer = optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    handle = centered_sphere(optimizer, kernels(model))
    train(model, optimizer, 1)
    handle.radius = 0.5
    train(model, optimizer, 1)
    assert_on_sphere(model[0].weight, 0.5)


# ---- what is refused -----------------------------------------------------------------------------------------------
def test_what_cannot_be_constrained_is_refused_by_name_before_anything_is_changed(device):
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 1, groups=4), nn.Conv2d(4, 2, 2)).to(device)
    depthwise, flat, half = model[1].weight, model[2].weight, nn.Parameter(torch.ones(2, 3, device=device).half())
    with torch.no_grad():
        flat[1] = 0.25
    optimizer = optim.SGD([*model.parameters(), half], lr=0.1)
    fine = {"fine": model[0].weight}
    with unchanged(model):
        for more, options, words in (
            ({"depthwise": depthwise}, {}, r"at least 2 entries to center, got 'depthwise' of shape \(4, 1, 1, 1\)"),
            ({"flat": flat}, {}, "row 1 of 'flat' with entries from 0.25 to 0.25"),
            ({"foreign": nn.Parameter(model[0].weight.detach().clone())}, {}, "of the optimizer, got 'foreign'"),
            ({"bias": model[0].bias}, {}, r"got shape \(4,\) for 'bias'"),
            ({"half": half}, {}, "float32 or float64, got torch.float16 for 'half'"),
            ({"none": None}, {}, "got NoneType for 'none'"),
            ({}, {"radius": 0.0}, "radius must be a positive number, got 0"),
            ({}, {"center": False, "scale": False}, "center or scale"),
        ):
            refused(words, centered_sphere, optimizer, fine | more, **options)
        for nothing in ({}, []):
            refused("at least one kernel", centered_sphere, optimizer, nothing)
        optimizer.step()  # and no hook was left behind
    centered_sphere(optimizer, {"depthwise": depthwise}, center=False)
    assert_close(depthwise.detach().abs(), torch.full_like(depthwise, 2**0.5))
    layer = parametrizations.weight_norm(nn.Conv2d(3, 4, 3)).to(device)
    words = r"'weight', which it does not step.*the optimizer has the original"
    refused(words, centered_sphere, sgd(layer), {"weight": layer.weight})


@pytest.mark.parametrize("value", [math.nan, math.inf, 0.0])
@pytest.mark.parametrize("center, scale", [(True, True), (False, True), (True, False)])
def test_rows_lost_during_training_are_named_and_no_kernel_is_changed(device, value, center, scale):
    model = network(device)
    optimizer = sgd(model, 0.0)
    handle = centered_sphere(optimizer, kernels(model), center=center, scale=scale)
    with torch.no_grad():
        model[0].weight.add_(0.1)
        model[4].weight[3] = value
    if value == 0 and not scale:
        return train(model, optimizer, 1)  # to center, nothing is wrong with a row of zeros
    model[0].weight.grad = torch.zeros_like(model[0].weight)
    with unchanged(model):
        refused(r"row 3 of '4.weight'.*changed no kernel", optimizer.step)
    assert handle.steps == 0
