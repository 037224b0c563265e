"""The experiments of notebook 09 in few steps, and the files of results that the notebook reads."""

import json
import math
from functools import partial
from pathlib import Path

import pytest
import torch

pytest.importorskip("sklearn")
pytest.importorskip("pyautoattack")
from convkit.attacks import robust_accuracy
from convkit.audit.product import product_bound
from convkit.audit.table import layer_table
from convkit.data import digits, shapes, subset
from convkit.methods.build import network
from convkit.papers import EXPERIMENTS, robustness, robustness_images, separation
from convkit.robustness.lipschitz import margins
from tests import RESULTS

NOWHERE = Path("unused")
TINY = {
    "norms": [("none", "batchnorm", {}, "clean", 2)],
    "free": [("ConvNorm", "convnorm", {}, "free", 2)],
    "without BatchNorm": [("sphere", "sphere_without_noise", {}, "clean", 2)],
    "objectives": [("trades", "batchnorm", {}, "trades", 2)],
}


def serial(function, jobs, keep=None):
    """In place of the sweep's processes: one after the other, through JSON as there."""
    return {name: json.loads(json.dumps(function(**one))) for name, one in jobs.items()}


@pytest.fixture
def few(monkeypatch):
    for module in (robustness, robustness_images, separation):
        monkeypatch.setattr(module, "sweep", serial)
    monkeypatch.setitem(robustness.TRAINING, "widths", [2, 3, 4])


def kept(name):
    path = RESULTS / f"{name}.json"
    assert path.stat().st_size < 100_000
    found = json.loads(path.read_text(encoding="utf-8"))
    assert found["command"].startswith(f"python3 -m convkit experiments {name}")
    return found


def test_a_tiny_run_has_the_layout_of_the_committed_file(few):
    tiny = robustness.networks(None, NOWHERE, TINY, seeds=(0,), tests=8, ensemble=4)
    there = kept("robustness-networks")
    assert there.keys() == tiny.keys() | {"experiment", "command", "versions"}
    assert len(there["seeds"]) >= 3
    layout = {row["group"]: {frozenset(run) for run in row["runs"]} for row in tiny["rows"]}
    for row in there["rows"]:
        assert len(row["runs"]) == len(there["seeds"])
        assert {frozenset(run) for run in row["runs"]} == layout[row["group"]]
        for run in row["runs"]:
            assert run["lost"] is None
            assert run["clean"] > 0.9  # every network of the tables has learned something
            assert run["worst"] <= min(run[name] for name in ("FGSM", "PGD-10", "PGD-20", "PGD margin", "SimBA"))
            assert len(run["norm_inf"]) == len(run["folded_inf"]) == 10
    planned = [(group, row[0]) for group, rows in robustness.GROUPS.items() for row in rows]
    assert [(row["group"], row["name"]) for row in there["rows"]] == planned
    for results in (tiny, there):
        assert len(robustness.show(results).splitlines()) == len(results["rows"])


def test_photographs_a_tiny_run_has_the_layout_of_the_committed_file(few, monkeypatch):
    monkeypatch.setattr(robustness_images, "images", lambda *_: subset(shapes(100, 20), 70, test_count=10))
    monkeypatch.setitem(robustness_images.TRAINING, "widths", [2, 3, 4])
    rows = [("none", "batchnorm", {"lr": 0.02}, "clean", 2), ("free", "oni", {"lr": 0.02}, "free", 2)]
    tiny = robustness_images.networks(None, NOWHERE, rows, seeds=(0,), count=70, tests=10)
    there = kept("robustness-images")
    assert there.keys() == tiny.keys() | {"experiment", "command", "versions"}
    assert [row["name"] for row in there["rows"]] == [name for name, *_ in robustness_images.ROWS]
    for row in there["rows"]:
        assert len(row["runs"]) == len(there["seeds"]) >= 3
        for run in row["runs"]:
            assert run.keys() == tiny["rows"][0]["runs"][0].keys()
            assert run["clean"] >= run["1/255"] >= run["2/255"] >= run["8/255"]
            assert run["clean"] > 0.2  # it has learned something
    for results in (tiny, there):
        assert len(robustness_images.show(results).splitlines()) == len(results["rows"])


def test_photographs_are_attacked_at_each_size_on_both_losses_and_trained_against_the_largest(few, monkeypatch):
    asked, trained = [], []
    monkeypatch.setattr(robustness_images, "images", lambda *_: subset(shapes(100, 20), 70, test_count=10))
    monkeypatch.setitem(robustness_images.TRAINING, "widths", [2, 3, 4])
    attack, objective = robustness_images.pgd, robustness_images.get_objective
    monkeypatch.setattr(
        robustness_images, "pgd", lambda *of, **how: asked.append((how["eps"], how["loss"])) or attack(*of, **how)
    )
    monkeypatch.setattr(robustness_images, "get_objective", lambda *how: trained.append(how) or objective(*how))
    robustness_images.job("batchnorm", {"lr": 0.02}, "free", 2, 0, None, 70, 10)
    assert set(asked) == {(n / 255, loss) for n in (1, 2, 8) for loss in ("ce", "margin")}
    assert trained == [("free", 8 / 255)]


def test_all_are_trained_and_attacked_at_one_epsilon_whatever_the_method():
    assert {name for name, *_ in robustness.GROUPS["free"]} >= {"BatchNorm", "ConvNorm + BN", "ONI", "OCNN"}
    for rows in robustness.GROUPS.values():
        assert all("eps" not in knobs for _, _, knobs, *_ in rows)
    x = torch.rand(3, 1, 8, 8)
    y = torch.tensor([0, 1, 2])
    model = network("cnn9", digits(), "batchnorm", seed=0, widths=(2, 3, 4)).eval()
    for name, attack in robustness.attacks(0.1).items():
        found = attack(model, x, y)
        found = found[0] if isinstance(found, tuple) else found
        assert (found - x).abs().max() <= 0.1 + 1e-6, name


def test_a_lost_run_says_so(few, monkeypatch):
    monkeypatch.setattr("convkit.training.run.DIVERGED", 0.0)  # every loss is above it
    run = robustness.job("batchnorm", {}, "clean", 2, 0, tests=4)
    assert run.keys() == {"lost"}
    assert "the loss" in run["lost"]
    row = {"group": "norms", "name": "none", "runs": [run]}
    assert "lost 1 of 1" in robustness.show({"rows": [row]})


@torch.no_grad()
def test_norms_and_products_are_those_of_the_library():
    data = digits()
    model = network("cnn9", data, "batchnorm", seed=1, widths=(2, 3, 4)).eval()
    for layer in model.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            layer.running_var.uniform_(0.2, 3)
    x = data.train_batch([0, 1])[0]
    norms = robustness.layer_norms(model, x)
    alone, folded = (layer_table(model, x, folded=how) for how in (False, True))
    assert norms["norm_inf"] == pytest.approx(alone.column("norm_inf"), rel=1e-3)
    assert norms["folded_inf"] == pytest.approx(folded.column("norm_inf"), rel=1e-3)
    assert norms["largest"] >= max(folded.column("norm2")) * 0.999  # the torus contains the layer
    assert norms["product"] == pytest.approx(product_bound(model, x, torus=True), rel=1e-3)
    assert norms["product_inf"] == pytest.approx(math.prod(folded.column("norm_inf")) / data.std[0], rel=1e-3)
    far = (model(x + 0.01) - model(x)).abs().max() / 0.01
    assert far <= norms["product_inf"]


def test_reach_is_the_margin_over_twice_the_slope():
    data = digits()
    model = network("cnn9", data, "batchnorm", seed=0, widths=(2, 3, 4)).eval().double()
    x, y = data.test_batch(range(12))
    x = x.double()
    found = robustness.steepness(model, x, y, 0.1, steps=3)
    assert found["margin"] == pytest.approx(float(margins(model, x, y).median()), rel=1e-3)
    louder = torch.nn.Sequential(model, Times())
    again = robustness.steepness(louder, x, y, 0.1, steps=3)
    assert again["local"] == pytest.approx(100 * found["local"], rel=1e-2)
    assert again["reach"] == pytest.approx(found["reach"], rel=1e-2)  # no scale of the logits changes it


class Times(torch.nn.Module):
    def forward(self, x):
        return 100 * x


def test_black_box_counts_only_images_that_were_right():
    data = digits()
    model = network("cnn9", data, "batchnorm", seed=0, widths=(2, 3, 4)).eval()
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


def test_separation_of_a_few_images_and_the_layout_of_the_committed_file(few, monkeypatch):
    data = subset(digits(), 40, test_count=20)
    monkeypatch.setitem(separation.SETS, "digits", lambda _: data)
    tiny = separation.run(None, NOWHERE, [("digits", "training"), ("digits", "test")])
    there = kept("separation")
    assert there.keys() == tiny.keys() | {"experiment", "command", "versions"}
    assert {frozenset(row) for row in there["rows"]} == {frozenset(row) for row in tiny["rows"]}
    assert [(row["data"], row["part"]) for row in there["rows"]] == separation.PARTS
    for row, labels, images in zip(
        tiny["rows"], (data.labels, data.test_labels), (data.images, data.test_images), strict=True
    ):
        apart = labels[:, None] != labels
        for norm, p in (("inf", math.inf), ("2", 2.0)):
            dense = torch.cdist(images.flatten(1), images.flatten(1), p)[apart].min()
            assert row[norm]["distance"] == pytest.approx(float(dense), rel=1e-3)
            i, j = row[norm]["pair"]
            assert labels[i] != labels[j]
    assert len(separation.show(there).splitlines()) == len(there["rows"]) + 1


def test_the_experiments_have_their_names():
    assert EXPERIMENTS["separation"].needs_folder
    assert not EXPERIMENTS["robustness-networks"].needs_folder
