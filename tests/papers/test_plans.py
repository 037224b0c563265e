"""What the experiments of notebooks 05 to 08 ask of each run: every row of a file is trained as its name says."""

import math
import re
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import nn

pytest.importorskip("sklearn")
from convkit.data import digits
from convkit.methods.build import network
from convkit.methods.registry import METHODS
from convkit.papers import EXPERIMENTS, clipping, convnorm, decay, sphere
from convkit.spectra import channel_condition_numbers


class Enough(Exception):
    """Raised in place of the first step of training."""


def plans(monkeypatch, module, name: str) -> dict:
    """The jobs of an experiment by name, none of them run."""
    seen = {}

    def sweep(function, jobs, keep=None):
        seen.update(jobs)
        raise Enough

    monkeypatch.setattr(module, "sweep", sweep)
    with pytest.raises(Enough):
        EXPERIMENTS[name].run(None, Path("unused"))
    assert seen
    for run, job in seen.items():
        assert run.endswith(f" seed {job['seed']}")
    return seen


def trained_on(monkeypatch, module, **job):
    """The data that a job trains on."""
    seen = []

    def fit(model, data, *_, **__):
        seen.append(data)
        raise Enough

    monkeypatch.setattr(module, "fit", fit)
    with pytest.raises(Enough):
        module.job(seed=0, steps=2, **job)
    return seen[0]


def wrong_labels(data) -> float:
    return float((data.labels != data.clean_labels).double().mean())


# ---- notebook 06 -----------------------------------------------------------------------------------------------------
def test_convnorm_runs_train_as_they_are_named(monkeypatch):
    for name, job in plans(monkeypatch, convnorm, "convnorm-affine").items():
        knobs = job["knobs"]
        assert job["method"] == ("convnorm" if name.startswith("alone") else "convnorm+batchnorm")
        assert knobs["lr"] == (0.02 if name.startswith("alone") else 0.1)
        assert knobs.get("through", False) == ("full gradient" in name)
        assert knobs.get("affine", True) == ("no affine" not in name)
        assert job.get("start", "") == ("random" if "random" in name else "")
        gain = knobs.get("gain", METHODS[job["method"]].knobs["gain"].default)
        if "identity" in name:
            assert gain == pytest.approx(2**0.5 if "√2" in name else 1)
    for which in ("convnorm-training", "convnorm-race"):
        for name, job in plans(monkeypatch, convnorm, which).items():
            assert f"lr {job['knobs']['lr']:g} " in name
            assert name.startswith(job["method"])
            assert (job.get("start") == "He") == ("He's start" in name)
            assert job["schedule"] == "constant"
            assert job.get("steady", False) == (which == "convnorm-race")
    for name, job in plans(monkeypatch, convnorm, "convnorm-noise").items():
        assert name.startswith(f"{job['method']},")
        found = re.search(r"(uniform|flip) ([\d.]+) seed", name)
        assert job.get("noise") == (None if found is None else [found[1], float(found[2])])
        found = re.search(r"([\d.]+) of the images", name)
        assert job.get("share") == (None if found is None else float(found[1]))
        assert job.get("batch_size", 64) == (64 if found is None else 32)


def test_convnorm_jobs_train_on_the_labels_and_images_they_name(monkeypatch):
    one = {"method": "batchnorm"}
    assert len(trained_on(monkeypatch, convnorm, **one)) == 1437
    assert len(trained_on(monkeypatch, convnorm, share=0.05, **one)) == pytest.approx(0.05 * 1437, rel=0.1)
    flipped, drawn = (trained_on(monkeypatch, convnorm, noise=(kind, 0.8), **one) for kind in ("flip", "uniform"))
    assert wrong_labels(flipped) == pytest.approx(0.8, abs=0.01)
    assert wrong_labels(drawn) == pytest.approx(0.72, abs=0.04)  # a draw in ten gives the label that was there


def test_hes_start_has_hes_variance():
    model = network("cnn9", digits(), "plain", seed=0, widths=(16, 32, 64))
    convnorm.restart(model, "He", 0)
    for layer in model.modules():
        if isinstance(layer, nn.Conv2d) and layer.weight.numel() > 5000:
            rows = layer.weight.detach().flatten(1)
            assert float(rows.var() * rows.shape[1]) == pytest.approx(2, rel=0.05)


def test_random_affine_kernels_have_both_signs():
    model = network("cnn9", digits(), "convnorm", seed=0, widths=(4, 5, 6))
    convnorm.restart(model, "random", 0)
    taps = torch.cat([w.detach().flatten() for name, w in model.named_parameters() if name.endswith("affine_weight")])
    assert float(taps.min()) < -0.25
    assert float(taps.max()) > 0.25


@torch.no_grad()
def test_layers_are_measured_by_the_median_channel_and_with_the_gain_behind_them():
    data = digits()
    model = network("cnn9", data, "batchnorm", seed=0, widths=(4, 5, 6))
    plain = convnorm.layers_of(model, data)
    norms = [layer for layer in model.modules() if isinstance(layer, nn.BatchNorm2d)]
    for layer in norms:
        layer.weight.fill_(3)
    assert convnorm.layers_of(model, data)["norm_folded"] == pytest.approx([3 * n for n in plain["norm"]], rel=1e-4)
    first = next(layer for layer in model.modules() if isinstance(layer, nn.Conv2d))
    A = convnorm.ConvOperator(first.weight, (8, 8), padding=1, padding_mode="zeros").torus()
    channels = channel_condition_numbers(A)
    assert channels.max() > 1.1 * channels.median()
    assert plain["condition"][0] == pytest.approx(float(channels.median()), rel=1e-4)


def test_a_lost_run_has_no_accuracy_in_the_table(monkeypatch):
    def sweep(function, jobs, keep=None):
        runs = ({"lost": None, "accuracy": [0.2, 0.5]}, {"lost": "the loss is nan at step 7", "accuracy": [0.2]})
        return dict(zip(jobs, runs, strict=True))

    monkeypatch.setattr(convnorm, "sweep", sweep)
    cases = {"one": {"method": "plain"}}
    (row,) = convnorm._table(cases, {"steps": 9, "schedule": "constant"}, (0, 1), Path("unused"))["rows"]
    assert row["accuracy"] == [0.5, None]


# ---- notebook 08 -----------------------------------------------------------------------------------------------------
def test_decay_runs_train_as_they_are_named(monkeypatch):
    for name, job in plans(monkeypatch, decay, "decay-norms").items():
        assert job["method"] == {"no": "batchnorm", "we": "weight_decay", "l1": "norm_decay_l1"}.get(
            name[:2], "norm_decay_linf"
        )
        assert job["knobs"].get("mean", False) == ("β/N" in name)
        assert {job["knobs"].get("beta"), job["knobs"].get("weight_decay")} - {None} == (
            set() if name.startswith("none") else {0.01}
        )
    for name, job in plans(monkeypatch, decay, "decay-generalization").items():
        assert (job["images"], job["noise"]) == ((100, 0) if name.startswith("100 images") else (400, 0.4))
        number = name.split(" seed")[0].rpartition(" ")[2]
        given = [value for knob, value in job["knobs"].items() if knob != "every"]
        assert given == ([] if number == "None" else [float(number)])
        if job["method"] == "norm_clip":
            assert job["knobs"]["every"] == 60  # of 150 steps: two clips, the last well before the end


def test_decay_jobs_train_on_the_labels_and_images_they_name(monkeypatch):
    data = trained_on(monkeypatch, decay, method="batchnorm", knobs={}, images=400, noise=0.4)
    assert len(data) == 400
    assert wrong_labels(data) == pytest.approx(0.4, abs=0.01)
    assert len(trained_on(monkeypatch, decay, method="batchnorm", knobs={})) == 1437


def test_the_last_norms_are_told_with_and_without_the_gains(monkeypatch):
    monkeypatch.setitem(decay.TRAINING, "widths", [4, 4, 4])
    layers = decay.job("batchnorm", {}, 0, 3)["layers"]
    assert layers["folded"][-1] == pytest.approx(layers["norm1"][-1], rel=1e-3)  # nothing behind the linear layer
    assert all(abs(a / b - 1) > 1e-3 for a, b in zip(layers["folded"][:-1], layers["norm1"][:-1], strict=True))


def test_norms_of_layers_are_told_by_their_geometric_mean(monkeypatch):
    assert decay._mean([1.0, 4.0]) == pytest.approx(2)
    assert decay._mean([0.0, 4.0]) == 0
    monkeypatch.setitem(decay.TRAINING, "widths", [4, 4, 4])
    run = decay.job("batchnorm", {}, 0, 2, look_every=2)
    for name in ("norm1", "norm_inf"):
        assert math.log(run[name][-1]) == pytest.approx(sum(map(math.log, run["layers"][name])) / 10, abs=2e-3)


# ---- notebook 07 -----------------------------------------------------------------------------------------------------
def test_sphere_runs_train_as_they_are_named(monkeypatch):
    for name, job in plans(monkeypatch, sphere, "sphere-small-batches").items():
        assert name.startswith(f"{job['method']} batch {job['batch_size']} ")
        assert job["steps"] * job["batch_size"] == 12_800
        assert job["reference_batch"] == 64  # at which the rate is the stated one
    for name, job in plans(monkeypatch, sphere, "sphere-weight-decay").items():
        assert job["method"] == ("sphere_without_noise" if name.startswith("sphere") else "weight_standardization")
        assert f"decay {job['knobs']['weight_decay']:g} " in name
        assert job.get("norm", 2**0.5) == 2**0.5
    for name, job in plans(monkeypatch, sphere, "sphere-ablation").items():
        assert name.startswith(f"{job['method']} {job['knobs']['sigma']:g} constant 1437 ")
        assert job["norm"] == 2**0.5
    for name, job in plans(monkeypatch, sphere, "sphere-row-norms").items():
        if name.startswith("sphere"):
            assert f"c = {job['knobs']['radius'] ** 2:.4g} " in name
    assert sphere.RADII[1] * (1 - 1 / math.pi) == pytest.approx(2)


def test_sphere_jobs_keep_the_gradient_of_the_rows(monkeypatch):
    monkeypatch.setitem(sphere.TRAINING, "widths", [4, 4, 4])
    short, long = (sphere.job("weight_standardization", 0, 1, 1, norm=norm, knobs={"lr": 1e-6}) for norm in (0.5, 2.0))
    assert short["gradient"][0] == pytest.approx(4 * long["gradient"][0], rel=1e-3)
    assert (short["row_norm"][0], long["row_norm"][0]) == pytest.approx((0.5, 2.0), rel=1e-3)


# ---- notebook 05 -----------------------------------------------------------------------------------------------------
def test_clipping_runs_train_as_they_are_named(monkeypatch):
    for name, job in plans(monkeypatch, clipping, "clipping-training").items():
        assert name.startswith(f"{job['method']} {job['bound']} ")
        assert (job["images"], job["clip_every"], job["look_every"]) == (200, 45, 15)
    seeds = {True: set(), False: set()}
    for name, job in plans(monkeypatch, clipping, "clipping-rates").items():
        batchnorm = name.startswith("True")
        seeds[batchnorm].add(job["seed"])
        clipped = "norm_clip" if batchnorm else "clip_alone"
        assert job["method"] == (clipped if job["bound"] else ("batchnorm" if batchnorm else "plain"))
        assert name.startswith(f"{batchnorm} {job['bound']} {job['lr']:g} ")
        assert job.get("model", "cnn9") == ("cnn9" if batchnorm else "resnet32")
    assert seeds == {True: {0, 1}, False: {0}}


def test_the_clip_alone_has_no_batchnorm_and_the_same_clip():
    data = digits()
    model = network("resnet32", data, clipping.method_of("clip_alone"), seed=0, width=0.25)
    assert not any(isinstance(layer, nn.BatchNorm2d) for layer in model.modules())
    assert any(isinstance(layer, nn.BatchNorm2d) for layer in network("cnn9", data, "norm_clip", seed=0).modules())


def test_clipping_jobs_clip_when_they_say_and_measure_convolutions(monkeypatch):
    monkeypatch.setitem(clipping.OPTIONS, "cnn9", {"widths": [4, 4, 4]})
    assert len(trained_on(monkeypatch, clipping, method="plain", bound=None, lr=0.1, clip_every=1, images=30)) == 30
    monkeypatch.undo()
    monkeypatch.setitem(clipping.OPTIONS, "cnn9", {"widths": [4, 4, 4]})
    one = {"lr": 0.05, "seed": 0, "steps": 6, "look_every": 1, "images": 30, "batch_size": 10}
    free = clipping.job("batchnorm", None, clip_every=3, **one)
    run = clipping.job("norm_clip", 0.3, clip_every=3, **one)
    assert run["norm"][:2] == free["norm"][:2]
    assert run["norm"][2] < 0.6 * run["norm"][1]
    assert run["clip_seconds"] > 0
    assert len(run["loss"]) == 6
    assert run["loss"][:3] == free["loss"][:3]
    data = digits()
    net = network("cnn9", data, "batchnorm", seed=0, widths=[4, 4, 4])
    x = data.train_batch([0])[0]
    before = clipping.largest_norm(net, x)
    linear = next(layer for layer in net.modules() if isinstance(layer, nn.Linear))
    with torch.no_grad():
        linear.weight *= 100
    assert clipping.largest_norm(net, x) == before


def test_losses_are_means_since_the_last_look_and_a_clip_costs_what_it_takes_longer(monkeypatch):
    monkeypatch.setitem(clipping.OPTIONS, "cnn9", {"widths": [4, 4, 4]})
    one = {"bound": 0.5, "lr": 0.05, "seed": 0, "steps": 6, "clip_every": 3, "images": 30, "batch_size": 10}
    each = clipping.job("norm_clip", look_every=1, **one)["loss"]
    ticks = iter([time for step in range(1, 7) for time in (10 * step, 10 * step + (5 if step % 3 == 0 else 1))])
    monkeypatch.setattr(clipping, "time", SimpleNamespace(process_time=lambda: next(ticks)))
    run = clipping.job("norm_clip", look_every=2, **one)
    assert run["loss"] == pytest.approx([sum(each[place : place + 2]) / 2 for place in (0, 2, 4)], rel=2e-3)
    assert (run["seconds"], run["clip_seconds"]) == (1, 4)
