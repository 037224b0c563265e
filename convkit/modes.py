"""A network as it answers in evaluation mode, while the network itself stays as it is."""

import functools
import types
import weakref
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar, cast

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.nn.utils import parametrize

MANY = 1000  # a longer list, tuple, set or dictionary is not searched for modules
Network = TypeVar("Network", bound=nn.Module)


@contextmanager
def evaluation_copy(
    model: Network, tensor: Callable[[Tensor], Tensor] | None = None, compiled: bool = False
) -> Iterator[Network]:
    """A copy of the network in evaluation mode with the same weights; the network itself may be trained meanwhile.

    All modules are new objects. Parameters and buffers are those of ``model``, or what ``tensor`` makes of them: so
    nothing large is copied, and gradients reach the weights. A parametrized weight is computed when it is first read,
    and once. Whole and other plain numbers that the network counts up itself, such as its calls, are added to its own.

    In the copy, whatever refers to a module of the network refers to the copy of that module: attributes, hooks, lists
    and dictionaries, bound methods, functions defined around it. Modules that are no submodules, global names, and
    objects of other classes that hold a module cannot be followed: they stay what they are, in the mode that they are
    in. A compiled network runs as it is written, or compiled with ``compiled=True``; what ``module.compile()`` compiled
    in place always runs as written. Raises ``ValueError`` for lazy parameters that have no numbers yet.
    """
    if _lazy(model):
        raise ValueError(
            f"needed a network whose weights have their numbers, got a {type(model).__name__} with lazy parameters; "
            "run the network once first"
        )
    copies = _Copies(tensor, compiled)
    copy = cast(Network, copies.of(model))
    copies.refer()
    copy.eval()
    try:
        yield copy
    finally:
        copies.count()


def awake(model: nn.Module, x: Tensor) -> None:
    """Give lazy parameters, if there are any, their numbers: the network itself runs once, in evaluation mode."""
    if _lazy(model):
        modes = {module: module.training for module in model.modules()}
        try:
            with torch.no_grad():
                model.eval()(x.clone())
        finally:
            for module, training in modes.items():
                module.training = training


# ---- private -------------------------------------------------------------------------------------------------------
_PLAIN = {bool, int, float, complex, str, bytes, type(None), torch.Size, torch.dtype, torch.device}
_CONTAINERS = {list, tuple, set, dict, OrderedDict}
_OWN = {"_parameters", "_buffers", "_modules"}
_REMEMBERED = {"_kept"}  # what ConvNorm2d keeps between evaluations: it is right for any layer of the same weight


class _Copies:
    """The copies of a network's modules, and what in them refers to others."""

    def __init__(self, tensor: Callable[[Tensor], Tensor] | None, compiled: bool) -> None:
        self.tensor, self.compiled = tensor, compiled
        self.known: dict[int, tuple[Any, Any]] = {}  # by id: a module, tensor or container, and what stands for it
        self.made: list[tuple[nn.Module, nn.Module, dict[str, Any]]] = []  # module, copy, attributes at the start

    def of(self, module: nn.Module) -> nn.Module:
        """The copy of a module and of all below it, whose other attributes are still the module's."""
        if id(module) in self.known:
            return self.known[id(module)][1]
        if isinstance(module, torch.jit.ScriptModule):
            copy = torch.jit._recursive.wrap_cpp_module(_script(module._c))  # pyright: ignore
            self.known[id(module)] = module, copy
            return copy
        before, kind = module.__dict__.copy(), type(module)
        if _is_compiled(module) and self.compiled:
            copy = kind(self.of(module._orig_mod), before["dynamo_ctx"])  # pyright: ignore
            self.known[id(module)] = module, copy
            return copy
        if "parametrizations" in before["_modules"] and parametrize.is_parametrized(module):
            kind = _computing(parametrize.type_before_parametrizations(module))
        copy = object.__new__(kind)
        self.known[id(module)] = module, copy
        own = copy.__dict__
        own.update(before)
        own.pop("_compiled_call_impl", None)
        own["_parameters"] = {name: self._tensor(t) for name, t in before["_parameters"].copy().items()}
        own["_buffers"] = {name: self._tensor(t) for name, t in before["_buffers"].copy().items()}
        children = before["_modules"].copy().items()
        own["_modules"] = {name: None if child is None else self.of(child) for name, child in children}
        self.made.append((module, copy, before))
        return copy

    def refer(self) -> None:
        """Attributes that refer to modules refer to the copies from now on."""
        for _, copy, before in self.made:
            own = copy.__dict__
            for name, value in before.items():
                if type(value) not in _PLAIN and name not in _OWN and name in own:
                    own[name] = self._standing_for(value)
            if _is_compiled(copy):
                own["forward"] = own["_modules"]["_orig_mod"].__call__

    def count(self) -> None:
        """The modules' numbers go on by what their copies counted, beside what others counted meanwhile."""
        for module, copy, before in self.made:
            for name, value in copy.__dict__.items():
                old = before.get(name)
                if value is old:
                    continue
                if type(value) in (int, float) and type(old) in (int, float):
                    now = module.__dict__.get(name, old)
                    module.__dict__[name] = value if now is old else now + (value - old)
                elif name in _REMEMBERED:
                    module.__dict__[name] = value

    def _tensor(self, t: Tensor | None) -> Tensor | None:
        if t is None or self.tensor is None:
            return t
        if id(t) not in self.known:
            self.known[id(t)] = t, self.tensor(t)
        return self.known[id(t)][1]

    def _standing_for(self, value: Any) -> Any:
        """The value with copies in the place of modules; the value itself where it refers to none."""
        kind = type(value)
        if kind in _PLAIN or (kind in _CONTAINERS and not value):
            return value
        if id(value) in self.known:
            return self.known[id(value)][1]
        if kind not in _PARTS:
            return value
        self.known[id(value)] = value, value  # until its parts are known: it may be met again inside itself
        apart, together = _PARTS[kind]
        parts = apart(value)
        if len(parts) <= MANY:
            standing = [self._standing_for(part) for part in parts]
            if any(new is not old for new, old in zip(standing, parts, strict=True)):
                self.known[id(value)] = value, together(value, standing)
        return self.known[id(value)][1]


def _lazy(model: nn.Module) -> bool:
    return any(is_lazy(t) for t in (*model.parameters(), *model.buffers()))


def _is_compiled(module: nn.Module) -> bool:
    """Whether ``torch.compile(module)`` made it; torch's compiler itself takes seconds to import."""
    return "dynamo_ctx" in module.__dict__ and "_orig_mod" in module._modules


def _script(module: Any) -> Any:
    """A copy of what is behind a scripted module, and of all below it, with the same tensors."""
    copy = module.__copy__()
    for name, child in torch._C.ModuleDict(module).items():  # pyright: ignore[reportAttributeAccessIssue]
        copy.setattr(name, _script(child))
    return copy


@functools.cache
def _computing(kind: type[nn.Module]) -> type[nn.Module]:
    """The class whose modules compute a parametrized tensor when it is first read, and keep it."""

    def read(self: nn.Module, name: str) -> Any:
        lists = self.__dict__["_modules"]["parametrizations"]._modules
        if name not in lists:
            return kind.__getattr__(self, name)
        value = self.__dict__[name] = lists[name]()
        return value

    names = {"__module__": kind.__module__, "__qualname__": kind.__qualname__, "__doc__": kind.__doc__}
    make: Any = type(kind)  # as Python does for a class that is written down
    return make(kind.__name__, (kind,), {"__getattr__": read, **names})


# ---- what may refer to a module: its parts, and the same of other parts ----------------------------------------------
def _pairs(value: dict[Any, Any]) -> list[Any]:
    return [part for pair in value.copy().items() for part in pair]


def _dictionary(value: dict[Any, Any], parts: list[Any]) -> dict[Any, Any]:
    return type(value)(zip(parts[::2], parts[1::2], strict=True))


def _around(function: types.FunctionType) -> list[Any]:
    """What a function was defined around, and the defaults of its arguments."""
    return [*map(_inside, function.__closure__ or ()), function.__defaults__, function.__kwdefaults__]


def _inside(cell: types.CellType) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # nothing yet
        return None


def _function(function: types.FunctionType, parts: list[Any]) -> types.FunctionType:
    *contents, defaults, named = parts
    cells = tuple(  # a cell whose content stays is shared, so that ``nonlocal`` still counts
        cell if _inside(cell) is content else types.CellType(content)
        for cell, content in zip(function.__closure__ or (), contents, strict=True)
    )
    copy = types.FunctionType(function.__code__, function.__globals__, function.__name__, defaults, cells)
    copy.__kwdefaults__ = named
    functools.update_wrapper(copy, function)
    return copy


_PARTS: dict[type, tuple[Callable[[Any], list[Any]], Callable[[Any, list[Any]], Any]]] = {
    list: (list, lambda value, parts: parts),
    tuple: (list, lambda value, parts: tuple(parts)),
    set: (list, lambda value, parts: set(parts)),
    dict: (_pairs, _dictionary),
    OrderedDict: (_pairs, _dictionary),
    types.MethodType: (lambda v: [v.__func__, v.__self__], lambda value, parts: types.MethodType(*parts)),
    types.FunctionType: (_around, _function),
    functools.partial: (
        lambda v: [v.func, v.args, v.keywords],
        lambda value, parts: functools.partial(parts[0], *parts[1], **parts[2]),
    ),
    weakref.ref: (lambda v: [v()], lambda value, parts: weakref.ref(parts[0])),
}
