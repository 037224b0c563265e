"""The experiments of notebook 06 in five steps, and the files of results that the notebook reads."""

import json
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.testing import assert_close

pytest.importorskip("sklearn")
from convkit.data import digits
from convkit.methods.build import network
from convkit.normalization.convnorm import ConvNorm2d
from convkit.operators.operator import ConvOperator
from convkit.papers import EXPERIMENTS, convnorm
from convkit.papers.convnorm import HE, job, layers_of, restart, row_norm, with_steady_statistics
from tests import RESULTS

NAMES = ("convnorm-training", "convnorm-race", "convnorm-noise", "convnorm-noise-rates", "convnorm-affine")
NUMBERS = {"norm", "norm_bare", "norm_folded", "row", "condition", "condition_bare"}


def serial(function, jobs, keep=None):
    """In place of the sweep's processes: one after the other, through JSON as there."""
    return {name: json.loads(json.dumps(function(**one))) for name, one in jobs.items()}


@pytest.fixture
def few(monkeypatch):
    monkeypatch.setattr(convnorm, "sweep", serial)
    monkeypatch.setitem(convnorm.TRAINING, "widths", [4, 4, 4])


@pytest.mark.parametrize("name", NAMES)
def test_a_tiny_run_has_the_layout_of_the_committed_file(name, few):
    tiny = EXPERIMENTS[name].run(None, Path("unused"), steps=5, seeds=(0,))  # pyright: ignore[reportCallIssue]
    kept = json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))
    assert kept.keys() == tiny.keys() | {"experiment", "command", "versions"}
    assert kept["experiment"] == name
    assert kept["command"] == f"python3 -m convkit experiments {name}"
    assert len(kept["seeds"]) >= 3
    assert [row["name"] for row in kept["rows"]] == [row["name"] for row in tiny["rows"]]
    for results in (tiny, kept):
        for row in results["rows"]:
            assert row.keys() == tiny["rows"][0].keys()
            assert len(row["accuracy"]) == len(row["lost"]) == len(results["seeds"])
            for accuracy, lost in zip(row["accuracy"], row["lost"], strict=True):
                assert (accuracy is None) == (lost is not None)
                assert accuracy is None or 0 <= accuracy <= 1
            for numbers in row.get("start", []) + row.get("end", []):
                assert numbers.keys() == NUMBERS
                assert {len(values) for values in numbers.values()} == {9}
        assert len(EXPERIMENTS[name].show(results).splitlines()) == len(results["rows"])
    for row in kept["rows"]:
        for curve in row.get("accuracies", []) + row.get("steady", []):
            assert len(curve) == len(kept["at"])
    assert (RESULTS / f"{name}.json").stat().st_size < 100_000


def test_a_lost_run_says_so(few):
    run = job("plain", 0, 4, knobs={"lr": 10.0}, start="He")
    assert run["lost"] is None or "loss" in run["lost"] or "finite" in run["lost"]
    results = {"rows": [{"name": "x", "accuracy": [None, 0.5], "lost": ["the loss is nan at step 3", None]}]}
    assert convnorm.show(results).split() == ["x", "lost", "50.0"]


def test_starts_change_what_they_name():
    data = digits()
    plain, scaled = (network("cnn9", data, "plain", seed=1, widths=(4, 5, 6)) for _ in range(2))
    restart(scaled, "He", 1)
    for a, b in zip(plain.modules(), scaled.modules(), strict=True):
        if isinstance(a, nn.Conv2d):
            assert_close(b.weight, HE * a.weight)
    one, other = (network("cnn9", data, "convnorm", seed=1, widths=(4, 5, 6)) for _ in range(2))
    restart(one, "random", 1)
    for a, b in zip(one.modules(), other.modules(), strict=True):
        if isinstance(a, ConvNorm2d):
            assert torch.equal(a.weight, b.weight)
            assert 0.1 < float(a.affine_weight.detach().abs().max()) <= 1 / 3
            assert_close(b.affine_weight.detach().abs().amax((1, 2, 3)), torch.full((len(b.weight),), 2**0.5))


def test_layers_are_measured_on_their_torus_with_and_without_the_affine_kernel():
    data = digits()
    model = network("cnn9", data, "convnorm+batchnorm", seed=1, widths=(4, 5, 6))
    restart(model, "random", 1)
    found = layers_of(model, data)
    assert_close(torch.tensor(found["condition_bare"]), torch.ones(9), atol=1e-4, rtol=0)
    assert min(found["condition"]) > 1.5
    assert found["norm_bare"][0] == pytest.approx(2, abs=1e-4)  # one channel in, four out
    assert found["norm_folded"] == pytest.approx(found["norm"], rel=1e-4)  # BatchNorm has seen nothing yet
    layer = next(m for m in model.modules() if isinstance(m, ConvNorm2d))
    dense = layer.operator((8, 8)).matrix().detach()
    assert found["norm"][0] == pytest.approx(float(torch.linalg.matrix_norm(dense, 2)), rel=1e-3)
    assert found["row"][0] == pytest.approx(float(dense.norm(dim=1).square().mean().sqrt()), rel=1e-3)


def test_row_norm_is_that_of_the_matrix():
    A = ConvOperator(torch.randn(3, 2, 3, 2, dtype=torch.float64), (6, 5))
    assert_close(row_norm(A), A.matrix().norm(dim=1).square().mean().sqrt())


def test_steady_statistics_are_those_of_the_training_images_and_the_model_stays():
    data = digits()
    model = network("cnn9", data, "batchnorm", seed=1, widths=(4, 5, 6))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    steady = with_steady_statistics(model, data)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    seen = []
    first = next(m for m in steady.modules() if isinstance(m, nn.BatchNorm2d))
    first.register_forward_hook(lambda _, args, __: seen.append(args[0]))
    with torch.no_grad():
        steady.eval()(data.train_batch(torch.arange(len(data)))[0])
    assert_close(first.running_mean, seen[0].mean((0, 2, 3)), atol=1e-3, rtol=1e-2)
    assert_close(first.running_var, seen[0].var((0, 2, 3)), atol=1e-3, rtol=2e-2)
