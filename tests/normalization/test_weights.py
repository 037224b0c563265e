"""Parametrizations against their formulas, written out anew row by row."""

import copy
import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.testing import assert_close

from convkit.normalization.operator_norm import OperatorNorm
from convkit.normalization.weights import (
    CenteredWeightNorm,
    NewtonOrthogonal,
    WeightStandardization,
    parametrized,
)
from convkit.norms import operator_norm
from convkit.operators.operator import ConvOperator
from tests.helpers.geometries import normal
from tests.helpers.refusals import refused

MAKERS = {
    "standardization": WeightStandardization,
    "centered norm": CenteredWeightNorm,
    "newton": NewtonOrthogonal,
    "operator norm": lambda: OperatorNorm((6, 5), padding=1, padding_mode="zeros"),
}


def conv(device, c_in=3, c_out=4, k=3, **options) -> nn.Conv2d:
    layer = nn.Conv2d(c_in, c_out, k, padding=1, **options).to(device, torch.float64)
    with torch.no_grad():
        layer.weight.add_(0.3)
    return layer


def rows(layer) -> torch.Tensor:
    return layer.weight.flatten(1)


# ---- centered rows -------------------------------------------------------------------------------------------------
def test_standardization_is_eq_15_as_printed_or_at_equal_scale(device):
    layer = conv(device)
    w = rows(layer).detach().clone()
    printed = (w - w.mean(1, keepdim=True)) / w.var(1, correction=0, keepdim=True).sqrt()
    assert_close(rows(parametrized(copy.deepcopy(layer), WeightStandardization(gain=None))), printed)
    scaled = rows(parametrized(layer, WeightStandardization()))
    assert_close(scaled, printed * math.sqrt(2 / w.shape[1]))
    assert_close(scaled.norm(dim=1), torch.full((4,), 2**0.5, dtype=w.dtype, device=device))
    with torch.no_grad():
        layer.parametrizations.weight.original.mul_(1e-3).add_(5)  # neither mean nor scale shows
    assert_close(rows(layer), scaled)


def test_a_step_of_autograd_with_weight_decay_is_eqs_18_to_20_with_the_hats_exchanged(device):
    layer = parametrized(conv(device), WeightStandardization(gain=None))
    original, alpha, decay = layer.parametrizations.weight.original, 0.3, 0.05
    w = original.detach().flatten(1).clone()
    n, sigma = w.shape[1], w.var(1, correction=0, keepdim=True).sqrt()
    optimizer = torch.optim.SGD([original], lr=alpha, weight_decay=decay)
    weight = layer.weight
    hat = weight.detach().flatten(1)
    g, original.grad = torch.autograd.grad(weight.sin().pow(3).sum(), (weight, original))
    g = g.flatten(1)  # with respect to what the layer computes with: in eq. 19 it has no hat
    optimizer.step()
    eq_19 = (g - (hat * g).sum(1, keepdim=True) / n * hat) / sigma
    eq_20 = (1 - alpha * decay) * w - alpha * (eq_19 - eq_19.sum(1, keepdim=True) / n)  # beta is lr times decay
    assert_close(original.detach().flatten(1), eq_20)
    assert (w - original.detach().flatten(1)).norm() > 0.1 * alpha


def test_constant_rows_are_standardized_to_zero_with_a_finite_gradient(device):
    layer = parametrized(conv(device), WeightStandardization(eps=1e-3))
    original = layer.parametrizations.weight.original
    with torch.no_grad():
        original[1:3] = 0
        original[2, 0, 0, 0] = 1e-4
    layer.weight.sum().backward()
    w = rows(layer)
    assert (w[1] == 0).all()
    assert_close(w[2].norm() * math.sqrt(27 / 26), 2**0.5 * torch.tensor(0.1).to(w))  # below eps: divided by eps
    assert original.grad.isfinite().all()


def test_centered_norm_starts_where_the_layer_was_and_learns_the_norms(device):
    layer = conv(device)
    w = rows(layer).detach().clone()
    parametrized(layer, CenteredWeightNorm())
    assert_close(rows(layer), w - w.mean(1, keepdim=True))
    g = layer.parametrizations.weight.original0
    assert g.numel() == 4
    with torch.no_grad():
        g.copy_(torch.tensor([1.0, -2.0, 3.0, 0.5]).view_as(g))
        layer.parametrizations.weight.original1.mul_(7)
    assert_close(rows(layer).norm(dim=1), g.flatten().abs())
    assert_close(rows(layer).sum(1), torch.zeros(4, dtype=w.dtype, device=device))
    rows(layer).square().sum().backward()
    assert_close(g.grad.flatten(), 2 * g.flatten())


# ---- Newton's iteration --------------------------------------------------------------------------------------------
def newton(Z, steps, center):
    """ONI as its paper writes it, matrix by matrix; more rows than columns: of the transpose."""
    Z = Z - Z.mean(1, keepdim=True) if center else Z
    if len(Z) > Z.shape[1]:
        return newton(Z.T, steps, False).T
    V = Z / (Z @ Z.T).norm() ** 0.5
    S, B = V @ V.T, torch.eye(len(Z)).to(Z)
    for _ in range(steps):
        B = 1.5 * B - 0.5 * B @ B @ B @ S
    return B @ V


@pytest.mark.parametrize("shape, groups", [((4, 3, 3, 3), 1), ((9, 2, 1, 2), 1), ((6, 2, 3, 1), 3), ((8, 1, 1, 3), 2)])
@pytest.mark.parametrize("center", [True, False])
def test_newton_is_its_iteration_in_both_branches_and_each_group(shape, groups, center, device):
    weight = normal(*shape, device=device)
    oni = NewtonOrthogonal(iterations=3, scale=1.7, center=center, groups=groups)
    wanted = torch.cat([1.7 * newton(Z, 3, center) for Z in weight.flatten(1).chunk(groups)])
    assert_close(oni(weight), wanted.view_as(weight))
    assert_close(oni(1e-30 * weight.float()).double(), oni(weight), rtol=1e-4, atol=1e-5)  # scale does not show
    assert_close(oni(1e30 * weight.float()).double(), oni(weight), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("iterations", [5, 8, 15, 30])
@pytest.mark.parametrize("shape", [(8, 2, 3, 3), (9, 3, 1, 3), (7, 2, 1, 2)])
def test_newton_in_float32_stays_near_float64_however_often_it_iterates(shape, iterations, device):
    weight = normal(*shape, device=device)
    oni = NewtonOrthogonal(iterations)
    grown = 1e-7 * 1.5**iterations  # centered, two of them have a singular value 0, which the first rounding makes 1e-8
    assert_close(oni(weight.float()).double(), oni(weight), rtol=0, atol=2e-6 + grown)
    assert float(torch.linalg.matrix_norm(oni(weight).flatten(1), 2)) <= oni.scale * (1 + 1e-12)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_newton_has_the_same_values_and_gradients_under_autocast(dtype, device):
    weight = normal(8, 2, 3, 3, device=device, dtype=torch.float32).requires_grad_()
    oni = NewtonOrthogonal()

    def both():
        W = oni(weight)
        return W, *torch.autograd.grad(W.sin().sum(), weight, retain_graph=True)

    wanted = both()
    with torch.autocast(device.type, dtype):
        W, inside = both()
    assert_close((W, *torch.autograd.grad(W.sin().sum(), weight)), wanted)  # derived outside
    assert_close(inside, wanted[1], rtol=0.03, atol=0.03)  # derived inside, where torch's own derivatives are rounded


def test_newton_keeps_zero_rows_and_zero_weights(device):
    weight = normal(4, 3, 3, 3, device=device)
    weight[2] = 0
    for some in (weight.clone().requires_grad_(), (0 * weight).requires_grad_()):
        W = NewtonOrthogonal()(some)
        assert (W[2] == 0).all()
        W.square().sum().backward()
        assert some.grad.isfinite().all()


# ---- the true operator norm ----------------------------------------------------------------------------------------
GEOMETRIES = [
    ((6, 5), 1, 1, 1, 1, "zeros"),
    ((6, 8), 2, 1, 1, 1, "zeros"),
    ((5, 6), 1, "same", 2, 2, "circular"),
    ((4, 6), (1, 2), "same", 1, 1, "circular"),
]


@pytest.mark.parametrize("geometry", GEOMETRIES)
@pytest.mark.parametrize("bound", [1.0, 0.3])
def test_the_norm_of_the_layer_is_the_bound_on_the_torus_and_at_most_that_with_zeros(geometry, bound, device):
    groups = geometry[4]
    weight = normal(6, 4 // groups, 3, 3, device=device)
    W = OperatorNorm(*geometry, bound=bound)(weight)
    assert_close(W / W.norm(), weight / weight.norm())
    A = ConvOperator(W, *geometry)
    wanted = torch.tensor(bound, dtype=W.dtype, device=device)
    assert_close(torch.linalg.matrix_norm(A.torus().matrix(), 2), wanted)
    norm = torch.linalg.matrix_norm(A.matrix(), 2)
    if geometry[-1] == "circular":
        assert_close(norm, wanted)
    else:
        assert 0.8 * bound < norm <= bound


def test_gradient_goes_through_the_norm_and_a_zero_or_diverged_weight_passes(device):
    p = OperatorNorm((4, 5))
    weight, weights = normal(3, 2, 3, 2, device=device).requires_grad_(), normal(3, 2, 3, 2, device=device, seed=4)
    found = torch.autograd.grad((p(weight) * weights).sum(), weight)
    dense = weight / torch.linalg.matrix_norm(ConvOperator(weight, (4, 5)).matrix(), 2)
    assert_close(found, torch.autograd.grad((dense * weights).sum(), weight))
    weight = torch.zeros(3, 2, 3, 3, device=device, requires_grad=True)
    p(weight).sum().backward()
    assert (p(weight) == 0).all()
    assert p(torch.full((3, 2, 3, 3), math.nan, device=device)).isnan().all()


def test_between_exact_readings_the_frequency_is_kept_and_evaluation_is_exact(device):
    layer = parametrized(conv(device), OperatorNorm((6, 5), padding="same", every=3))
    w = layer.parametrizations.weight.original

    def norm():
        return operator_norm(ConvOperator(layer.weight, (6, 5)), 2)

    one = torch.ones((), dtype=w.dtype, device=device)
    layer.parametrizations.weight[0].readings.zero_()
    assert_close(norm(), one)  # exact: the constant image is on top
    with torch.no_grad():
        w.mul_(torch.tensor([[1.0, -1, 1], [-1, 1, -1], [1, -1, 1]]).to(w))  # now a checkerboard is
    assert norm() > 1.1  # the kept frequency sees less than the norm
    assert norm() > 1.1
    assert_close(norm(), one)  # every third
    layer.eval()
    with torch.no_grad():
        w.mul_(torch.tensor([[1.0, -1, 1], [-1, 1, -1], [1, -1, 1]]).to(w))
    assert_close(norm(), one)


# ---- all of them ---------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", MAKERS)
def test_trains_saves_loads_and_copies(name, device):
    layer = parametrized(conv(device), MAKERS[name]())
    x = normal(2, 3, 6, 5, device=device)
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.1, momentum=0.9)
    for _ in range(3):
        optimizer.zero_grad()
        (layer(x) - 1).square().mean().backward()
        assert all(p.grad.abs().sum() > 0 for p in layer.parameters())
        optimizer.step()
    twin = parametrized(conv(device), MAKERS[name]())
    twin.load_state_dict(layer.state_dict())
    for other in (twin, copy.deepcopy(layer)):
        assert torch.equal(other(x), layer(x))


def test_linear_layers_are_taken_and_rows_of_one_number_or_constant_ones_are_refused_before_training(device):
    layer = parametrized(nn.Linear(5, 3).to(device), WeightStandardization(gain=2.0))
    assert_close(layer.weight.norm(dim=1), torch.full((3,), 2.0, device=device))
    words = "needs a convolution or a linear layer, got ConvTranspose2d"
    refused(words, parametrized, nn.ConvTranspose2d(3, 4, 3), WeightStandardization())
    layer = nn.Conv2d(3, 4, 3).to(device)
    nn.init.constant_(layer.weight[2], 0.1)
    for make in (WeightStandardization, CenteredWeightNorm, NewtonOrthogonal):
        refused("fan-in of 2", parametrized, nn.Conv2d(1, 3, 1), make())
        if make is not NewtonOrthogonal:
            refused("1 constant ones \\(the first is row 2\\)", parametrized, layer, make())


@pytest.mark.parametrize(
    "make, words",
    [
        (lambda: WeightStandardization(gain=0), "gain must be a positive number"),
        (lambda: WeightStandardization(eps=-1), "eps must be a positive number"),
        (lambda: NewtonOrthogonal(scale=math.inf), "scale must be a positive number"),
        (lambda: OperatorNorm((4, 4), every=1.5), r"every must be a whole number of at least 1, got 1\.5; 1 is exact"),
        (lambda: OperatorNorm((4, 4), bound=True), "bound must be a positive number, got True"),
        (lambda: NewtonOrthogonal(iterations=5.0), r"iterations must be a whole number of at least 1, got 5\.0"),
        (lambda: parametrized(nn.Conv2d(2, 3, 3), NewtonOrthogonal(groups=2)), "groups must divide"),
        (lambda: parametrized(nn.Conv2d(2, 3, 3), OperatorNorm((4, 4), padding=0)), "torus needs"),
    ],
)
def test_bad_arguments_are_refused(make, words):
    refused(words, make)


def test_numbers_of_other_libraries_are_plain():
    layer = OperatorNorm(np.array([6, 5]), bound=torch.tensor(0.5, requires_grad=True), every=np.int64(2))
    assert (layer.bound, layer.every, layer.frequency.shape) == (0.5, 2, (1, 2))
    assert OperatorNorm(np.int64(6)).frequency.shape == OperatorNorm(torch.Size([6])).frequency.shape == (1, 1)
    newton = NewtonOrthogonal(np.uint8(3), np.float32(0.5), groups=torch.tensor(1))
    assert (newton.iterations, newton.scale, newton.groups) == (3, 0.5, 1)
    assert {type(n) for n in (layer.bound, layer.every, newton.iterations, newton.scale, newton.groups)} == {int, float}


def test_the_operator_norm_of_weights_that_are_not_finite_leaves_them_and_of_zeros_zeros(device):
    for groups in (1, 2):
        layer = parametrized(
            nn.Conv2d(4, 6, 3, padding=1, groups=groups), OperatorNorm((5, 6), 1, 1, 1, groups, "zeros")
        ).to(device)
        A = ConvOperator(layer.weight.detach().double(), (5, 6), groups=groups, padding=1, padding_mode="zeros")
        assert_close(torch.linalg.matrix_norm(A.torus().matrix(), 2).item(), 1.0, rtol=1e-5, atol=0)
        original = layer.parametrizations.weight.original
        for value in (0.0, math.inf, math.nan):
            with torch.no_grad():
                original.flatten()[3:] = value if value else 0.0
                original.flatten()[:3] = 0.0
            assert_close(layer.weight.detach(), original.detach(), rtol=0, atol=0, equal_nan=True)
