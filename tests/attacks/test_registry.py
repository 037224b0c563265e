"""Attacks by name: each takes a model, images, labels and how far it may go, and returns the changed images."""

import copy
import pickle

import pytest
import torch
import torch.nn.functional as F
from torch.testing import assert_close

from convkit.attacks import ATTACKS, autoattack, fgsm, pgd, robust_accuracy, simba
from tests.helpers.attack_models import Counting
from tests.helpers.refusals import refused
from tests.helpers.unchanged import unchanged

EPS = 0.1
PUBLISHED = {  # the published eps, and how many test images were attacked
    **dict.fromkeys(("c-fgsm", "c-pgd-10", "c-pgd-20"), (8 / 255, None)),
    **{"c-simba": (0.2, None), "l-autoattack-table2": (1 / 255, 1024), "l-autoattack-figure2": (8 / 255, 1024)},
}


def test_the_names_are_those_of_the_functions_and_then_of_the_papers():
    assert list(ATTACKS)[:4] == ["fgsm", "pgd", "simba", "autoattack"]
    assert list(ATTACKS)[4:] == list(PUBLISHED)
    assert (ATTACKS["fgsm"], ATTACKS["autoattack"]) == (fgsm, autoattack)
    refused("ATTACKS has no 'fgms'; near it: fgsm", lambda: ATTACKS["fgms"])


@pytest.mark.parametrize(
    "name, options, expected",
    [
        ("pgd", {}, lambda *of, **how: pgd(*of, EPS / 4, 10, **how)),
        ("pgd", {"step": 0.02, "steps": 3, "norm": 2}, pgd),
        ("simba", {}, lambda *of, **how: simba(*of, **how)[0]),
        ("simba", {"basis": "dct", "steps": 20}, lambda *of, **how: simba(*of, **how)[0]),
    ],
)
def test_an_attack_by_name_is_the_function_of_that_name(name, options, expected, model, images):
    of = model, *(t[:12] for t in images), EPS
    found, theirs = (
        attack(*of, **options, generator=torch.Generator().manual_seed(0)) for attack in (ATTACKS[name], expected)
    )
    assert_close(found, theirs, rtol=0, atol=0)


# ---- as the papers ran them ------------------------------------------------------------------------------------------
def seeded():
    return torch.Generator().manual_seed(0)


def sixteen(images):
    """As many images as a power of two, so that the gradients of mean and sum differ by an exact factor."""
    return tuple(t[:16] for t in images)


def written_out(model, x, y, at, eps, step, steps):
    """Steps along the sign of the gradient of the mean loss, and where they end."""
    model = copy.deepcopy(model).eval()
    for _ in range(steps):
        at = at.detach().requires_grad_()
        (slope,) = torch.autograd.grad(F.cross_entropy(model(at), y), at)
        at = at.detach() + step * slope.sign()
        at = torch.clamp(torch.min(torch.max(at, x - eps), x + eps), 0, 1)
    return at


@pytest.mark.parametrize("eps", [None, 0.25])
@pytest.mark.parametrize("name, steps", [("c-fgsm", 1), ("c-pgd-10", 10), ("c-pgd-20", 20)])
def test_the_gradient_attacks_of_liu_et_al_are_those_lines_with_one_pass_a_step(name, steps, eps, model, images):
    x, y = sixteen(images)
    size = 8 / 255 if eps is None else eps
    how = {} if eps is None else {"eps": eps}
    noise = torch.rand(x.shape, generator=seeded()).to(x.device)
    start = x if steps == 1 else (x + (2 * noise - 1) * size).clamp(0, 1)
    expected = written_out(model, x, y, start, size, size if steps == 1 else size / 4, steps)
    counting = Counting(copy.deepcopy(model).train())
    with unchanged(counting.model, x, y):
        found = ATTACKS[name](counting, x, y, generator=seeded(), **how)
    assert torch.equal(found, expected)
    assert counting.calls == steps
    assert not found.requires_grad
    assert all(parameter.grad is None for parameter in model.parameters())


def test_a_last_image_may_be_better_than_the_worst_one_and_starts_are_what_they_are_called(model, images):
    x, y = sixteen(images)
    how = {"eps": 0.25, "step": 0.25, "steps": 3}
    worst, last = (pgd(model, x, y, **how, result=result, generator=seeded()) for result in ("worst", "last"))
    losses = [F.cross_entropy(copy.deepcopy(model).eval()(at), y, reduction="none") for at in (worst, last)]
    assert (losses[0] >= losses[1] - 1e-5).all()
    assert (losses[0] > losses[1] + 0.1).any()
    noise = torch.randn(x.shape, generator=seeded()).to(x.device)
    for result, at in (("last", x + 0.02 * noise), ("worst", (x + 0.02 * noise).clamp(0, 1))):
        seen = []
        counting = Counting(model)
        handle = counting.register_forward_pre_hook(lambda _, args, seen=seen: seen.append(args[0].detach().clone()))
        how = {"start": "normal", "spread": 0.02, "result": result, "generator": seeded()}
        found = pgd(counting, x, y, 0.3, 0.1, 2, **how)
        handle.remove()
        assert torch.equal(seen[0 if result == "last" else 1], at)
        assert 0 <= found.min() <= found.max() <= 1
        assert float((found - x).abs().max()) <= 0.3 + 1e-6
        assert len(seen) == (2 if result == "last" else 4)
    assert torch.equal(
        pgd(model, x, y, 0.1, 0.03, 3, start="clean", result="last"), written_out(model, x, y, x, 0.1, 0.03, 3)
    )


@pytest.mark.parametrize("norm", ["inf", 2])
def test_the_last_image_scales_with_its_sizes_and_targets_lower_the_loss(norm, model, images):
    x, y = sixteen(images)
    x = 0.25 + 0.5 * x  # no pixel reaches 0 or 1
    zero = copy.deepcopy(model).eval()
    for parameter in zero[-1].parameters():
        parameter.data.mul_(2.0**-20)  # nearly linear: the gradient hardly turns
    small, large = (pgd(zero, x, y, 0.02 * k, 0.02 * k, 1, norm=norm, start="clean", result="last") - x for k in (1, 3))
    assert_close(large, 3 * small, atol=1e-5, rtol=0)
    targets = (y + 1) % 10
    there = pgd(model, x, y, 0.25, 0.05, 8, norm="inf", targets=targets, result="last", generator=seeded())
    before, after = (F.cross_entropy(copy.deepcopy(model).eval()(at), targets) for at in (x, there))
    assert after < before - 1


def test_simba_and_autoattack_of_the_papers_are_those_functions_with_these_arguments(model, images):
    x, y = sixteen(images)
    assert torch.equal(
        ATTACKS["c-simba"](model, x, y, generator=seeded()), simba(model, x, y, 0.2, generator=seeded())[0]
    )
    pytest.importorskip("pyautoattack")
    passes = []
    for name, parts in (("l-autoattack-table2", ("apgd-ce", "apgd-t")), ("l-autoattack-figure2", ("apgd-ce",))):
        counting = Counting(model)
        found = ATTACKS[name](counting, x[:4], y[:4], 0.05, generator=seeded())
        passes.append(counting.asked)
        how = {"attacks": parts, "batch_size": 1024, "generator": seeded()}
        assert torch.equal(found, autoattack(model, x[:4], y[:4], 0.05, **how))
    assert passes[0] > 2 * passes[1]


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_published_attack_says_its_size_and_images_and_is_pickled(name):
    attack = ATTACKS[name]
    assert (attack.eps, attack.images) == PUBLISHED[name]
    assert attack.words.startswith("Liu et al. 2021, Table" if name[0] == "c" else "Liang & Huang 2021, ")
    assert repr(pickle.loads(pickle.dumps(attack))) == repr(attack)


def test_all_images_may_be_attacked_and_one_that_is_wrong_may_come_back(model, images):
    x, y = images
    labels = y.clone()
    labels[:10] = (labels[:10] + 1) % 10  # wrong before the attack

    def back(_, x, y):
        return torch.where(torch.arange(len(x), device=x.device).view(-1, 1, 1, 1) < 10, 0.0, x)

    answers = copy.deepcopy(model).eval()(x * 0).argmax(1)
    right = copy.deepcopy(model).eval()(x).argmax(1) == labels
    after = torch.cat([(answers == labels)[:10], right[10:]])
    found = robust_accuracy(model, [(x, labels)], {"back": back}, progress=False, attack_all=True)
    assert after[:10].any()
    assert not right[:10].any()
    assert found.attacks["back"] == int(after.sum()) / 40
    assert found.worst == int((after & right).sum()) / 40
    assert found.clean == int(right.sum()) / 40
    attack = ATTACKS["c-pgd-10"]
    share = float(
        (copy.deepcopy(model).eval()(attack(model, x, labels, EPS, seeded())).argmax(1) == labels).float().mean()
    )
    seen = robust_accuracy(
        model, [(x, labels)], lambda *of: attack(*of, EPS, seeded()), progress=False, attack_all=True
    )
    assert seen.attacks["<lambda>"] == pytest.approx(share)
