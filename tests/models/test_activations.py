"""GroupSort and MaxMin sort, keep norms, and take the place of every ReLU of a network."""

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from convkit.audit.product.bound import product_bound
from convkit.data import digits, subset
from convkit.methods.build import network
from convkit.models import GroupSort, MaxMin
from convkit.models.activations import with_activation
from tests.helpers.image_models import IMAGE_MODELS
from tests.helpers.refusals import refused

DATA = subset(digits(), 60)


@pytest.mark.parametrize("shape", [(2, 6), (3, 12, 5), (2, 6, 4, 3), (1, 18, 2, 3, 4)])
@pytest.mark.parametrize("size", [2, 3])
def test_groups_of_channels_are_sorted_and_norms_kept_forwards_and_backwards(shape, size, device):
    x = torch.randn(shape, dtype=torch.float64, device=device, requires_grad=True)
    y = GroupSort(size)(x)
    assert y.shape == x.shape
    for first in range(0, shape[1], size):
        group = x.detach()[:, first : first + size]
        for place in range(size):
            smaller = [(group > group[:, [k]]).sum(1) for k in range(size)]
            expected = torch.stack([torch.where(smaller[k] == place, group[:, k], 0) for k in range(size)]).sum(0)
            assert_close(y.detach()[:, first + place], expected)
    sent = torch.randn_like(y)
    (back,) = torch.autograd.grad(y, x, sent)
    for p in (1, 2, torch.inf):
        assert_close(torch.linalg.vector_norm(y, p), torch.linalg.vector_norm(x, p))
        assert_close(torch.linalg.vector_norm(back, p), torch.linalg.vector_norm(sent, p))


def test_maxmin_is_groupsort_of_pairs_and_both_count_as_one_in_a_product(device):
    x = torch.randn(3, 8, 5, 4, dtype=torch.float64, device=device)
    assert_close(MaxMin()(x), GroupSort(2)(x), rtol=0, atol=0)
    head = nn.Conv2d(8, 3, 1).to(x)
    for activation in (MaxMin(), GroupSort(4)):
        bound = product_bound(nn.Sequential(activation, head), x)
        assert bound == pytest.approx(float(torch.linalg.matrix_norm(head.weight.detach()[..., 0, 0], 2)), rel=1e-6)


def test_channels_that_the_size_does_not_divide_are_refused(device):
    x = torch.zeros(2, 5, 3, device=device)
    refused(r"MaxMin needs channels .* its size 2 divides, got shape \(2, 5, 3\); change the width", MaxMin(), x)
    refused("GroupSort needs channels .* its size 3 divides", GroupSort(3), x)
    refused("GroupSort needs channels", GroupSort(2), x[0, 0])
    refused("size must be", GroupSort, 1)


@pytest.mark.slow
@pytest.mark.parametrize("name", IMAGE_MODELS)
def test_every_model_can_have_another_activation_everywhere(name):
    model = network(name, DATA, "plain", activation=MaxMin)
    kinds = [type(module) for module in model.modules()]
    assert nn.ReLU not in kinds
    assert kinds.count(MaxMin) == [type(m) for m in network(name, DATA, "plain").modules()].count(nn.ReLU) > 0
    x = DATA.train_batch(torch.arange(2))[0]
    assert model(x).shape == (2, 10)


def test_a_relu_that_is_used_twice_stays_one_module_and_its_mode_stays():
    shared = nn.ReLU()
    model = nn.Sequential(nn.Linear(4, 4), shared, nn.Sequential(nn.Linear(4, 4), shared)).eval()
    assert with_activation(model, MaxMin) is model
    assert model[1] is model[2][1]
    assert isinstance(model[1], MaxMin)
    assert not model[1].training
    assert isinstance(with_activation(nn.ReLU(), MaxMin), MaxMin)
