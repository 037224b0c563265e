"""What the jobs of the experiments do to a network, and what they measure of it."""

import json
import math
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.testing import assert_close

pytest.importorskip("sklearn")
pytest.importorskip("pyautoattack")
from convkit.data import digits
from convkit.methods.build import network
from convkit.normalization.convnorm import ConvNorm2d
from convkit.operators.operator import ConvOperator
from convkit.papers import clipping, convnorm, decay, methods, runs
from convkit.papers.convnorm import HE, layers_of, restart, with_steady_statistics
from convkit.papers.sphere import PARTS, scale_rows, trained_weights
from convkit.spectra import channel_condition_numbers
from tests.helpers.experiments import planned

pytestmark = pytest.mark.slow

DATA = digits()
ON_THE_WAY = ("steps", "loss", "row_norm", "gradient")


def narrow(method, widths=(4, 5, 6)):
    return network("cnn9", DATA, method, seed=1, widths=widths)


# ---- ConvNorm --------------------------------------------------------------------------------------------------------
def test_starts_change_what_they_name():
    plain, scaled = (narrow("plain", (16, 32, 64)) for _ in range(2))
    restart(scaled, "He", 1)
    for a, b in zip(plain.modules(), scaled.modules(), strict=True):
        if isinstance(a, nn.Conv2d):
            assert_close(b.weight, HE * a.weight)
            rows = b.weight.detach().flatten(1)
            if rows.numel() > 5000:
                assert float(rows.var() * rows.shape[1]) == pytest.approx(2, rel=0.05)  # He's variance
    drawn, other = (narrow("convnorm") for _ in range(2))
    restart(drawn, "random", 1)
    taps = []
    for a, b in zip(drawn.modules(), other.modules(), strict=True):
        if isinstance(a, ConvNorm2d):
            assert torch.equal(a.weight, b.weight)
            assert 0.1 < float(a.affine_weight.detach().abs().max()) <= 1 / 3
            assert_close(b.affine_weight.detach().abs().amax((1, 2, 3)), torch.full((len(b.weight),), 2**0.5))
            taps.append(a.affine_weight.detach().flatten())
    assert float(torch.cat(taps).min()) < -0.25
    assert float(torch.cat(taps).max()) > 0.25


def test_layers_are_measured_on_their_torus_with_and_without_the_affine_kernel():
    model = narrow("convnorm+batchnorm")
    restart(model, "random", 1)
    found = layers_of(model, DATA)
    assert_close(torch.tensor(found["condition_bare"]), torch.ones(9), atol=1e-4, rtol=0)
    assert min(found["condition"]) > 1.5
    assert found["norm_bare"][0] == pytest.approx(2, abs=1e-4)  # one channel in, four out
    assert found["norm_folded"] == pytest.approx(found["norm"], rel=1e-4)  # BatchNorm has seen nothing yet
    layer = next(m for m in model.modules() if isinstance(m, ConvNorm2d))
    dense = layer.operator((8, 8)).matrix().detach()
    assert found["norm"][0] == pytest.approx(float(torch.linalg.matrix_norm(dense, 2)), rel=1e-3)
    assert found["row"][0] == pytest.approx(float(dense.norm(dim=1).square().mean().sqrt()), rel=1e-3)


@torch.no_grad()
def test_layers_are_measured_by_the_median_channel_and_with_the_gain_behind_them():
    model = narrow("batchnorm")
    plain = layers_of(model, DATA)
    norms = [layer for layer in model.modules() if isinstance(layer, nn.BatchNorm2d)]
    for layer in norms:
        layer.weight.fill_(3)
    assert layers_of(model, DATA)["norm_folded"] == pytest.approx([3 * n for n in plain["norm"]], rel=1e-4)
    first = next(layer for layer in model.modules() if isinstance(layer, nn.Conv2d))
    A = ConvOperator(first.weight, (8, 8), padding=1, padding_mode="zeros").torus()
    channels = channel_condition_numbers(A)
    assert channels.max() > 1.1 * channels.median()
    assert plain["condition"][0] == pytest.approx(float(channels.median()), rel=1e-4)


def test_a_lost_run_has_no_accuracy_in_the_table():
    class Two(runs.Runs):
        def sweep(self, job, jobs):
            results = ({"lost": None, "accuracy": [0.2, 0.5]}, {"lost": "the loss is nan at step 7", "accuracy": [0.2]})
            return dict(zip(jobs, results, strict=True))

    plan = {"steps": 9, "schedule": "constant"}
    (row,) = convnorm._table({"one": {"method": "plain"}}, plan, (0, 1), Two(None))["rows"]
    assert row["accuracy"] == [0.5, None]
    assert convnorm.show({"rows": [row]}).split() == ["one", "50.0", "lost"]


def test_steady_statistics_are_those_of_the_training_images_and_the_model_stays():
    model = narrow("batchnorm")
    before = {name: value.clone() for name, value in model.state_dict().items()}
    steady = with_steady_statistics(model, DATA)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    seen = []
    first = next(m for m in steady.modules() if isinstance(m, nn.BatchNorm2d))
    first.register_forward_hook(lambda _, args, __: seen.append(args[0]))
    with torch.no_grad():
        steady.eval()(DATA.train_batch(torch.arange(len(DATA)))[0])
    assert_close(first.running_mean, seen[0].mean((0, 2, 3)), atol=1e-3, rtol=1e-2)
    assert_close(first.running_var, seen[0].var((0, 2, 3)), atol=1e-3, rtol=2e-2)


# ---- norm decay ------------------------------------------------------------------------------------------------------
def test_norms_are_means_on_the_way_and_those_of_all_layers_at_the_end(few):
    run = decay.job("batchnorm", {}, 0, 3, look_every=3)
    for name in ("norm1", "norm_inf"):
        assert math.log(run[name][-1]) == pytest.approx(sum(map(math.log, run["layers"][name])) / 10, abs=2e-3)
    layers = run["layers"]
    assert layers["folded"][-1] == pytest.approx(layers["norm1"][-1], rel=1e-3)  # nothing behind the linear layer
    assert all(abs(a / b - 1) > 1e-3 for a, b in zip(layers["folded"][:-1], layers["norm1"][:-1], strict=True))
    assert decay._mean([1.0, 4.0]) == pytest.approx(2)
    assert decay._mean([0.0, 4.0]) == 0


# ---- the sphere ------------------------------------------------------------------------------------------------------
def test_row_norms_starts_where_its_names_say(tiny):
    rows = {row["name"]: row for row in tiny("sphere-row-norms")["rows"]}
    for row in rows.values():
        start = [seed[0] for seed in row["row_norm"]]
        assert all(row[key][0][0] > 0 for key in ON_THE_WAY)
        if "norm" in row:
            assert start == pytest.approx([row["norm"]] * 2, rel=0.02)
    assert rows["sphere, c = 2"]["row_norm"][0] == pytest.approx([2**0.5] * 2, rel=1e-4)
    assert rows["sphere, c = 2.934"]["row_norm"][0] == pytest.approx([(2 / (1 - 1 / math.pi)) ** 0.5] * 2, rel=1e-4)
    ratio = rows["from 0.3"]["gradient"][0][0] / rows["from 4"]["gradient"][0][0]
    assert ratio == pytest.approx(4 / 0.3, rel=1e-3)  # the same outputs at the start: the gradient has 1 / norm


@pytest.mark.parametrize("part", PARTS)
def test_parts_constrain_what_they_name(part, few):
    center, scale = PARTS[part]
    knobs = {"lr": 0.5, "sigma": 0.2}
    model, *_ = runs.train(DATA, part, seed=0, knobs=knobs, start=lambda model: scale_rows(model, 2**0.5), steps=3)
    rows = [weight.detach().flatten(1) for weight in trained_weights(model)]
    centered = max(float(row.mean(1).abs().max()) for row in rows) < 1e-6
    scaled = max(float((row.norm(dim=1) - 2**0.5).abs().max()) for row in rows) < 1e-5
    assert (centered, scaled) == (center, scale)


def test_scaled_rows_leave_a_standardized_network_as_it_was():
    x = DATA.train_batch(torch.arange(4))[0]
    model = narrow("weight_standardization")
    before = model(x).detach()
    scale_rows(model, 0.3)
    assert_close(model(x).detach(), before)
    for weight in trained_weights(model):
        assert_close(weight.detach().flatten(1).norm(dim=1), torch.full((len(weight),), 0.3))
        assert_close(weight.detach().flatten(1).mean(1), torch.zeros(len(weight)), atol=1e-7, rtol=0)
        assert weight.requires_grad
    assert [tuple(weight.shape[:2]) for weight in trained_weights(model)][:4] == [(4, 1), (4, 4), (4, 4), (5, 4)]


# ---- clips -----------------------------------------------------------------------------------------------------------
def test_a_clip_bounds_what_it_names_and_the_seeds_start_alike(tiny):
    rows = {(row["method"], row["bound"]): row for row in tiny("clipping-training")["rows"]}
    free, clipped, flat = (rows[key] for key in (("batchnorm", None), ("norm_clip", 0.5), ("reshaped_clip", 0.2)))
    assert free["steps"] == clipped["steps"] == [2, 4]
    assert free["loss"][0][0] == clipped["loss"][0][0]
    assert clipped["norm"][0][0] < free["norm"][0][0]
    assert clipped["norm"][0][0] < 0.8  # just clipped at 0.5, once
    assert flat["norm"][0][0] <= 3 * 0.2 * (1 + 1e-4)  # all 3 x 3
    assert free["clip_seconds"] == [0.0]
    assert flat["clip_seconds"] != [0.0]


def test_the_clip_without_batchnorm_has_none():
    model = network("resnet32", DATA, "norm_clip", seed=0, knobs={"batchnorm": False}, width=0.25)
    assert not any(isinstance(layer, nn.BatchNorm2d) for layer in model.modules())
    assert any(isinstance(layer, nn.BatchNorm2d) for layer in network("cnn9", DATA, "norm_clip", seed=0).modules())


def test_clipping_jobs_clip_when_they_say_and_measure_convolutions(few):
    one = {"lr": 0.05, "seed": 0, "steps": 6, "look_every": 1, "images": 30, "batch_size": 10}
    free = clipping.job("batchnorm", None, clip_every=3, **one)
    run = clipping.job("norm_clip", 0.3, clip_every=3, **one)
    assert run["norm"][:2] == free["norm"][:2]
    assert run["norm"][2] < 0.6 * run["norm"][1]
    assert run["clip_seconds"] > 0
    assert len(run["loss"]) == 6
    assert run["loss"][:3] == free["loss"][:3]
    net = narrow("batchnorm")
    x = DATA.train_batch([0])[0]
    before = clipping.largest_norm(net, x)
    linear = next(layer for layer in net.modules() if isinstance(layer, nn.Linear))
    with torch.no_grad():
        linear.weight *= 100
    assert clipping.largest_norm(net, x) == before


def test_losses_are_means_since_the_last_look_and_a_clip_costs_what_it_takes_longer(few, monkeypatch):
    one = {"bound": 0.5, "lr": 0.05, "seed": 0, "steps": 6, "clip_every": 3, "images": 30, "batch_size": 10}
    each = clipping.job("norm_clip", look_every=1, **one)["loss"]
    ticks = iter([time for step in range(1, 8) for time in (10 * step, 10 * step + (5 if step % 3 == 0 else 1))])
    monkeypatch.setattr(runs, "time", SimpleNamespace(process_time=lambda: next(ticks)))
    run = clipping.job("norm_clip", look_every=2, **one)
    assert run["loss"] == pytest.approx([sum(each[place : place + 2]) / 2 for place in (0, 2, 4)], rel=2e-3)
    assert (run["seconds"], run["clip_seconds"]) == (1, 4)


# ---- the table of all methods ----------------------------------------------------------------------------------------
def test_the_table_has_a_row_per_method_with_all_seeds_at_its_better_learning_rate(tiny):
    results = json.loads(json.dumps(tiny("methods-digits")))
    assert [row["method"] for row in results["rows"]] == ["batchnorm", "sphere"]
    for row in results["rows"]:
        assert row["lr"] == max(methods.RATES, key=lambda lr, row=row: row["held_out_accuracy"][str(lr)])
        assert len(row["accuracy"]) == len(row["layers"]) == len(row["steps_to_goal"]) == 3
        assert all(0 <= accuracy <= 1 for accuracy in row["accuracy"])
        assert [[step for step, _ in curve] for curve in row["curves"]] == [[2, 4]] * 3
        for layers in row["layers"]:
            assert layers["largest_norm"] > 0
            assert layers["median_channel_condition"] >= 1
            assert layers["largest_norm_folded"] != layers["largest_norm"]
    assert results["rows"][0]["time_over_batchnorm"] == 1
    assert "±" in methods.show(results)


def test_learning_rates_are_chosen_on_images_held_out_of_training(monkeypatch):
    jobs = planned("methods-digits")
    assert len(jobs) == len(methods.COMPARED) * len(methods.RATES) * 3
    assert all(job["choosing"] and job["seed"] >= 100 for job in jobs.values())
    seen = []
    monkeypatch.setattr(methods, "train", lambda data, *_, **__: seen.append(data) or (None, "lost", [0.0]))
    for choosing in (True, False):
        methods.job("digits", None, 128, 50, choosing, "batchnorm", 0.1, 7, 2, 2)
    held, whole = seen
    assert (len(held), len(held.test_labels)) == (115, 13)
    assert (len(whole), len(whole.test_labels)) == (128, 50)
