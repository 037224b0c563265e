"""Each number about steepness and radius is on the side it says: estimates from below, certificates below attacks."""

import math

import pytest
import torch
from torch import nn
from torch.func import jacrev
from torch.testing import assert_close

from convkit.audit.product.bound import product_bound
from convkit.normalization.convnorm import ConvNorm2d
from convkit.robustness.lipschitz import certified_radius, empirical_radius, jacobian_norm, local_lipschitz, margins
from tests.helpers.attack_models import linear_model, trained_network
from tests.helpers.refusals import refused

norms = pytest.mark.parametrize("norm", ["inf", 2])
NUMBER = {"inf": math.inf, 2: 2}


@pytest.fixture(scope="module")
def model(device):
    return trained_network().double().to(device)


@pytest.fixture
def linear(device):
    return linear_model(20, 5).to(device)


def images(device, count=4):
    return torch.rand(count, 1, 8, 8, dtype=torch.float64, device=device)


def jacobians(model, x):
    model.eval()
    jacobians = torch.stack([jacrev(model)(image[None])[0].flatten(1) for image in x]).detach()
    model.train()
    return jacobians


# ---- steepness -------------------------------------------------------------------------------------------------------
@norms
def test_the_jacobian_norm_equals_the_dense_one_and_few_power_steps_stay_below(norm, model, device):
    x = images(device)
    true = torch.linalg.matrix_norm(jacobians(model, x), NUMBER[norm])
    found = jacobian_norm(model, x, norm, steps=200)
    assert_close(found, true, rtol=1e-3, atol=0)
    assert not found.requires_grad
    assert model.training
    if norm == 2:
        few, more = (jacobian_norm(model, x, 2, steps, torch.Generator().manual_seed(0)) for steps in (1, 5))
        assert (few < more).all()
        assert (more <= true * (1 + 1e-9)).all()


@norms
def test_layers_with_a_backward_pass_of_their_own_are_measured_as_others(norm, device):
    torch.manual_seed(3)
    layers = nn.Sequential(ConvNorm2d(1, 2, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(2 * 6 * 6, 4))
    model = layers.double().to(device).requires_grad_(False)
    x = torch.rand(3, 1, 6, 6, dtype=torch.float64, device=device)
    pixels = 1e-6 * torch.eye(36, dtype=torch.float64, device=device).view(36, 1, 6, 6)
    rows = [(model(x + pixel) - model(x - pixel)) / 2e-6 for pixel in pixels]  # the dense derivative, by differences
    true = torch.linalg.matrix_norm(torch.stack(rows, 2), NUMBER[norm])
    assert_close(jacobian_norm(model, x, norm, steps=200), true, rtol=1e-3, atol=0)
    assert_close(local_lipschitz(model, x, 1e-4, norm, steps=10), true, rtol=1e-2, atol=0)


def test_a_constant_network_and_one_without_a_gradient_are_flat(device):
    x = 0.1 + 0.2 * torch.rand(2, 4, device=device)  # rounded to 0, all of it
    head = nn.Linear(4, 3).to(device)
    for norm in ("inf", 2):
        assert not jacobian_norm(nn.Sequential(Function(torch.round), head), x, norm).any()
    nn.init.zeros_(head.weight)
    for norm in ("inf", 2):
        assert jacobian_norm(head, x, norm).tolist() == [0, 0]
        assert local_lipschitz(head, x, 0.1, norm).tolist() == [0, 0]


@norms
def test_a_linear_model_is_equally_steep_everywhere(norm, linear, device):
    x = torch.rand(3, 20, dtype=torch.float64, device=device)
    true = torch.linalg.matrix_norm(linear[1].weight, NUMBER[norm]).detach().expand(3)
    for radius in (0.01, 10.0):
        found = local_lipschitz(linear, x, radius, norm)
        assert_close(found, true, rtol=0.02, atol=0)
        assert (found <= true * (1 + 1e-6)).all()


@norms
def test_the_local_estimate_is_near_the_jacobian_in_a_small_ball_and_no_less_in_a_large_one(norm, model, device):
    x = images(device)
    at = jacobian_norm(model, x, norm, steps=200)
    small, large = (local_lipschitz(model, x, radius, norm) for radius in (1e-6, 0.3))
    assert_close(small, at, rtol=0.02, atol=0)
    assert (large > small * 0.95).all()  # both from below
    assert not large.requires_grad
    if norm == 2:
        assert (large <= product_bound(model, x)).all()


@norms
def test_the_points_of_the_estimate_stay_in_the_ball_and_reach_its_edge(norm, device):
    def cliff(x):  # flat but for a cliff at a distance of 0.5: seen from a ball that reaches it, not from a smaller one
        far = (x[:, :1] - 0.5).clamp(min=0)
        return torch.cat((100 * far + 0.1 * x[:, :1], 0 * far), 1)

    x = torch.zeros(1, 3, dtype=torch.float64, device=device)
    assert float(local_lipschitz(Function(cliff), x, 0.499, norm)) == pytest.approx(0.1)
    assert float(local_lipschitz(Function(cliff), x, 0.9, norm)) > 20
    # the slope of the square between two points is their sum: 2 at the image, and at most 3 for points of the ball
    square = Function(lambda x: torch.cat((x[:, :1] ** 2, 0 * x[:, :1]), 1))
    found = float(local_lipschitz(square, torch.ones(1, 3, dtype=torch.float64, device=device), 0.5, norm))
    assert 2.7 < found <= 2 * 1.5 * (1 + 1e-9)


# ---- radii -----------------------------------------------------------------------------------------------------------
def test_margins_and_certified_radii_by_hand(device):
    model = nn.Sequential(nn.Identity())
    logits = torch.tensor([[1.0, 4, 2], [1.0, 4, 2], [3.0, 3, 3]], device=device)
    labels = torch.tensor([1, 2, 0], device=device)
    assert margins(model, logits, labels).tolist() == [2, -2, 0]
    radii = torch.tensor([2 / math.sqrt(8), 0, 0], device=device)
    assert_close(certified_radius(model, logits, labels, 2.0), radii)
    assert certified_radius(model, logits[:1], labels[:1], 0.0).isinf().all()


def test_radii_of_a_linear_model_enclose_the_true_one(linear, device):
    x = 0.3 + 0.4 * torch.rand(6, 20, dtype=torch.float64, device=device)
    with torch.no_grad():
        logits = linear(x)
        y = logits.argmax(1)
        y[0] = logits[0].argmin()  # an error from the start
        weight = linear[1].weight.detach()
        leads = logits.gather(1, y[:, None]) - logits
        slopes = (weight[y][:, None] - weight).norm(dim=2)
        true = torch.where(slopes > 0, leads / slopes, math.inf).amin(1).clamp(min=0)
    bound = product_bound(linear, x)
    certified, found = certified_radius(linear, x, y, bound), empirical_radius(linear, x, y, 2.0)
    assert (certified <= true).all()
    # two rows of the weight differ by at least sqrt(2) times its least singular value, where the bound has the largest
    assert (certified >= true * float(torch.linalg.svdvals(weight)[-1]) / bound * (1 - 1e-9)).all()
    assert (found >= true * (1 - 1e-9)).all()
    assert found[0] == certified[0] == 0


def test_between_two_classes_the_smallest_change_is_found_and_is_the_distance_to_the_plane(device):
    """Images at known distances from the plane 0.5 w . 1 = w . x, far enough inside the box that it plays no part."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(20, 2)).to(device, torch.float64)
    with torch.no_grad():
        slope = model[1].weight[0] - model[1].weight[1]
        model[1].bias.copy_(-model[1].weight.sum(1) / 2)
        distance = torch.tensor([0.02, 0.05, 0.1, 0.15], dtype=torch.float64, device=device)
        x = 0.5 + distance[:, None] * slope / slope.norm()
    found = empirical_radius(model, x, torch.zeros(4, dtype=torch.long, device=device), 0.3)
    assert (found >= distance * (1 - 1e-9)).all()
    # 20 steps of an eighth of the radius end within 16 degrees of the slope, wherever they begin: 1 / cos(16) < 1.05
    assert_close(found, distance, rtol=0.05, atol=0.3 / 2**8)  # eight halvings of 0.3


def test_the_certificate_stays_below_every_attack_on_a_network(model, device):
    x = images(device, 10)
    y = model.eval()(x).argmax(1)
    y[0] = (y[0] + 1) % 10
    model.train()
    certified = certified_radius(model, x, y, product_bound(model, x))
    found = empirical_radius(model, x, y, 2.0)
    assert (certified[1:] > 0).all()
    assert (certified <= found).all()
    assert found[0] == 0
    assert found[1:].isfinite().any()
    assert empirical_radius(model, x, y, 1e-4)[1:].isinf().all()
    by_pixel = empirical_radius(model, x, y, 0.5, "inf")
    assert (by_pixel <= found + 1e-9).all()
    assert (by_pixel[1:] < found[1:]).any()
    assert model.training
    assert all(p.grad is None for p in model.parameters())


# ---- bad input -------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "ask, message",
    [
        (lambda m, x, y: jacobian_norm(m, x, 1), 'norm must be "inf" or 2'),
        (lambda m, x, y: jacobian_norm(m, x, steps=0), "steps must be"),
        (lambda m, x, y: jacobian_norm(m, x.byte()), "floating point"),
        (lambda m, x, y: local_lipschitz(m, x, 0.0), "radius must be a positive number, got .*units of images"),
        (lambda m, x, y: local_lipschitz(m, x[:0], 0.1), "N >= 1"),
        (lambda m, x, y: local_lipschitz(Function(lambda f: f / 0), x, 0.1), "finite logits"),
        (lambda m, x, y: margins(m, x, y + 7), "labels must lie in"),
        (lambda m, x, y: margins(m, x, y[:1]), "labels must be"),
        (lambda m, x, y: certified_radius(m, x, y, math.nan), "bound must be"),
        (lambda m, x, y: empirical_radius(m, x, y, 0.0), "largest must be a positive number, got .*units of images"),
        (lambda m, x, y: empirical_radius(m, x + 1, y, 1.0), "images must lie in"),
        (lambda m, x, y: empirical_radius(m, x, y, 1.0, bisections=0), "bisections must be"),
    ],
)
def test_bad_input_is_a_sentence(ask, message, linear, device):
    x = torch.rand(3, 20, dtype=torch.float64, device=device)
    refused(message, ask, linear, x, torch.zeros(3, dtype=torch.int64, device=device))


class Function(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.forward = function
