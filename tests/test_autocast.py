"""Autocast: attacks and adversarial training of networks with ConvNorm2d; gradients through an operator norm."""

from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.testing import assert_close

from convkit.attacks import autoattack, fgsm, pgd, robust_accuracy, simba
from convkit.data import digits, subset
from convkit.methods.build import network
from convkit.normalization.convnorm import ConvNorm2d
from convkit.normalization.operator_norm import OperatorNorm
from convkit.robustness.lipschitz import jacobian_norm
from convkit.training.adversarial import OBJECTIVES, get_objective
from convkit.training.loop import fit
from tests.helpers.geometries import normal
from tests.helpers.unchanged import unchanged
from tests.normalization.test_derivatives import exactly

pytestmark = pytest.mark.slow

EPS = 0.4
ATTACKS = {
    "fgsm": partial(fgsm, eps=EPS),
    "pgd": partial(pgd, eps=EPS, step=EPS / 4, steps=4),
    "pgd, margin, restarts": partial(pgd, eps=EPS, step=EPS / 4, steps=3, loss="margin", restarts=2),
    "pgd, 2-norm": partial(pgd, eps=1.0, step=0.4, steps=4, norm=2),
    "simba": lambda model, x, y: simba(model, x, y, EPS, steps=30)[0],
    "autoattack": partial(autoattack, eps=EPS, attacks=("apgd-ce",)),
}
dtypes = pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
layer_options = pytest.mark.parametrize("options", [{}, {"affine": False}, {"through": True}], ids=str)


@pytest.fixture
def images(device):
    return torch.rand(3, 3, 8, 6, generator=torch.Generator().manual_seed(0)).to(device)


def convnorm(device, **options):
    return nn.Sequential(
        *(ConvNorm2d(3, 6, 3, padding=1, **options), nn.ReLU()),
        *(ConvNorm2d(6, 8, (3, 2), stride=2, padding=1, **options), nn.ReLU()),
        *(ConvNorm2d(8, 8, 1, **options), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(32, 7)),
    ).to(device)


@dtypes
@layer_options
@pytest.mark.parametrize("name", ATTACKS)
def test_attacks_find_worse_images_and_leave_the_network_as_it_was(name, options, dtype, images, device):
    model = convnorm(device, **options).eval()
    y = model(images).argmax(1)
    with unchanged(model), torch.autocast(device.type, dtype):
        found = ATTACKS[name](model, images, y)
    assert found.dtype == torch.float32
    assert 0 <= found.min() <= found.max() <= 1
    change = (found - images).flatten(1)
    assert change.norm(dim=1).max() <= 1 + 1e-5 if name == "pgd, 2-norm" else change.abs().max() <= EPS + 1e-6
    assert F.cross_entropy(model(found), y) > F.cross_entropy(model(images), y)


@dtypes
def test_robust_accuracy_and_the_norm_of_the_jacobian_run(dtype, images, device):
    model = convnorm(device).eval()
    y = model(images).argmax(1)
    with torch.autocast(device.type, dtype):
        seen = robust_accuracy(model, [(images, y)], ATTACKS["pgd"], progress=False)
        slopes = jacobian_norm(model, images)
    assert seen.clean == 1
    assert_close(slopes.float(), jacobian_norm(model, images), rtol=0.1, atol=0)  # bfloat16 keeps 8 bits


@dtypes
@layer_options
@pytest.mark.parametrize("name", OBJECTIVES)
def test_objectives_have_the_same_gradient_inside_and_outside_autocast(name, options, dtype, images, device):
    model = convnorm(device, **options)
    y = torch.tensor([1, 0, 6], device=device)

    def gradients(inside):
        torch.manual_seed(0)
        objective = get_objective(name, EPS)
        for _ in range(2):  # free training moves its noise between the two
            model.zero_grad()
            with torch.autocast(device.type, dtype):
                loss, _ = objective(model, images, y)
            with torch.autocast(device.type, dtype, enabled=inside):
                loss.backward()
        return [p.grad.clone() for p in model.parameters()]

    found = gradients(inside=True)
    assert_close(found, gradients(inside=False), **exactly(device))
    for gradient in found:
        assert gradient.dtype == torch.float32
        assert gradient.isfinite().all()
        assert gradient.abs().sum() > 0


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
@pytest.mark.parametrize("name", OBJECTIVES)
def test_a_run_of_convnorm_goes_on_in_half_precision(name, precision):
    torch.manual_seed(0)
    data = subset(digits(), 60)
    model = network("cnn9", data, "convnorm", widths=(4, 6, 8))
    before = {key: t.clone() for key, t in model.state_dict().items()}
    how = {"steps": 3, "batch_size": 16, "precision": precision}
    records = list(fit(model, data, "convnorm", **how, objective=get_objective(name, EPS)))
    assert len(records) == 3
    assert records[-1].diverged is None
    assert any(not torch.equal(t, before[key]) for key, t in model.state_dict().items())


@dtypes
@pytest.mark.parametrize("every", [1, 3])
def test_the_gradient_through_an_operator_norm_is_the_same_inside_and_outside_autocast(every, dtype, device):
    kernel = normal(4, 3, 3, 2, device=device, dtype=torch.float32)
    weights = normal(4, 3, 3, 2, device=device, dtype=torch.float32, seed=1)

    def gradient(forward, backward):
        bounded = OperatorNorm((5, 6), every=every).to(device)
        weight = kernel.clone().requires_grad_()
        with torch.autocast(device.type, dtype, enabled=forward):
            loss = (bounded(weight) * weights).sum()
        with torch.autocast(device.type, dtype, enabled=backward):
            return torch.autograd.grad(loss, weight)[0]

    inside = gradient(True, True)
    assert_close(inside, gradient(True, False), **exactly(device))
    assert_close(inside, gradient(False, False))
