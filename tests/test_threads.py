"""What one thread attacks or measures, another trains meanwhile: that training is the one alone, bit for bit."""

import copy
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize

from convkit.adversarial import alp, pgd_training, trades
from convkit.attacks import autoattack, fgsm, pgd, robust_accuracy, simba
from convkit.audit import layer_table
from convkit.data import digits, subset
from convkit.eigenvalues import workers
from convkit.lipschitz import empirical_radius, jacobian_norm, local_lipschitz
from convkit.methods import network
from convkit.operators import conv_operators
from convkit.parametrizations import CenteredWeightNorm, NewtonOrthogonal, OperatorNorm, WeightStandardization
from convkit.penalties import mean_norm
from convkit.product_bound import product_bound
from convkit.randomness import drawing, seeded
from convkit.tracker import NormTracker
from convkit.training import evaluate, fit, measure

LONG = 120  # seconds: no test needs them, and a test that fails does not wait for ever
DATA = subset(digits(), 40)
X, Y = DATA.test_batch(torch.arange(4))


class Meeting:
    """The first time that ``thread`` comes along it waits until others have done what they do meanwhile."""

    def __init__(self) -> None:
        self.thread: int | None = None
        self.arrived, self.go_on = threading.Event(), threading.Event()

    def __deepcopy__(self, memo: object) -> "Meeting":
        return Meeting()

    def pass_by(self) -> None:
        if threading.get_ident() == self.thread and not self.arrived.is_set():
            self.arrived.set()
            assert self.go_on.wait(LONG)

    def during(self, work: Callable[[], object], meanwhile: Callable[[], object]) -> tuple[object, object]:
        """What ``work`` returns in another thread, and what ``meanwhile`` returns in this one in the midst of it."""

        def working() -> object:
            self.thread = threading.get_ident()
            return work()

        with ThreadPoolExecutor(1) as pool:
            future = pool.submit(working)
            try:
                while not self.arrived.wait(0.1):
                    assert not future.done(), future.result()
                done = meanwhile()
            finally:
                self.go_on.set()
            return future.result(LONG), done


class Gate(nn.Module):
    def __init__(self, meeting: Meeting) -> None:
        super().__init__()
        self.meeting = meeting

    def forward(self, x: Tensor) -> Tensor:
        self.meeting.pass_by()
        return x


class OwnMode(nn.Module):
    """Noise in training mode, with a running mean of what it has seen and a count of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(()))
        self.steps = 0

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            self.steps += 1
            self.mean.lerp_(x.detach().mean(), 0.1)
            x = x + 0.1 * self.mean + self.steps * 1e-3
        return x


def operator_norm_layer(conv: nn.Conv2d) -> nn.Conv2d:
    form = OperatorNorm((8, 8), padding=1, padding_mode="zeros", every=3)
    return parametrize.register_parametrization(conv, "weight", form)


def with_form(form: nn.Module) -> Callable[[nn.Conv2d], nn.Conv2d]:
    return lambda conv: parametrize.register_parametrization(conv, "weight", form)


LAYERS: dict[str, Callable[[nn.Conv2d], nn.Module]] = {
    "plain": lambda conv: conv,
    "spectral_norm": parametrizations.spectral_norm,
    "weight_norm": parametrizations.weight_norm,
    "orthogonal": parametrizations.orthogonal,
    "weight_standardization": with_form(WeightStandardization()),
    "centered": with_form(CenteredWeightNorm()),
    "oni": with_form(NewtonOrthogonal()),
    "operator_norm": operator_norm_layer,
    "batchnorm": lambda conv: nn.Sequential(conv, nn.BatchNorm2d(4)),
    "dropout": lambda conv: nn.Sequential(conv, nn.Dropout(0.3)),
    "own mode": lambda conv: nn.Sequential(conv, OwnMode()),
}


def made(kind: str, meeting: Meeting | None = None) -> nn.Sequential:
    """The layers of a kind, a gate between them, and parts that are in evaluation mode while others train."""
    torch.manual_seed(0)
    first, second = LAYERS[kind](nn.Conv2d(1, 4, 3, padding=1)), LAYERS[kind](nn.Conv2d(4, 4, 3, padding=1))
    gate = Gate(meeting or Meeting())
    model = nn.Sequential(first, nn.ReLU(), gate, second, nn.ReLU(), nn.Flatten(), nn.Linear(256, 10))
    model[1].eval()
    return model


class Training:
    """Steps of SGD, noise from the global generator: what came of each and what the network has become."""

    def __init__(self, model: nn.Module, steps: int = 4) -> None:
        self.model, self.steps = model, steps

    def __call__(self) -> list[Tensor]:
        torch.manual_seed(1)
        optimizer = torch.optim.SGD(self.model.parameters(), 0.05, momentum=0.9)
        losses = []
        for step in range(self.steps):
            x, y = DATA.train_batch(torch.arange(8 * step, 8 * step + 8))
            optimizer.zero_grad()
            loss = F.cross_entropy(self.model(x), y)
            loss.backward()
            optimizer.step()
            losses.append(loss.detach())
        state = self.model.state_dict().values()
        modes = [torch.tensor(module.training) for module in self.model.modules()]
        return [*losses, *(t.clone() for t in state), *modes]


def own() -> torch.Generator:
    return torch.Generator().manual_seed(2)


QUESTIONS: dict[str, Callable[[nn.Module], object]] = {
    "fgsm": lambda model: fgsm(model, X, Y, 0.1),
    "pgd": lambda model: pgd(model, X, Y, 0.1, 0.03, 3, generator=own()),
    "simba": lambda model: simba(model, X, Y, 0.1, steps=3, generator=own()),
    "robust_accuracy": lambda model: robust_accuracy(model, [(X, Y)], partial(fgsm, eps=0.1), progress=False),
    "jacobian_norm": lambda model: jacobian_norm(model, X, steps=3, generator=own()),
    "local_lipschitz": lambda model: local_lipschitz(model, X, 0.1, steps=2, generator=own()),
    "empirical_radius": lambda model: empirical_radius(model, X, Y, 0.3, "inf", 2, 2, generator=own()),
    "conv_operators": lambda model: [A.kernel for A in conv_operators(model, X).values()],
    "layer_table": lambda model: layer_table(model, X, torus=True),
    "product_bound": lambda model: product_bound(model, X, torus=True),
    "NormTracker": lambda model: NormTracker(model, X).update(),
    "evaluate": lambda model: evaluate(model, DATA),
    "measure": lambda model: measure(model, X),
}
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


def same(one: list[Tensor], other: list[Tensor]) -> bool:
    return len(one) == len(other) and all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


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


@pytest.mark.parametrize("kind", ["spectral_norm", "batchnorm", "dropout"])
def test_a_network_trains_in_the_midst_of_autoattack(kind):
    pytest.importorskip("pyautoattack")

    def attack(model: nn.Module) -> Tensor:
        return autoattack(model, X[:2], Y[:2], 0.02, attacks=("fab-t",))

    torch.manual_seed(5)
    alone, found = Training(made(kind))(), attack(made(kind))
    meeting = Meeting()
    seen, trained = meeting.during(lambda: attack(made(kind, meeting)), Training(made(kind)))
    assert same(trained, alone)
    model = made(kind, meeting := Meeting())
    _, trained = meeting.during(lambda: attack(model), Training(model))
    assert same(trained, alone)
    assert all(p.requires_grad for p in model.parameters())
    assert seen.shape == found.shape


# ---- an attack or an audit in the midst of a step --------------------------------------------------------------------
def aside(work: Callable[[], object]) -> Future[object]:
    """Another thread has done it when this returns."""
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(work)
    future.result(LONG)
    return future


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


@questions
def test_fit_goes_on_as_alone_while_others_look_without_a_generator_of_their_own(question, monkeypatch):
    monkeypatch.setitem(globals(), "own", lambda: None)
    knobs = {"widths": (4, 4, 4)}

    def run(hook: Callable[[], object]) -> list[float]:
        model = network("cnn9", DATA, "sphere", seed=0, **knobs)  # noise on the scales
        other = network("cnn9", DATA, "spectral_norm", seed=0, **knobs)
        losses = []
        calls = fit(model, DATA, "sphere", steps=3, batch_size=8, augmentation="none")
        model.register_forward_pre_hook(lambda module, _: (hook(other) and None) if module.training else None)
        for record in calls:
            losses.append((record.loss, record.accuracy))
        return losses

    alone = run(lambda other: None)
    torch.manual_seed(3)
    state = torch.get_rng_state()
    assert run(lambda other: aside(lambda: QUESTIONS[question](other))) == alone
    meanwhile = torch.get_rng_state()
    torch.set_rng_state(state)
    for _ in range(3):  # the others have drawn what they would have drawn without the training
        QUESTIONS[question](network("cnn9", DATA, "spectral_norm", seed=0, **knobs))
    assert torch.equal(torch.get_rng_state(), meanwhile)


def test_two_runs_at_once_are_those_one_after_the_other():
    def run(seed: int, meet: Callable[[], object] = lambda: None) -> list[float]:
        model = network("cnn9", DATA, "sphere", seed=seed, widths=(4, 4, 4))
        model.register_forward_pre_hook(lambda module, _: meet() if module.training else None)
        return [record.loss for record in fit(model, DATA, "sphere", steps=3, seed=seed, batch_size=8)]

    alone = run(0), run(1)
    there = [threading.Event(), threading.Event()]

    def meet(me: int) -> None:
        there[me].set()
        there[1 - me].wait(0.3)  # in vain: there is one step at a time

    with ThreadPoolExecutor(2) as pool:
        futures = [pool.submit(run, seed, partial(meet, seed)) for seed in range(2)]
        assert tuple(future.result(LONG) for future in futures) == alone


# ---- the global generator --------------------------------------------------------------------------------------------
def test_a_seeded_block_knows_nothing_of_other_draws_and_they_nothing_of_it():
    def draw(number: int) -> Tensor:
        with drawing(torch.device("cpu")) as generator:
            return torch.rand(number, generator=generator)

    torch.manual_seed(0)
    expected = torch.rand(7)
    with seeded(5):
        inside = torch.rand(4)
    torch.manual_seed(0)
    first = draw(2)
    with seeded(5):
        half = torch.rand(2)
        others = [aside(lambda: draw(3)).result()]
        with seeded(6):  # a block inside a block
            others.append(aside(lambda: draw(1)).result())
            torch.rand(9)
        half = torch.cat([half, draw(1), torch.rand(1)])
    assert torch.equal(half, inside)
    assert torch.equal(torch.cat([first, *others, draw(1)]), expected)

    def failing() -> None:
        with seeded(1):
            torch.rand(3)
            raise KeyError

    with pytest.raises(KeyError):
        failing()
    torch.manual_seed(0)
    assert torch.equal(draw(7), expected)

    def block() -> None:
        with seeded(0):
            pass

    aside(block)  # nobody is left waiting


# ---- the number of threads -------------------------------------------------------------------------------------------
def test_threads_that_begin_beside_a_decomposition_have_as_many_as_they_would_have(monkeypatch):
    threadpoolctl = pytest.importorskip("threadpoolctl")
    monkeypatch.setattr("convkit.eigenvalues.WORK", 1e-3)
    before = torch.get_num_threads()

    def blas() -> list[int]:
        return [pool["num_threads"] for pool in threadpoolctl.threadpool_info() if pool["user_api"] == "blas"]

    try:
        torch.set_num_threads(3)
        own, entered, leave = blas(), threading.Event(), threading.Event()

        def another() -> int:
            with workers(torch.device("cpu")):
                entered.set()
                assert leave.wait(LONG)
                return torch.get_num_threads()

        with ThreadPoolExecutor(1) as pool:
            with workers(torch.device("cpu")) as run:
                assert aside(torch.get_num_threads).result() == 3
                assert torch.get_num_threads() == 1
                assert set(run(lambda some: torch.get_num_threads(), torch.arange(50), 9, 1.0)) == {1}
                assert aside(torch.get_num_threads).result() == 3
                future = pool.submit(another)
                assert entered.wait(LONG)
            assert torch.get_num_threads() == 3
            assert set(blas()) == {1}  # the other one is still at work
            leave.set()
            assert future.result(LONG) == 1
        assert blas() == own
        assert aside(torch.get_num_threads).result() == 3
    finally:
        torch.set_num_threads(before)


# ---- several attacks on one network ----------------------------------------------------------------------------------
@kinds
def test_attacks_in_parallel_find_what_they_find_one_after_the_other(kind):
    model = made(kind)
    one = [pgd(model, X, Y, 0.1, 0.03, 5, generator=torch.Generator().manual_seed(seed)) for seed in range(6)]
    before = [t.clone() for t in model.state_dict().values()]
    modes = [module.training for module in model.modules()]
    start = threading.Barrier(6)

    def attack(seed: int) -> Tensor:
        start.wait(LONG)
        return pgd(model, X, Y, 0.1, 0.03, 5, generator=torch.Generator().manual_seed(seed))

    with ThreadPoolExecutor(6) as pool:
        both = list(pool.map(attack, range(6)))
    assert same(both, one)
    assert [module.training for module in model.modules()] == modes
    assert same(list(model.state_dict().values()), before)


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
    for objective in (pgd_training(0.1, 0.03, 2), alp(0.1, 0.03, 2), trades(0.1, 0.03, 2)):
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
    modes = [module.training for module in model.modules()]
    state = [t.clone() for t in model.state_dict().values()]
    for question, calls in (("pgd", 3), ("simba", 1), ("evaluate", 1), ("jacobian_norm", 2), ("conv_operators", 1)):
        Failing.left = calls
        with pytest.raises(RuntimeError, match="enough"):
            QUESTIONS[question](model)
        assert [module.training for module in model.modules()] == modes
        assert same(list(model.state_dict().values()), state)


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
    with torch.no_grad():
        twin[0].parametrizations.weight.original0.mul_(3)
    assert not torch.equal(fgsm(model, X, Y, 0.1), fgsm(twin, X, Y, 0.1))
    assert_same_answers(twin)


def assert_same_answers(model: nn.Module) -> None:
    expected = copy.deepcopy(model).eval()
    assert torch.equal(fgsm(model, X, Y, 0.1), fgsm(expected, X, Y, 0.1))
