"""Objectives of adversarial training against their formulas, and inside the loop."""

import math
import pickle
from dataclasses import fields

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.testing import assert_close

from convkit.attacks import pgd
from convkit.data import digits, subset
from convkit.methods.build import network
from convkit.methods.registry import METHODS
from convkit.training.adversarial import ALP, OBJECTIVES, TRADES, FreeTraining, PGDTraining, get_objective
from convkit.training.loop import cross_entropy, fit
from convkit.training.margin import Margin
from tests.helpers.refusals import refused

DATA = subset(digits(), 120)
SMALL = {"widths": (4, 6, 8)}


@pytest.fixture
def model(device):
    return nn.Sequential(nn.Flatten(), nn.Linear(12, 7), nn.Tanh(), nn.Linear(7, 5)).to(device)


@pytest.fixture
def batch(device):
    return torch.rand(6, 1, 3, 4).to(device), torch.tensor([0, 1, 2, 3, 4, 0], device=device)


@pytest.fixture
def data(device):
    return DATA.to(device)


def train(data, method, objective, steps, **options):
    """A generator of records, of a new small network."""
    model = network("cnn9", data, method, **SMALL)
    return fit(model, data, method, steps=steps, batch_size=30, objective=objective, **options)


def attacked(model, x, y, eps, step, steps):
    torch.manual_seed(1)
    return pgd(model, x, y, eps, step, steps)


def test_pgd_training_is_the_loss_of_the_attacked_images(model, batch):
    x, y = batch
    at = attacked(model, x, y, 0.1, 0.04, 3)
    torch.manual_seed(1)
    loss, logits = PGDTraining(0.1, 0.04, 3)(model, x, y)
    assert_close(logits, model(at))
    assert_close(loss, F.cross_entropy(model(at), y))
    assert loss > F.cross_entropy(model(x), y)
    loss.backward()
    assert all(p.grad is not None for p in model.parameters())


def test_alp_is_half_of_each_loss_and_the_square_between_their_logits(model, batch):
    x, y = batch
    at = attacked(model, x, y, 0.1, 0.04, 3)
    torch.manual_seed(1)
    loss, logits = ALP(0.1, 0.04, 3, weight=2.5)(model, x, y)
    clean, worse = model(x), model(at)
    by_hand = -(clean.log_softmax(1) + worse.log_softmax(1)).gather(1, y[:, None]).mean() / 2
    assert_close(loss, by_hand + 2.5 * ((clean - worse) ** 2).sum() / 30)
    assert_close(logits, worse)


@pytest.mark.parametrize("joint", [False, True])
def test_trades_is_the_clean_loss_and_the_divergence_at_the_images_that_raise_it(model, batch, joint):
    x, y = batch
    seen = []
    handle = model.register_forward_pre_hook(lambda _, args: seen.append(args[0].detach()))
    loss, logits = TRADES(0.1, 0.04, 5, beta=3.0, joint=joint)(model, x, y)
    handle.remove()
    clean, at = seen[-1].chunk(2) if joint else seen[-2:]
    assert len(seen) == 1 + 5 + (1 if joint else 2)
    assert_close(clean, x)
    assert (at - x).abs().max() <= 0.1 + 1e-6
    assert at.min() >= 0
    assert at.max() <= 1
    p, q = model(x).softmax(1), model(at).softmax(1)
    divergence = (p * (p.log() - q.log())).sum(1).mean()
    assert_close(loss, F.cross_entropy(model(x), y) + 3 * divergence)
    assert_close(logits, model(x))
    near = (x + 0.001 * torch.randn_like(x)).clamp(0, 1)
    q = model(near).softmax(1)
    assert divergence > 10 * (p * (p.log() - q.log())).sum(1).mean()


@pytest.mark.parametrize("make", [ALP, TRADES])
def test_batchnorm_sees_clean_and_attacked_images_one_after_the_other_or_as_one_batch(device, make, batch):
    for joint in (False, True):
        torch.manual_seed(0)
        model = with_batchnorm().to(device)
        seen = []
        handle = model[1].register_forward_pre_hook(lambda norm, args, seen=seen: seen.append((norm.training, *args)))
        make(0.1, 0.04, 2, joint=joint)(model, *batch)
        handle.remove()
        batches = [images for training, images in seen if training]
        assert [len(images) for images in batches] == ([12] if joint else [6, 6])
        mean = torch.zeros(3, device=device)
        for images in batches:
            mean = 0.9 * mean + 0.1 * images.mean((0, 2, 3))
        assert_close(model[1].running_mean, mean)
        assert model[1].num_batches_tracked == len(batches)


def test_attacks_see_evaluation_mode_and_the_loss_training_mode(device, batch):
    model = with_batchnorm().to(device)
    modes = []
    model.register_forward_pre_hook(lambda module, _: modes.append(module.training))
    for objective, passes in ((PGDTraining(0.1, 0.05, 2), 1), (ALP(0.1, 0.05, 2), 2), (TRADES(0.1, 0.05, 2), 2)):
        modes.clear()
        objective(model, *batch)
        assert modes == [False] * (len(modes) - passes) + [True] * passes
        assert len(modes) > passes
        assert model.training


def with_batchnorm():
    return nn.Sequential(nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.Flatten(), nn.Linear(6, 5))


# ---- gradients where probabilities are 0 -----------------------------------------------------------------------------
MAKERS = {"pgd": PGDTraining, "alp": ALP, "trades": TRADES, "free": FreeTraining}


@pytest.mark.parametrize("joint", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
def test_trades_has_a_gradient_wherever_it_has_a_value(device, dtype, joint):
    for apart in (3.0, 30.0, 90.0, 104.0, 150.0, 1e3, 1e4, 1e12):
        if apart > torch.finfo(dtype).max:
            continue
        torch.manual_seed(0)
        model = nn.Sequential(nn.Flatten(), nn.Linear(12, 5)).to(device, dtype)
        x, y = torch.rand(6, 1, 3, 4, dtype=dtype).to(device), torch.tensor([0, 1, 2, 3, 4, 0], device=device)
        with torch.no_grad():
            model[1].weight.mul_(apart / (model(x).amax(1) - model(x).amin(1)).amax())
        loss, _ = TRADES(0.1, 0.04, 3, joint=joint)(model, x, y)
        assert loss.isfinite(), apart
        loss.backward()
        assert all(p.grad.isfinite().all() for p in model.parameters()), apart
        assert model[1].weight.grad.abs().max() > 0, apart


def test_the_gradient_of_trades_is_that_of_finite_differences_beside_a_probability_of_0(device, monkeypatch):
    shift = torch.tensor([[0.3, -0.2, 0.1], [-0.1, 0.2, 0.4]], dtype=torch.float64, device=device)
    monkeypatch.setattr("convkit.training.adversarial._far_in_divergence", lambda model, x, *_: x + shift)
    x = torch.tensor([[0.0, -2.0, -2000.0], [1.0, 0.5, -5000.0]], dtype=torch.float64, device=device)
    objective, y = TRADES(0.5, 0.1, 1, beta=2.0), torch.tensor([1, 0], device=device)
    assert F.softmax(x, 1)[0, 2] == 0
    assert torch.autograd.gradcheck(lambda x: objective(nn.Identity(), x, y)[0], (x.requires_grad_(),))


@pytest.mark.parametrize("name", MAKERS)
@pytest.mark.parametrize("weights", [0.0, 1e-30, 300.0, 1e8])
def test_every_objective_has_a_gradient_for_a_network_that_answers_all_alike_or_with_huge_logits(
    device, name, weights, batch
):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(12, 5)).to(device)
    with torch.no_grad():
        model[1].weight.mul_(weights)
        model[1].bias.zero_()
    objective = MAKERS[name](0.1, **({} if name == "free" else {"step": 0.04, "steps": 2}))
    for _ in range(2):  # free training moves its noise by the first gradient
        loss, _ = objective(model, *batch)
        assert loss.isfinite()
        loss.backward()
        assert all(p.grad.isfinite().all() for p in model.parameters())


def test_free_training_moves_the_noise_by_the_gradient_of_the_same_pass_and_keeps_or_resets_it(model, batch):
    x, y = batch
    free = FreeTraining(eps=0.03, replays=2)
    noise = torch.zeros_like(x)
    for replay in range(5):
        at = (x + noise).clamp(0, 1).requires_grad_()
        expected = F.cross_entropy(model(at), y)
        (slope,) = torch.autograd.grad(expected, at)
        loss, _ = free(model, x, y)
        assert_close(loss, expected)
        loss.backward()
        noise = (noise + 0.03 * slope.sign()).clamp(-0.03, 0.03)
        assert free.replay == replay + 1
    assert_close(free.state_dict()["noise"], noise)
    for reset in (False, True):
        free = FreeTraining(eps=0.03, replays=2, reset=reset)
        for _ in range(2):
            free(model, x, y)[0].backward()
        free(model, x.flip(0), y)
        assert (free.noise.abs().max() == 0) == reset


def test_free_training_goes_on_where_the_images_are_not_where_the_checkpoint_lay():
    """The meta device stands for a GPU: it, too, refuses operands of another device."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(12, 5)).to("meta")
    x, y = torch.empty(6, 1, 3, 4, device="meta"), torch.empty(6, dtype=torch.long, device="meta")
    free = FreeTraining(eps=0.03, replays=4)
    free.load_state_dict({"noise": torch.full((6, 1, 3, 4), 0.01), "replay": 2})
    for replay in (3, 4, 5):
        loss, _ = free(model, x, y)
        loss.backward()
        assert free.state_dict()["noise"].device.type == "meta"
        assert free.replay == replay


def test_a_gradient_that_float16_cannot_hold_does_not_move_the_noise(device, batch):
    x, y = batch
    model = nn.Sequential(nn.Flatten(), nn.Linear(12, 5)).to(device)
    free = FreeTraining(eps=0.03)
    free(model, x, y)[0].backward()
    free._state.leaf.grad[0] = float("nan")
    noise = free.state_dict()["noise"]
    assert (noise[0] == 0).all()
    assert (noise[1:] != 0).any()


@pytest.mark.parametrize("objective, precision", [("pgd", "bfloat16"), ("trades", "bfloat16"), ("trades", "float16")])
def test_convnorm_trains_under_attack_in_half_precision(data, objective, precision):
    options = {"steps": 2, "batch_size": 8, "objective": get_objective(objective, 0.05), "precision": precision}
    records = list(fit(network("cnn9", data, "convnorm", **SMALL), data, "convnorm", **options))
    assert [record.diverged for record in records] == [None, None]


def test_each_batch_comes_as_often_as_it_is_replayed(data):
    seen = []

    class Watching(FreeTraining):
        def __call__(self, model, x, y):
            seen.append(y.clone())
            return super().__call__(model, x, y)

    list(train(data, "batchnorm", Watching(replays=3), 7))
    assert [torch.equal(seen[0], seen[i]) for i in (1, 2)] == [True, True]
    assert [torch.equal(seen[3], seen[i]) for i in (2, 5)] == [False, True]


@pytest.mark.parametrize("make", MAKERS.values())
def test_a_checkpoint_of_another_attack_is_refused(data, make, tmp_path):
    def run(eps):
        few = {} if make is FreeTraining else {"step": 0.05, "steps": 1}
        return list(train(data, "batchnorm", make(eps, **few), 2, checkpoint=tmp_path / "run.pt"))

    before = run(0.1)
    refused(f"its objective is '{make.__name__}.*go on with the same", run, 0.07)
    assert run(0.1) == before


@pytest.mark.parametrize("make", MAKERS.values())
def test_every_number_of_an_objective_is_in_the_words_that_checkpoints_compare_whatever_its_library(make):
    usual = make()
    for option in fields(usual)[:-1] if make is FreeTraining else fields(usual):  # its last field is its noise
        value = getattr(usual, option.name)
        other_words = {"uniform": "clean", "worst": "last"}
        value = other_words.get(value) or (not value if isinstance(value, bool) else 2 * value)
        other = repr(make(**{option.name: value}))
        assert other != repr(usual)
        assert f"{option.name}={value!r}" in other
        assert repr(make(**{option.name: np.asarray(value)})) == other


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_every_method_of_the_kit_trains_under_each_objective(data, method):
    for name in OBJECTIVES:
        model = network("cnn9", data, method, seed=1, widths=(16, 16, 16))  # GroupNorm has 16 groups
        before = {key: value.clone() for key, value in model.state_dict().items()}
        records = list(fit(model, data, method, steps=2, batch_size=8, objective=get_objective(name, 0.05)))
        assert [record.step for record in records] == [1, 2]
        assert not records[-1].diverged
        assert any(not torch.equal(value, before[key]) for key, value in model.state_dict().items())


def test_bad_numbers_and_an_objective_that_there_is_not_are_refused():
    refused("at least 1 replay and eps of 0 or more, got 0", FreeTraining, replays=0)
    for make in MAKERS.values():
        refused("eps", make, eps=-1)
        refused("eps must be", make, eps=math.nan)
    for make in (PGDTraining, ALP):
        refused("start must be one of uniform, normal, clean, got 'zero'", make, start="zero")
        refused("result must be one of worst, last, got 'best'", make, result="best")
    refused("OBJECTIVES has no 'fgsm'", get_objective, "fgsm", 0.1)
    for wrong in (1.5, math.nan, True):
        refused("eps must be from 0 to 1", get_objective, "pgd", wrong)


# ---- by name ---------------------------------------------------------------------------------------------------------
def test_an_objective_by_its_name_is_that_of_its_function_and_is_pickled():
    by_name = {name: get_objective(name, np.asarray(0.2)) for name in OBJECTIVES}
    assert pickle.loads(pickle.dumps(by_name)) == by_name
    step = 0.007 * (0.2 / 0.031)
    assert by_name == {
        "clean": cross_entropy,
        "free": FreeTraining(0.2),
        "pgd": PGDTraining(0.2, 0.05, 10),
        "alp": ALP(0.2, 0.05, 10),
        "trades": TRADES(0.2, 0.05, 10),
        "margin": Margin(0.2),
        "c-free": FreeTraining(0.2, 4, reset=True, through_clamp=True),
        "l-pgd-at": PGDTraining(0.2, step, 10, start="normal", result="last"),
        "l-alp": ALP(0.2, step, 10, weight=1.0, joint=False, start="normal", result="last"),
        "l-trades": TRADES(0.2, step, 10, beta=1.0, joint=False, clamp_start=False),
    }
    assert (get_objective("pgd"), get_objective("c-free").eps) == (PGDTraining(8 / 255, 2 / 255, 10), 8 / 255)
    for name in ("l-pgd-at", "l-alp", "l-trades"):
        published = get_objective(name)
        assert (published.eps, published.step) == (0.031, 0.007)


def test_a_checkpoint_of_before_an_option_came_is_known_by_the_same_words():
    assert repr(PGDTraining(0.5, 0.25, 3)) == "PGDTraining(eps=0.5, step=0.25, steps=3)"
    assert repr(ALP(0.5, 0.25, 3)) == "ALP(eps=0.5, step=0.25, steps=3, weight=1.0, joint=False)"
    assert repr(TRADES(0.5, 0.25, 3)) == "TRADES(eps=0.5, step=0.25, steps=3, beta=6.0, joint=False)"
    assert repr(FreeTraining(0.5)) == "FreeTraining(eps=0.5, replays=4, reset=False)"


def test_attacks_take_numbers_of_other_libraries(model, batch):
    def attacked(kind):
        seeded = torch.Generator(batch[0].device).manual_seed(0)
        return pgd(model, *batch, kind(0.125), kind(0.0625), kind(2), restarts=kind(2), generator=seeded)

    for kind in (np.asarray, torch.tensor):
        assert torch.equal(attacked(kind), attacked(lambda number: number))
