"""Attacks by name: each takes a model, images, labels and how far it may go, and returns the changed images."""

import pytest
import torch
from torch.testing import assert_close

from convkit.attacks import ATTACKS, autoattack, fgsm, pgd, simba
from tests.helpers.refusals import refused

EPS = 0.1


def test_the_names_are_those_of_the_functions():
    assert list(ATTACKS) == ["fgsm", "pgd", "simba", "autoattack"]
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
