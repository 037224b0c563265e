"""`fit_gan`: loss, steps and knobs, the estimate of the slope, ends that say why, and runs that go on bit for bit."""

import copy
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.testing import assert_close

pytest.importorskip("sklearn")
from convkit.methods import gan_pair
from convkit.methods.registry import METHODS
from convkit.training import GanPlan, fit_gan, gan_run, lipschitz_between, make_images
from convkit.training.gan_run import COLLAPSED, GanRun, hinge
from tests.helpers.refusals import refused
from tests.helpers.resumed_gan import begin, pair, small

DATA = small()


def run_of(method="plain", knobs=None, **plan):
    networks = pair(method)
    return GanRun(*networks, DATA, METHODS[method], knobs or {}, GanPlan(**{"steps": 5, "batch_size": 4, **plan}))


def frozen(model):
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


# ---- steps -----------------------------------------------------------------------------------------------------------
def test_the_hinge_loss_is_that_of_its_formula():
    real, made = torch.tensor([-1.0, 0.5, 2.0]), torch.tensor([-3.0, 0.0, 1.5, 0.0])
    assert_close(hinge(real, made), torch.tensor((2 + 0.5 + 0) / 3 + (0 + 1 + 2.5 + 1) / 4))


def test_a_step_is_adam_on_the_hinge_loss_for_the_discriminator_and_on_its_mean_for_the_generator(device):
    """One step written out, from the same random numbers, for two steps of the discriminator."""
    data = DATA.to(device)
    networks = [network.to(device) for network in pair("plain")]
    generator, discriminator = copy.deepcopy(networks)
    knobs = {"discriminator_steps": 2, "lr": 1e-2, "discriminator_lr": 3e-2}
    record = next(fit_gan(*networks, data, "plain", steps=4, batch_size=6, knobs=knobs))
    judge = torch.optim.Adam(discriminator.parameters(), 3e-2, (0.0, 0.9))
    maker = torch.optim.Adam(generator.parameters(), 1e-2, (0.0, 0.9))
    with gan_run.seeded(gan_run.step_seed(0, 0), data.device):
        for _ in range(2):
            x = data.train_batch(torch.randint(len(data), (6,), device=device))[0]
            made = generator.train()(torch.randn(6, 5, device=device)).detach()
            loss = hinge(discriminator(x), discriminator(made))
            judge.zero_grad()
            loss.backward()
            judge.step()
        made = generator(torch.randn(6, 5, device=device))
        against = -discriminator(made).mean()
        maker.zero_grad()
        against.backward()
        maker.step()
    assert record.discriminator_loss == pytest.approx(loss.item(), rel=1e-4)
    assert record.loss == pytest.approx(against.item(), rel=1e-4)
    assert record.spread == pytest.approx(float((made.std(0).mean() / x.std(0).mean()).detach()), rel=1e-4)
    for ours, theirs in zip(networks, (generator, discriminator), strict=True):
        assert_close(ours.state_dict(), theirs.state_dict(), rtol=1e-4, atol=1e-5)


def test_rates_fall_linearly_and_live_knobs_steer_both():
    knobs = {"lr": 1e-2, "discriminator_lr": 4e-2}
    run = run_of(knobs=knobs, steps=4)
    assert run.advance().lr == pytest.approx(1e-2)
    assert run.advance().lr == pytest.approx(0.75e-2)
    assert run.optimizer.parts[0].param_groups[0]["lr"] == pytest.approx(3e-2)
    knobs["lr"] = 0
    before = frozen(run.generator)
    run.advance()
    assert all(torch.equal(v, before[n]) for n, v in run.generator.named_parameters())
    knobs["discriminator_lr"], knobs["lr"] = 0, 1e-2
    before = frozen(run.discriminator)
    run.advance()
    assert all(torch.equal(v, before[n]) for n, v in run.discriminator.named_parameters())
    assert not all(torch.equal(v, frozen(run.generator)[n]) for n, v in pair("plain")[0].named_parameters())
    assert GanPlan(9, schedule="constant").rate(7) == 1


def test_the_number_of_discriminator_steps_is_live(monkeypatch):
    knobs, calls = {"discriminator_steps": 3}, []
    run = run_of(knobs=knobs)
    judge = run._judge
    monkeypatch.setattr(run, "_judge", lambda settings: calls.append(run.steps) or judge(settings))
    run.advance()
    knobs["discriminator_steps"] = 1
    run.advance()
    assert calls == [0, 0, 0, 1]


@pytest.mark.parametrize("method", ["plain", "spectral_norm", "operator_norm", "convnorm", "ocnn"])
def test_methods_train_and_the_bounded_ones_stay_bounded(method):
    record = [*fit_gan(*pair(method), DATA, method, steps=3, batch_size=8, measure_every=3)][-1]
    assert record.diverged is None
    assert len(record.norms) == 6
    if method == "operator_norm":
        assert max(record.norms.values()) <= 1 + 1e-4


def test_constraints_act_on_the_discriminator_alone_and_penalties_join_its_loss(monkeypatch):
    norms = {}
    for method, knobs in (("plain", {}), ("norm_clip", {"bound": 0.5, "every": 1})):
        networks = pair(method)
        run = fit_gan(*networks, DATA, method, steps=2, batch_size=8, knobs=knobs, measure_every=2)
        norms[method] = {name: value for name, value in [*run][-1].norms.items() if name != "head"}
    assert min(norms["plain"].values()) > 0.9
    assert max(norms["norm_clip"].values()) < 0.7  # one round of clip and crop ends above the bound
    networks = [pair("ocnn") for _ in range(2)]
    for (generator, discriminator), beta in zip(networks, (0.0, 100.0), strict=True):
        next(fit_gan(generator, discriminator, DATA, "ocnn", steps=1, batch_size=8, knobs={"beta": beta}))
    one, other = (d.block1.conv2[0].weight for _, d in networks)
    assert not torch.equal(one, other)


def test_the_mean_generator_follows_from_the_first_step_and_knows_the_latest_counts():
    generator, discriminator = pair("plain")
    averaged = copy.deepcopy(generator)
    start = frozen(generator)
    next(fit_gan(generator, discriminator, DATA, "plain", steps=2, batch_size=8, averaged=averaged))
    for name, now in generator.state_dict().items():
        share = 1 - 2 / 11  # the decay at step 1
        expected = start[name].lerp(now, share) if now.is_floating_point() else now
        assert_close(averaged.state_dict()[name], expected)
    late = run_of()
    late.averaged = copy.deepcopy(late.generator)
    with torch.no_grad():
        late.generator.linear.weight += 1
    late._average(10**6)
    assert_close(late.averaged.linear.weight, late.generator.linear.weight - 0.999, atol=1e-5, rtol=0)


def test_samples_come_on_request_from_the_same_z_and_leave_the_networks_alone():
    runs = [fit_gan(*pair("plain"), DATA, "plain", steps=4, batch_size=8, **plan) for plan in ({}, {"sample_every": 2})]
    plain, asked = (list(run) for run in runs)
    assert plain == asked
    assert [record.samples is not None for record in asked] == [False, True, False, True]
    assert asked[1].samples.shape == (64, 1, 8, 8)
    assert not torch.equal(asked[1].samples, asked[3].samples)
    generator, _ = pair("plain")
    z = torch.randn(7, 5)
    assert_close(make_images(generator, z, batch_size=3), generator.eval()(z).detach())
    assert torch.equal(make_images(generator, 7, seed=1), make_images(generator, 7, seed=1))


# ---- the slope -------------------------------------------------------------------------------------------------------
def test_the_estimate_is_exact_for_a_linear_discriminator():
    torch.manual_seed(1)
    model = nn.Sequential(nn.Conv2d(2, 3, 3, padding=1), nn.Flatten(), nn.Linear(60, 1)).double()
    real, made = torch.rand(2, 3, 2, 4, 5).double()
    dense = torch.autograd.functional.jacobian(model, real[:1]).flatten()
    assert lipschitz_between(model, real, made) == pytest.approx(float(dense.norm()), rel=1e-12)


def test_the_estimate_is_the_largest_dense_gradient_on_the_segments_and_above_all_quotients_on_them():
    torch.manual_seed(2)
    model = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(80, 1)).double()
    real, made = torch.rand(2, 3, 1, 4, 5).double()
    between = [a + t * (b - a) for a, b in zip(real, made, strict=True) for t in (0, 0.25, 0.5, 0.75, 1)]
    dense = [torch.autograd.functional.jacobian(model, x[None]).norm() for x in between]
    assert lipschitz_between(model, real, made) == pytest.approx(float(max(dense)), rel=1e-12)
    assert float(min(dense)) < 0.99 * float(max(dense))
    change = (model(real) - model(made)).abs().flatten() / (real - made).flatten(1).norm(dim=1)
    assert float(change.detach().max()) <= lipschitz_between(model, real, made, points=400) * (1 + 1e-6)


def test_no_slope_exceeds_the_bound_of_a_bounded_discriminator():
    from convkit.audit.product.bound import product_bound

    _, discriminator = pair("operator_norm")
    x = DATA.train_batch(torch.arange(8))[0]
    bound = product_bound(discriminator.eval(), x, torus=True)
    assert 0 < lipschitz_between(discriminator, x, torch.rand(8, 1, 8, 8)) <= bound


# ---- ends ------------------------------------------------------------------------------------------------------------
def test_a_loss_that_leaves_all_bounds_ends_the_run_in_a_record_that_says_so():
    for factor, words in ((1e6, "above 10000 it has diverged"), (torch.nan, "loss is nan")):
        networks = pair("plain")
        run = fit_gan(*networks, DATA, "plain", steps=9, batch_size=8)
        records = [next(run)]
        with torch.no_grad():
            networks[1].head.weight *= factor
        records += run
        assert words in records[-1].diverged
        assert len(records) == 2
        assert records[0].diverged is None


def test_weights_that_are_not_finite_end_the_run(monkeypatch):
    run = run_of()
    with torch.no_grad():
        run.generator.linear.weight.fill_(torch.inf)
    monkeypatch.setattr(run, "_made", lambda count: torch.rand(count, 1, 8, 8, requires_grad=True))
    assert "not finite after step 1" in run.advance().diverged
    assert run.done


def test_a_generator_that_makes_one_image_alone_has_collapsed_after_fifty_such_steps():
    generator, discriminator = pair("plain")
    with torch.no_grad():
        generator.last.weight.zero_()  # every z gives the same image
    knobs = {"lr": 0.0, "discriminator_steps": 1}
    records = list(fit_gan(generator, discriminator, DATA, "plain", steps=80, batch_size=4, knobs=knobs))
    assert len(records) == 50
    assert records[-1].diverged.startswith("the generator has collapsed: since step 1 ")
    assert max(record.spread for record in records) < COLLAPSED
    run = run_of(steps=100)
    run.history = [replace(records[0], step=step, spread=0.01 if step > 7 else 1) for step in range(1, 56)]
    values = {"loss": 1.0, "discriminator_loss": 1.0, "spread": 0.01}
    assert run._why_ended(56, values, 1.0) is None
    assert run._why_ended(57, values, 1.0).startswith("the generator has collapsed: since step 8 ")
    assert run._why_ended(57, {**values, "spread": 0.5}, 1.0) is None


# ---- kill and resume -------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("method", ["spectral_norm", "convnorm", "norm_clip"])
def test_a_run_goes_on_from_its_checkpoint_bit_for_bit(tmp_path, method):
    whole, networks = begin(None, method)
    whole = list(whole)
    file = tmp_path / "run.pt"
    for stop in (3, 5):
        run, _ = begin(file, method)
        assert [next(run) for _ in range(stop)] == whole[:stop]
        run.close()
        torch.rand(3)  # numbers that other code draws
    run, resumed = begin(file, method)
    assert list(run) == whole
    for ours, theirs in zip(resumed, networks, strict=True):
        assert_close(ours.state_dict(), theirs.state_dict(), rtol=0, atol=0)
    assert [path.name for path in tmp_path.iterdir()] == ["run.pt"]


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="needs SIGKILL")
def test_a_run_that_is_killed_ends_as_one_that_is_not(tmp_path):
    file = tmp_path / "run.pt"
    code = f"from pathlib import Path; from tests.helpers.resumed_gan import begin; [*begin(Path({str(file)!r}))[0]]"
    with subprocess.Popen([sys.executable, "-c", code], start_new_session=True) as process:
        while process.poll() is None and not file.exists():
            time.sleep(0.001)
        process.kill()
    assert process.returncode == -signal.SIGKILL
    whole, networks = begin(None)
    resumed, others = begin(file)
    assert list(resumed) == list(whole)
    for ours, theirs in zip(others, networks, strict=True):
        assert_close(ours.state_dict(), theirs.state_dict(), rtol=0, atol=0)


def test_a_checkpoint_of_another_run_is_refused(tmp_path):
    file = tmp_path / "run.pt"
    run, _ = begin(file)
    next(run)
    run.close()
    refused("its seed is 0, this one's 1", lambda: list(begin(file, seed=1)[0]))
    refused("its method is 'spectral_norm'", lambda: list(begin(file, "convnorm")[0]))


# ---- bad input -------------------------------------------------------------------------------------------------------
def test_bad_input_is_refused_in_one_sentence():
    def fit(method="plain", networks=None, **plan):
        return fit_gan(*(networks or pair("plain")), DATA, method, **{"steps": 2, **plan})

    refused("batch_size must be .* at least 2, got 1: BatchNorm", fit, batch_size=1)
    refused("schedule must be 'linear' or 'constant'", fit, schedule="cosine")
    refused("plain has no knob 'beta'; it has lr, discriminator_lr, discriminator_steps", fit, knobs={"beta": 1})
    refused("discriminator_steps", fit, knobs={"discriminator_steps": 0})
    refused("muon has an optimizer of its own", fit, "muon")
    refused("without SpectralNorm|spectral", fit, "spectral_norm")
    wide = gan_pair(
        replace(DATA, **{p: getattr(DATA, p).repeat(1, 2, 1, 1) for p in ("images", "test_images")}), "plain"
    )
    refused("needed a generator of images", fit, networks=(wide[0], pair("plain")[1]))
    refused("must begin with a linear layer", fit, networks=(nn.Conv2d(1, 1, 1), pair("plain")[1]))
    other = nn.Sequential(nn.Flatten(), nn.Linear(64, 2))
    refused("one number for each", fit, networks=(pair("plain")[0], other))
