"""What a network multiplies by its weights, in the order in which it runs: layers, and torch's functions elsewhere."""

import inspect
import math
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from convkit.operators.dtypes import widened
from convkit.operators.geometry import PaddingMode, Pads
from convkit.operators.layers import has_operator, why_unreadable
from convkit.operators.operator import ConvOperator, transposed_convolution
from convkit.operators.products import Products, place

CONVOLUTIONS = (F.conv1d, F.conv2d, F.conv3d)
TRANSPOSED_CONVOLUTIONS = (F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d)
ARGUMENTS = {  # of torch's own functions, whose signatures Python cannot read
    F.linear: ("input", "weight", "bias"),
    **{f: ("input", "weight", "bias", "stride", "padding", "dilation", "groups") for f in CONVOLUTIONS},
    **{
        f: ("input", "weight", "bias", "stride", "padding", "output_padding", "groups", "dilation")
        for f in TRANSPOSED_CONVOLUTIONS
    },
}
MATRIX_PRODUCTS = (torch.matmul, Tensor.matmul, Tensor.__matmul__, torch.mm, Tensor.mm, torch.addmm, Tensor.addmm)
ATTENTION = inspect.signature(F.multi_head_attention_forward)
LOOKED_UP = (nn.Embedding, nn.EmbeddingBag)  # tables, of which rows are taken
QUANTIZED = ("torch.ao.nn.quantized", "torch.ao.nn.intrinsic.quantized", "torch.nn.quantized")


class Row(NamedTuple):
    """One linear map of a network: a layer on inputs of one size, or a recorded call and its operator."""

    kind: str  # class of the layer, or name of torch's function
    layer: str  # name of the module that is the layer, or in which the call was made
    size: tuple[int, ...]
    operator: ConvOperator | None = None  # of a recorded call


class Missing(NamedTuple):
    """A part of a network with weights that no row stands for, and the reason."""

    name: str
    reason: str


class Padded(NamedTuple):
    """What ``F.pad`` made of a batch, as long as nobody has changed it."""

    tensor: "weakref.ref[Tensor]"
    version: int
    size: tuple[int, ...]
    pads: Pads
    mode: PaddingMode


class Recorder(TorchFunctionMode):
    """Notes each convolution and linear map that runs while it is active, under the name of the innermost module.

    Args:
        model: The copy that runs.
        x: Its input.
        live: By address of a parameter of the copy: the parameter of the network that it stands for.
        graph: Whether recorded kernels that are parts of parameters have their gradients.

    Attributes:
        rows: What was found, by name: that of the module, with ``#2`` for a second kernel in it and ``@HxW`` for a
            second size, and ``.q``, ``.k``, ``.v``, ``.out`` for attention.
        missing: Calls that no operator describes.
        ran: Names of the modules that were called.
    """

    def __init__(self, model: nn.Module, x: Tensor, live: Mapping[int, Tensor], graph: bool) -> None:
        super().__init__()
        self._live, self._graph = live, graph
        self.rows: dict[str, Row] = {}
        self.missing: list[Missing] = []
        self.ran: set[str] = set()
        self._model, self._products = model, Products(model, x)
        self._where = self._products.where
        self._quiet = False  # inside a layer that speaks for itself
        self._kernels: dict[str, list[tuple[Tensor | None, str]]] = {}  # by module: kernels (None: its own), and rows
        self._padded: dict[int, Padded] = {}

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Context manager in which calls of the model's modules are noted."""
        before: list[tuple[nn.Module, Callable[..., Any] | None]] = []
        for name, module in self._model.named_modules():
            if not isinstance(module, torch.jit.ScriptModule):
                before.append((module, module.__dict__.get("forward")))
                module.forward = self._watched(name, module)
        try:
            with self._products, self:
                yield
        finally:
            for module, forward in before:
                if forward is None:
                    del module.forward  # it knows the module, which would wait for the garbage collector
                else:
                    module.forward = forward

    def left_over(self) -> tuple[list[Missing], list[Missing]]:
        """Return what has weights of two and more axes for which no row stands: what ran, and what did not."""
        fixed = [Missing(name, f"{f} by a matrix that is no parameter") for name, f in self._products.fixed]
        ran, idle = self.missing + fixed, []
        for path, module in self._model.named_modules():
            name, _, parametrized = path.partition(".parametrizations.")
            kind = type(self._model.get_submodule(name) if parametrized else module).__name__
            if type(module).__module__.startswith(QUANTIZED) and not path.endswith("_packed_params"):
                ran.append(Missing(name, f"{kind} has quantized weights"))
                continue
            own = dict(module.named_parameters(recurse=False))
            own = {key: p for key, p in own.items() if p.ndim > 1 or place(p) in self._products.matrices}
            products = {f for p in own.values() for f in self._products.met.get(place(p), ())}
            unused = [key for key, p in own.items() if place(p) not in self._products.used]
            if own and isinstance(module, torch.jit.ScriptModule):
                ran.append(Missing(name, f"{kind} is TorchScript, whose calls cannot be recorded"))
            elif own and isinstance(module, nn.RNNBase | nn.RNNCellBase) and name in self.ran:
                ran.append(Missing(name, f"{kind} is recurrent: its weights meet their own outputs"))
            elif products:
                ran.append(Missing(name, f"{kind} multiplies its weight by {', '.join(sorted(products))}"))
            elif unused and not isinstance(module, LOOKED_UP):
                reached = name in self.ran and not parametrized
                what = f"use its {', '.join(unused)}" if reached else "reach it"
                idle.append(Missing(name, f"model(x) does not {what}"))
        return ran, idle

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs, products = kwargs or {}, self._products
        if self._quiet:
            return func(*args, **kwargs)
        found = None
        with products.paused():
            if func in ARGUMENTS:
                found = dict(zip(ARGUMENTS[func][: len(args)], args, strict=True)) | kwargs
            elif func in MATRIX_PRODUCTS and not kwargs:
                found = self._as_linear(*args[-2:])
            recorded = found is not None or func is F.multi_head_attention_forward
            if recorded:
                if found is not None:
                    self._call(func, found)
                else:
                    self._attention(ATTENTION.bind(*args, **kwargs).arguments)
        products.quiet, products.function = recorded, func.__name__.strip("_")
        try:
            out = func(*args, **kwargs)
        finally:
            products.quiet, products.function = False, ""
        if func is F.pad:
            self._pad(out, *args, **kwargs)
        return out

    def _watched(self, name: str, module: nn.Module) -> Callable[..., Any]:
        forward, speaks, weight = module.forward, why_unreadable(module) is None, module._parameters.get("weight")

        def watching(*args: Any, **kwargs: Any) -> Any:
            self.ran.add(name)
            self._where.append(name)
            quiet = self._quiet
            try:
                own = module._parameters.get("weight") is weight  # not put in its place for this call
                if speaks and own and not quiet:
                    self._layer(name, module, args[0] if args else next(iter(kwargs.values())))
                    self._quiet = self._products.quiet = True
                return forward(*args, **kwargs)
            finally:
                self._quiet = self._products.quiet = quiet
                self._where.pop()

        return watching

    def _layer(self, name: str, module: Any, x: Tensor) -> None:
        if isinstance(module, nn.Linear):
            size = positions(x)
        else:  # a convolution takes inputs without a batch, too
            size = tuple(x.shape[2:] if has_operator(module) else x.shape[2 - module.weight.ndim :])
        row = Row(type(module).__name__, name, size)
        self._add(self._base(name, None), row, isinstance(module, nn.Linear))

    def _call(self, func: Any, found: dict[str, Any]) -> None:
        name, origin = self._where[-1], self._products.origin(found["weight"])
        try:
            if origin is None:
                raise ValueError("its weight depends on the input")
            with torch.set_grad_enabled(self._graph):
                A = self._operator(func, found["input"], self._of_the_network(found["weight"]), found)
        except (TypeError, ValueError) as error:
            self.missing.append(Missing(name, f"{func.__name__}: {error}"))
            return
        self._kernel(name, func.__name__.strip("_"), found["weight"], A)

    def _as_linear(self, left: Any, right: Any) -> dict[str, Any] | None:
        """Return the product of the data and one matrix of weights as arguments of ``F.linear``; None for others."""
        for weight, x in ((right, left), (left, right)):
            if self._products.origin(weight) and self._products.origin(x) is None and weight.ndim == 2 <= x.ndim:
                return {"input": x if weight is right else x.mT, "weight": weight.mT if weight is right else weight}
        return None

    def _operator(self, func: Any, x: Tensor, kernel: Tensor, found: dict[str, Any]) -> ConvOperator:
        if func not in CONVOLUTIONS + TRANSPOSED_CONVOLUTIONS:
            size = positions(x)
            return ConvOperator(kernel[(..., *[None] * len(size))], size)
        axes = kernel.ndim - 2
        size, padding = tuple(x.shape[-axes:]), found.get("padding", 0)
        stride, dilation, groups = (found.get(name, 1) for name in ("stride", "dilation", "groups"))
        if func in TRANSPOSED_CONVOLUTIONS:
            more = found.get("output_padding", 0)
            return transposed_convolution(kernel, size, stride, padding, more, dilation, groups)
        mode: PaddingMode = "zeros"
        made = self._padded.get(id(x))
        if made is not None and made.tensor() is x and made.version == x._version:
            pads = ((0, 0),) * (axes - len(made.pads)) + made.pads
            alone = padding == "valid" or not any(padding if isinstance(padding, Sequence) else [padding])
            if alone and len(pads) == axes:
                size, padding, mode = made.size[-axes:], pads, made.mode
        return ConvOperator(kernel, size, stride, padding, dilation, groups, mode)

    def _attention(self, found: dict[str, Any]) -> None:
        name, query, key = self._where[-1], found["query"], found["key"]
        if found.get("use_separate_proj_weight"):
            weights = [found[f"{letter}_proj_weight"] for letter in "qkv"]
        else:
            weights = list(found["in_proj_weight"].chunk(3))
        weights.append(found["out_proj_weight"])
        lengths = (len(query), len(key), len(key), len(query))
        for part, weight, length in zip(("q", "k", "v", "out"), weights, lengths, strict=True):
            row = f"{name}.{part}" if name else part
            with torch.set_grad_enabled(self._graph):
                A = ConvOperator(self._of_the_network(weight)[..., None], (length,))
            self._kernel(name, "attention", weight, A, row)

    def _of_the_network(self, weight: Tensor) -> Tensor:
        """Return the part of the network's own parameter that has this weight in the copy; a computed one, detached."""
        start, size = weight.data_ptr(), extent(weight)
        for address, parameter in self._live.items():
            first, whole = (start - address) // weight.element_size(), widened(parameter)
            if start >= address and first + size <= extent(whole) and whole.dtype == weight.dtype:
                if (whole.shape, whole.stride()) == (weight.shape, weight.stride()):
                    return whole
                return whole.as_strided(weight.shape, weight.stride(), whole.storage_offset() + first)
        return widened(weight.detach())

    def _kernel(self, name: str, kind: str, weight: Tensor, A: ConvOperator, row: str | None = None) -> None:
        """Add the row of a recorded kernel, unless there is one of the same kernel on the same size."""
        base = self._base(name, weight.detach(), row)
        self._add(base, Row(kind, name, A.input_shape, A), not kind.startswith("conv"))

    def _base(self, name: str, kernel: Tensor | None, row: str | None = None) -> str:
        """Return the name that the rows of a kernel in this module have."""
        known = self._kernels.setdefault(name, [])
        for other, base in known:
            if same(other, kernel):
                return base
        base = row or (f"{name}#{len(known) + 1}" if known else name)
        known.append((kernel, base))
        return base

    def _add(self, name: str, row: Row, any_size: bool) -> None:
        """Add a row under its name, or under its name and size where another size has that name."""
        first = self.rows.setdefault(name, row)
        if first is not row and not any_size and first.size != row.size:
            self.rows.setdefault(f"{name}@{'x'.join(map(str, row.size))}", row)

    def _pad(
        self, out: Tensor, input: Tensor, pad: Sequence[int], mode: str = "constant", value: float | None = None
    ) -> None:
        pads = tuple((pad[i], pad[i + 1]) for i in range(len(pad) - 2, -1, -2))
        if all(amount >= 0 for pair in pads for amount in pair):
            known: Any = "zeros" if mode == "constant" else mode  # another constant than 0 is no part of the linear map
            self._padded[id(out)] = Padded(weakref.ref(out), out._version, tuple(input.shape), pads, known)


# ---- private -------------------------------------------------------------------------------------------------------
def positions(x: Tensor) -> tuple[int, ...]:
    """Return the grid of positions that a linear layer is applied to: ``(1, 1)`` for one."""
    size = tuple(x.shape[1:-1]) or (1, 1)
    return size if len(size) <= 3 else (math.prod(size),)


def extent(weight: Tensor) -> int:
    """Return how many numbers lie in memory from the first to the last one of a weight."""
    return 1 + sum((n - 1) * step for n, step in zip(weight.shape, weight.stride(), strict=True))


def same(one: Tensor | None, other: Tensor | None) -> bool:
    """Return whether two kernels are the same tensor or hold the same numbers."""
    if one is None or other is None:
        return one is other
    if one.shape != other.shape or one.dtype != other.dtype:
        return False
    return one.data_ptr() == other.data_ptr() or torch.equal(one, other)
