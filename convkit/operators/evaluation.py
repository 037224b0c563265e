"""A copy of a network in evaluation mode that shares its weights, while the network itself stays as it is."""

import functools
import types
import weakref
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar, cast

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel as _Distributed
from torch.nn.parameter import is_lazy
from torch.nn.utils import parametrize

MANY = 1000  # a longer list, tuple, set or dictionary is not searched for modules
Network = TypeVar("Network", bound=nn.Module)


@contextmanager
def evaluation_copy(
    model: Network,
    x: Tensor | None = None,
    parameter: Callable[[Tensor], Tensor] | None = None,
    compiled: bool = False,
) -> Iterator[Network]:
    """Context manager that yields a copy of the network in evaluation mode, with the same weights.

    The network itself is left alone, so that another thread may train it meanwhile. All modules of the copy are new
    objects. Its parameters are those of ``model``, so that gradients reach them, or what ``parameter`` returns for each
    of them (see ``apart``). Buffers are copies, since some networks write to them even in evaluation mode. A
    parametrized weight is computed once, when it is first read. Numbers that the network counts, such as its calls,
    are carried over to ``model`` at the end.

    In the copy, whatever refers to a module of the network refers to the copy of that module: attributes, hooks, lists
    and dictionaries, bound methods, closures. Modules that are no submodules, global names, and objects of other
    classes that hold a module cannot be followed: they stay as they are, in their present mode. A compiled network runs
    uncompiled, or compiled with ``compiled=True``; what ``module.compile()`` compiled in place always runs uncompiled.
    Of ``DistributedDataParallel`` the network inside runs, in this process alone.

    Lazy parameters are initialized by a call of the network itself on ``x``, in evaluation mode. Raises ``ValueError``
    for lazy parameters without ``x``.
    """
    copies = _Copies(parameter, compiled)
    try:
        copy = cast(Network, copies.of(model))
    except _LazyError:
        if x is None:
            raise
        _awake(model, x)
        copies = _Copies(parameter, compiled)
        copy = cast(Network, copies.of(model))
    copies.refer()
    if copies.own_ways:
        copy.eval()
    try:
        yield copy
    finally:
        copies.count()


def apart(parameter: Tensor) -> Tensor:
    """Return a parameter that shares the memory of another one, but not its history in autograd.

    Autograd then raises no error when a training changes the weights between another thread's forward and backward
    pass, and gradients do not reach the original parameter.
    """
    return nn.Parameter(parameter.data, parameter.requires_grad)


# ---- private -------------------------------------------------------------------------------------------------------
_PLAIN = {bool, complex, str, bytes, type(None), torch.Size, torch.dtype, torch.device}
_NUMBERS = {int, float}
_SIMPLE = _PLAIN | _NUMBERS
_CONTAINERS = {list, tuple, set, dict, OrderedDict}
_OWN = {"_parameters", "_buffers", "_modules"}
_REMEMBERED = "_kept"  # what ConvNorm2d keeps between evaluations: it is right for any layer of the same weight


class _LazyError(ValueError):
    pass


def _awake(model: nn.Module, x: Tensor) -> None:
    modes = {module: module.training for module in model.modules()}
    try:
        with torch.no_grad():
            model.eval()(x.clone())
    finally:
        for module, training in modes.items():
            module.training = training


class _Copies:
    """The copies of a network's modules, and the attributes that refer to other modules."""

    def __init__(self, parameter: Callable[[Tensor], Tensor] | None, compiled: bool) -> None:
        self.parameter, self.compiled = parameter, compiled
        self.own_ways = False  # whether a module has a way of its own to go into evaluation mode
        self.known: dict[int, tuple[Any, Any]] = {}  # by id: a module, tensor or container, and what stands for it
        self.looked_at: list[tuple[nn.Module, str]] = []  # copies, and names of what may refer to other modules
        self.made: list[tuple[nn.Module, nn.Module, dict[str, Any]]] = []  # module, copy, what may count up

    def of(self, module: nn.Module) -> nn.Module:
        """Return the copy of a module and of all its submodules; their other attributes are still the originals."""
        if id(module) in self.known:
            return self.known[id(module)][1]
        if isinstance(module, torch.jit.ScriptModule):
            self.own_ways = True
            copy = torch.jit._recursive.wrap_cpp_module(_script(module._c))  # pyright: ignore
            self.known[id(module)] = module, copy
            return copy
        own, kind = module.__dict__.copy(), type(module)
        if _is_compiled(module) and self.compiled:
            self.own_ways = True
            copy = kind(self.of(module._orig_mod), own["dynamo_ctx"])  # pyright: ignore
            self.known[id(module)] = module, copy
            return copy
        if "parametrizations" in own["_modules"] and parametrize.is_parametrized(module):
            kind = _computing(parametrize.type_before_parametrizations(module))
        copy = object.__new__(kind)
        object.__setattr__(copy, "__dict__", own)
        self.known[id(module)] = module, copy
        numbers = {}
        for name, value in own.items():
            of = type(value)
            if of in _NUMBERS or name == _REMEMBERED:
                numbers[name] = value
            elif of in _CONTAINERS:
                if value and name not in _OWN and not (of is tuple and _SIMPLE.issuperset(map(type, value))):
                    self.looked_at.append((copy, name))
            elif of not in _PLAIN:
                self.looked_at.append((copy, name))
        own.pop("_compiled_call_impl", None)
        for names, way in (("_parameters", self.parameter), ("_buffers", _cloned)):
            tensors = own[names] = own[names].copy()
            for name, t in tensors.items():
                tensors[name] = self._tensor(t, way, module)
        children = own["_modules"] = own["_modules"].copy()
        for name, child in children.items():
            children[name] = None if child is None else self.of(child)
        if kind.train is nn.Module.train and kind.eval is nn.Module.eval:
            own["training"] = False
        else:
            self.own_ways = True
        self.made.append((module, copy, numbers))
        return copy

    def refer(self) -> None:
        """Make attributes that refer to modules refer to the copies."""
        for copy, name in self.looked_at:
            if name in copy.__dict__:
                copy.__dict__[name] = self._standing_for(copy.__dict__[name])
        for _, copy, _ in self.made:  # what wraps a network to compile it or to train it with other processes
            inside = "_orig_mod" if _is_compiled(copy) else "module" if isinstance(copy, _Distributed) else None
            if inside is not None:
                own: Any = copy.__dict__
                own["forward"] = own["_modules"][inside].__call__

    def count(self) -> None:
        """Add what the copies counted to the modules' own numbers, which may have changed meanwhile."""
        for module, copy, numbers in self.made:
            for name, old in numbers.items():
                value, now = copy.__dict__.get(name), module.__dict__.get(name)
                if value is old:
                    continue
                if name == _REMEMBERED or now is old:
                    module.__dict__[name] = value
                elif {type(value), type(now)} <= _NUMBERS:
                    module.__dict__[name] = now + (value - old)  # pyright: ignore[reportOptionalOperand]

    def _tensor(self, t: Tensor | None, way: Callable[[Tensor], Tensor] | None, module: nn.Module) -> Tensor | None:
        if t is None:
            return t
        if is_lazy(t):
            raise _LazyError(
                f"needed a network whose weights have their numbers, got a {type(module).__name__} with lazy "
                "parameters; run the network once first"
            )
        if way is None:
            return t
        if id(t) not in self.known:
            self.known[id(t)] = t, way(t)
        return self.known[id(t)][1]

    def _standing_for(self, value: Any) -> Any:
        """Return the value with copies in the place of modules; the value itself where it refers to none."""
        kind = type(value)
        if kind in _SIMPLE:
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


def _is_compiled(module: nn.Module) -> bool:
    """Return whether ``torch.compile`` made the module, without importing torch's compiler, which takes seconds."""
    return "dynamo_ctx" in module.__dict__ and "_orig_mod" in module._modules


def _cloned(buffer: Tensor) -> Tensor:
    return buffer if buffer.requires_grad else buffer.clone()


def _script(module: Any) -> Any:
    """Return a copy of a scripted module's C++ object and of its submodules, with the same parameters."""
    copy = module.__copy__()
    for name, buffer in torch._C.BufferDict(module).items():  # pyright: ignore[reportAttributeAccessIssue]
        copy.setattr(name, _cloned(buffer))
    for name, child in torch._C.ModuleDict(module).items():  # pyright: ignore[reportAttributeAccessIssue]
        copy.setattr(name, _script(child))
    return copy


@functools.cache
def _computing(kind: type[nn.Module]) -> type[nn.Module]:
    """Return a subclass whose modules compute a parametrized tensor when it is first read, and keep it."""

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
    """Return the contents of a function's closure, and the defaults of its arguments."""
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
