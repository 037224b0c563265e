"""The experiments of notebook 10 in few steps, the files that it reads, and what they are made of."""

import json
import math
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.testing import assert_close

pytest.importorskip("sklearn")
from convkit.audit.product import product_bound
from convkit.data import digits, shapes, subset
from convkit.methods.build import network
from convkit.models import build_model
from convkit.models.layers import batchnorm_layer
from convkit.operators.network import conv_operators
from convkit.papers import EXPERIMENTS, spectra, spectra_network
from tests import RESULTS

NOWHERE = Path("unused")
RUNS = {
    "spectra-methods": lambda: spectra.methods(None, NOWHERE, (0,), ("BatchNorm", "sphere, no BatchNorm")),
    "spectra-depths": lambda: spectra.depths(None, NOWHERE, (0,), (10,)),
    "spectra-bounds": lambda: spectra.bounds(None, NOWHERE, (0,), (None, 0.5)),
}


def serial(function, jobs, keep=None):
    """In place of the sweep's processes: one after the other, through JSON as there."""
    return {name: json.loads(json.dumps(function(**one))) for name, one in jobs.items()}


@pytest.fixture
def few(monkeypatch):
    monkeypatch.setattr(spectra, "sweep", serial)
    monkeypatch.setitem(spectra.NINE, "options", {"widths": [4, 4, 4]})
    monkeypatch.setitem(spectra.SMALL, "steps", 2)
    monkeypatch.setitem(spectra.SMALL, "images", 3)


def kept(name):
    return json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", RUNS)
def test_a_tiny_run_has_the_layout_of_the_committed_file(name, few):
    tiny, whole = RUNS[name](), kept(name)
    assert whole.keys() == tiny.keys() | {"experiment", "command", "versions"}
    assert whole["command"] == f"python3 -m convkit experiments {name}"
    assert len(whole["seeds"]) >= 3
    assert {frozenset(row) for row in whole["rows"]} == {frozenset(row) for row in tiny["rows"]}
    for results in (tiny, whole):
        for row in results["rows"]:
            assert len(row["runs"]) == len(results["seeds"])
            for run in row["runs"]:
                assert run.keys() == tiny["rows"][0]["runs"][0].keys()
                assert run["layers"].keys() == tiny["rows"][0]["runs"][0]["layers"].keys()
                assert len(run["local"]) == len(run["certified"]) == results["images"]
        assert len(EXPERIMENTS[name].show(results).splitlines()) == len(results["rows"]) * len(results["seeds"])
    assert (RESULTS / f"{name}.json").stat().st_size < 100_000


@pytest.mark.parametrize("name", ["spectra-methods", "spectra-depths", "spectra-bounds", "spectra-slopes"])
def test_in_the_committed_files_nothing_found_is_above_a_bound(name):
    results = kept(name)
    runs = [run for row in results["rows"] for run in row["runs"]] if "rows" in results else [results]
    for run in runs:
        found = max(run["sampled"], *run["jacobian"], *run["local"])
        assert found < run["folded_bound"] <= run["bound"] * (1 + 1e-3)
        for certified, empirical, ahead in zip(run["certified"], run["empirical"], run["margins"], strict=True):
            assert certified <= (math.inf if empirical is None else empirical)
            assert certified == pytest.approx(max(ahead, 0) / math.sqrt(2) / run["bound"], rel=2e-3)


def test_the_file_of_weights_is_small_and_fits_the_network_that_the_notebook_builds():
    path = RESULTS / "spectra-network.pt"
    assert path.stat().st_size < 320_000
    weights = torch.load(path, weights_only=True)
    model = build_model("resnet18", layer=batchnorm_layer, width=0.11, mean=[0.5] * 3, std=[0.25] * 3)
    model.load_state_dict(weights)
    assert {t.dtype for t in weights.values()} == {torch.float16, torch.int64}
    bound = product_bound(model.double().eval(), torch.zeros(1, 3, 32, 32, dtype=torch.float64))
    assert bound == pytest.approx(kept("spectra-slopes")["bound"], rel=1e-3)
    assert kept("spectra-network")["accuracy"] > 0.7


def test_training_keeps_weights_that_slopes_reads(tmp_path, monkeypatch):
    monkeypatch.setitem(spectra_network.NETWORK, "batch_size", 10)
    monkeypatch.setitem(spectra_network.NETWORK, "width", 0.03)
    data = subset(shapes(count=40, test_count=20), 20)
    keep = tmp_path / "spectra-network.jsonl"
    trained = spectra_network.train_on(data, keep, steps=2, look_every=1)
    assert {path.name for path in tmp_path.iterdir()} == {"spectra-network.pt"}  # and no checkpoint
    assert trained.keys() == kept("spectra-network").keys() - {"experiment", "command", "versions"}
    assert trained["looks"]["steps"] == [1, 2]
    slopes = spectra_network.slopes_of(data, tmp_path / "spectra-network.pt", images=2, pairs=5)
    assert slopes.keys() == kept("spectra-slopes").keys() - {"experiment", "command", "versions"}
    assert [part["name"] for part in slopes["parts"]] == [part["name"] for part in kept("spectra-slopes")["parts"]]
    assert "test accuracy" in EXPERIMENTS["spectra-network"].show(trained)
    assert len(EXPERIMENTS["spectra-slopes"].show(slopes).splitlines()) == len(slopes["parts"]) + 1


@pytest.mark.parametrize("method", ["batchnorm", "operator_norm"])
@torch.no_grad()
def test_the_folded_network_is_the_same_function_and_the_first_is_left_alone(method):
    data = digits()
    model = network("cnn9", data, method, seed=0, widths=(2, 3, 4))
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, -2, 2)
            nn.init.normal_(module.bias)
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
    model.double().eval()
    x = data.test_batch(slice(0, 5))[0].double()
    wanted = model(x)
    flat = spectra.folded(model)
    assert_close(flat(x), wanted)
    assert_close(model(x), wanted)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in flat.modules())
    assert product_bound(flat, x) < product_bound(model, x)


def test_layer_numbers_are_those_of_the_dense_tori():
    model, x = spectra.shallow(1), torch.zeros(1, 1, 8, 8)
    numbers = spectra.layer_numbers(model, x)
    for place, A in enumerate(conv_operators(model, x).values()):
        values = torch.linalg.svdvals(A.torus().matrix().detach().double())
        assert numbers["norm2"][place] == pytest.approx(float(values[0]), rel=1e-4)
        over = float(values[0] / values.square().mean().sqrt())
        assert numbers["over_mean"][place] == pytest.approx(over, rel=1e-4)
    assert numbers["folded_norm2"] == numbers["norm2"]  # no BatchNorm


def test_numbers_are_short_and_what_is_not_finite_is_none():
    values = {"a": torch.tensor([1.23456, math.inf]), "b": [math.nan, 2], "c": "words", "d": 1 / 3}
    assert spectra.rounded(values) == {"a": [1.235, None], "b": [None, 2], "c": "words", "d": 0.3333}


def test_a_lost_run_says_so(monkeypatch):
    monkeypatch.setattr("convkit.training.run.DIVERGED", 0.0)  # every loss is above it
    run = spectra.job("shallow", {}, "plain", {}, 0, 2, 2)
    assert run["accuracy"] is None
    assert "lost: the loss" in spectra.show_runs({"rows": [{"name": "one", "runs": [run]}]})
