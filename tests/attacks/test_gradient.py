"""FGSM, PGD and SimBA: within bounds, optimal where that is known, without side effects."""

import copy
import math
from functools import partial

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from convkit.attacks import fgsm, pgd, simba
from convkit.attacks.checks import LOSSES, margin
from tests.helpers.attack_models import Counting, accuracy, linear_model
from tests.helpers.unchanged import unchanged

EPS, LENGTH = 0.1, 0.6  # of a change: its largest pixel, its norm 2
ATTACKS = {
    "fgsm": partial(fgsm, eps=EPS),
    "pgd": partial(pgd, eps=EPS, step=0.03, steps=6, restarts=2),
    "pgd without random start": partial(pgd, eps=EPS, step=0.03, steps=6, start="clean"),
    "pgd 2": partial(pgd, eps=LENGTH, step=0.2, steps=6, norm=2),
    "pgd margin": partial(pgd, eps=EPS, step=0.03, steps=6, loss="margin"),
    "pgd until wrong": partial(pgd, eps=EPS, step=0.03, steps=6, restarts=2, until_wrong=True),
    "simba": lambda model, x, y: simba(model, x, y, EPS, steps=30)[0],
    "simba dct": lambda model, x, y: simba(model, x, y, EPS, "dct", steps=30)[0],
}
attacks = pytest.mark.parametrize("name", ATTACKS)


@torch.no_grad()
def losses(model, x, y, loss="ce"):
    return LOSSES[loss](copy.deepcopy(model).eval()(x), y)


# ---- what every attack keeps -----------------------------------------------------------------------------------------
@attacks
def test_changes_stay_in_the_ball_and_the_box_and_never_help_the_model(name, model, images):
    x, y = images
    found = ATTACKS[name](model, x, y)
    assert found.shape == x.shape
    assert 0 <= float(found.min()) <= float(found.max()) <= 1
    change = (found - x).flatten(1)
    if name == "pgd 2":
        assert float(change.norm(dim=1).max()) <= LENGTH * (1 + 1e-5)
    elif name == "simba dct":
        assert float(change.norm(dim=1).max()) <= EPS * math.sqrt(30) * (1 + 1e-5)
    else:
        assert float(change.abs().max()) <= EPS + 1e-6
    measure = "margin" if "margin" in name else "ce"
    assert (losses(model, found, y, measure) >= losses(model, x, y, measure) - 1e-5).all()
    assert accuracy(model, found, y) < accuracy(model, x, y)  # and they do something


@attacks
def test_nothing_of_the_model_or_the_images_changes(name, model, images):
    x, y = images
    model = copy.deepcopy(model).train()
    model[1].eval()  # a mode of its own
    model[0].bias.requires_grad_(False)
    model[6].weight.grad = torch.ones_like(model[6].weight)
    with unchanged(model, x, y):
        found = ATTACKS[name](model, x, y)
    assert x.grad is None
    assert not found.requires_grad
    assert found.data_ptr() != x.data_ptr()


@attacks
def test_a_network_whose_first_step_is_in_place_and_callers_without_gradients_get_the_same(name, model, images):
    x, y = images

    class InPlace(nn.Module):
        def __init__(self):
            super().__init__()
            self.model = model

        def forward(self, x):
            return self.model(x.sub_(0.1).add_(0.1))

    with torch.inference_mode():
        torch.manual_seed(3)
        inside = ATTACKS[name](InPlace(), x.clone(), y.clone())
    torch.manual_seed(3)
    assert_close(inside.clone(), ATTACKS[name](InPlace(), x, y))
    assert float((inside.clone() - x).abs().max()) > EPS / 10


def test_a_generator_decides_and_may_live_on_the_cpu(model, images):
    x, y = images
    for attack in (partial(pgd, eps=EPS, step=0.05, steps=1), partial(simba, step=EPS, steps=5)):
        first, again, other = (attack(model, x, y, generator=torch.Generator().manual_seed(s)) for s in (1, 1, 2))
        assert_close(first, again)
        assert not torch.equal(first[0], other[0])


def test_larger_epsilon_hurts_more(model, images):
    x, y = images
    for attack in (lambda e: fgsm(model, x, y, e), lambda e: pgd(model, x, y, e, 0.01, 20, start="clean")):
        rising = [float(losses(model, attack(e), y).mean()) for e in (0.0, 0.02, 0.05, 0.1, 0.2)]
        assert rising == sorted(rising)
        assert rising[0] == pytest.approx(float(losses(model, x, y).mean()), abs=1e-5)
        assert rising[-1] > 2 * rising[0] + 1


# ---- a linear model, whose worst change is known ---------------------------------------------------------------------
def linear_case(device):
    model = linear_model().to(device)
    x = 0.4 + 0.2 * torch.rand(7, 20, dtype=torch.float64, device=device)  # no pixel reaches the box
    y = torch.randint(2, (7,), device=device)
    w = model[1].weight[1] - model[1].weight[0]
    towards = torch.where(y == 0, 1.0, -1.0)[:, None] * w.detach()
    return model, x, y, towards


def test_fgsm_finds_the_worst_change_of_a_linear_model_with_one_epsilon_or_one_an_image(device):
    model, x, y, towards = linear_case(device)
    assert_close(fgsm(model, x, y, 0.1), x + 0.1 * towards.sign())
    eps = torch.linspace(0, 0.2, 7, dtype=torch.float64, device=device)
    assert_close(fgsm(model, x, y, eps), x + eps[:, None] * towards.sign())
    assert_close(pgd(model, x, y, eps, eps + 0.01, 9), x + eps[:, None] * towards.sign())


@pytest.mark.parametrize("norm", ["inf", 2])
@pytest.mark.parametrize("loss", ["ce", "margin", lambda logits, y: margin(logits, y).exp()])
def test_pgd_finds_the_worst_change_of_a_linear_model(norm, loss, device):
    model, x, y, towards = linear_case(device)
    direction = towards.sign() if norm == "inf" else towards / towards.norm(dim=1, keepdim=True)
    assert_close(pgd(model, x, y, 0.1, 0.05, 40, norm=norm, loss=loss), x + 0.1 * direction, atol=1e-4, rtol=0)


def test_gradients_too_small_to_square_still_point_somewhere(device):
    model, x, y, towards = linear_case(device)
    tiny = {"norm": 2, "start": "clean", "loss": lambda logits, y: margin(logits, y) * 1e-30}
    found = pgd(model.float(), x.float(), y, 0.1, 0.1, 1, **tiny)
    towards = towards.float()
    assert_close(found, x.float() + 0.1 * towards / towards.norm(dim=1, keepdim=True), atol=1e-5, rtol=0)


# ---- PGD -------------------------------------------------------------------------------------------------------------
def test_restarts_keep_the_worst_and_more_steps_find_more(model, images):
    x, y = images

    def attack(steps, restarts):
        return pgd(model, x, y, EPS, 0.05, steps, restarts=restarts, generator=torch.Generator().manual_seed(0))

    one, five, long = attack(1, 1), attack(1, 5), attack(10, 1)
    wrong = [copy.deepcopy(model).eval()(f).argmax(1) != y for f in (one, five)]
    assert (wrong[1] | ~wrong[0]).all()
    same = wrong[0] == wrong[1]
    assert (losses(model, five, y) >= losses(model, one, y) - 1e-5)[same].all()
    assert losses(model, five, y).mean() > losses(model, one, y).mean()
    assert losses(model, long, y).mean() > losses(model, one, y).mean()


def test_targets_are_reached_where_there_is_room(model, images):
    x, y = images
    targets = (y + 1) % 10
    found = pgd(model, x, y, 0.5, 0.05, 30, targets=targets)
    answers = copy.deepcopy(model).eval()(found).argmax(1)
    assert (answers == targets).float().mean() > 0.9
    stopped = pgd(model, x, y, 0.5, 0.05, 30, targets=targets, until_wrong=True)  # any other class does not stop it
    assert (copy.deepcopy(model).eval()(stopped).argmax(1) == targets).float().mean() > 0.9
    one = fgsm(model, x, y, 0.1, targets=targets)
    assert losses(model, one, targets).mean() < losses(model, x, targets).mean() - 0.1
    assert (losses(model, one, targets) <= losses(model, x, targets) + 1e-5).all()


def test_until_wrong_leaves_the_same_survivors_for_less_work(model, images):
    x, y = images
    counts, survivors = [], []
    for until_wrong in (False, True):
        counting = Counting(model)
        found = pgd(counting, x, y, 0.08, 0.02, 20, start="clean", until_wrong=until_wrong)
        counts.append(counting.asked)
        survivors.append(copy.deepcopy(model).eval()(found).argmax(1) == y)
    assert torch.equal(*survivors)
    assert 0 < int(survivors[0].sum()) < len(x)
    assert counts[0] == 21 * len(x)
    assert len(x) <= counts[1] < counts[0] * 0.8


class Steps(nn.Module):
    """Logits of a table, by how far the first pixel is to the right, and a small slope that leads there."""

    def __init__(self, borders, table):
        super().__init__()
        self.borders, self.table = borders, table

    def forward(self, x):
        place = sum((x[:, 0] > border).long() for border in self.borders)
        return x.new_tensor(self.table)[place] - x[:, :1] * x.new_tensor([1e-3, 0, 0, 0])


def test_a_wrong_image_is_preferred_to_one_of_more_loss_and_not_to_the_clean_one_of_more_loss(device):
    x, y = torch.full((1, 2), 0.5, device=device), torch.zeros(1, dtype=torch.int64, device=device)
    # right with little confidence far out, wrong with more on the way there
    model = Steps((0.55, 0.65), [[3.0, 0, 0, 0], [1.0, 1.1, -9, -9], [0.3, 0.2, 0.2, 0.2]])
    found = pgd(model, x, y, 0.2, 0.1, 2, start="clean")
    assert float(found[0, 0]) == pytest.approx(0.6)
    # right but unsure at the start; wrong, with more probability for the label, to the right of it
    model = Steps((0.55,), [[0.3, 0.2, 0.2, 0.2], [1.0, 1.1, -9, -9]])
    for found in (pgd(model, x, y, 0.2, 0.1, 2, start="clean"), fgsm(model, x, y, 0.1)):
        assert_close(found, x)
