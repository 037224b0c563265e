"""Adversarial training as the papers ran it, against a few lines of plain torch for each."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from convkit.training.adversarial import TRADES, FreeTraining, PGDTraining, get_objective
from tests.helpers.attack_models import Counting

NAMES = ("l-pgd-at", "l-alp", "l-trades")
CALLS = {"l-pgd-at": 10 + 1, "l-alp": 10 + 2, "l-trades": 1 + 10 + 2}  # TRADES: the clean logits once


@pytest.fixture
def model(device):
    layers = (nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Tanh(), nn.Flatten(), nn.Linear(4 * 2 * 3, 5))
    model = nn.Sequential(*layers).to(device)
    with torch.no_grad():
        model[-1].weight.mul_(8)  # steep enough that steps of the attack change their signs
        model[1].running_mean.fill_(0.2)
    return model


@pytest.fixture
def batch(device):
    generator = torch.Generator().manual_seed(3)
    x = (1.6 * torch.rand(8, 1, 4, 5, generator=generator) - 0.3).clamp(0, 1).to(device)  # many pixels are 0 or 1
    return x, torch.tensor([0, 1, 2, 3, 4, 0, 1, 2], device=device)


def divergence(logits, clean):
    """The sum over the images, as the released code takes it for the attack."""
    p = clean.softmax(1)
    return (p * (p.log() - logits.log_softmax(1))).sum()


def written_out(name, model, x, y, eps, step):
    """The loss as the released code finds it: from beside the clean image, ten steps, the last one, pass after pass."""
    model.eval()
    at = x + 0.001 * torch.randn(x.shape).to(x.device)
    for _ in range(10):
        at = at.detach().requires_grad_()
        loss = divergence(model(at), model(x)) if name == "l-trades" else F.cross_entropy(model(at), y)
        (slope,) = torch.autograd.grad(loss, at)
        at = at.detach() + step * slope.sign()
        at = torch.clamp(torch.min(torch.max(at, x - eps), x + eps), 0, 1)
    model.train()
    if name == "l-pgd-at":
        return F.cross_entropy(model(at), y), at
    clean, attacked = model(x), model(at)
    if name == "l-alp":
        loss = 0.5 * F.cross_entropy(clean, y) + 0.5 * F.cross_entropy(attacked, y)
        return loss + F.mse_loss(clean, attacked), at
    return F.cross_entropy(clean, y) + divergence(attacked, clean) / len(x), at


@pytest.mark.parametrize("eps", [None, 0.2])
@pytest.mark.parametrize("name", NAMES)
def test_the_objectives_of_liang_and_huang_are_those_lines(name, eps, model, batch):
    x, y = batch
    size, step = (0.031, 0.007) if eps is None else (eps, 0.007 * (eps / 0.031))
    other = copy.deepcopy(model)
    torch.manual_seed(5)
    expected, at = written_out(name, other, x, y, size, step)
    expected.backward()
    torch.manual_seed(5)
    model, passes = model.train(), []
    handle = model.register_forward_pre_hook(lambda m, args: passes.append((m.training, args[0].detach())))
    loss, _ = get_objective(name, eps)(model, x, y)
    handle.remove()
    trained = [x, at] if name != "l-pgd-at" else [at]  # the last step's image, and that alone
    assert [training for training, _ in passes] == [False] * (CALLS[name] - len(trained)) + [True] * len(trained)
    assert all(torch.equal(seen, wanted) for (_, seen), wanted in zip(passes[-len(trained) :], trained, strict=True))
    assert all(parameter.grad is None for parameter in model.parameters())  # none comes from the attack
    assert torch.allclose(loss, expected, rtol=1e-6)
    loss.backward()
    for ours, theirs in zip(model.parameters(), other.parameters(), strict=True):
        assert torch.allclose(ours.grad, theirs.grad, rtol=1e-4, atol=1e-6)
    for ours, theirs in zip(model.buffers(), other.buffers(), strict=True):
        assert torch.equal(ours, theirs)  # BatchNorm has seen the batches one after the other
    assert not x.requires_grad


def test_the_start_lies_outside_of_the_images_unless_it_is_clamped(model, batch):
    x, y = batch
    low = {}
    for name, objective in (
        ("l-pgd-at", get_objective("l-pgd-at")),
        ("l-trades", get_objective("l-trades")),
        ("worst", PGDTraining(0.031, 0.007, 10, start="normal")),
        ("clamped", TRADES(0.031, 0.007, 10)),
    ):
        seen = []
        handle = model.register_forward_pre_hook(lambda _, args, seen=seen: seen.append(float(args[0].detach().min())))
        objective(model, x, y)
        handle.remove()
        low[name] = min(seen)
    assert -0.005 < low["l-pgd-at"] < 0
    assert -0.005 < low["l-trades"] < 0
    assert low["worst"] == low["clamped"] == 0


def test_training_on_the_worst_image_takes_two_passes_more(model, batch):
    for options, calls in (({}, 12 + 1), ({"result": "last"}, 10 + 1), ({"start": "clean"}, 11 + 1)):
        counting = Counting(model)
        PGDTraining(0.1, 0.03, 10, **options)(counting, *batch)
        assert counting.calls == calls


@pytest.mark.parametrize("eps", [None, 0.25])
def test_the_free_training_of_liu_et_al_zeroes_the_noise_at_each_batch_and_leaves_clamped_pixels_alone(
    eps, model, batch
):
    x, y = batch
    size = 8 / 255 if eps is None else eps
    other, free = copy.deepcopy(model), get_objective("c-free", eps)
    weights = [torch.optim.SGD(network.parameters(), 0.05) for network in (model, other)]
    stuck = 0
    for images in (x, x.flip(0), x.flip(3)):
        noise = torch.zeros_like(images)
        for _ in range(4):
            leaf = noise.clone().requires_grad_()
            expected = F.cross_entropy(other((images + leaf).clamp(0, 1)), y)
            loss, _ = free(model, images, y)
            assert torch.equal(loss, expected)
            for optimizer, value in zip(weights, (loss, expected), strict=True):
                optimizer.zero_grad()
                value.backward()
                optimizer.step()
            stuck += int((leaf.grad == 0).sum())
            noise = (noise + size * leaf.grad.sign()).clamp(-size, size)
        assert torch.equal(free.state_dict()["noise"], noise)
    assert stuck > 0
    for ours, theirs in zip(model.parameters(), other.parameters(), strict=True):
        assert torch.equal(ours, theirs)
    assert free.replay == 12


def test_by_default_a_clamped_pixel_comes_back(model, batch):
    x, y = torch.zeros_like(batch[0]), batch[1]
    moved = {}
    for through in (False, True):
        free = FreeTraining(0.1, replays=4, through_clamp=through)
        free(model, x, y)[0].backward()
        free._state.noise = torch.full_like(x, -0.1)  # every sum is clamped to 0
        free._state.leaf = None
        free(model, x, y)[0].backward()
        moved[through] = free.state_dict()["noise"]
    assert (moved[True] == -0.1).all()
    assert (moved[False] == 0).any()
