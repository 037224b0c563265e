"""Networks at whose gate one thread waits while another trains, and all that the kit asks of a network."""

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize

from convkit.attacks import fgsm, pgd, robust_accuracy, simba
from convkit.audit.measurement import measure
from convkit.audit.product.bound import product_bound
from convkit.audit.table import layer_table
from convkit.audit.tracker import NormTracker
from convkit.data import digits, subset
from convkit.normalization.operator_norm import OperatorNorm
from convkit.normalization.weights import NewtonOrthogonal
from convkit.operators.network import conv_operators
from convkit.robustness.lipschitz import empirical_radius, jacobian_norm, local_lipschitz
from convkit.training.evaluation import evaluate

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


def with_form(make: Callable[[], nn.Module]) -> Callable[[nn.Conv2d], nn.Conv2d]:
    return lambda conv: parametrize.register_parametrization(conv, "weight", make())


LAYERS: dict[str, Callable[[nn.Conv2d], nn.Module]] = {
    "plain": lambda conv: conv,
    "spectral_norm": parametrizations.spectral_norm,
    "weight_norm": parametrizations.weight_norm,
    "orthogonal": parametrizations.orthogonal,
    "oni": with_form(NewtonOrthogonal),
    "operator_norm": with_form(lambda: OperatorNorm((8, 8), padding=1, padding_mode="zeros", every=3)),
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


def same(one: list[Tensor], other: list[Tensor]) -> bool:
    return len(one) == len(other) and all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def aside(work: Callable[[], object]) -> Future[object]:
    """Another thread has done it when this returns."""
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(work)
    future.result(LONG)
    return future


def own() -> torch.Generator | None:
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
