"""The loop: a function of seed and plan; steered, stopped, killed and resumed; and it diverges in words."""

import copy
import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.testing import assert_close

from convkit.audit.measurement import measure
from convkit.data import digits, subset
from convkit.methods.build import network
from convkit.methods.registry import METHODS
from convkit.training.checkpoint import load_checkpoint, save_checkpoint
from convkit.training.evaluation import evaluate
from convkit.training.loop import fit
from convkit.training.run import DIVERGED

DATA = subset(digits(), 200)
SMALL = {"widths": (4, 6, 8)}
STATEFUL = ["batchnorm", "sphere", "convnorm+batchnorm", "norm_clip", "norm_decay_l1", "spectral_norm", "ocnn"]


def made(method, seed=0, knobs=None, data=DATA):
    return network("cnn9", data, method, seed=seed, knobs=knobs, **SMALL)


def history(method, model=None, **options):
    options = {"steps": 6, "batch_size": 16, **options}
    model = made(method) if model is None else model
    return list(fit(model, DATA, method, **options)), model


def weights(model):
    return {name: t.clone() for name, t in model.state_dict().items()}


# ---- the plain loop --------------------------------------------------------------------------------------------------
def test_the_history_is_that_of_a_plain_loop_of_torch():
    records, model = history("weight_decay", schedule="constant", knobs={"lr": 0.05, "weight_decay": 0.01})
    plain = made("weight_decay").train()
    decayed = [p for p in plain.parameters() if p.ndim > 1]
    others = [p for p in plain.parameters() if p.ndim <= 1]
    optimizer = torch.optim.SGD([{"params": decayed, "weight_decay": 0.01}, {"params": others}], lr=0.05, momentum=0.9)
    losses = []
    order = torch.randperm(len(DATA), generator=torch.Generator().manual_seed(2**40 - 7919))
    for step in range(6):
        x, y = DATA.train_batch(order[16 * step : 16 * step + 16])
        loss = F.cross_entropy(plain(x), y)
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert [record.loss for record in records] == losses
    assert_close(weights(model), weights(plain), rtol=0, atol=0)


@pytest.mark.parametrize("batchnorm", [False, True])
def test_weight_decay_leaves_the_gains_of_weight_norm_alone(batchnorm):
    """torch keeps them as (c_out, 1, 1, 1), with as many axes as a weight."""
    ends = {}
    for decay in (0.0, 0.5):
        knobs = {"lr": 0.1, "weight_decay": decay, "batchnorm": batchnorm}
        model = made("weight_norm", knobs=knobs)
        history("weight_norm", model, steps=1, knobs=knobs)
        ends[decay] = weights(model)
    gains = [name for name in ends[0.0] if name.endswith("original0")]
    assert len(gains) == 9
    for name, t in ends[0.5].items():
        decayed = name.endswith(("original1", "head.weight"))
        assert torch.equal(t, ends[0.0][name]) != decayed, name
    name = gains[0].replace("original0", "original1")
    start = made("weight_norm", knobs=knobs).state_dict()[name]
    assert_close(ends[0.5][name] - ends[0.0][name], -0.1 * 0.5 * start)


def test_gains_of_torchs_older_weight_norm_and_kernels_of_one_number_a_row_are_told_apart():
    class Parts(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight_g, self.weight_v = nn.Parameter(torch.ones(4, 1, 1, 1)), nn.Parameter(torch.ones(4, 1, 3, 3))
            self.narrow, self.head = nn.Conv2d(4, 4, 1, groups=4), nn.Linear(4, 10)

        def forward(self, x):
            x = F.conv2d(x, self.weight_g * self.weight_v / self.weight_v.flatten(1).norm(dim=1)[:, None, None, None])
            return self.head(self.narrow(x).mean((2, 3)))

    ends = {}
    for decay in (0.0, 0.5):
        torch.manual_seed(0)
        model = Parts()
        history("plain", model, steps=1, knobs={"weight_decay": decay})
        ends[decay] = weights(model)
    same = {name for name, t in ends[0.5].items() if torch.equal(t, ends[0.0][name])}
    assert same == {"weight_g", "narrow.bias", "head.bias"}


def test_records_number_the_steps_and_hold_what_was_asked_for():
    records, model = history("batchnorm", evaluate_every=2, measure_every=4)
    assert [record.step for record in records] == [1, 2, 3, 4, 5, 6]
    assert [record.test_accuracy is not None for record in records] == [False, True, False, True, False, True]
    assert [record.norms is not None for record in records] == [False, False, False, True, False, True]
    assert records[-1].test_accuracy == evaluate(model, DATA)
    norms, conditions = measure(model, DATA.train_batch([0])[0])
    assert records[-1].norms == norms
    assert records[-1].conditions == conditions
    assert all(value > 0 for value in norms.values())
    assert len(conditions) == len(norms) - 1  # the linear head has no channels on a torus


def test_evaluate_counts_in_evaluation_mode_and_gives_the_mode_back():
    model = made("batchnorm").train()
    model.eval()
    x, y = DATA.test_batch(slice(None))
    with torch.no_grad():
        expected = (model(x).argmax(1) == y).double().mean().item()
    model.train()
    before = weights(model)
    assert evaluate(model, DATA, batch_size=7) == pytest.approx(expected, abs=1e-12)
    assert model.training
    assert_close(weights(model), before, rtol=0, atol=0)


@pytest.mark.parametrize(
    "schedule, expected",
    [
        ("constant", [1, 1, 1, 1]),
        ("cosine", [(1 + math.cos(math.pi * k / 4)) / 2 for k in range(4)]),
        ("steps", [1, 1, 0.1, 0.01]),
    ],
)
def test_the_schedule_multiplies_the_learning_rate(schedule, expected):
    records, _ = history("plain", steps=4, schedule=schedule, knobs={"lr": 0.3})
    assert [record.lr for record in records] == pytest.approx([0.3 * part for part in expected])


def test_the_learning_rate_is_scaled_by_the_batch():
    records, _ = history("plain", steps=1, batch_size=32, reference_batch=128, knobs={"lr": 0.4})
    assert records[0].lr == pytest.approx(0.1)


def test_augmentation_changes_the_batches_and_is_drawn_by_the_seed():
    runs = [history("plain", augmentation=name)[0] for name in ("none", "crop", "crop")]
    assert runs[0] != runs[1] == runs[2]


def test_seeds_draw_weights_and_batches():
    first, _ = history("plain", seed=3)
    again, _ = history("plain", seed=3)
    other, _ = history("plain", seed=4)
    assert first == again != other
    assert not torch.equal(made("plain", 3).head.weight, made("plain", 4).head.weight)


# ---- steering --------------------------------------------------------------------------------------------------------
def test_knobs_are_read_at_each_step():
    knobs = {"sigma": 0.0, "lr": 0.1}
    model = made("sphere")
    run = fit(model, DATA, "sphere", steps=4, batch_size=16, schedule="constant", knobs=knobs)
    assert next(run).lr == 0.1
    knobs |= {"lr": 0.025, "sigma": 0.75, "radius": 2.0}
    assert next(run).lr == 0.025
    kernel = next(m for m in model.modules() if isinstance(m, nn.Conv2d)).weight
    assert_close(kernel.flatten(1).norm(dim=1), torch.full((len(kernel),), 2.0))
    assert {m.sigma for m in model.modules() if hasattr(m, "sigma")} == {0.75}


def test_a_bound_moved_while_training_is_the_bound_of_the_next_clip():
    knobs = {"bound": 1.0, "every": 1}
    model = made("reshaped_clip")
    run = fit(model, DATA, "reshaped_clip", steps=3, batch_size=16, knobs=knobs)
    next(run)
    knobs["bound"] = 0.25
    next(run)
    for layer in model.modules():
        if isinstance(layer, nn.Conv2d):
            assert torch.linalg.matrix_norm(layer.weight.flatten(1), 2) <= 0.25 * (1 + 1e-5)


def test_what_the_network_was_made_with_stays_unless_a_knob_says_otherwise():
    model = made("sphere", knobs={"sigma": 0.5})
    next(fit(model, DATA, "sphere", steps=1, batch_size=16))
    assert {m.sigma for m in model.modules() if hasattr(m, "sigma")} == {0.5}


def test_a_knob_that_cannot_move_says_so_and_changes_nothing():
    knobs = {"every": 2}
    run = fit(made("norm_clip"), DATA, "norm_clip", steps=3, batch_size=16, knobs=knobs)
    next(run)
    knobs["every"] = 3
    with pytest.raises(ValueError, match="every cannot change while norm_clip trains: it is 2, got 3"):
        next(run)


def test_random_numbers_drawn_between_two_steps_make_no_difference():
    alone, _ = history("sphere")
    run = fit(made("sphere"), DATA, "sphere", steps=6, batch_size=16)
    other = fit(made("sphere", seed=1), DATA, "sphere", steps=6, batch_size=16, seed=1)
    mixed = []
    for _ in range(6):
        torch.manual_seed(99)
        mixed.append(next(run))
        torch.rand(5)
        next(other)
    assert mixed == alone


def test_a_step_leaves_the_random_numbers_of_others_alone():
    run = fit(made("sphere"), DATA, "sphere", steps=2, batch_size=16)
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    next(run)
    assert torch.equal(torch.rand(3), expected)


def test_a_clip_at_the_last_step_leaves_batchnorm_with_statistics_that_fit():
    knobs = {"bound": 0.3, "every": 5}
    accuracies = {}
    for measured in (0, 10):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("convkit.training.run.MEASURED", measured)
            model = made("norm_clip")
            records = list(fit(model, DATA, "norm_clip", steps=30, batch_size=50, schedule="constant", knobs=knobs))
        norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
        assert {norm.momentum for norm in norms} == {0.1}
        accuracies[measured] = evaluate(model, DATA)
        losses = [record.loss for record in records]
        assert losses == accuracies.setdefault("losses", losses)  # the training itself is the same
    assert accuracies[10] > accuracies[0] + 0.2


# ---- checkpoints -----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("method", STATEFUL)
def test_a_killed_run_resumes_to_the_same_history_bit_for_bit(method, tmp_path):
    file = tmp_path / "run.pt"
    knobs = {"every": 2} if method == "norm_clip" else {}
    options = {"knobs": knobs, "steps": 9, "evaluate_every": 3}
    whole, model = history(method, **options)
    killed = fit(made(method), DATA, method, batch_size=16, checkpoint=file, checkpoint_every=2, **options)
    for _ in range(5):
        next(killed)
    saved = file.read_bytes()  # of step 4: what a kill leaves behind
    killed.close()
    file.write_bytes(saved)
    resumed, again = history(method, made(method, seed=7), checkpoint=file, **options)
    assert resumed == whole
    assert_close(weights(again), weights(model), rtol=0, atol=0)


def test_closing_the_run_saves_where_it_is_and_a_finished_run_is_told_again(tmp_path):
    file = tmp_path / "run.pt"
    run = fit(made("sphere"), DATA, "sphere", steps=6, batch_size=16, checkpoint=file)
    seen = [next(run) for _ in range(3)]
    run.close()
    model = made("sphere")
    resumed = fit(model, DATA, "sphere", steps=6, batch_size=16, checkpoint=file)
    assert [next(resumed) for _ in range(3)] == seen
    rest = list(resumed)
    before = weights(model)
    told, _ = history("sphere", model, checkpoint=file)
    assert told == seen + rest
    assert_close(weights(model), before, rtol=0, atol=0)


@pytest.mark.parametrize(
    "change, words",
    [
        ({"seed": 1}, "its seed is 0, this one's 1"),
        ({"steps": 5}, "its steps is 6, this one's 5"),
        ({"method": "plain"}, "its method is 'batchnorm', this one's 'plain'"),
        ({"data": subset(digits(), 150)}, "its data is"),
        ({"widths": (4, 6, 10)}, "its weights is"),
    ],
)
def test_a_checkpoint_of_another_run_is_refused_and_nothing_changes(change, words, tmp_path):
    file = tmp_path / "run.pt"
    history("batchnorm", checkpoint=file)
    saved = file.read_bytes()
    method, data = change.pop("method", "batchnorm"), change.pop("data", DATA)
    model = network("cnn9", data, method, widths=change.pop("widths", SMALL["widths"]))
    before = weights(model)
    with pytest.raises(ValueError, match=words):
        fit(model, data, method, **({"steps": 6, "batch_size": 16, "checkpoint": file} | change))
    assert_close(weights(model), before, rtol=0, atol=0)
    assert file.read_bytes() == saved


def test_a_checkpoint_whose_optimizer_has_other_groups_is_refused_and_nothing_changes(tmp_path):
    file = tmp_path / "run.pt"
    history("weight_norm", checkpoint=file)
    state = load_checkpoint(file)
    first, second = state["optimizer"]["param_groups"]
    first["params"], second["params"] = first["params"] + second["params"][:9], second["params"][9:]
    save_checkpoint(file, state)
    model = made("weight_norm", seed=7)
    before = weights(model)
    with pytest.raises(ValueError, match=r"belongs to another run: its optimizer has groups of \[19, 10\] parameters"):
        history("weight_norm", model, checkpoint=file)
    assert_close(weights(model), before, rtol=0, atol=0)


# ---- divergence ------------------------------------------------------------------------------------------------------
def test_a_run_beyond_the_stated_multiple_of_its_start_ends_with_a_sentence():
    records, _ = history("weight_standardization", steps=60, schedule="constant", knobs={"lr": 5.0})
    assert len(records) < 60
    assert records[-1].diverged
    assert str(records[-1].step) in records[-1].diverged
    assert all(record.diverged is None for record in records[:-1])
    assert (
        not math.isfinite(records[-1].loss)
        or records[-1].loss > DIVERGED * records[0].loss
        or "weights" in (records[-1].diverged)
    )


def test_a_loss_that_is_not_a_number_ends_the_run_before_the_weights_change():
    model = made("plain")
    before = weights(model)
    run = fit(model, DATA, "plain", steps=3, batch_size=16, objective=lambda m, x, y: (m(x).sum() * math.nan, m(x)))
    (record,) = list(run)
    assert record.diverged == "the loss is nan at step 1"
    assert_close(weights(model), before, rtol=0, atol=0)


def test_weights_that_a_hook_refuses_end_the_run_with_a_sentence():
    def explosive(model, x, y):
        logits = model(x)
        return F.cross_entropy(logits, y) + (logits.double() * 1e300).sum() * 0 + 1e38 * (
            logits - logits.detach()
        ).sum(), logits

    records = list(fit(made("sphere"), DATA, "sphere", steps=9, batch_size=16, objective=explosive))
    assert records[-1].diverged


def test_a_diverged_run_is_told_again_from_its_checkpoint(tmp_path):
    options = {"steps": 60, "schedule": "constant", "knobs": {"lr": 5.0}, "checkpoint": tmp_path / "run.pt"}
    records, _ = history("weight_standardization", **options)
    assert records[-1].diverged
    assert history("weight_standardization", **options)[0] == records


# ---- bad input -------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "options, words",
    [
        ({"steps": 0}, "steps must be at least 1, got 0"),
        ({"batch_size": 201}, "batch_size must be from 1 to the 200 training images"),
        ({"batch_size": 0}, "batch_size must be from 1"),
        ({"schedule": "linear"}, "schedule must be one of constant, cosine, steps, got 'linear'"),
        ({"precision": "float8"}, "precision must be one of float32, bfloat16, float16"),
        ({"reference_batch": 0}, "reference_batch must be"),
        ({"augmentation": "crup"}, "crup"),
        ({"knobs": {"lr": 0.0}}, "lr must be a number from 1e-06 to 10, got 0"),
        ({"knobs": {"lr": math.nan}}, "lr must be a number"),
        ({"knobs": {"rate": 0.1}}, "batchnorm has no knob 'rate'; it has lr"),
    ],
)
def test_what_cannot_be_trained_is_refused_before_any_step(options, words):
    model = made("batchnorm")
    before = weights(model)
    with pytest.raises(ValueError, match=words):
        fit(model, DATA, "batchnorm", **({"steps": 3, "batch_size": 16} | options))
    assert_close(weights(model), before, rtol=0, atol=0)


def test_a_network_for_another_method_is_refused():
    with pytest.raises(ValueError, match="sphere needs a network with NoisyAffine2d, got one without"):
        fit(made("plain"), DATA, "sphere", steps=1)


def test_labels_out_of_range_are_refused():
    labels = DATA.labels.clone()
    labels[3] = 10
    with pytest.raises(ValueError, match="label"):
        fit(made("plain"), replace(DATA, labels=labels), "plain", steps=1)


def test_a_network_with_too_few_outputs_is_refused():
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.Flatten(), nn.Linear(4 * 36, 7))
    with pytest.raises(ValueError, match=r"10 logits an image, got outputs of shape \(2, 7\)"):
        fit(model, DATA, "plain", steps=1)


def test_an_own_network_trains_by_every_kind_of_method():
    own = nn.Sequential(nn.Conv2d(1, 6, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 10))
    before = copy.deepcopy(own.state_dict())
    for name in ("batchnorm", "sphere", "convnorm", "operator_norm", "norm_decay_linf"):
        model = network(own, DATA, name)
        assert len(list(fit(model, DATA, name, steps=2, batch_size=16))) == 2
    assert_close(own.state_dict(), before, rtol=0, atol=0)


@pytest.mark.parametrize("method", METHODS)
def test_autocast_trains(method):
    model = made(method, knobs={"groups": 2} if "groupnorm" in method else {})
    records, _ = history(method, model, steps=2, precision="bfloat16")
    assert all(math.isfinite(record.loss) for record in records)


def test_it_trains_on_the_device(device):
    data = DATA.to(device)
    model = network("cnn9", data, "sphere", **SMALL)
    records = list(fit(model, data, "sphere", steps=3, batch_size=16, evaluate_every=3, channels_last=True))
    assert records[-1].test_accuracy is not None
    assert next(model.parameters()).device.type == device.type
