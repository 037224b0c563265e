"""What is measured of the networks that are attacked, and how far apart images of different classes are."""

import math
from functools import partial

import pytest
import torch

pytest.importorskip("sklearn")
pytest.importorskip("pyautoattack")
from convkit.attacks import robust_accuracy
from convkit.audit.product.bound import product_bound
from convkit.audit.table import layer_table
from convkit.data import digits
from convkit.methods.build import network
from convkit.papers import robustness, robustness_images, separation
from convkit.robustness.lipschitz import margins


def narrow(seed: int = 0) -> torch.nn.Module:
    return network("cnn9", digits(), "batchnorm", seed=seed, widths=(2, 3, 4)).eval()


def test_photographs_are_attacked_at_each_size_on_both_losses_and_trained_against_the_largest(few, monkeypatch):
    asked, trained = [], []
    attack, objective = robustness_images.pgd, robustness_images.get_objective
    monkeypatch.setattr(
        robustness_images, "pgd", lambda *of, **how: asked.append((how["eps"], how["loss"])) or attack(*of, **how)
    )
    monkeypatch.setattr(robustness_images, "get_objective", lambda *how: trained.append(how) or objective(*how))
    robustness_images.job("batchnorm", {"lr": 0.02}, "free", 2, 0, None, 70, 10)
    assert set(asked) == {(n / 255, loss) for n in (1, 2, 8) for loss in ("ce", "margin")}
    assert trained == [("free", 8 / 255)]


def test_all_attacks_stay_within_epsilon():
    x = torch.rand(3, 1, 8, 8)
    y = torch.tensor([0, 1, 2])
    model = narrow()
    for name, attack in robustness.attacks(0.1).items():
        found = attack(model, x, y)
        found = found[0] if isinstance(found, tuple) else found
        assert (found - x).abs().max() <= 0.1 + 1e-6, name


@torch.no_grad()
def test_norms_and_products_are_those_of_the_library():
    data = digits()
    model = narrow(1)
    for layer in model.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            layer.running_var.uniform_(0.2, 3)
    x = data.train_batch([0, 1])[0]
    norms = robustness.norm_numbers(model, x)
    alone, folded = (layer_table(model, x, folded=how) for how in (False, True))
    assert norms["norm_inf"] == pytest.approx(alone.column("norm_inf"), rel=1e-3)
    assert norms["folded_inf"] == pytest.approx(folded.column("norm_inf"), rel=1e-3)
    assert norms["largest"] >= max(folded.column("norm2")) * 0.999  # the torus contains the layer
    assert norms["product"] == pytest.approx(product_bound(model, x, torus=True, folded=False), rel=1e-3)
    assert norms["product_inf"] == pytest.approx(math.prod(folded.column("norm_inf")) / data.std[0], rel=1e-3)
    far = (model(x + 0.01) - model(x)).abs().max() / 0.01
    assert far <= norms["product_inf"]


def test_reach_is_the_margin_over_twice_the_slope():
    data = digits()
    model = narrow().double()
    x, y = data.test_batch(range(12))
    x = x.double()
    found = robustness.steepness(model, x, y, 0.1, steps=3)
    assert found["margin"] == pytest.approx(float(margins(model, x, y).median()), rel=1e-3)
    louder = torch.nn.Sequential(model, torch.nn.Linear(10, 10, bias=False).double())
    torch.nn.init.eye_(louder[1].weight).data.mul_(100)
    again = robustness.steepness(louder, x, y, 0.1, steps=3)
    assert again["local"] == pytest.approx(100 * found["local"], rel=1e-2)
    assert again["reach"] == pytest.approx(found["reach"], rel=1e-2)  # no scale of the logits changes it


def test_black_box_counts_only_images_that_were_right():
    data = digits()
    model = narrow()
    x, y = data.test_batch(range(60))
    with torch.no_grad():
        y = model(x).argmax(1)  # so that all are right
    found = robustness.black_box(model, x, y, 0.2)
    left = robust_accuracy(model, [(x, y)], partial(robustness.simba, step=0.2, generator=robustness._seeded(5)), False)
    assert found["success"] == pytest.approx(1 - left.worst, abs=1e-3)
    assert 1 < found["queries"] <= 129
    wrong = (y + 1) % 10
    wrong[:30] = y[:30]
    halves = robustness.black_box(model, x, wrong, 0.2)
    assert halves["queries"] > 1  # an image that is wrong anyway is not asked about
    assert robustness.black_box(model, x, (y + 1) % 10, 0.2) == {"success": 0.0, "queries": 0.0}


def test_separation_is_the_smallest_distance_between_classes(tiny):
    data = separation.load_part()
    rows = tiny("separation")["rows"]
    parts = ((data.labels, data.images), (data.test_labels, data.test_images))
    for row, (labels, images) in zip(rows, parts, strict=True):
        apart = labels[:, None] != labels
        for norm, p in (("inf", math.inf), ("2", 2.0)):
            dense = torch.cdist(images.flatten(1), images.flatten(1), p)[apart].min()
            assert row[norm]["distance"] == pytest.approx(float(dense), rel=1e-3)
            i, j = row[norm]["pair"]
            assert labels[i] != labels[j]
