"""Every row of a file of results is trained as its name says, on the labels and images that it names."""

import math

import pytest

pytest.importorskip("sklearn")
pytest.importorskip("pyautoattack")
from convkit.methods.registry import METHODS
from convkit.papers import clipping, convnorm, decay, robustness, runs, sphere
from tests.helpers.experiments import planned


class Enough(Exception):
    """Raised in place of the first step of training."""


def trained_on(monkeypatch, module, **job):
    """The data that a job trains on."""
    seen = []

    def fit(model, data, *_, **__):
        seen.append(data)
        raise Enough

    monkeypatch.setattr(runs, "fit", fit)
    with pytest.raises(Enough):
        module.job(seed=0, steps=2, **job)
    return seen[0]


def wrong_labels(data) -> float:
    return float((data.labels != data.clean_labels).double().mean())


def test_convnorm_runs_train_as_they_are_named():
    for name, job in planned("convnorm-affine").items():
        knobs = job["knobs"]
        assert job["method"] == ("convnorm" if name.startswith("alone") else "convnorm+batchnorm")
        assert knobs["lr"] == (0.02 if name.startswith("alone") else 0.1)
        assert knobs.get("through", False) == ("full gradient" in name)
        assert knobs.get("affine", True) == ("no affine" not in name)
        assert job.get("start", "") == ("random" if "random" in name else "")
        gain = knobs.get("gain", METHODS[job["method"]].knobs["gain"].default)
        if "identity" in name:
            assert gain == pytest.approx(2**0.5 if "√2" in name else 1)
    for name, job in planned("convnorm-training").items():
        assert name.startswith(job["method"])
        assert f"lr {job['knobs']['lr']:g} " in name
        assert (job.get("start") == "He") == ("He's start" in name)


def test_decay_runs_train_as_they_are_named():
    for name, job in planned("decay-norms").items():
        named = {"no": "batchnorm", "we": "weight_decay", "l1": "norm_decay_l1"}
        assert job["method"] == named.get(name[:2], "norm_decay_linf")
        assert job["knobs"].get("mean", False) == ("β/N" in name)
        strengths = {job["knobs"].get("beta"), job["knobs"].get("weight_decay")} - {None}
        assert strengths == (set() if name.startswith("none") else {0.01})
    clips = [job["knobs"] for job in planned("decay-generalization").values() if job["method"] == "norm_clip"]
    assert {knobs["every"] for knobs in clips} == {60}  # of 150 steps: two clips, the last well before the end


def test_sphere_runs_train_as_they_are_named():
    for job in planned("sphere-small-batches").values():
        assert job["steps"] * job["batch_size"] == 12_800
        assert job["reference_batch"] == 64  # at which the rate is the stated one
    for name, job in planned("sphere-weight-decay").items():
        assert job["method"] == ("sphere_without_noise" if name.startswith("sphere") else "weight_standardization")
        assert f"decay {job['knobs']['weight_decay']:g} " in name
    assert sphere.RADII[1] * (1 - 1 / math.pi) == pytest.approx(2)


def test_clipping_runs_train_as_they_are_named():
    seeds = {True: set(), False: set()}
    for name, job in planned("clipping-rates").items():
        batchnorm = name.startswith("True")
        seeds[batchnorm].add(job["seed"])
        assert job["method"] == ("norm_clip" if job["bound"] else ("batchnorm" if batchnorm else "plain"))
        assert job["batchnorm"] == batchnorm
        assert job.get("model", "cnn9") == ("cnn9" if batchnorm else "resnet32")
    assert seeds == {True: {0, 1}, False: {0}}


def test_jobs_train_on_the_labels_and_images_they_name(monkeypatch):
    plain = {"method": "batchnorm"}
    assert len(trained_on(monkeypatch, convnorm, **plain)) == 1437
    assert len(trained_on(monkeypatch, convnorm, share=0.05, **plain)) == pytest.approx(0.05 * 1437, rel=0.1)
    flipped, drawn = (trained_on(monkeypatch, convnorm, noise=(kind, 0.8), **plain) for kind in ("flip", "uniform"))
    assert wrong_labels(flipped) == pytest.approx(0.8, abs=0.01)
    assert wrong_labels(drawn) == pytest.approx(0.72, abs=0.04)  # a draw in ten gives the label that was there
    assert len(trained_on(monkeypatch, decay, knobs={}, **plain)) == 1437
    assert len(trained_on(monkeypatch, sphere, every=1, images=100, **plain)) == 100
    clip = {"bound": None, "lr": 0.1, "clip_every": 1, "images": 30}
    assert len(trained_on(monkeypatch, clipping, method="plain", **clip)) == 30
    for name, task in decay.TASKS.items():
        data = trained_on(monkeypatch, decay, knobs={}, **plain, **task)
        assert str(len(data)) in name
        assert wrong_labels(data) == pytest.approx(task["noise"], abs=0.01)
        assert len(data.test_labels) == 360


def test_networks_that_are_attacked_are_trained_at_one_epsilon_whatever_the_method():
    assert {row.name for row in robustness.GROUPS["free"]} >= {"BatchNorm", "ConvNorm + BN", "ONI", "OCNN"}
    for rows in robustness.GROUPS.values():
        assert all("eps" not in row.knobs for row in rows)
    for job in planned("robustness-networks").values():
        assert "eps" not in job


def test_a_network_is_made_and_trained_with_the_same_knobs_and_seed(monkeypatch):
    seen = []
    monkeypatch.setattr(runs, "network", lambda *of, **how: seen.append((of[2], how["seed"], how["knobs"])))
    monkeypatch.setattr(runs, "fit", lambda *of, **how: seen.append((of[2], how["seed"], how["knobs"])) or iter(()))
    for method, chosen in {"oni": METHODS["oni"], "neither": runs.VARIANTS["neither"]}.items():
        runs.train(None, method, seed=3, knobs={"lr": 0.5}, steps=1)
        assert seen[-2:] == [(chosen, 3, {"lr": 0.5})] * 2
