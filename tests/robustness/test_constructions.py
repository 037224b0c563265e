"""The constructions of Liang & Huang do what their theorems say, for every point of every ball."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import linprog
from torch import nn

from convkit.attacks import pgd
from convkit.robustness.constructions import (
    certify_balls,
    constant_network,
    lipschitz_fit,
    reciprocal_error,
    robust_network,
    separation,
    steep_robust_network,
)
from tests.helpers.attack_models import digits
from tests.helpers.refusals import refused

norms = pytest.mark.parametrize("norm", ["inf", 2])
activations = pytest.mark.parametrize("activation", ["relu", "tanh", "sigmoid"])
LEAVES = {"relu": 0.0, "tanh": 0.25, "sigmoid": 0.25}  # what each function leaves on other balls, in all
KIND = {"inf": math.inf, 2: 2}


@pytest.fixture(scope="module")
def points(device):
    x, y = digits(80)
    return x.to(device), y.to(device)


def balls(x, eps, norm, count):
    """Points of the balls: corners of the cube or points of the sphere, where the function changes most."""
    noise = torch.randn(count, *x.shape, dtype=torch.float64, device=x.device)
    flat = noise.flatten(2)
    change = flat.sign() if norm == "inf" else flat / flat.norm(dim=2, keepdim=True)
    return x + eps * change.view_as(noise)


# ---- Proposition 1 ---------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("inputs, classes, depth", [(5, 3, 2), (3, 5, 4), (1, 2, 3)])
@pytest.mark.parametrize("size", [0.3, 7.0, 1e30])
def test_a_network_of_large_norms_is_constant(inputs, classes, depth, size, device):
    network = constant_network(inputs, classes, size, depth).to(device)
    layers = [layer for layer in network if isinstance(layer, nn.Linear)]
    assert len(layers) == depth
    for layer in layers:
        for ord in (1, 2, math.inf):
            assert float(torch.linalg.matrix_norm(layer.weight.detach(), ord)) >= size
    x = 100 * torch.randn(50, inputs, dtype=torch.float64, device=device)
    assert not network(x).any()
    hidden = network[:3](x)
    assert (hidden > 0).any(1)[(x > 0).any(1)].all()  # not a dead network: the signal is there and cancels


# ---- Theorem 2 and Proposition 2 -------------------------------------------------------------------------------------
@activations
@norms
def test_separable_points_have_a_network_of_robust_accuracy_1_certified_over_whole_balls(norm, activation, points):
    x, y = points
    distance = separation(x, y, norm).distance
    eps = 0.45 * distance
    network = robust_network(x, y, eps, norm, activation)
    hidden = [type(layer).__name__.lower() for layer in network if not isinstance(layer, (nn.Linear, nn.Flatten))]
    assert hidden == [activation] * 2
    assert certify_balls(network, x, y, eps, norm).all()
    assert not certify_balls(network, x, (y + 1) % 10, eps, norm).any()
    assert not certify_balls(network, x, y, 0.51 * distance, norm).all()  # where balls meet
    left = LEAVES[activation]
    for near in balls(x, eps, norm, 5):
        logits = network(near).detach()
        assert torch.equal(logits.argmax(1), y)
        others = logits.scatter(1, y[:, None], -1)
        assert float(logits.gather(1, y[:, None]).min()) > 1 - left / len(x) - 1e-9
        assert float(others.max()) < left + 1e-9
    survived = pgd(network, x.double(), y, eps, eps / 4, 5, norm=norm, loss="margin")
    assert torch.equal(network(survived).argmax(1), y)


@activations
@norms
@given(
    seed=st.integers(0, 10**6),
    count=st.integers(2, 12),
    size=st.integers(1, 4),
    share=st.floats(0.01, 0.49),
    steepness=st.sampled_from([1.0, 50.0, 1e6]),
)
def test_any_separable_points_will_do_and_a_robust_network_may_be_as_steep_as_you_like(
    norm, activation, seed, count, size, share, steepness, device
):
    generator = torch.Generator().manual_seed(seed)
    x = torch.rand(count, 1, size, generator=generator, dtype=torch.float64).to(device)
    y = torch.randint(3, (count,), generator=generator)
    y[:2] = torch.tensor([0, 2])
    y = y.to(device)
    eps = share * separation(x, y, norm).distance
    assert certify_balls(robust_network(x, y, eps, norm, activation), x, y, eps, norm).all()
    steep, pair = steep_robust_network(x, y, eps, steepness, norm, activation)
    assert certify_balls(steep, x, y, eps, norm).all()
    change, way = (torch.linalg.vector_norm(t[0] - t[1], KIND[norm]) for t in (steep(pair).detach(), pair))
    assert float(change / way) >= steepness
    assert pair.shape == (2, 1, size)
    assert float(pair.min()) >= -1e-12
    assert float(pair.max()) <= 1 + 1e-12  # it is steep among images, not far from them
    assert (torch.linalg.vector_norm((pair[0] - x).flatten(1), KIND[norm], dim=1) > eps).all()


@pytest.mark.parametrize("activation", [nn.ReLU, nn.Tanh, nn.Sigmoid])
@given(seed=st.integers(0, 10**6))
def test_what_the_certificate_proves_no_sample_contradicts(activation, seed, device):
    torch.manual_seed(seed)
    layers = (nn.Flatten(), nn.Linear(3, 8), activation(), nn.Linear(8, 6), activation(), nn.Linear(6, 3))
    network = nn.Sequential(*layers).double().to(device)
    x = torch.randn(20, 3, dtype=torch.float64, device=device)
    y = network(x).argmax(1)
    for norm in ("inf", 2):
        proven = certify_balls(network, x, y, 0.05, norm)
        assert (proven | ~certify_balls(network, x, y, 0.1, norm)).all()
        assert certify_balls(network, x, y, 0.0, norm).all()
        for near in balls(x, 0.05, norm, 20):
            assert torch.equal(network(near).argmax(1)[proven], y[proven])


# ---- separation ------------------------------------------------------------------------------------------------------
@norms
@given(seed=st.integers(0, 10**6), count=st.integers(2, 40), size=st.sampled_from([1, 3, 16, 33, 100]))
def test_separation_equals_the_smallest_of_all_distances(norm, seed, count, size, device):
    generator = torch.Generator().manual_seed(seed)
    x = torch.rand(count, size, generator=generator).to(device) ** 4
    y = torch.randint(3, (count,), generator=generator)
    y[:2] = torch.tensor([0, 1])
    y = y.to(device)
    found = separation(x, y, norm)
    distances = torch.cdist(x.double(), x.double(), KIND[norm]).masked_fill(y[:, None] == y, math.inf)
    assert found.distance == pytest.approx(float(distances.min()), rel=1e-5)
    i, j = found.pair
    assert y[i] != y[j]
    assert float(distances[i, j]) == pytest.approx(found.distance, rel=1e-5)


@norms
def test_separation_over_many_chunks(norm, device):
    y = torch.arange(700, device=device) % 7
    x = torch.rand(700, 40).to(device) + y[:, None]
    x[650] = x[3] + 0.125  # a pair in different chunks
    found = separation(x, y, norm)
    assert sorted(found.pair) == [3, 650]
    assert found.distance == pytest.approx(0.125 if norm == "inf" else 0.125 * math.sqrt(40), rel=1e-4)


@norms
def test_equal_points_of_different_classes_are_at_distance_0_and_refused(norm, device):
    x = torch.randint(0, 256, (50, 1, 6, 6)).byte().to(device)
    y = torch.arange(50, device=device) % 4
    far = separation(x, y, norm).distance
    assert far == pytest.approx(separation(x.double() / 255, y, norm).distance, rel=1e-5)
    x[30] = x[7]
    assert separation(x, y, norm).distance == 0
    assert sorted(separation(x, y, norm).pair) == [7, 30]
    refused("points of different classes must be more than 2 eps", robust_network, x / 255, y, 0.0, norm)
    x[30] = x[6] + (x[6] < 255)  # the same class may be as near as it likes
    y[30] = y[6]
    assert separation(x, y, norm).distance == pytest.approx(far, rel=0.2)


def test_digits_are_separable(device):
    x, y = (t.to(device) for t in digits(1797))
    assert separation(x, y).distance == 7 / 16
    assert separation(x, y, 2).distance == pytest.approx(1.17925, abs=1e-5)


# ---- 1/x -------------------------------------------------------------------------------------------------------------
@given(seed=st.integers(0, 10**6), steep=st.floats(0, 5))
def test_the_best_lipschitz_fit_equals_a_linear_program(seed, steep, device):
    generator = torch.Generator().manual_seed(seed)
    x = torch.rand(7, generator=generator, dtype=torch.float64).to(device)
    y = torch.rand(7, generator=generator, dtype=torch.float64).to(device)
    fit, error = lipschitz_fit(x, y, steep)
    gaps = (fit[:, None] - fit).abs() - steep * (x[:, None] - x).abs()
    assert float(gaps.max()) < 1e-12
    assert float((fit - y).abs().max()) <= error + 1e-12
    rows, limits = [], []
    for i in range(7):
        unit = np.eye(8)[i]
        for j in range(7):
            rows.append(unit - np.eye(8)[j])
            limits.append(steep * abs(float(x[i] - x[j])))
        rows += [unit - np.eye(8)[7], -unit - np.eye(8)[7]]
        limits += [float(y[i]), -float(y[i])]
    exactly = {"primal_feasibility_tolerance": 1e-10, "dual_feasibility_tolerance": 1e-10}  # 1e-7 is usual
    best = linprog(np.eye(8)[7], np.array(rows), np.array(limits), bounds=(None, None), options=exactly)
    assert error == pytest.approx(best.fun, abs=1e-8)


@pytest.mark.parametrize("steep, error", [(0.0, 0.5), (1.0, 0.25), (4.0, 0.0), (9.0, 0.0)])
def test_how_badly_a_flat_function_follows_the_reciprocal(steep, error, device):
    assert reciprocal_error(steep) == pytest.approx(error)
    x = torch.linspace(0.5, 1, 400, dtype=torch.float64, device=device)
    for slope_limit in (steep, steep + 0.3):
        assert lipschitz_fit(x, 1 / x, slope_limit)[1] == pytest.approx(reciprocal_error(slope_limit), abs=1e-5)
    assert reciprocal_error(steep, 1.0, 2.0) == pytest.approx((0.5 - steep) / 2 if steep < 0.25 else 0.0)


# ---- bad input -------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "ask, message",
    [
        (lambda x, y: constant_network(0, 2, 1.0), "inputs must be"),
        (lambda x, y: constant_network(2, 2, 1.0, depth=1), "depth >= 2"),
        (lambda x, y: constant_network(2, 2, math.inf), "finite"),
        (lambda x, y: constant_network(2, 2, -1.0), "size above 0"),
        (lambda x, y: robust_network(x, y, 0.5), "take a smaller eps"),
        (lambda x, y: robust_network(x, y, -0.1), "eps must be at least 0"),
        (lambda x, y: robust_network(x, 0 * y, 0.1), "at least two classes"),
        (lambda x, y: robust_network(x, y, 0.1, 1), "norm must be"),
        (lambda x, y: steep_robust_network(x, y, 0.1, 0.0), "slope must be a positive number"),
        (lambda x, y: separation(x, 0 * y), "at least two classes"),
        (lambda x, y: separation(x, y[:1]), "labels must be"),
        (lambda x, y: separation(x * math.nan, y), "finite"),
        (lambda x, y: certify_balls(nn.Sequential(nn.Linear(2, 2)), x, y, 0.1), "at least two Linear"),
        (lambda x, y: certify_balls(nn.Sequential(nn.Linear(2, 2), nn.GELU(), nn.Linear(2, 2)), x, y, 0.1), "GELU"),
        (lambda x, y: robust_network(x, y, 0.1, "inf", "gelu"), "ACTIVATIONS has no 'gelu'"),
        (lambda x, y: certify_balls(robust_network(x, y, 0.1)[:-1], x, y, 0.1), "Linear first and last"),
        (lambda x, y: lipschitz_fit(x, x, 1.0), "shape .N,."),
        (lambda x, y: reciprocal_error(1.0, 0.0), "0 < low < high"),
    ],
)
def test_bad_input_is_a_sentence(ask, message, device):
    x = torch.tensor([[0.0, 0.0], [1.0, 0.5]], dtype=torch.float64, device=device)
    refused(message, ask, x, torch.tensor([0, 1], device=device))
