"""Attacks by name: each takes a model, images, labels and how far it may go, and returns the changed images."""

import functools

import pytest
import torch
from torch.testing import assert_close

from convkit.attacks import ATTACKS, autoattack, fgsm, pgd, robust_accuracy, simba

EPS = 0.1


@pytest.fixture
def case(model, images):
    return model, *(t[:12] for t in images)


def seeded():
    return torch.Generator().manual_seed(0)


def test_the_names_are_those_of_the_functions():
    assert list(ATTACKS) == ["fgsm", "pgd", "simba", "autoattack"]
    assert (ATTACKS["fgsm"], ATTACKS["autoattack"]) == (fgsm, autoattack)


@pytest.mark.parametrize("name", ["fgsm", "pgd", "simba"])
def test_an_attack_by_name_returns_images_within_eps(case, name):
    model, x, y = case
    found = ATTACKS[name](model, x, y, EPS)
    assert found.shape == x.shape
    assert 0 < float((found - x).abs().max()) <= EPS * (1 + 1e-6)
    assert (model(found).argmax(1) != y).sum() > (model(x).argmax(1) != y).sum()


def test_an_attack_by_name_is_the_function_of_that_name(case):
    model, x, y = case
    expected = pgd(model, x, y, EPS, EPS / 4, 10, generator=seeded())
    assert_close(ATTACKS["pgd"](model, x, y, EPS, generator=seeded()), expected, rtol=0, atol=0)
    expected = pgd(model, x, y, EPS, 0.02, 3, norm=2, generator=seeded())
    found = ATTACKS["pgd"](model, x, y, EPS, step=0.02, steps=3, norm=2, generator=seeded())
    assert_close(found, expected, rtol=0, atol=0)
    expected, _ = simba(model, x, y, EPS, "dct", 20, seeded())
    found = ATTACKS["simba"](model, x, y, EPS, basis="dct", steps=20, generator=seeded())
    assert_close(found, expected, rtol=0, atol=0)


def test_an_attack_from_outside_is_used_by_its_name(case, monkeypatch):
    def darken(model, x, y, eps):
        return (x - eps).clamp(0, 1)

    model, x, y = case
    monkeypatch.setattr(ATTACKS, "_entries", dict(ATTACKS))
    ATTACKS.register("darken", darken)
    attacks = {name: functools.partial(ATTACKS[name], eps=0.3) for name in ("fgsm", "darken")}
    found = robust_accuracy(model, [(x, y)], attacks, progress=False)
    right = (model(x).argmax(1) == y) & (model((x - 0.3).clamp(0, 1)).argmax(1) == y)
    assert found.attacks["darken"] == pytest.approx(float(right.double().mean()))
    with pytest.raises(ValueError, match="ATTACKS has no 'darker'; near it: darken"):
        ATTACKS["darker"]
