"""Networks whose modules refer to one another in all the ways that people write."""

import functools
import weakref
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations, prune

X, Y = torch.rand(3, 1, 6, 6, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 1, 2])


def block(*more: nn.Module) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.Dropout(0.5), *more)


def head() -> nn.Sequential:
    return nn.Sequential(nn.Flatten(), nn.Linear(48, 4))


class Listed(nn.Module):
    """Calls its parts by a plain list, a dictionary in a tuple, and a set."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = block(), head()
        self.parts = [self.first]
        self.nested = ({"last": [self.last]},)
        self.norms = {self.first[1]}

    def forward(self, x: Tensor) -> Tensor:
        assert all(norm.training == self.training for norm in self.norms)
        return self.nested[0]["last"][0](self.parts[0](x))


class Hooked(nn.Module):
    """Takes its features from a hook that was defined around it, as code that reads features does."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.last, self.features = block(), head(), torch.zeros(())

        def keep(module: nn.Module, arguments: object, result: Tensor) -> None:
            self.features = result

        self.body.register_forward_hook(keep)

    def forward(self, x: Tensor) -> Tensor:
        self.body(x)
        return self.last(self.features)


class Methods(nn.Module):
    """Bound methods, a lambda, a partial, a default argument, a weak reference, a module beside the submodules."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last, self.drop, self.norm = block(), head(), nn.Dropout(0.5), nn.BatchNorm2d(3)
        self.begin = self.first.forward
        self.then = functools.partial(torch.mul, 2.0)
        self.loosely = lambda x: self.drop(x)
        self.by_default = functools.partial(lambda x, norm=self.norm: norm(x))
        self.weakly = weakref.ref(self.last)
        object.__setattr__(self, "beside", self.norm)
        self.drop.register_forward_pre_hook(self.watch)

    def watch(self, module: nn.Module, arguments: object) -> None:
        assert module is self.drop
        assert self.beside is self.norm

    def forward(self, x: Tensor) -> Tensor:
        return self.weakly()(self.by_default(self.loosely(self.then(self.begin(x)))))


class Patched(nn.Module):
    """A forward that was put in the place of that of its class, around the old one."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = block(), head()
        old = self.first.forward
        self.first.forward = lambda x: old(x) + 1

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.first(x))


class Iterating(nn.Module):
    """A norm by a power iteration that takes a step at every call, as many write it; and a count in a buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(4, 36))
        self.u = nn.Parameter(torch.ones(4), requires_grad=False)
        self.register_buffer("v", torch.ones(36))
        self.register_buffer("calls", torch.zeros((), dtype=torch.long))

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        with torch.no_grad():
            self.v.copy_(self.weight.mT @ self.u).div_(self.v.norm())
            self.u.data = self.weight @ self.v
        return nn.functional.linear(x.flatten(1), self.weight / (self.u @ self.weight @ self.v))


def parametrized() -> nn.Module:
    model = nn.Sequential(block(), head())
    parametrizations.spectral_norm(model[0][0])
    parametrizations.weight_norm(model[1][1])
    return model


def tied() -> nn.Module:
    norm = nn.BatchNorm2d(3)
    first, second = nn.Conv2d(3, 3, 3, padding=1), nn.Conv2d(3, 3, 3, padding=1)
    second.weight = first.weight
    return nn.Sequential(block(), norm, first, nn.Sequential(norm), second, nn.Dropout(0.2), head())


def old_hooks() -> nn.Module:
    model = nn.Sequential(block(), head())
    nn.utils.weight_norm(model[1][1])
    nn.utils.spectral_norm(model[0][0])
    prune.l1_unstructured(model[1][1], "bias", 0.5)
    model.train()(X)
    return model


class Recurrent(nn.Module):
    """torch's LSTM keeps its weights in a list, too."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm, self.last = nn.LSTM(6, 4, num_layers=2, dropout=0.5, batch_first=True), nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.lstm(x[:, 0])[0][:, -1])


class Wrapped(nn.Module):
    """Answers for whatever is asked of the network inside, as a compiled one does."""

    def __init__(self, inside: nn.Module) -> None:
        super().__init__()
        self.inside = inside

    def __getattr__(self, name: str) -> object:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("inside"), name)

    def forward(self, x: Tensor) -> Tensor:
        return self.inside(x)


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "plain": lambda: nn.Sequential(block(), head()),
    "listed": Listed,
    "hooked": Hooked,
    "methods": Methods,
    "patched": Patched,
    "parametrized": parametrized,
    "tied": tied,
    "old hooks": old_hooks,
    "lstm": Recurrent,
    "wrapped": lambda: Wrapped(nn.Sequential(block(), head())),
    "iterating": lambda: nn.Sequential(nn.Dropout(0.5), Iterating()),
    "traced by fx": lambda: torch.fx.symbolic_trace(nn.Sequential(block(), head())),
    "data parallel": lambda: nn.DataParallel(nn.Sequential(block(), head())),
    "scripted": lambda: torch.jit.script(nn.Sequential(block(), head())),
    "scripted inside": lambda: nn.Sequential(torch.jit.script(block()), head()),
}
