"""The experiments of notebooks 05 and 08 in few steps, and the files of results that the notebooks read."""

import json
import math
from pathlib import Path

import pytest
import torch

pytest.importorskip("sklearn")
from convkit.data import digits
from convkit.methods.build import network
from convkit.operators.network import conv_operators
from convkit.papers import EXPERIMENTS, clipping, decay
from tests import RESULTS

SEEDS = {"clipping-training": 3, "clipping-rates": 2, "decay-norms": 3, "decay-generalization": 3}


def serial(function, jobs, keep=None):
    """In place of the sweep's processes: one after the other, through JSON as there."""
    return {name: json.loads(json.dumps(function(**one))) for name, one in jobs.items()}


@pytest.fixture
def few(monkeypatch):
    for module in (clipping, decay):
        monkeypatch.setattr(module, "sweep", serial)
    monkeypatch.setitem(decay.TRAINING, "widths", [4, 4, 4])
    monkeypatch.setitem(clipping.OPTIONS, "cnn9", {"widths": [4, 4, 4]})
    monkeypatch.setitem(clipping.OPTIONS, "resnet32", {"width": 0.25})


NOWHERE = Path("unused")
BRIEF = {True: {"steps": 3, "clip_every": 2}, False: {"steps": 3, "clip_every": 2, "model": "resnet32"}}
RUNS = {
    "clipping-training": lambda: clipping.training(None, NOWHERE, 4, 2, 2, seeds=(0,), images=20, batch_size=10),
    "clipping-rates": lambda: clipping.rates(None, NOWHERE, seeds=(0,), rates=(0.1,), plans=BRIEF),
    "decay-norms": lambda: decay.norms(None, NOWHERE, steps=2, look_every=1, seeds=(0,)),
    "decay-generalization": lambda: decay.generalization(None, NOWHERE, steps=2, seeds=(0,)),
}


@pytest.mark.parametrize("name", RUNS)
def test_a_tiny_run_has_the_layout_of_the_committed_file(name, few):
    tiny, kept = RUNS[name](), json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))
    assert kept.keys() == tiny.keys() | {"experiment", "command", "versions"}
    assert kept["command"] == f"python3 -m convkit experiments {name}"
    assert len(kept["seeds"]) >= SEEDS[name]
    assert {frozenset(row) for row in kept["rows"]} == {frozenset(row) for row in tiny["rows"]}
    if name != "clipping-rates":  # there the tiny run has one rate
        assert len(kept["rows"]) == len(tiny["rows"])
    for results in (tiny, kept):
        for row in results["rows"]:
            one = row.get("batchnorm") is False  # the residual network of the learning rates
            assert len(row["accuracy"]) == len(row["lost"]) == (1 if one else len(results["seeds"]))
            for accuracy, lost in zip(row["accuracy"], row["lost"], strict=True):
                assert (accuracy is None) == (lost is not None)
                assert accuracy is None or 0 <= accuracy <= 1
        lines = EXPERIMENTS[name].show(results).splitlines()
        assert len(lines) == (8 if name == "clipping-rates" else len(results["rows"]))
    assert (RESULTS / f"{name}.json").stat().st_size < 100_000


def test_a_clip_bounds_what_it_names_and_the_seeds_start_alike(few):
    rows = {(row["method"], row["bound"]): row for row in RUNS["clipping-training"]()["rows"]}
    free, clipped, flat = (rows[key] for key in (("batchnorm", None), ("norm_clip", 0.5), ("reshaped_clip", 0.2)))
    assert free["steps"] == clipped["steps"] == [2, 4]
    assert free["loss"] == clipped["loss"][:1] + free["loss"][1:] or free["loss"][0][0] == clipped["loss"][0][0]
    assert clipped["norm"][0][0] < free["norm"][0][0]
    assert clipped["norm"][0][0] < 0.8  # just clipped at 0.5, once
    assert flat["norm"][0][0] <= 3 * 0.2 * (1 + 1e-4)  # all 3 x 3
    assert free["clip_seconds"] == [0.0]
    assert flat["clip_seconds"] != [0.0]


def test_a_lost_run_says_so(few, monkeypatch):
    monkeypatch.setattr("convkit.training.run.DIVERGED", 0.0)  # every loss is above it
    run = clipping.job("plain", None, 0.1, 0, 2, 1)
    assert decay.job("norm_decay_l1", {}, 0, 2)["accuracy"] is None
    assert run["accuracy"] is None
    assert "the loss" in run["lost"]
    assert clipping.method_of("clip_alone").constrain is clipping.method_of("norm_clip").constrain
    row = {"batchnorm": False, "bound": None, "accuracy": [run["accuracy"]]}
    assert "lost" in clipping.show_rates({"rows": [row], "bounds": [None]})


@torch.no_grad()
def test_layer_norms_are_those_of_the_dense_matrices():
    data = digits()
    model = network("cnn9", data, "batchnorm", seed=0, widths=(2, 3, 4))
    x = data.train_batch([0])[0]
    norms = decay.layer_norms(model, x)
    for place, A in enumerate(conv_operators(model, x).values()):
        for name, ord in (("norm1", 1), ("norm_inf", math.inf)):
            assert norms[name][place] == pytest.approx(float(torch.linalg.matrix_norm(A.matrix(), ord)), rel=1e-5)


def test_the_small_tasks_have_the_images_and_wrong_labels_they_name():
    for name, plan in decay.TASKS.items():
        data = decay.task(**plan)
        assert str(len(data)) in name
        wrong = float((data.labels != data.clean_labels).double().mean())
        assert wrong == pytest.approx(plan["noise"], abs=0.01)
        assert len(data.test_labels) == 360


def test_norm_decay_lowers_the_norms_it_names(few):
    rows = {row["name"]: row for row in decay.norms(None, NOWHERE, steps=40, look_every=40, seeds=(0,))["rows"]}
    last = {name: row["norm1"][0][-1] for name, row in rows.items()}
    assert last["l1, β = 0.01"] < last["l1, β/N"] < 1.2 * last["none"]
