"""The objective of margins: its value, its limit, and whose bound it uses."""

import math
import pickle

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.testing import assert_close

from convkit.data import digits, subset
from convkit.methods.build import network
from convkit.training.margin import Margin
from tests.helpers.refusals import refused

LABELS = torch.tensor([2, 0, 1, 1])


def logits(device):
    return torch.randn(4, 5, dtype=torch.float64, device=device, requires_grad=True)


def test_it_is_cross_entropy_with_an_offset_and_a_temperature(device):
    z, y = logits(device), LABELS.to(device)
    loss, given = Margin(0.4, 0.3, bound=2.0)(nn.Identity(), z, y)
    assert given is z
    scores = z / 2.0
    scores = torch.where(F.one_hot(y, 5) == 1, scores - math.sqrt(2) * 0.4, scores) / 0.3
    assert_close(loss, -0.3 * (scores.softmax(1).gather(1, y[:, None])).log().mean())
    assert_close(Margin(0.0, 1.0)(nn.Identity(), z, y)[0], F.cross_entropy(z, y))


def test_its_limit_is_the_hinge_loss_which_is_zero_where_the_radius_is_proven(device):
    z, y = logits(device), LABELS.to(device)
    own = F.one_hot(y, 5) == 1
    margin = z[own] - z.masked_fill(own, -math.inf).amax(1)
    hinge = (math.sqrt(2) * 0.4 - margin / 3.0).clamp(min=0).mean()
    for temperature in (1e-2, 1e-4):
        # log of 5 terms, each at most that of the largest
        loss = Margin(0.4, temperature, bound=3.0)(nn.Identity(), z, y)[0]
        assert -1e-12 <= float((loss - hinge).detach()) <= temperature * math.log(5)


def test_the_bound_is_that_of_the_network_while_it_moves_or_one():
    data = subset(digits(), 60)
    x, y = data.train_batch(torch.arange(6))
    losses = []
    for bound in (1.0, 20.0):
        model = network("cnn9", data, "lipschitz", widths=(4, 4, 4), knobs={"bound": bound}, dtype=torch.float64)
        model.get_submodule("head").bias.data.zero_()
        losses.append(Margin(0.2)(model, x.double(), y)[0])
    assert_close(losses[1], losses[0])
    plain = network("cnn9", data, "batchnorm", widths=(4, 4, 4)).eval()
    assert_close(Margin(0.2)(plain, x, y)[0], Margin(0.2, bound=1.0)(plain, x, y)[0])


def test_numbers_become_plain_and_bad_ones_are_refused():
    assert repr(Margin(np.float32(0.5), np.float64(0.25), np.asarray(2.0))) == repr(Margin(0.5, 0.25, 2.0))
    assert pickle.loads(pickle.dumps(Margin(0.3))) == Margin(0.3)
    for wrong in ({"eps": -1}, {"eps": math.nan}, {"temperature": 0}, {"bound": 0.0}):
        refused(f"{next(iter(wrong))} must be", lambda wrong=wrong: Margin(**wrong))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_logits_in_half_precision_lose_nothing_more(dtype):
    z = torch.randn(4, 5).to(dtype)
    assert_close(Margin(0.4)(nn.Identity(), z, LABELS)[0], Margin(0.4)(nn.Identity(), z.float(), LABELS)[0])
