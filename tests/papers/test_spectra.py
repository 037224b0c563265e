"""What the experiments on spectra measure of a network, and the network whose weights are stored."""

import math

import pytest
import torch
from torch import nn

pytest.importorskip("sklearn")
pytest.importorskip("pyautoattack")
from convkit.audit.product.bound import product_bound
from convkit.data import digits, subset
from convkit.models import build_model
from convkit.models.layers import batchnorm_layer
from convkit.operators.network import conv_operators
from convkit.papers import spectra, spectra_network
from convkit.papers.runs import rounded
from tests import RESULTS
from tests.helpers.experiments import EXPERIMENTS, stored

pytestmark = pytest.mark.slow

HEADER = {"experiment", "command", "device", "versions"}


def test_the_file_of_weights_is_small_and_fits_the_network_that_the_notebook_builds():
    path = RESULTS / "spectra-network.pt"
    assert path.stat().st_size < 320_000
    weights = torch.load(path, weights_only=True)
    model = build_model("resnet18", layer=batchnorm_layer, width=0.11, mean=[0.5] * 3, std=[0.25] * 3)
    model.load_state_dict(weights)
    assert {t.dtype for t in weights.values()} == {torch.float16, torch.int64}
    bound = product_bound(model.double().eval(), torch.zeros(1, 3, 32, 32, dtype=torch.float64), folded=False)
    assert bound == pytest.approx(stored("spectra-slopes")["bound"], rel=1e-3)
    assert stored("spectra-network")["accuracy"] > 0.7


def test_training_keeps_weights_that_slopes_reads(few, tmp_path):
    data = subset(digits(), 20, test_count=20)
    results_file = tmp_path / "spectra-network.jsonl"
    trained = spectra_network.train_on(data, results_file, steps=2, look_every=1)
    assert {path.name for path in tmp_path.iterdir()} == {"spectra-network.pt"}  # and no checkpoint
    assert trained.keys() == stored("spectra-network").keys() - HEADER
    assert trained["looks"]["steps"] == [1, 2]
    slopes = spectra_network.slopes_of(data, tmp_path / "spectra-network.pt", images=2, pairs=5)
    assert slopes.keys() == stored("spectra-slopes").keys() - HEADER
    assert [part["name"] for part in slopes["parts"]] == [part["name"] for part in stored("spectra-slopes")["parts"]]
    assert "test accuracy" in EXPERIMENTS["spectra-network"].show(trained)
    assert len(EXPERIMENTS["spectra-slopes"].show(slopes).splitlines()) == len(slopes["parts"]) + 1


def test_a_network_that_is_lost_is_no_result(few, tmp_path, monkeypatch):
    monkeypatch.setattr("convkit.training.run.DIVERGED", 0.0)
    with pytest.raises(ValueError, match="the training of resnet18 was lost: the loss"):
        spectra_network.train_on(subset(digits(), 20), tmp_path / "spectra-network.jsonl", steps=2, look_every=1)


def test_layer_numbers_are_those_of_the_dense_tori():
    model, x = spectra.shallow(1), torch.zeros(1, 1, 8, 8)
    numbers = spectra.layer_numbers(model, x)
    for place, A in enumerate(conv_operators(model, x).values()):
        values = torch.linalg.svdvals(A.torus().matrix().detach().double())
        assert numbers["norm2"][place] == pytest.approx(float(values[0]), rel=1e-4)
        over = float(values[0] / values.square().mean().sqrt())
        assert numbers["over_mean"][place] == pytest.approx(over, rel=1e-4)
    assert numbers["folded_norm2"] == numbers["norm2"]  # no BatchNorm
    scaled = nn.Sequential(model[0], nn.BatchNorm2d(16, eps=0), *model[1:])
    with torch.no_grad():
        scaled[1].weight.fill_(3)
    folded = spectra.layer_numbers(scaled, x)["folded_norm2"]
    assert folded == pytest.approx([3 * numbers["norm2"][0], *numbers["norm2"][1:]], rel=1e-5)


def test_numbers_are_short_and_what_is_not_finite_is_none():
    values = {"a": torch.tensor([1.23456, math.inf]), "b": [math.nan, 2], "c": "words", "d": 1 / 3}
    assert rounded(values) == {"a": [1.235, None], "b": [None, 2], "c": "words", "d": 0.3333}
