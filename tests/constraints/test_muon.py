"""The optimizer whose steps have norm lr: its certificate, torch's Muon on linear layers, state and copies."""

import copy
import math

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from convkit.constraints import ConvMuon, centered_sphere
from convkit.norms import operator_norm
from convkit.operators.network import input_shapes
from convkit.operators.operator import ConvOperator
from convkit.projections import polar_step, steepest
from tests.helpers.geometries import normal
from tests.helpers.refusals import refused
from tests.helpers.small_network import batch, network, saved, train

GEOMETRIES = {
    "circular": {"padding": 1, "padding_mode": "circular"},
    "zeros": {"padding": 1},
    "strided": {"padding": 1, "stride": 2},
    "grouped, dilated": {"padding": (2, 1), "dilation": (2, 1), "groups": 2},
    "patches": {"stride": 3},
}


def start(device: torch.device, seed: int = 0, **options) -> tuple[nn.Module, ConvMuon]:
    torch.manual_seed(seed)
    model = network(device)
    return model, ConvMuon(model, input_shapes(model, batch(device)), **options)


def torus_norms(model: nn.Module, device: torch.device) -> dict[str, float]:
    layers = input_shapes(model, batch(device))
    operators = {name: ConvOperator.from_layer(model.get_submodule(name), shape) for name, shape in layers.items()}
    return {name: float(operator_norm(A.torus(), 2).detach()) for name, A in operators.items()}


def test_every_norm_grows_by_the_rate_at_most_and_decay_keeps_that(device):
    for decay in (0.0, 0.5):
        model, optimizer = start(device, lr=0.3, weight_decay=decay)
        limits = torus_norms(model, device)
        for step, rate in enumerate((0.3, 0.1, 0.7, 0.2)):
            optimizer.param_groups[0]["lr"] = rate
            train(model, optimizer, 1, start=step)
            for name, norm in torus_norms(model, device).items():
                if name != "8":  # the linear layer steps as in Muon
                    limits[name] += rate
                    assert norm <= limits[name] * (1 + 1e-5)


def test_with_decay_no_norm_ever_exceeds_one_over_the_decay_or_where_it_began(device):
    model, optimizer = start(device, lr=0.5, weight_decay=1.0)
    limits = {name: max(norm, 1.0) for name, norm in torus_norms(model, device).items()}
    for weight in model.parameters():
        weight.grad = torch.randn_like(weight)  # the same at every step: the steps add up
    reached = 0.0
    for step in range(8):
        optimizer.step()
        for name, norm in torus_norms(model, device).items():
            if name != "8":
                reached = max(reached, norm / limits[name])
                assert norm <= limits[name] * (1 + 1e-5), step
    assert reached > 0.9  # the limit is nearly reached


@pytest.mark.parametrize("channels, groups", [(6, 6), (8, 2), (60, 2)])
def test_each_group_of_a_layer_steps_by_the_rate_and_one_without_a_gradient_stays(device, channels, groups):
    torch.manual_seed(0)
    layer = nn.Conv2d(channels, channels, 3, padding=1, groups=groups, bias=False, device=device, dtype=torch.float64)
    optimizer = ConvMuon(nn.Sequential(layer), {"0": (7, 6)}, lr=0.25, momentum=0)
    before = layer.weight.detach().clone()
    sizes = torch.arange(groups, device=device).repeat_interleave(channels // groups)  # the first group has none
    layer.weight.grad = normal(*before.shape, device=device) * sizes[:, None, None, None]
    optimizer.step()
    parts = (before - layer.weight.detach()).chunk(groups)
    norms = [float(operator_norm(ConvOperator(part, (8, 7)), 2)) for part in parts]
    assert norms == pytest.approx([0.0] + [0.25] * (groups - 1), rel=1e-9)


@pytest.mark.parametrize("name", [*GEOMETRIES, *(f"transposed {name}" for name in [*GEOMETRIES][1:])])
def test_a_first_step_has_norm_lr_and_is_nearly_the_polar_step(device, name):
    geometry = GEOMETRIES[name.removeprefix("transposed ")]
    kind = nn.ConvTranspose2d if name.startswith("transposed") else nn.Conv2d
    torch.manual_seed(0)
    layer = kind(6, 4, (3, 3), bias=False, device=device, dtype=torch.float64, **geometry)
    optimizer = ConvMuon(nn.Sequential(layer), {"0": (12, 9)}, lr=0.25, momentum=0)
    before, gradient = layer.weight.detach().clone(), normal(*layer.weight.shape, device=device)
    layer.weight.grad = gradient.clone()
    optimizer.step()
    change = nn.Sequential(kind(6, 4, (3, 3), bias=False, device=device, dtype=torch.float64, **geometry))[0]
    with torch.no_grad():
        change.weight.copy_(before - layer.weight)
    D = ConvOperator.from_layer(change.requires_grad_(False), (12, 9))
    norm = float(torch.linalg.matrix_norm(D.matrix(), 2))
    torus = float(operator_norm(D.torus(), 2))
    assert norm <= torus * (1 + 1e-9)
    assert math.isclose(torus, 0.25, rel_tol=1e-9)
    # on the torus: nearly as steep as can be, and steeper than the gradient itself
    with torch.no_grad():
        change.weight.copy_(gradient)
    G = ConvOperator.from_layer(change, (12, 9)).torus()
    slope = 4 * float(((before - layer.weight.detach()) * gradient).sum())
    most = steepest(G, 60)
    best = float((most.direction.kernel * G.kernel).sum()) * (1 + most.gap)
    assert 0.6 * best < slope <= best * (1 + 1e-6)
    exact = float((polar_step(G).kernel * G.kernel).sum())  # on the layer's torus in place of a small one
    assert slope > 0.9 * exact


def test_linear_layers_step_bit_for_bit_as_in_torch(device):
    for shape in ((40, 30), (30, 40)):
        torch.manual_seed(0)
        ours = nn.Sequential(nn.Linear(shape[1], shape[0], bias=False, device=device))
        theirs = copy.deepcopy(ours)
        options = {"lr": 0.02, "weight_decay": 0.1, "momentum": 0.9}
        pairs = (
            (ours, ConvMuon(ours, {"0": 1}, **options)),
            (theirs, torch.optim.Muon(theirs.parameters(), **options)),
        )
        for step in range(4):
            for model, optimizer in pairs:
                optimizer.zero_grad()
                model(normal(9, shape[1], device=device, dtype=torch.float32, seed=step)).square().sum().backward()
                optimizer.step()
        assert_close(ours[0].weight, theirs[0].weight, rtol=0, atol=0 if device.type == "cpu" else 1e-3)


def test_muon_on_the_flattened_kernel_breaks_the_certificate(device):
    kernel = normal(8, 8, 3, 3, device=device)
    U, _, Vh = torch.linalg.svd(kernel.flatten(1), full_matrices=False)
    flattened = ConvOperator((U @ Vh).view_as(kernel), (8, 8))
    assert 1.6 < float(operator_norm(flattened, 2)) < 3  # 3 is the root of the number of taps


def test_a_step_does_not_depend_on_the_size_of_the_gradient_and_none_is_none(device):
    kernels = []
    for factor in (1e-20, 1.0, 1e20):
        model, optimizer = start(device, rest_lr=0.0)
        (model(batch(device)).square().mean() * factor).backward()
        model[2].weight.grad = None
        model[4].weight.grad.zero_()
        before = copy.deepcopy(model.state_dict())
        optimizer.step()
        assert torch.equal(model[2].weight, before["2.weight"])
        assert torch.equal(model[4].weight, before["4.weight"])
        kernels.append(model[0].weight.detach().clone())
        assert torch.equal(model[0].bias, before["0.bias"])
    assert_close(kernels[0], kernels[1], atol=1e-4, rtol=0)
    assert_close(kernels[2], kernels[1], atol=1e-4, rtol=0)


def test_it_resumes_and_copies_bit_for_bit(device):
    model, optimizer = start(device)
    train(model, optimizer, 3)
    states = saved(model, optimizer)
    twin, other = copy.deepcopy((model, optimizer))
    again, resumed = start(device, seed=1)
    again.load_state_dict(states[0])
    resumed.load_state_dict(states[1])
    for one, its in ((model, optimizer), (twin, other), (again, resumed)):
        train(one, its, 3, start=3)
    for one in (twin, again):
        for ours, theirs in zip(model.parameters(), one.parameters(), strict=True):
            assert torch.equal(ours, theirs)


def test_hooks_schedules_closures_and_frozen_weights(device):
    torch.manual_seed(0)
    model = network(device)
    model[0].weight.requires_grad_(False)
    frozen = model[0].weight.clone()
    optimizer = ConvMuon(model, input_shapes(model, batch(device)))
    handle = centered_sphere(optimizer, {"2": model[2].weight}, radius=1.5)
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, 1, 0.5)

    def loss() -> torch.Tensor:
        optimizer.zero_grad()
        value = model(batch(device)).square().mean()
        value.backward()
        return value

    first = optimizer.step(loss)
    schedule.step()
    assert optimizer.step(loss).item() < first.item()
    assert torch.equal(model[0].weight, frozen)
    assert_close(model[2].weight.flatten(1).norm(dim=1), torch.full((6,), 1.5, device=device))
    assert [group["kind"] for group in optimizer.param_groups] == ["convolutions", "matrices", "rest"]
    assert optimizer.param_groups[0]["lr"] == 0.01
    assert handle.steps == 2


def test_bad_input_is_refused_by_name(device):
    model = network(device)
    shapes = input_shapes(model, batch(device))
    refused("'9'", ConvMuon, model, shapes | {"9": (1, 1)})
    refused("lr", ConvMuon, model, shapes, -1.0)
    refused("rounds", ConvMuon, model, shapes, rounds=0)
    nn.utils.parametrizations.weight_norm(model[0])
    refused("'0'.*parametrization off", ConvMuon, model, shapes)
    reflecting = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1, padding_mode="reflect", device=device))
    refused("layer '0'", ConvMuon, reflecting, {"0": (5, 5)})
