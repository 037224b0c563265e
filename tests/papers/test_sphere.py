"""The experiments of notebook 07 in two steps, and the files of results that the notebook reads."""

import json
import math
from pathlib import Path

import pytest
import torch
from torch.testing import assert_close

pytest.importorskip("sklearn")
from convkit.data import digits
from convkit.methods.build import network
from convkit.papers import EXPERIMENTS, sphere
from convkit.papers.sphere import PARTS, job, method_of, scale_rows, trained_weights
from tests import RESULTS

NAMES = ("sphere-row-norms", "sphere-weight-decay", "sphere-small-batches", "sphere-ablation")
ON_THE_WAY = ("steps", "loss", "row_norm", "gradient")


def serial(function, jobs, keep=None):
    """In place of the sweep's processes: one after the other, through JSON as there."""
    return {name: json.loads(json.dumps(function(**one))) for name, one in jobs.items()}


@pytest.fixture
def few(monkeypatch):
    monkeypatch.setattr(sphere, "sweep", serial)
    monkeypatch.setitem(sphere.TRAINING, "widths", [4, 4, 4])


RUNS = {
    "sphere-row-norms": lambda: sphere.row_norms(None, Path("unused"), steps=2, seeds=(0, 1)),
    "sphere-weight-decay": lambda: sphere.weight_decay(None, Path("unused"), steps=2, seeds=(0,)),
    "sphere-small-batches": lambda: sphere.small_batches(None, Path("unused"), images=8, seeds=(0,), batches=(2, 4)),
    "sphere-ablation": lambda: sphere.ablation(None, Path("unused"), steps=2, seeds=(0,), images=100),
}


@pytest.mark.parametrize("name", NAMES)
def test_a_tiny_run_has_the_layout_of_the_committed_file(name, few):
    tiny, kept = RUNS[name](), json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))
    assert kept.keys() == tiny.keys() | {"experiment", "command", "versions"}
    assert kept["experiment"] == name
    assert kept["command"] == f"python3 -m convkit experiments {name}"
    assert len(kept["seeds"]) >= 3
    assert {frozenset(row) for row in kept["rows"]} == {frozenset(row) for row in tiny["rows"]}
    if name in ("sphere-row-norms", "sphere-weight-decay"):
        assert [row["name"] for row in kept["rows"]] == [row["name"] for row in tiny["rows"]]
    for results in (tiny, kept):
        for row in results["rows"]:
            assert len(row["accuracy"]) == len(row["lost"]) == len(results["seeds"])
            for accuracy, lost in zip(row["accuracy"], row["lost"], strict=True):
                assert (accuracy is None) == (lost is not None)
                assert accuracy is None or 0 <= accuracy <= 1
        assert len(EXPERIMENTS[name].show(results).splitlines()) == len(results["rows"])
    assert (RESULTS / f"{name}.json").stat().st_size < 100_000


def test_row_norms_starts_where_its_names_say(few):
    rows = {row["name"]: row for row in RUNS["sphere-row-norms"]()["rows"]}
    for row in rows.values():
        start = [seed[0] for seed in row["row_norm"]]
        assert all(row[key][0][0] > 0 for key in ON_THE_WAY)
        if "norm" in row:
            assert start == pytest.approx([row["norm"]] * 2, rel=0.02)
    assert rows["sphere, c = 2"]["row_norm"][0] == pytest.approx([2**0.5] * 2, rel=1e-4)
    assert rows["sphere, c = 2.934"]["row_norm"][0] == pytest.approx([(2 / (1 - 1 / math.pi)) ** 0.5] * 2, rel=1e-4)
    ratio = rows["from 0.3"]["gradient"][0][0] / rows["from 4"]["gradient"][0][0]
    assert ratio == pytest.approx(4 / 0.3, rel=1e-3)  # the same outputs at the start: the gradient has 1 / norm


def test_a_lost_run_says_so(few):
    run = job("plain", 0, 4, 1, knobs={"lr": 10.0}, norm=100.0)
    assert run["accuracy"] is None
    assert "loss" in run["lost"] or "finite" in run["lost"]
    assert "lost" in sphere.show({"rows": [sphere._row({"x seed 0": run}, "x", [0])]})


@pytest.mark.parametrize("part", PARTS)
def test_parts_constrain_what_they_name(part, few):
    center, scale = PARTS[part]
    data = digits()
    model = network("cnn9", data, method_of(part), seed=0, widths=(4, 4, 4), knobs={"sigma": 0.2})
    scale_rows(model, 2**0.5)
    for _ in sphere.fit(model, data, method_of(part), steps=3, seed=0, knobs={"lr": 0.5, "sigma": 0.2}):
        pass
    rows = [weight.detach().flatten(1) for weight in trained_weights(model)]
    centered = max(float(row.mean(1).abs().max()) for row in rows) < 1e-6
    scaled = max(float((row.norm(dim=1) - 2**0.5).abs().max()) for row in rows) < 1e-5
    assert (centered, scaled) == (center, scale)


def test_scaled_rows_leave_a_standardized_network_as_it_was():
    data = digits()
    x = data.train_batch(torch.arange(4))[0]
    model = network("cnn9", data, "weight_standardization", seed=1, widths=(4, 5, 6))
    before = model(x).detach()
    scale_rows(model, 0.3)
    assert_close(model(x).detach(), before)
    for weight in trained_weights(model):
        assert_close(weight.detach().flatten(1).norm(dim=1), torch.full((len(weight),), 0.3))
        assert_close(weight.detach().flatten(1).mean(1), torch.zeros(len(weight)), atol=1e-7, rtol=0)
        assert weight.requires_grad
    assert [tuple(weight.shape[:2]) for weight in trained_weights(model)][:4] == [(4, 1), (4, 4), (4, 4), (5, 4)]
