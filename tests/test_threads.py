"""What one thread attacks or measures, another trains meanwhile: that training is the one alone, bit for bit."""

import copy
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from convkit.attacks import autoattack, fgsm, pgd
from convkit.audit.product.bound import product_bound
from convkit.audit.tracker import NormTracker
from convkit.penalties import mean_norm
from convkit.training.adversarial import ALP, TRADES, PGDTraining
from tests.helpers.meetings import LAYERS, LONG, QUESTIONS, Meeting, Training, X, Y, aside, made, own, same
from tests.helpers.refusals import refused
from tests.helpers.unchanged import unchanged

pytestmark = pytest.mark.slow

questions = pytest.mark.parametrize("question", QUESTIONS)
kinds = pytest.mark.parametrize("kind", LAYERS)
pairs = pytest.mark.parametrize(
    "kind, question",
    [
        (kind, question)
        for kind in LAYERS
        for question in QUESTIONS
        if kind in ("spectral_norm", "oni", "batchnorm") or question in ("pgd", "simba", "conv_operators")
    ],
)


# ---- all steps of a training in the midst of an attack or an audit ---------------------------------------------------
@pairs
def test_a_network_trains_while_it_is_looked_at_as_if_nobody_looked(kind, question):
    alone = Training(made(kind))()
    meeting = Meeting()
    model = made(kind, meeting)
    _, trained = meeting.during(lambda: QUESTIONS[question](model), Training(model))
    assert same(trained, alone)
    QUESTIONS[question](model)  # and once more, with nobody else
    assert same(trained, alone)


@pairs
def test_a_network_trains_while_another_is_looked_at(kind, question):
    alone, other = Training(made(kind))(), QUESTIONS[question](made(kind))
    meeting = Meeting()
    seen, trained = meeting.during(lambda: QUESTIONS[question](made(kind, meeting)), Training(made(kind)))
    assert same(trained, alone)
    assert str(seen) == str(other)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["spectral_norm", "batchnorm", "dropout"])
def test_a_network_trains_in_the_midst_of_autoattack(kind):
    pytest.importorskip("pyautoattack")

    def attack(model: nn.Module) -> Tensor:
        return autoattack(model, X[:2], Y[:2], 0.02, attacks=("apgd-ce", "fab-t"), generator=own())

    alone, found = Training(made(kind))(), attack(made(kind))
    meeting = Meeting()
    seen, trained = meeting.during(lambda: attack(made(kind, meeting)), Training(made(kind)))
    assert same(trained, alone)
    model = made(kind, meeting := Meeting())
    _, trained = meeting.during(lambda: attack(model), Training(model))
    assert same(trained, alone)
    assert all(p.requires_grad for p in model.parameters())
    assert torch.equal(seen, found)


# ---- an attack or an audit in the midst of a step --------------------------------------------------------------------
@pairs
def test_a_step_goes_on_after_another_thread_has_looked_at_the_network(kind, question):
    alone = Training(made(kind), 2)()
    model = made(kind)
    inside: list[int] = []

    def look(module: nn.Module, arguments: object) -> None:
        if not inside:  # the other thread calls this, too
            inside.append(1)
            aside(lambda: QUESTIONS[question](model))
            inside.clear()

    for place in (2, 4):
        model[place].register_forward_pre_hook(look)
    assert same(Training(model, 2)(), alone)


# ---- several attacks on one network ----------------------------------------------------------------------------------
@kinds
def test_attacks_in_parallel_find_what_they_find_one_after_the_other(kind):
    model = made(kind)
    one = [pgd(model, X, Y, 0.1, 0.03, 5, generator=torch.Generator().manual_seed(seed)) for seed in range(6)]
    start = threading.Barrier(6)

    def attack(seed: int) -> Tensor:
        start.wait(LONG)
        return pgd(model, X, Y, 0.1, 0.03, 5, generator=torch.Generator().manual_seed(seed))

    with unchanged(model), ThreadPoolExecutor(6) as pool:
        assert same(list(pool.map(attack, range(6))), one)


def test_an_attack_inside_an_attack_and_inside_a_step_of_its_own_training():
    class Guarded(nn.Module):
        """Looks for the worst image near what it is asked about, and answers for that."""

        def __init__(self, model: nn.Module) -> None:
            super().__init__()
            self.model = model

        def forward(self, x: Tensor) -> Tensor:
            if not self.training:
                x = x + (fgsm(self.model, x.detach(), Y[: len(x)], 0.01) - x).detach()
            return self.model(x)

    model = Guarded(made("batchnorm"))
    assert pgd(model, X, Y, 0.1, 0.03, 2).shape == X.shape
    modes = [module.training for module in model.modules()]
    for objective in (PGDTraining(0.1, 0.03, 2), ALP(0.1, 0.03, 2), TRADES(0.1, 0.03, 2)):
        loss, _ = objective(model, X, Y)
        loss.backward()
        assert [module.training for module in model.modules()] == modes


def test_a_network_is_left_as_it_was_by_an_attack_that_fails():
    class Failing(nn.Module):
        left = 0

        def forward(self, x: Tensor) -> Tensor:
            Failing.left -= 1
            if Failing.left == 0:
                raise RuntimeError("enough")
            return x

    model = made("batchnorm")
    model.append(Failing())
    for question, calls in (("pgd", 3), ("simba", 1), ("evaluate", 1), ("jacobian_norm", 2), ("conv_operators", 1)):
        Failing.left = calls
        with unchanged(model):
            refused("enough", QUESTIONS[question], model, error=RuntimeError)


# ---- what else the kit reads while others train ----------------------------------------------------------------------
class Held(nn.Module):
    """A parametrization at which another thread waits."""

    def __init__(self, meeting: Meeting) -> None:
        super().__init__()
        self.meeting = meeting

    def forward(self, weight: Tensor) -> Tensor:
        self.meeting.pass_by()
        return weight * 2


@pytest.mark.parametrize("read", ["update", "mean_norm", "pgd", "product_bound"])
def test_a_weight_that_is_being_computed_for_an_audit_is_not_that_of_the_training(read):
    def build(meeting: Meeting) -> nn.Sequential:
        model = made("spectral_norm")
        parametrize.register_parametrization(model[6], "weight", Held(meeting))
        return model

    alone = Training(build(Meeting()))()
    meeting = Meeting()
    model = build(meeting)
    tracker = NormTracker(model, X)
    reads = {
        "update": tracker.update,
        "mean_norm": lambda: mean_norm(model, tracker.shapes, 1),
        "pgd": lambda: pgd(model, X, Y, 0.1, 0.03, 2, generator=own()),
        "product_bound": lambda: product_bound(model, X, torus=True),
    }
    _, trained = meeting.during(reads[read], Training(model))
    assert same(trained, alone)


def test_two_traces_at_once_leave_modules_as_they_were():
    before = nn.Module.__call__, nn.Module.__getattr__
    models = [made("batchnorm") for _ in range(4)]
    start = threading.Barrier(4)

    def bound(model: nn.Module) -> float:
        start.wait(LONG)
        return product_bound(model, X, torus=True)

    with ThreadPoolExecutor(4) as pool:
        bounds = list(pool.map(bound, models))
    assert bounds == [product_bound(models[0], X, torus=True)] * 4
    assert (nn.Module.__call__, nn.Module.__getattr__) == before


def test_a_deep_copy_of_a_network_may_be_attacked_beside_it():
    model = made("weight_norm")
    twin = copy.deepcopy(model)
    twin[0].parametrizations.weight.original0.data.mul_(3)
    assert not torch.equal(fgsm(model, X, Y, 0.1), fgsm(twin, X, Y, 0.1))
    assert torch.equal(fgsm(copy.deepcopy(twin).eval(), X, Y, 0.1), fgsm(twin, X, Y, 0.1))
