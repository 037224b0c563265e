"""Certified accuracy is below the true robust accuracy, which is below the one under any attack."""

import math
from functools import partial

import pytest
import torch
from torch import nn

from convkit.attacks.ensemble import autoattack
from convkit.attacks.evaluation import robust_accuracy
from convkit.attacks.gradient import pgd
from convkit.audit.product.bound import product_bound
from convkit.data import digits, subset
from convkit.methods.build import network
from convkit.robustness.certificates import CertifiedAccuracy, certified_accuracy
from convkit.training.loop import fit
from convkit.training.margin import Margin
from tests.helpers.attack_models import trained_network
from tests.helpers.refusals import refused


def rotated(device, angle):
    """A linear network with two orthonormal rows, turned: its constant is 1, and its radii are known."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(2, 2)).to(device, torch.float64)
    c, s = math.cos(angle), math.sin(angle)
    with torch.no_grad():
        model[1].weight.copy_(torch.tensor([[c, -s], [s, c]]))
        model[1].bias.copy_(-model[1].weight.sum(1) / 2)  # the planes meet in the middle of the square of images
    return model


def attacks(eps):
    ascent = {"eps": eps, "step": eps / 4, "steps": 20, "norm": 2, "until_wrong": True}
    return {
        **{loss: partial(pgd, **ascent, restarts=2, loss=loss) for loss in ("ce", "margin")},
        "AutoAttack": partial(autoattack, eps=eps, norm=2, attacks=("apgd-ce",)),
    }


# ---- exact ---------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("angle", [0.0, 0.3, 1.2, 4.0])
def test_radii_of_a_turned_linear_network_are_exact(angle, device):
    model = rotated(device, angle)
    slope = (model[1].weight[0] - model[1].weight[1]).detach()
    distances = torch.tensor([0.05, 0.1, 0.2, 0.3], dtype=torch.float64, device=device)
    x = 0.5 + distances[:, None] * slope / slope.norm()
    y = torch.tensor([0, 0, 0, 1], device=device)  # the last one is wrong from the start
    for eps, share in ((0.0, 3), (0.0499, 3), (0.0501, 2), (0.0999, 2), (0.1001, 1), (0.1999, 1), (0.2001, 0)):
        found = certified_accuracy(model, [(x[:3], y[:3]), (x[3:], y[3:])], eps, progress=False)
        assert (found.images, found.clean, found.certified) == (4, 0.75, share / 4)
        assert found.bound == pytest.approx(1)
        # the linear network has no larger radius: a straight step just further reaches the plane
        fallen = model(x - max(eps, 1e-9) * slope / slope.norm()).argmax(1) == y
        assert int(fallen[:3].sum()) == share


def test_a_margin_of_just_the_size_proves_nothing_and_a_constant_network_everything(device):
    logits = torch.tensor([[0.5, 0.0], [0.25, 0.0]], dtype=torch.float64, device=device)
    batch = logits, torch.zeros(2, dtype=torch.long, device=device)
    eps = 0.5 / (math.sqrt(2) * 2.0)
    assert math.sqrt(2) * 2.0 * eps == 0.5
    assert certified_accuracy(nn.Identity(), [batch], eps, 2.0, progress=False).certified == 0
    assert certified_accuracy(nn.Identity(), [batch], 0.999 * eps, 2.0, progress=False).certified == 0.5
    assert certified_accuracy(nn.Identity(), [batch], 1e6, 0.0, progress=False).certified == 1
    tie = torch.full((1, 3), 0.5, device=device), torch.zeros(1, dtype=torch.long, device=device)
    assert certified_accuracy(nn.Identity(), [tie], 0.0, 1.0, progress=False).certified == 0


def test_batches_are_counted_together_and_meet_the_device_and_dtype_of_the_model(device):
    model = rotated(device, 0.3)
    x, y = torch.rand(7, 2), torch.arange(7) % 2  # on the CPU, in float32
    whole = certified_accuracy(model, [(x, y)], 0.1, progress=False)
    assert certified_accuracy(model, [(x[:3], y[:3]), (x[3:], y[3:])], 0.1, progress=False) == whole
    assert whole == CertifiedAccuracy(7, whole.clean, whole.certified, 0.1, pytest.approx(1))
    assert 0 < whole.certified < whole.clean < 1


# ---- the chain -------------------------------------------------------------------------------------------------------
def certified_network(device):
    data = subset(digits(), 300, test_count=60).to(device)
    own = nn.Sequential(nn.Conv2d(1, 8, 3, 2), nn.ReLU(), nn.Flatten(), nn.Linear(72, 10)).to(device)
    model = network(own, data, "lipschitz", knobs={"bound": 1.0})
    list(fit(model, data, "lipschitz", steps=60, batch_size=50, knobs={"lr": 0.1}, objective=Margin(0.25)))
    return model, data.test_batch(slice(0, 25))


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["bounded", "free"])
def test_certified_is_below_every_attack_at_every_size(kind, device):
    pytest.importorskip("pyautoattack")
    if kind == "bounded":
        model, (x, y) = certified_network(device)
    else:
        model = trained_network().to(device)
        x = torch.rand(25, 1, 8, 8, device=device)
        y = model.eval()(x).argmax(1)
    shares = []
    for eps in (0.002, 0.1):
        torch.manual_seed(0)
        certified = certified_accuracy(model, [(x, y)], eps, progress=False)
        attacked = robust_accuracy(model, [(x, y)], attacks(eps), progress=False)
        assert certified.clean == attacked.clean
        assert certified.certified <= attacked.worst
        assert certified.bound == product_bound(model, x[:1])
        shares.append(certified.certified)
    assert shares == sorted(shares, reverse=True)
    assert shares[0] > 0.5  # the chain is not empty
    if kind == "bounded":
        assert shares[1] > 0.3


def test_a_bound_that_is_too_small_breaks_the_chain(device):
    model = rotated(device, 0.3)
    with torch.no_grad():
        model[1].weight *= 10  # the network is steeper than it says
        model[1].bias *= 10
    slope = (model[1].weight[0] - model[1].weight[1]).detach()
    x = 0.5 + 0.1 * (slope / slope.norm())[None]
    batch = x, torch.zeros(1, dtype=torch.long, device=device)
    fall = {"straight": lambda model, x, y: (x - 0.2 * slope / slope.norm()).clamp(0, 1)}
    assert robust_accuracy(model, [batch], fall, progress=False).worst == 0
    assert certified_accuracy(model, [batch], 0.2, progress=False).certified == 0
    assert certified_accuracy(model, [batch], 0.2, bound=1.0, progress=False).certified == 1  # a lie proves it


class Square(nn.Module):
    def forward(self, x):
        return x * x.abs()


# ---- bad input -------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "change, words",
    [
        ({"eps": -0.1}, "eps must be a finite number of at least 0|eps must be"),
        ({"eps": math.nan}, "eps must be"),
        ({"bound": -1.0}, "bound must be .*product_bound"),
        ({"batches": []}, "at least one image, got an empty loader"),
        ({"batches": [(torch.full((2, 2), 1.5), torch.zeros(2, dtype=torch.long))]}, "images must lie in"),
        ({"batches": [(torch.zeros(2, 2), torch.full((2,), 5))]}, "labels must lie in 0 .. 1"),
        ({"model": nn.Sequential(Square(), nn.Linear(2, 2))}, "product_bound at step '0'"),
    ],
)
def test_bad_input_is_a_sentence(change, words):
    usual = {
        "model": rotated("cpu", 0.0),
        "batches": [(torch.rand(2, 2), torch.zeros(2, dtype=torch.long))],
        "eps": 0.1,
    }
    refused(words, lambda: certified_accuracy(**(usual | change), progress=False))
