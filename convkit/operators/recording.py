"""A record of what a network really does to its input: each call that computes with it, and where the numbers lie."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from convkit.operators.dtypes import HALF, as_input, widened
from convkit.operators.evaluation import apart, evaluation_copy
from convkit.operators.layers import has_operator, why_unreadable
from convkit.operators.trees import leaves

aten: Any = torch.ops.aten
WHOLE = (F.pad, F.normalize, F.lp_pool1d, F.lp_pool2d, F.lp_pool3d)  # functions that are one step each
TAKEN_OUT = {"numpy", "tolist", "__array__", "__dlpack__", "data_ptr", "to_sparse", "to_mkldnn"}
EMPTY = {aten.empty, aten.empty_like, aten.new_empty, aten.empty_strided, aten.new_empty_strided}
SHAPED = {aten.zeros_like, aten.ones_like, aten.full_like, aten.new_zeros, aten.new_ones, aten.new_full} | EMPTY


class Place(NamedTuple):
    """Where the numbers of a tensor that depends on the input lie: in which memory, and how they are laid out."""

    memory: int
    length: int  # numbers in this memory
    size: tuple[int, ...]
    stride: tuple[int, ...]
    offset: int
    dtype: torch.dtype
    device: torch.device


class Constant:
    """A tensor that does not depend on the input, with the numbers of the time of the call."""

    def __init__(self, value: Tensor) -> None:
        self.value = value.detach()


@dataclass
class Step:
    """One call: of an operator of torch, of a function of ``WHOLE``, or of a module that says what it does."""

    where: str  # name of the module in which it was made
    kind: str  # class of that module
    function: str
    op: Any
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    outs: list[Any] = field(default_factory=list)  # Place or Constant
    before: dict[int, Constant] = field(default_factory=dict)  # what lay in memory into which it writes

    @property
    def name(self) -> str:
        """Return the words that name this step in a message."""
        return f"step {self.where!r} ({self.kind}), {self.function}"


class Record(TorchDispatchMode):
    """Notes each call that computes with the input while it is active, below autograd: what runs, and nothing else.

    Attributes:
        steps: The calls, in order.
    """

    def __init__(self, model: nn.Module, x: Tensor) -> None:
        super().__init__()
        self.steps: list[Step] = []
        self._where: list[tuple[str, nn.Module]] = [("", model)]
        self._function = ""
        self._quiet = False
        self._known: dict[int, tuple[StorageWeakRef, int]] = {}  # by address of a memory: its number
        self._count = 0
        self._dependent: set[int] = set()
        self._garbage: set[int] = set()  # memory into which nothing has been written
        self._constants: dict[int, list[Constant]] = {}
        self.input = self._place(x)
        self._dependent.add(self.input.memory)

    @contextmanager
    def watching(self, model: nn.Module) -> Iterator[None]:
        """Context manager in which the model's calls are noted; it must be a copy that nobody else uses."""
        before: list[tuple[nn.Module, Callable[..., Any] | None]] = []
        for name, module in model.named_modules():
            if isinstance(module, torch.jit.ScriptModule):
                raise ValueError(
                    f"step {name!r} ({type(module).__name__}), forward: TorchScript cannot be recorded; bound the rest"
                )
            before.append((module, module.__dict__.get("forward")))
            module.forward = self._watched(name, module)
        try:
            with ExitStack() as stack:
                stack.enter_context(_Functions(self))
                stack.enter_context(self)
                yield
        finally:
            for module, forward in before:
                if forward is None:
                    del module.forward
                else:
                    module.forward = forward

    def place(self, t: Tensor) -> Place | Constant:
        """Return where a tensor that depends on the input lies, or what else it holds."""
        place = self._place(t)
        if place.memory in self._dependent:
            return place
        constant = Constant(t)
        self._constants.setdefault(place.memory, []).append(constant)
        return constant

    def depends(self, t: Tensor) -> bool:
        """Return whether a tensor depends on the input."""
        return self._place(t).memory in self._dependent

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if self._quiet:
            return func(*args, **kwargs)
        tensors = list(leaves((args, kwargs), Tensor))
        dependent = any(map(self.depends, tensors))
        random = torch.Tag.nondeterministic_seeded in func.tags
        written = [self._place(t).memory for t in _written(func, args, kwargs)]
        if not (dependent or random) or func.overloadpacket in SHAPED:
            self._keep(written)
            out = func(*args, **kwargs)
            if func.overloadpacket in EMPTY:
                self._garbage.update(self._place(t).memory for t in leaves(out, Tensor))
            return out
        before = {}
        for t in _written(func, args, kwargs):
            memory = self._place(t).memory
            if memory not in self._dependent:
                flat = t.as_strided((t.untyped_storage().nbytes() // t.element_size(),), (1,), 0)
                before[memory] = Constant(torch.zeros_like(flat) if memory in self._garbage else flat.clone())
        self._keep(written)
        self._dependent.update(written)
        step = self._step(func, self._function or func.overloadpacket.__name__, args, kwargs)
        step.before = before
        out = func(*args, **kwargs)
        self._finish(step, out)
        return out

    def whole(self, op: Any, function: str, args: Any, kwargs: Any, run: Callable[..., Any]) -> Any:
        """Run a call that is one step, without a look at what it does inside."""
        if self._quiet or not any(map(self.depends, leaves((args, kwargs), Tensor))):
            return run(*args, **kwargs)
        step = self._step(op, function, args, kwargs)
        self._quiet = True
        try:
            out = run(*args, **kwargs)
        finally:
            self._quiet = False
        self._finish(step, out)
        return out

    def taken_out(self, t: Tensor, function: str) -> None:
        """Refuse a call that takes numbers to where no record is kept."""
        if not self._quiet and self.depends(t):
            where, module = self._where[-1]
            raise ValueError(
                f"step {where!r} ({type(module).__name__}), {function}: it takes numbers that depend on the input out "
                "of torch, where no bound can follow them; bound the parts around it"
            )

    def _step(self, op: Any, function: str, args: Any, kwargs: Any) -> Step:
        where, module = self._where[-1]
        args, kwargs = _mapped((tuple(args), dict(kwargs)), self.place)
        return Step(where, type(module).__name__, function, op, args, kwargs)

    def _finish(self, step: Step, out: Any) -> None:
        for t in leaves(out, Tensor):
            place = self._place(t)
            self._dependent.add(place.memory)
            step.outs.append(place)
        self._garbage -= self._dependent
        self.steps.append(step)

    def _keep(self, written: list[int]) -> None:
        """Copy the constants that lie where a call is about to write."""
        for memory in written:
            self._garbage.discard(memory)
            for constant in self._constants.pop(memory, ()):
                constant.value = constant.value.clone()

    def _place(self, t: Tensor) -> Place:
        try:
            storage = t.untyped_storage()
        except (NotImplementedError, RuntimeError) as error:
            where, module = self._where[-1]
            raise ValueError(
                f"step {where!r} ({type(module).__name__}): needed dense tensors, got {type(t).__name__} of layout "
                f"{t.layout}; bound the parts around it"
            ) from error
        address = storage._cdata
        known = self._known.get(address)
        if known is None:  # as long as the weak reference lives, no other memory has this address
            known = self._known[address] = StorageWeakRef(storage), self._count
            self._count += 1
        length = storage.nbytes() // t.element_size()
        return Place(known[1], length, tuple(t.shape), t.stride(), int(t.storage_offset()), t.dtype, t.device)

    def _watched(self, name: str, module: nn.Module) -> Callable[..., Any]:
        forward, speaks = module.forward, why_unreadable(module) is None and "forward" not in module.__dict__

        def watching(*args: Any, **kwargs: Any) -> Any:
            self._where.append((name, module))
            try:
                if speaks and len(args) == 1 and not kwargs and isinstance(args[0], Tensor):
                    return self.whole(module, type(module).__name__, args, kwargs, forward)
                return forward(*args, **kwargs)
            finally:
                self._where.pop()

        return watching


class _Functions(TorchFunctionMode):
    """Tells a record the name of the function that runs, and which functions are one step."""

    def __init__(self, record: Record) -> None:
        super().__init__()
        self.record = record

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs, record, before = kwargs or {}, self.record, self.record._function
        name = getattr(func, "__name__", str(func))
        if name in TAKEN_OUT and args and isinstance(args[0], Tensor):
            record.taken_out(args[0], name)
        if func in WHOLE:
            return record.whole(func, name, args, kwargs, func)
        record._function = name.strip("_") if name != "__get__" else ""
        try:
            return func(*args, **kwargs)
        finally:
            record._function = before


def record_run(model: nn.Module, x: Tensor) -> tuple[Record, Any]:
    """Run a copy of a network that nobody else uses; return the record, and the outputs.

    Raises ``ValueError`` with the name of the step that cannot be recorded.
    """
    x = as_input(model, x.detach()).clone(memory_format=torch.contiguous_format)  # a first step may be in place
    record = Record(model, x)
    with record.watching(model):
        return record, model(x)


@contextmanager
def copy_to_run(model: nn.Module, x: Tensor) -> Iterator[nn.Module]:
    """Context manager that yields a copy of a network to be run, in evaluation mode: half precision becomes float32."""
    with evaluation_copy(model, x, lambda p: apart(widened(p))) as copy:
        for module in copy.modules():
            for name, buffer in module._buffers.items():
                if buffer is not None and buffer.dtype in HALF:
                    module._buffers[name] = buffer.float()
        yield copy


def states_its_operator(op: Any) -> bool:
    """Return whether a step is the call of a module that says what it does."""
    return isinstance(op, nn.Module) and (has_operator(op) or why_unreadable(op) is None)


# ---- private -------------------------------------------------------------------------------------------------------
def _mapped(tree: Any, of: Callable[[Tensor], Any]) -> Any:
    if isinstance(tree, Tensor):
        return of(tree)
    if isinstance(tree, list | tuple):
        return type(tree)(_mapped(part, of) for part in tree) if type(tree) in (list, tuple) else tree
    if isinstance(tree, dict):
        return {key: _mapped(part, of) for key, part in tree.items()}
    return tree


def _written(func: Any, args: Any, kwargs: Any) -> list[Tensor]:
    """Return the tensors among the arguments that an operator writes into."""
    if not func._schema.is_mutable:
        return []
    found = []
    for i, argument in enumerate(func._schema.arguments):
        if argument.alias_info is not None and argument.alias_info.is_write:
            value = args[i] if i < len(args) else kwargs.get(argument.name)
            found += list(leaves(value, Tensor))
    return found
