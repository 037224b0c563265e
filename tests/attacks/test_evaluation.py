"""AutoAttack breaks what PGD breaks at half the size; robust accuracy counts what survives each attack and all."""

import copy
import sys
from functools import partial

import pytest
import torch
from torch import nn

from convkit.attacks import ATTACKS, autoattack, fgsm, pgd, robust_accuracy, simba
from tests.helpers.attack_models import Counting, accuracy, trained_network
from tests.helpers.unchanged import unchanged


@torch.no_grad()
def answers(model, x):
    return copy.deepcopy(model).eval()(x).argmax(1)


# ---- AutoAttack ------------------------------------------------------------------------------------------------------
@pytest.mark.slow
def test_autoattack_breaks_every_image_that_pgd_breaks_at_half_the_size(model, images):
    pytest.importorskip("pyautoattack")
    x, y = images[0][:8], images[1][:8]
    right = answers(model, x) == y
    for half in (0.02, 0.04, 0.08, 0.16, 0.32):
        easy = right & (answers(model, pgd(model, x, y, half, half / 4, 20, restarts=2)) != y)
        if easy.any():
            break
    assert easy.any()
    eps, before_tracer = 2 * half, sys.gettrace()

    def tracer(frame, event, argument):
        return None

    before = torch.random.get_rng_state()
    seeded = torch.Generator().manual_seed(0)
    sys.settrace(tracer)  # such as a debugger's or that of coverage
    try:
        found = autoattack(model, x, y, eps, attacks=("apgd-ce", "apgd-t"), generator=seeded)
        assert sys.gettrace() is tracer
    finally:
        sys.settrace(before_tracer)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert model.training
    assert float((found - x).abs().max()) <= eps + 1e-6
    assert 0 <= float(found.min()) <= float(found.max()) <= 1
    assert (answers(model, found)[easy] != y[easy]).all()


def linear_case(device):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(36, 4)).to(device)
    x = torch.rand(3, 1, 6, 6, device=device)
    return model, x, model(x).argmax(1)


@pytest.mark.parametrize("norm", ["inf", 2])
def test_autoattack_takes_networks_and_images_in_float64(device, norm):
    model = nn.Sequential(nn.Flatten(), nn.Linear(75, 5)).double().to(device)
    x = torch.rand(4, 3, 5, 5, dtype=torch.float64).to(device)
    found = autoattack(model, x, model(x).argmax(1), 0.1, norm, attacks=("apgd-ce",))
    assert found.dtype == torch.float64
    assert torch.linalg.vector_norm((found - x).flatten(1), float(norm), dim=1).max() <= 0.1 * (1 + 1e-6)


@pytest.mark.parametrize("attacks, eps", [(("apgd-ce", "apgd-t", "fab-t"), 0.05), (("square",), 1.0)])
def test_each_attack_runs_on_few_classes_and_in_the_2_norm(attacks, eps, device):
    pytest.importorskip("pyautoattack")
    model, x, y = linear_case(device)
    with unchanged(model):
        found = autoattack(model, x, y, eps, norm=2, attacks=attacks)
    assert float((found - x).flatten(1).norm(dim=1).max()) <= eps * (1 + 1e-5)
    assert accuracy(model, found, y) <= accuracy(model, pgd(model, x, y, 0.05, 0.02, 20, norm=2), y)


@pytest.mark.parametrize("low, high", [(-2.0, 2.0), (0.25, 4.0), (-3.0, -1.0)])
@pytest.mark.parametrize("norm, eps", [("inf", 0.3), (2, 2.0)])
def test_autoattack_sees_images_between_other_limits_scaled_to_0_and_1(norm, eps, low, high, device, monkeypatch):
    library = pytest.importorskip("pyautoattack")
    model, x, y = linear_case(device)
    x, width, seen = low + (high - low) * x, high - low, []
    towards = torch.linspace(-1, 1, x[0].numel()).reshape(x[0].shape).to(device)
    towards = towards.sign() if norm == "inf" else towards / towards.norm()

    def run(self, images, labels, *, batch_size):
        found = (images + self.epsilon * towards).clamp(0, 1)
        seen.append((images, self.epsilon, self.model(found), labels))
        return found, labels

    monkeypatch.setattr(library.AutoAttack, "run_standard_evaluation", run)
    found = autoattack(model, x, y, eps, norm=norm, low=low, high=high)
    [(images, size, logits, labels)] = seen
    close = {"rtol": 1e-5, "atol": 1e-5}
    torch.testing.assert_close(images, (x - low) / width, **close)
    assert size == pytest.approx(eps / width)
    assert torch.equal(labels, y)
    torch.testing.assert_close(found, (x + eps * towards).clamp(low, high), **close)
    torch.testing.assert_close(logits, model(found), **close)


@pytest.mark.parametrize("norm, eps", [("inf", 0.3), (2, 2.0)])
def test_autoattack_fools_images_between_other_limits(norm, eps, device):
    pytest.importorskip("pyautoattack")
    model, x, y = linear_case(device)
    low, high = -2.0, 2.0

    class Scaled(nn.Module):
        def forward(self, z):
            return model((z - low) / (high - low))

    options = {"norm": norm, "attacks": ("apgd-ce", "apgd-t"), "low": low, "high": high}
    found = autoattack(Scaled(), 4 * x - 2, y, 4 * eps, **options)
    assert low <= float(found.min()) <= float(found.max()) <= high
    assert (
        torch.linalg.vector_norm((found - (4 * x - 2)).flatten(1), float(norm), dim=1) <= 4 * eps * (1 + 1e-5)
    ).all()
    assert (answers(model, (found - low) / 4) != y).all()


def test_all_four_run_by_default_with_as_many_targets_as_there_are(device, monkeypatch):
    library = pytest.importorskip("pyautoattack")
    model, x, y = linear_case(device)
    seen = []

    def run(self, x, y, *, batch_size):
        seen.append((self.attacks_to_run, self.version, self.norm, self.epsilon, self.square.n_queries, batch_size))
        seen.append((self.apgd_targeted.n_target_classes, self.fab.n_target_classes, self.apgd.n_restarts))
        return x, y

    monkeypatch.setattr(library.AutoAttack, "run_standard_evaluation", run)
    autoattack(model, x, y, 0.1)
    assert seen == [(["apgd-ce", "apgd-t", "fab-t", "square"], "standard", "Linf", 0.1, 5000, 250), (3, 3, 1)]


# ---- robust accuracy -------------------------------------------------------------------------------------------------
def test_robust_accuracy_counts_each_attack_and_the_worst_of_all(device):
    class Signs(nn.Module):
        def forward(self, x):
            return torch.stack((x.sum(1), -x.sum(1) + 1), 1)

    x = torch.tensor([[0.9, 0.9], [0.8, 0.8], [0.7, 0.7], [0.1, 0.1]])
    y = torch.tensor([0, 0, 0, 0])  # the last one is wrong already

    def breaks(number):
        def attack(model, x, y):
            assert (x[:, 0] > 0.5).all()  # whoever is wrong already is not attacked
            return torch.where(x.isclose(torch.tensor(number)), 0.0, x)

        return attack

    batches = [(x[:1], y[:1]), (x[1:], y[1:])]
    result = robust_accuracy(Signs(), batches, {"a": breaks(0.9), "b": breaks(0.8)}, progress=False)
    assert (result.images, result.clean, result.attacks, result.worst) == (4, 0.75, {"a": 0.5, "b": 0.5}, 0.25)


@pytest.mark.parametrize("attack", [pgd, ATTACKS["pgd"]])
@pytest.mark.parametrize("restarts", [1, 2])
def test_robust_accuracy_leaves_wrong_images_alone_unless_told_otherwise_and_the_same_survive(attack, restarts, images):
    model = trained_network().to(images[0].device)
    batches = [(images[0][some], images[1][some]) for some in (slice(0, 25), slice(25, 40))]
    found, passes = {}, {}
    for stop in (False, True, None):
        counting = Counting(model)
        start = torch.Generator().manual_seed(0)
        how = {"eps": 0.08, "step": 0.02, "steps": 12, "restarts": restarts, "generator": start}
        told = how if stop is None else how | {"until_wrong": stop}
        found[stop] = robust_accuracy(counting, batches, {"PGD": partial(attack, **told)}, progress=False)
        passes[stop] = counting.asked
    assert found[False] == found[True] == found[None]
    assert 0.1 < found[None].worst < found[None].clean - 0.2
    right = round(found[None].clean * 40)
    assert passes[False] == 40 + right * (1 + 13 * restarts + 1)  # clean ones twice, each step, what was found
    assert passes[None] == (passes[False] if images[0].is_cuda else passes[True])
    assert passes[True] < passes[False] * 0.85


def test_robust_accuracy_takes_attacks_with_queries_and_loaders_and_shows_progress(model, images, capsys):
    data = torch.utils.data.TensorDataset(*(t.cpu() for t in images))
    loader = torch.utils.data.DataLoader(data, batch_size=16)
    named = {"PGD": partial(pgd, eps=0.06, step=0.02, steps=5), "SimBA": partial(simba, step=0.1, steps=10)}
    result = robust_accuracy(model, loader, named)
    assert "robust accuracy" in capsys.readouterr().err
    assert result.images == 40
    assert 0 <= result.worst <= min(result.attacks.values()) < result.clean
    alone = robust_accuracy(model, loader, partial(fgsm, eps=0.1), progress=False)
    assert alone.worst == next(iter(alone.attacks.values()))
    assert capsys.readouterr().err == ""
