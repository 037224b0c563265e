"""The loop: a function of seed and plan; steered, stopped, killed and resumed; and it diverges in words."""

import copy
import math
from contextlib import nullcontext
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.testing import assert_close

from convkit.audit.measurement import measure
from convkit.data import digits, subset
from convkit.methods.build import network
from convkit.methods.registry import METHODS
from convkit.training.adversarial import get_objective
from convkit.training.checkpoint import load_checkpoint, save_checkpoint
from convkit.training.evaluation import evaluate
from convkit.training.loop import fit
from convkit.training.plan import Plan
from convkit.training.run import DIVERGED
from tests.helpers.histories import assert_same_training
from tests.helpers.refusals import refused
from tests.helpers.unchanged import unchanged

pytestmark = pytest.mark.slow

DATA = subset(digits(), 200)
SMALL = {"widths": (4, 6, 8)}
STATEFUL = [  # methods and objectives with a state of their own, or whose steps draw random numbers
    *((name, "clean") for name in ("batchnorm", "convnorm+batchnorm", "norm_clip", "norm_decay_l1", "spectral_norm")),
    *(("sphere", "free"), ("ocnn", "trades")),
]


@pytest.fixture
def data(device):
    return DATA.to(device)


def made(data, method, seed=0, knobs=None):
    return network("cnn9", data, method, seed=seed, knobs=knobs, **SMALL)


def history(data, method, model=None, **options):
    options = {"steps": 6, "batch_size": 16, **options}
    model = made(data, method) if model is None else model
    return list(fit(model, data, method, **options)), model


# ---- the plain loop --------------------------------------------------------------------------------------------------
def test_the_history_is_that_of_a_plain_loop_of_torch(data):
    records, model = history(data, "weight_decay", schedule="constant", knobs={"lr": 0.05, "weight_decay": 0.01})
    plain = made(data, "weight_decay").train()
    decayed = [p for p in plain.parameters() if p.ndim > 1]
    others = [p for p in plain.parameters() if p.ndim <= 1]
    optimizer = torch.optim.SGD([{"params": decayed, "weight_decay": 0.01}, {"params": others}], lr=0.05, momentum=0.9)
    expected = []
    generator = torch.Generator(data.device).manual_seed(2**40 - 7919)
    order = torch.randperm(len(data), generator=generator, device=data.device)
    for step in range(6):
        x, y = data.train_batch(order[16 * step : 16 * step + 16])
        loss = F.cross_entropy(plain(x), y)
        expected.append(replace(records[step], loss=loss.item()))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert_same_training(records, expected, model, plain)


def moved_by_decay(data, make, method, plan=None, **knobs):
    """What a weight decay of 0.5 changes in one step of size 0.1, by name."""
    ends = []
    for decay in (0.0, 0.5):
        torch.manual_seed(0)
        options = {"steps": 1, "knobs": {"lr": 0.1, "weight_decay": decay, **knobs}, **(plan or {})}
        _, model = history(data, method, make(), **options)
        ends.append(model.state_dict())
    return {name: t - ends[0][name] for name, t in ends[1].items()}


@pytest.mark.parametrize("batchnorm", [False, True])
def test_weight_decay_leaves_the_gains_of_weight_norm_alone(data, batchnorm):
    """torch keeps them as (c_out, 1, 1, 1), with as many axes as a weight."""

    def make():
        return made(data, "weight_norm", knobs={"batchnorm": batchnorm})

    expected = {
        name: -0.1 * 0.5 * t if name.endswith(("original1", "head.weight")) else torch.zeros_like(t)
        for name, t in make().state_dict().items()
    }
    assert sum(name.endswith("original0") for name in expected) == 9
    assert_close(moved_by_decay(data, make, "weight_norm", batchnorm=batchnorm), expected)


def test_weight_decay_acts_on_gains_and_biases_where_the_plan_says_so(data):
    model = made(data, "batchnorm")
    start = {name: -0.1 * 0.5 * p.detach().clone() for name, p in model.named_parameters()}
    moved = moved_by_decay(data, lambda: copy.deepcopy(model), "batchnorm", {"decay_gains": True})
    assert_close({name: moved[name] for name in start}, start, rtol=1e-4, atol=1e-6)
    assert any(p.ndim == 1 and p.any() for p in start.values())


def test_gains_of_torchs_older_weight_norm_and_kernels_of_one_number_a_row_are_told_apart(data):
    def make():
        with pytest.warns(FutureWarning, match="weight_norm"):
            first = nn.utils.weight_norm(nn.Conv2d(1, 4, 3))
        layers = (first, nn.Conv2d(4, 4, 1, groups=4), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 10))
        return nn.Sequential(*layers).to(data.device)

    still = {name for name, change in moved_by_decay(data, make, "plain").items() if not change.any()}
    assert still == {"0.weight_g", "0.bias", "1.bias", "4.bias"}


def test_records_number_the_steps_and_hold_what_was_asked_for(data):
    records, model = history(data, "batchnorm", evaluate_every=2, measure_every=4)
    assert [record.step for record in records] == [1, 2, 3, 4, 5, 6]
    assert [record.test_accuracy is not None for record in records] == [False, True, False, True, False, True]
    assert [record.norms is not None for record in records] == [False, False, False, True, False, True]
    assert records[-1].test_accuracy == evaluate(model, data)
    norms, conditions = measure(model, data.train_batch([0])[0])
    assert records[-1].norms == pytest.approx(norms, rel=1e-6)
    assert records[-1].conditions == pytest.approx(conditions, rel=1e-6)
    assert all(value > 0 for value in norms.values())
    assert len(conditions) == len(norms) - 1  # the linear head has no channels on a torus


def test_evaluate_counts_in_evaluation_mode_and_gives_the_mode_back(data):
    model = made(data, "batchnorm").eval()
    x, y = data.test_batch(slice(None))
    with torch.no_grad():
        expected = (model(x).argmax(1) == y).double().mean().item()
    with unchanged(model.train()):
        assert evaluate(model, data, batch_size=7) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(
    "schedule, expected",
    [
        ("constant", [1, 1, 1, 1]),
        ("cosine", [(1 + math.cos(math.pi * k / 4)) / 2 for k in range(4)]),
        ("steps", [1, 1, 0.1, 0.01]),
    ],
)
def test_the_schedule_multiplies_the_learning_rate_which_is_scaled_by_the_batch(data, schedule, expected):
    for reference, lr in ({}, 0.3), ({"reference_batch": 64}, 0.3 / 4):
        records, _ = history(data, "plain", steps=4, schedule=schedule, knobs={"lr": 0.3}, **reference)
        assert [record.lr for record in records] == pytest.approx([lr * part for part in expected])


def test_a_factor_is_taken_after_so_many_steps_or_epochs_and_a_plan_in_epochs_is_one_in_steps(data):
    options = {"schedule": "exponential", "factor": 0.5, "knobs": {"lr": 0.4}}
    records, _ = history(data, "plain", steps=6, factor_steps=2.5, **options)
    assert [record.lr for record in records] == pytest.approx([0.4, 0.4, 0.4, 0.2, 0.2, 0.1])
    epochs = {"steps": None, "epochs": 1.5, "batch_size": 80}  # 200 images: 2.5 steps an epoch
    records, model = history(data, "plain", factor_epochs=0.4, **options, **epochs)
    assert [record.lr for record in records] == pytest.approx([0.4, 0.2, 0.1, 0.05])
    same, again = history(data, "plain", steps=4, factor_steps=1, batch_size=80, **options)
    assert_same_training(same, records, again, model)
    assert Plan.of(50_000, epochs=15, batch_size=128).steps == 5859


def test_seeds_draw_weights_batches_and_augmentations(data):
    (first, one), (again, two), (other, _) = (history(data, "plain", seed=seed) for seed in (3, 3, 4))
    assert_same_training(first, again, one, two)
    assert first != other
    assert not torch.equal(made(data, "plain", 3).head.weight, made(data, "plain", 4).head.weight)
    none, _ = history(data, "batchnorm")
    (crop, one), (same, two) = (history(data, "batchnorm", augmentation="crop") for _ in range(2))
    assert_same_training(crop, same, one, two)
    assert [record.loss for record in none] != pytest.approx([record.loss for record in crop], rel=1e-3)


def test_records_may_be_some_steps_apart_while_the_training_stays_the_same(data, tmp_path):
    method, file = "norm_decay_l1", tmp_path / "run.pt"  # its hook has a state
    every, one = history(data, method, steps=8)
    for options, steps in (
        ({"record_every": 3}, [3, 6, 8]),
        ({"record_every": np.float64(3), "evaluate_every": 4}, [3, 4, 6, 8]),
        ({"record_every": 9, "measure_every": 5}, [5, 8]),
    ):
        records, model = history(data, method, steps=8, **options)
        assert [record.step for record in records] == steps
        assert [record.test_accuracy is not None for record in records] == [
            "evaluate_every" in options and step in (4, 8) for step in steps
        ]
        assert [record.norms is not None for record in records] == ["measure_every" in options] * len(steps)
        plain = [replace(record, test_accuracy=None, norms=None, conditions=None) for record in records]
        assert_same_training(plain, [every[step - 1] for step in steps], model, one)
    told = []
    for more in (1, 1, 9):  # closed after one record, gone on with from its file
        run = fit(made(data, method), data, method, steps=8, batch_size=16, record_every=3, checkpoint=file)
        told = [record for record, _ in zip(run, range(len(told) + more), strict=False)]
        run.close()
    assert_same_training(told, [every[step - 1] for step in (3, 6, 8)])
    words = "its record_every is 3, this one's 1"
    refused(words, history, data, method, steps=8, checkpoint=file)


# ---- steering --------------------------------------------------------------------------------------------------------
def test_knobs_are_read_at_each_step_and_what_the_network_was_made_with_stays_unless_one_says_otherwise(data):
    model = made(data, "sphere", knobs={"sigma": 0.5})
    next(fit(model, data, "sphere", steps=1, batch_size=16))
    assert {m.sigma for m in model.modules() if hasattr(m, "sigma")} == {0.5}
    knobs = {"sigma": 0.0, "lr": 0.1}
    run = fit(model, data, "sphere", steps=4, batch_size=16, schedule="constant", knobs=knobs)
    assert next(run).lr == 0.1
    knobs |= {"lr": 0.025, "sigma": 0.75, "radius": 2.0}
    assert next(run).lr == 0.025
    kernel = next(m for m in model.modules() if isinstance(m, nn.Conv2d)).weight
    assert_close(kernel.flatten(1).norm(dim=1), torch.full((len(kernel),), 2.0, device=data.device))
    assert {m.sigma for m in model.modules() if hasattr(m, "sigma")} == {0.75}


def test_a_knob_that_is_not_live_stays_while_a_network_trains(data):
    knobs = {"every": 1}
    run = fit(made(data, "reshaped_clip"), data, "reshaped_clip", steps=3, batch_size=16, knobs=knobs)
    next(run)
    knobs["every"] = 2
    refused("every cannot change while reshaped_clip trains: it is 1, got 2", next, run)


def test_a_clip_at_the_last_step_leaves_batchnorm_with_statistics_that_fit(data):
    knobs = {"bound": 0.3, "every": 5}
    accuracies = {}
    for measured in (0, 10):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("convkit.training.run.RECALIBRATION_BATCHES", measured)
            model = made(data, "norm_clip")
            records = list(fit(model, data, "norm_clip", steps=30, batch_size=50, schedule="constant", knobs=knobs))
        norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
        assert {norm.momentum for norm in norms} == {0.1}
        accuracies[measured] = evaluate(model, data)
        losses = [record.loss for record in records]
        assert losses == pytest.approx(accuracies.setdefault("losses", losses), rel=1e-3)  # the training is the same
    assert accuracies[10] > accuracies[0] + 0.2


# ---- checkpoints -----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("method, objective", STATEFUL)
def test_a_killed_run_resumes_to_the_same_history_bit_for_bit(data, method, objective, tmp_path):
    file = tmp_path / "run.pt"
    knobs = {"every": 2} if method == "norm_clip" else {}

    def run(seed=0, **options):
        model, goal = made(data, method, seed=seed), get_objective(objective)
        plan = {"knobs": knobs, "steps": 9, "batch_size": 16, "evaluate_every": 3}
        return fit(model, data, method, objective=goal, **plan, **options), model

    records, model = run()
    whole = list(records)
    killed, _ = run(checkpoint=file, checkpoint_every=2)
    for _ in range(5):
        next(killed)
    saved = file.read_bytes()  # of step 4: what a kill leaves behind
    killed.close()
    file.write_bytes(saved)
    resumed, again = run(seed=7, checkpoint=file)
    assert_same_training(list(resumed), whole, again, model)


def test_closing_the_run_saves_where_it_is_and_a_finished_run_is_told_again(data, tmp_path):
    file = tmp_path / "run.pt"
    run = fit(made(data, "sphere"), data, "sphere", steps=6, batch_size=16, checkpoint=file)
    seen = [next(run) for _ in range(3)]
    run.close()
    model = made(data, "sphere")
    resumed = fit(model, data, "sphere", steps=6, batch_size=16, checkpoint=file)
    assert [next(resumed) for _ in range(3)] == seen
    rest = list(resumed)
    with unchanged(model):
        told, _ = history(data, "sphere", model, checkpoint=file)
    assert told == seen + rest


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
def test_a_checkpoint_of_another_run_is_refused_and_nothing_changes(data, change, words, tmp_path):
    file = tmp_path / "run.pt"
    history(data, "batchnorm", checkpoint=file)
    saved = file.read_bytes()
    method, data = change.pop("method", "batchnorm"), change.pop("data", data).to(data.device)
    model = network("cnn9", data, method, widths=change.pop("widths", SMALL["widths"]))
    with unchanged(model):
        refused(words, fit, model, data, method, **{"steps": 6, "batch_size": 16, "checkpoint": file} | change)
    assert file.read_bytes() == saved


def test_a_checkpoint_whose_optimizer_has_other_groups_is_refused_and_nothing_changes(data, tmp_path):
    file = tmp_path / "run.pt"
    history(data, "weight_norm", checkpoint=file)
    state = load_checkpoint(file)
    first, second = state["optimizer"]["param_groups"]
    first["params"], second["params"] = first["params"] + second["params"][:9], second["params"][9:]
    save_checkpoint(file, state)
    model = made(data, "weight_norm", seed=7)
    with unchanged(model):
        words = r"belongs to another run: its optimizer has groups of \[19, 10\] parameters"
        refused(words, history, data, "weight_norm", model, checkpoint=file)


def test_a_checkpoint_from_before_there_was_a_choice_of_records_is_gone_on_with(data, tmp_path):
    file = tmp_path / "run.pt"
    expected, model = history(data, "batchnorm")
    run = fit(made(data, "batchnorm"), data, "batchnorm", steps=6, batch_size=16, checkpoint=file)
    _ = [next(run) for _ in range(3)]
    run.close()
    state = load_checkpoint(file)
    del state["first_loss"], state["belongs_to"]["record_every"]
    for group in state["optimizer"]["param_groups"]:
        group["fused"] = not group["fused"]  # and from a device that steps in another way
    save_checkpoint(file, state)
    records, again = history(data, "batchnorm", checkpoint=file)
    assert_same_training(records, expected, again, model)


# ---- divergence ------------------------------------------------------------------------------------------------------
def test_a_run_beyond_the_stated_multiple_of_its_start_ends_with_a_sentence_and_is_told_again(data, tmp_path):
    options = {"steps": 400, "schedule": "constant", "knobs": {"lr": 10.0}, "checkpoint": tmp_path / "run.pt"}
    records, _ = history(data, "weight_standardization", **options)
    first, last = records[0], records[-1]
    assert len(records) < 400
    assert str(last.step) in last.diverged
    assert all(record.diverged is None for record in records[:-1])
    assert not math.isfinite(last.loss) or last.loss > DIVERGED * first.loss or "weights" in last.diverged
    assert history(data, "weight_standardization", **options)[0] == records


def test_a_loss_that_is_not_a_number_and_weights_that_a_hook_refuses_end_the_run_with_a_sentence(data):
    def explosive(model, x, y):
        logits = model(x)
        steep = 1e38 * (logits - logits.detach()).sum()
        return F.cross_entropy(logits, y) + (logits.double() * 1e300).sum() * 0 + steep, logits

    records = list(fit(made(data, "sphere"), data, "sphere", steps=9, batch_size=16, objective=explosive))
    assert records[-1].diverged
    model = made(data, "plain")
    with unchanged(model) if data.device.type == "cpu" else nullcontext():  # a GPU reads the loss after the step
        (record,), _ = history(data, "plain", model, objective=lambda m, x, y: (m(x).sum() * math.nan, m(x)))
    assert record.diverged == "the loss is nan at step 1"


@pytest.mark.parametrize(
    "method, words", [("plain", "the loss is"), ("ocnn", "not finite"), ("sphere", "the loss is inf")]
)
def test_a_run_that_diverges_between_two_records_ends_at_once_or_at_the_next_one(data, method, words):
    def breaking(model, x, y):
        nonlocal calls
        calls += 1
        logits = model(x)
        return F.cross_entropy(logits, y) * (math.inf if calls == 2 else 1), logits

    calls = 0
    (record,), _ = history(data, method, objective=breaking, record_every=5)
    assert words in record.diverged
    assert record.step == calls == {"plain": 5, "ocnn": 3, "sphere": 2}[method]


def test_the_start_of_a_run_is_its_first_step_whatever_is_recorded(data):
    def rising(model, x, y):
        nonlocal factor
        factor *= 10
        logits = model(x)
        return factor * F.cross_entropy(logits, y), logits

    said = []
    for record_every in (1, 2, 4):
        factor = 1
        knobs = {"lr": 1e-6}
        records, _ = history(data, "plain", objective=rising, record_every=record_every, knobs=knobs)
        said.append(records[-1].diverged)
    assert said[0] == said[2] == said[1]
    assert "at step 4 is above 100 times its start, 23" in said[0]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_largest_weights_of_a_dtype_are_finite_and_one_that_is_not_ends_the_run(data, dtype):
    model = network("cnn9", data, "plain", dtype=dtype, **SMALL)
    model.idle = nn.Parameter(torch.full((3, 41), torch.finfo(dtype).max, dtype=dtype, device=data.device))
    model.frozen = nn.Parameter(torch.ones(7, dtype=torch.float16, device=data.device) * 65504, requires_grad=False)
    model.empty = nn.Parameter(torch.ones(0, 3, dtype=dtype, device=data.device))
    assert [record.diverged for record in history(data, "plain", model, steps=2)[0]] == [None, None]
    for value in (math.nan, -math.inf):
        with torch.no_grad():
            model.idle[2, 40] = value
        (record,), _ = history(data, "plain", model, steps=2)
        assert record.diverged == "the weights are not finite after step 1"


# ---- bad input -------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "options, words",
    [
        ({"steps": 0}, "steps must be at least 1, got 0"),
        ({"steps": 2.5}, r"steps must be a whole number, got 2\.5"),
        ({"batch_size": 201}, "batch_size must be from 1 to the 200 training images"),
        ({"batch_size": 0}, "batch_size must be from 1"),
        ({"batch_size": 16.0}, r"batch_size must be a whole number, got 16\.0"),
        ({"seed": 2**64}, "seed must be from"),
        ({"evaluate_every": -1}, "evaluate_every must be a whole number of at least 0, got -1"),
        ({"measure_every": True}, "measure_every must be a whole number of at least 0, got True"),
        ({"record_every": 0}, "record_every must be a whole number of at least 1, got 0"),
        ({"record_every": 1.5}, r"record_every must be a whole number of at least 1, got 1\.5"),
        ({"checkpoint_every": 0}, "checkpoint_every must be a whole number of at least 1, got 0"),
        ({"milestones": 0.5}, "milestones must be numbers in a list or a tuple, got 0.5"),
        ({"milestones": [0.5, 60]}, "each of milestones must be a number from 0 to 1, got 60: a part of the run"),
        ({"reference_batch": 0}, "reference_batch must be a batch size, at least 1"),
        ({"reference_batch": math.inf}, "reference_batch must be a finite number, got inf"),
        ({"schedule": "linear"}, "schedule must be one of constant, cosine, steps, exponential, got 'linear'"),
        ({"schedule": "exponential"}, r"needs factor_steps or factor_epochs, .* changes by the factor 0\.95"),
        ({"factor_steps": 0}, "factor_steps must be a positive number, got 0"),
        ({"factor_epochs": -1}, "factor_epochs must be a positive number, got -1"),
        ({"factor": math.nan}, "factor must be a positive number, got nan"),
        ({"steps": None}, "either steps or epochs, got steps=None and epochs=None"),
        ({"epochs": 2}, "either steps or epochs, got steps=3 and epochs=2"),
        ({"steps": None, "epochs": 0}, "epochs must be a positive number, got 0"),
        ({"precision": "float8"}, "precision must be one of float32, bfloat16, float16"),
        ({"augmentation": "crup"}, "crup"),
        ({"knobs": {"lr": 0.0}}, "lr must be a number from 1e-06 to 10, got 0"),
    ],
)
def test_what_cannot_be_trained_is_refused_before_any_step(data, options, words):
    model = made(data, "batchnorm")
    with unchanged(model):
        refused(words, fit, model, data, "batchnorm", **{"steps": 3, "batch_size": 16} | options)


def test_labels_out_of_range_and_networks_for_another_method_or_with_too_few_outputs_are_refused(data):
    words = "sphere needs a network with NoisyAffine, got one without"
    refused(words, fit, made(data, "plain"), data, "sphere", steps=1)
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.Flatten(), nn.Linear(4 * 36, 7)).to(data.device)
    refused(r"10 logits per image, got outputs of shape \(2, 7\)", fit, model, data, "plain", steps=1)
    data = replace(data, labels=data.labels.clone())
    data.labels[3] = 10  # past the checks of a data set
    refused("labels must be from 0 to 9, got 0 to 10", fit, made(data, "plain"), data, "plain", steps=1)


def test_an_own_network_trains_by_every_kind_of_method(data):
    own = nn.Sequential(nn.Conv2d(1, 6, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 10))
    before = copy.deepcopy(own.state_dict())
    for name in ("batchnorm", "sphere", "convnorm", "operator_norm", "norm_decay_linf"):
        model = network(own, data, name)
        assert len(list(fit(model, data, name, steps=2, batch_size=16))) == 2
    assert_close(own.state_dict(), before, rtol=0, atol=0)


@pytest.mark.parametrize("method", METHODS)
def test_autocast_trains(data, method):
    model = made(data, method, knobs={"groups": 2} if "groupnorm" in method else {})
    records, _ = history(data, method, model, steps=2, precision="bfloat16")
    assert all(math.isfinite(record.loss) for record in records)


@pytest.mark.parametrize("method", ["batchnorm", "sphere", "norm_decay_linf", "norm_clip"])
def test_scaled_gradients_train_and_a_step_that_float16_cannot_hold_is_skipped(data, method, tmp_path):
    def steep(model, x, y):  # the first scale is 65,536
        logits = model(x)
        return F.cross_entropy(logits, y) + 1e-6 * logits.float().exp().sum(), logits

    options = {"precision": "float16", "channels_last": True, "checkpoint": tmp_path / "run.pt", "steps": 4}
    options |= {"augmentation": "crop+flip", "knobs": {"every": 2} if method == "norm_clip" else {}}
    model = made(data, method)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}

    def huge(model, x, y):
        return 1e5 * model(x).float().sum(), model(x)

    records, _ = history(
        data, method, model, objective=huge, **options | {"steps": 1, "checkpoint": tmp_path / "skipped"}
    )
    assert records[0].diverged is None
    states = load_checkpoint(tmp_path / "skipped")["optimizer"]["state"].values()
    assert not any(state["momentum_buffer"].any() for state in states)
    if method == "batchnorm":
        assert_close(dict(model.named_parameters()), before, rtol=0, atol=0)
    records, model = history(data, method, objective=steep, **options)
    assert all(math.isfinite(record.loss) for record in records)
    assert not torch.equal(model.head.weight, before["head.weight"])
    assert history(data, method, objective=steep, **options)[0] == records
