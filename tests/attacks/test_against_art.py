"""FGSM, PGD and SimBA agree with those of the Adversarial Robustness Toolbox on the same model and settings."""

import copy

import numpy as np
import pytest
import torch
from torch import nn
from torch.testing import assert_close

from convkit.attacks import fgsm, pgd, simba
from convkit.attacks.checks import uniform
from tests.helpers.attack_models import Counting, digits, linear_model, trained_network

pytest.importorskip("art", reason="adversarial-robustness-toolbox is not installed")
from art.attacks.evasion import FastGradientMethod, ProjectedGradientDescentPyTorch, SimBA
from art.estimators.classification import PyTorchClassifier

EPS = 0.08


@pytest.fixture(scope="module")
def model():
    return trained_network().eval()


@pytest.fixture(scope="module")
def images():
    return digits(60)


def classifier(model: nn.Module, shape: tuple[int, ...], classes: int = 10) -> PyTorchClassifier:
    own = copy.deepcopy(model)  # it changes the mode and the gradients of what it is given
    return PyTorchClassifier(own, nn.CrossEntropyLoss(), shape, classes, clip_values=(0, 1), device_type="cpu")


@torch.no_grad()
def losses(model, x, y):
    return nn.functional.cross_entropy(model(x), y, reduction="none")


def test_fgsm_takes_the_same_step(model, images):
    x, y = images
    theirs = FastGradientMethod(classifier(model, (1, 8, 8)), eps=EPS, batch_size=60).generate(x.numpy(), y.numpy())
    theirs, ours = torch.from_numpy(theirs), fgsm(model, x, y, EPS)
    raised = losses(model, theirs, y) > losses(model, x, y)  # where a step lowers the loss we keep the image
    assert raised.float().mean() > 0.9
    assert_close(ours[raised], theirs[raised], atol=1e-6, rtol=0)
    assert torch.equal(ours[~raised], x[~raised])


@pytest.mark.parametrize("norm", ["inf", 2])
@pytest.mark.parametrize("targeted", [False, True])
def test_pgd_walks_the_same_way(norm, targeted, model, images):
    x, y = images
    goal = (y + 1) % 10 if targeted else y
    eps = {("inf", False): EPS, ("inf", True): 0.25, (2, False): 0.6, (2, True): 1.2}[norm, targeted]
    step = eps / 4
    size = {"norm": np.inf if norm == "inf" else 2, "eps": eps, "eps_step": step}
    how = {"max_iter": 10, "targeted": targeted, "batch_size": 60, "verbose": False}
    attack = ProjectedGradientDescentPyTorch(classifier(model, (1, 8, 8)), **size, **how)
    theirs = torch.from_numpy(attack.generate(x.numpy(), goal.numpy()))
    visited = []
    with model.register_forward_hook(lambda module, arguments, _: visited.append(arguments[0].detach().clone())):
        ours = pgd(model, x, y, eps, step, 10, norm=norm, start="clean", targets=goal if targeted else None)
    assert_close(visited[-1], theirs, atol=1e-4, rtol=0)  # the last image of the walk is theirs
    with torch.no_grad():
        right = (model(x).argmax(1) == y, model(theirs).argmax(1) == goal, model(ours).argmax(1) == goal)
    found = right[1] == targeted, right[2] == targeted
    assert (found[1] | ~found[0]).all()  # what they found we have found, perhaps on the way
    assert 0.1 < float(found[0].float().mean()) < 0.95


@pytest.mark.parametrize("basis", ["pixel", "dct"])
def test_simba_moves_the_same_coordinates(basis, monkeypatch):
    """Of two classes one sign helps and the other does not, so that asking both first, as they do, is the same."""
    model = linear_model(36, 2, torch.float32)
    x = 0.35 + 0.3 * torch.rand(12, 1, 6, 6)
    with torch.no_grad():
        model[1].bias -= model(x).mean(0)  # the border passes between the images, whatever weights were drawn
        y = model(x).argmax(1)
    ours, queries = simba(Counting(model), x, y, 0.1, basis, generator=torch.Generator().manual_seed(5))
    own = classifier(nn.Sequential(model, nn.Softmax(1)), (1, 6, 6), 2)
    attack = SimBA(own, attack="px" if basis == "pixel" else "dct", max_iter=36, epsilon=0.1, verbose=False)
    order = uniform(x.flatten(1), torch.Generator().manual_seed(5)).argsort(1)  # as simba draws it
    waiting = iter(order.numpy())
    if basis == "pixel":
        monkeypatch.setattr(np.random, "permutation", lambda n: next(waiting))
    else:
        monkeypatch.setattr(SimBA, "_block_order", lambda self, *args, **kwargs: next(waiting))
    labels = np.eye(2, dtype=np.float32)[y]
    theirs = [attack.generate(x[i : i + 1].numpy(), labels[i : i + 1]) for i in range(len(x))]
    theirs = torch.from_numpy(np.concatenate(theirs))
    assert_close(ours, theirs, atol=1e-5, rtol=0)
    with torch.no_grad():
        wrong = model(ours).argmax(1) != y
    assert wrong.any()
    assert float((ours - x).abs().max()) > 0.05
    assert (queries >= 2).all()
