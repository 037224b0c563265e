"""The referee never says more than the truth from below, nor less from above."""

import copy
import math

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations
from torch.testing import assert_close

from convkit.models import GroupSort, MaxMin
from convkit.normalization.operator_norm import OperatorNorm
from convkit.normalization.weights import parametrized
from convkit.operators.operator import ConvOperator
from convkit.robustness.ruling import Ruling, referee
from tests.helpers.refusals import refused


def conv(seed=0, **options):
    torch.manual_seed(seed)
    return nn.Conv2d(4, 6, 3, padding=1, **options)


def dense(layer, size):
    return float(torch.linalg.matrix_norm(ConvOperator.from_layer(layer, size).matrix().detach().double(), 2))


def test_a_convolution_whose_flattened_kernel_has_norm_one_is_not_what_it_claims(device):
    layer = parametrizations.spectral_norm(conv(), n_power_iterations=30).to(device).eval()
    true = dense(layer, (7, 5))
    assert true > 1.2
    ruling = referee(layer, (4, 7, 5), steps=100)
    assert ruling.verdict == "is broken"
    assert true * 0.99 < ruling.at_least <= true * (1 + 1e-6)
    assert true <= ruling.at_most <= true * (1 + 1e-6)
    assert str(ruling).endswith("the claim of 1 is broken")


def test_a_convolution_whose_true_norm_is_divided_out_holds_its_claim(device):
    layer = parametrized(conv(), OperatorNorm((7, 5), padding=1, padding_mode="zeros")).to(device)
    ruling = referee(layer, (4, 7, 5))
    assert ruling.verdict == "holds"
    assert ruling.at_least <= dense(layer, (7, 5)) * (1 + 1e-6)
    assert ruling.at_most <= 1 + 1e-6
    assert referee(layer, (4, 7, 5), claim=0.5).verdict == "is broken"


@pytest.mark.parametrize("layer", [GroupSort(4), MaxMin(), nn.ReLU(), nn.Flatten(), nn.Identity()])
def test_activations_that_are_one_lipschitz_reach_one_and_hold_it(layer, device):
    ruling = referee(layer.to(device), (8, 3, 2))
    assert ruling.verdict == "holds"
    assert ruling.at_least == pytest.approx(1, abs=1e-3)
    assert ruling.at_least <= 1 + 1e-9
    assert ruling.at_most == pytest.approx(1)


def test_a_curved_function_without_theory_is_measured_from_below_alone():
    ruling = referee(Function(lambda x: 1.5 * torch.special.i0e(x.cos()).log()), (3,), claim=1.5)
    assert ruling.verdict == "cannot be decided"
    assert 0.1 < ruling.at_least <= 1.5
    assert "no bound from above is known; the claim of 1.5 cannot be decided" in str(ruling)
    assert referee(Function(lambda x: 1.5 * torch.sin(x)), (3,)).verdict == "is broken"
    assert referee(Function(torch.round), (3,)).at_least >= 0  # no derivative: the first pairs alone
    assert referee(Function(torch.zeros_like), (3,)).at_least == 0


def test_the_truth_of_a_small_network_lies_between_and_nothing_is_changed(device):
    torch.manual_seed(1)
    net = nn.Sequential(nn.Conv2d(2, 3, 3), nn.ReLU(), nn.BatchNorm2d(3), nn.Flatten(), nn.Linear(27, 4)).to(device)
    net[2].running_var.fill_(0.25)
    before, state = copy.deepcopy(net.state_dict()), torch.get_rng_state()
    ruling = referee(net, (2, 5, 5))
    assert torch.equal(torch.get_rng_state(), state)
    assert net.training
    assert_close(net.state_dict(), before, rtol=0, atol=0)
    assert all(p.grad is None for p in net.parameters())
    linear = nn.Sequential(net[0], net[2], net[3], net[4]).eval()  # steeper than with the ReLU
    rows = torch.autograd.functional.jacobian(lambda at: linear(at)[0], torch.zeros(1, 2, 5, 5, device=device))
    assert ruling.at_least > 0
    assert ruling.at_most >= float(torch.linalg.matrix_norm(rows.flatten(1), 2)) * (1 - 1e-5)
    assert ruling.at_least <= ruling.at_most


def test_training_mode_is_told_apart():
    norm = nn.BatchNorm1d(3).eval()
    ruling = referee(norm, (3, 6), points=1)  # numbers of size 0.1 alone, whose deviation it divides by
    assert ruling.verdict == "holds"
    assert ruling.at_least == pytest.approx(1, rel=1e-4)
    assert 7 < ruling.in_training < 14
    assert f"in training mode it is at least {ruling.in_training:.4g}" in str(ruling)
    dropped = referee(nn.Dropout(0.75), (200,))
    assert (dropped.at_least, dropped.in_training) == (pytest.approx(1), pytest.approx(4))
    assert "training" not in str(referee(nn.Linear(3, 2), (3,)))


def test_the_verdict_is_taken_from_both_sides():
    assert Ruling(1.0, 0.9, 1.00005, 0.9).verdict == "holds"
    assert Ruling(1.0, 0.9, 1.1, 0.9).verdict == "cannot be decided"
    assert Ruling(1.0, 1.1, math.inf, 1.1).verdict == "is broken"
    assert Ruling(1.0, 1.1, math.inf, 1.1, tolerance=0.2).verdict == "cannot be decided"


@pytest.mark.parametrize(
    "ask, words",
    [
        (lambda: referee(nn.ReLU(), (0, 2)), "each of shape must be"),
        (lambda: referee(nn.ReLU(), (2,), claim=0), "claim must be a positive number"),
        (lambda: referee(nn.ReLU(), (2,), steps=0), "steps must be"),
        (lambda: referee(Function(lambda x: (x, x)), (2,)), "returns one tensor, got tuple"),
        (lambda: referee(Function(lambda x: x / 0), (2,)), "finite results, got NaN or infinity"),
    ],
)
def test_bad_input_is_a_sentence(ask, words):
    refused(words, ask)


class Function(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)
