"""The product bound of random networks is not below their Jacobians: 240 graphs, and each step alone."""

import pytest
import torch
from torch import Tensor, nn

from convkit.audit.product.bound import product_bound
from tests.helpers.geometries import normal
from tests.helpers.random_graphs import ANYWHERE, LAYERS, Graph, Part, steepest, varied

SIZES = [(3, 4, 5), (2, 5, 4), (4, 3, 4), (1, 7, 6), (5, 2, 6)]


def points_in_box(number: int, size: tuple[int, ...], device: torch.device, seed: int) -> Tensor:
    """Points between -1 and 1: in all places, close to one another, and at corners."""
    x = normal(number, *size, device=device, seed=seed)
    return torch.cat([x.clamp(-1, 1), 0.05 * x[:2].clamp(-1, 1), x[:3].sign(), 0.5 + 1e-3 * x[:2].clamp(-1, 1)])


@pytest.mark.parametrize("block", range(12))
def test_the_bound_of_random_graphs_is_not_below_their_jacobians(device, block):
    for seed in range(20 * block, 20 * block + 20):
        size = SIZES[seed % len(SIZES)]
        model, points = Graph(seed, size, device), points_in_box(5, size, device, seed)
        bound = product_bound(model, points[:1], torus=seed % 2 == 1, low=-1, high=1)
        assert steepest(model, points) <= bound * (1 + 1e-9), (seed, model.names)


@pytest.mark.parametrize("name", [*ANYWHERE, *LAYERS])
def test_the_bound_of_one_step_is_not_below_its_jacobians_with_and_without_a_box(device, name):
    for seed, size in enumerate(SIZES):
        torch.manual_seed(seed)
        step = LAYERS[name](size[0]) if name in LAYERS else Part(ANYWHERE[name])
        model = varied(nn.Sequential(step)).to(device, torch.float64).eval()
        points = points_in_box(6, size, device, seed)
        boxed = product_bound(model, points[:1], low=-1, high=1)
        assert steepest(model, points) <= boxed * (1 + 1e-9)
        try:
            bound = product_bound(model, points[:1])
        except ValueError as error:
            assert "give low and high" in str(error) or "stay above 0" in str(error)  # noqa: PT017
        else:
            assert boxed <= bound * (1 + 1e-9)
            assert steepest(model, 3 * points) <= bound * (1 + 1e-9)
