"""What is known of the tensors of a network, step by step: a Lipschitz bound, and intervals that hold their numbers."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from convkit.audit.product.known import CONVERGED, Bound
from convkit.bounds import torus_bound
from convkit.norms import operator_norm
from convkit.operators.operator import ConvOperator
from convkit.operators.recording import Constant, Place, Step
from convkit.operators.trees import leaves


class Call:
    """A step that is about to be bounded: its arguments by name, and what is known of those that are tensors."""

    def __init__(self, step: Step, flow: "Flow") -> None:
        self.step, self.flow, self.norm = step, flow, flow.norm
        self.args: Any = _by_name(step)
        self._bounds: dict[int, Bound] = {}

    @property
    def out(self) -> Place:
        return self.step.outs[0]

    def full(self, value: float) -> Tensor:
        """Return a tensor of the result's shape."""
        return torch.full(self.out.size, value, dtype=torch.float64, device=self.out.device)

    def bound(self, name: str) -> Bound:
        return self.of(self.args[name])

    def of(self, value: Any) -> Bound:
        """Return what is known of one argument."""
        if not isinstance(value, Place | Constant):
            value = Constant(torch.tensor(value, dtype=torch.float64, device="cpu"))
        if id(value) not in self._bounds:
            self._bounds[id(value)] = self.flow.read(value)
        return self._bounds[id(value)]

    def shape(self, name: str) -> tuple[int, ...]:
        return shape(self.args[name])

    def constant(self, name: str) -> Tensor | None:
        """Return an argument that does not depend on the input, in float64; ``None`` for ``None``."""
        value = self.args.get(name)
        if value is None:
            return None
        if isinstance(value, Place):
            raise ValueError(f"no bound is known where {name} depends on the input; bound the parts around it")
        return (
            value.value.double()
            if isinstance(value, Constant)
            else torch.tensor(value, dtype=torch.float64, device="cpu")
        )

    def apply(self, *values: Tensor) -> Any:
        """Return what the operator makes of other tensors in the place of those that depend on the input."""
        mutable = getattr(getattr(self.step.op, "_schema", None), "is_mutable", False)
        stream = iter([value.clone() for value in values] if mutable else values)

        def filled(tree: Any) -> Any:
            if isinstance(tree, Place):
                return next(stream)
            if isinstance(tree, Constant):
                return tree.value.double() if tree.value.is_floating_point() else tree.value
            if isinstance(tree, list | tuple):
                return [filled(part) for part in tree]
            return {key: filled(part) for key, part in tree.items()} if isinstance(tree, dict) else tree

        args, kwargs = filled(self.step.args), filled(self.step.kwargs)
        if kwargs.get("dtype") is not None:
            kwargs["dtype"] = torch.float64
        return self.step.op(*args, **kwargs)

    def out_of_range(self) -> Bound:
        """Return the bound of a product of parts whose numbers are not known to be bounded."""
        if self.flow.boxed:
            return self.unknown("the numbers of the parts that it multiplies are not bounded; give a smaller box")
        return self.unknown(
            "it multiplies two parts that both depend on the input, which has a bound only where their numbers are "
            "bounded; give low and high, the range of the images"
        )

    def unknown(self, reason: str) -> Bound:
        return Bound(math.inf, why=f"{self.step.name}: {reason}")


Rule = Callable[[Call], "Bound | Sequence[Bound]"]


class Flow:
    """Goes through the steps of a record and keeps what is known of each memory."""

    def __init__(self, rules: Mapping[Any, Rule], of_modules: Rule, torus: bool, boxed: bool, folded: bool) -> None:
        self.rules, self.of_modules, self.torus = rules, of_modules, torus
        self.folded = folded  # whether gains are part of the layer before
        self.boxed = boxed  # whether the inputs are bounded
        self.memory: dict[int, Bound] = {}
        self.last: dict[int, tuple[Place, Bound]] = {}  # by memory: what was written last, if it lies there as a whole
        self.now = ""  # the name of the step
        self.dtypes: dict[int, torch.dtype] = {}
        self.sources: dict[int, int] = {}  # by memory: how often it was written

    def norm(self, A: ConvOperator) -> float:
        A = replace(A, kernel=A.kernel.detach().double())
        if A.kernel[0, 0].numel() == A.groups == max(A.stride) == 1 and not any(map(any, A.pads)):  # one matrix
            M = A.kernel.flatten(1)
            gram = M @ M.mT if len(M) < len(M.mT) else M.mT @ M
            return float(torch.linalg.eigvalsh(gram)[-1].clamp(min=0).sqrt()) * (1 + CONVERGED)
        return float(torus_bound(A)) if self.torus else float(operator_norm(A, 2)) * (1 + CONVERGED)

    def read(self, value: Place | Constant) -> Bound:
        """Return what is known of a tensor."""
        if isinstance(value, Constant):
            t = value.value
            t = (
                t.double()
                if not t.is_complex()
                else torch.full(t.shape, math.nan, dtype=torch.float64, device=t.device)
            )
            return Bound(0.0, t, t)
        place, bound = self.last.get(value.memory, (None, None))
        if bound is not None and place == value:
            return bound
        bound, dtype = self.memory[value.memory], self.dtypes[value.memory]
        if dtype != value.dtype:
            why = f"{self.now}: it reads a tensor of {dtype} as {value.dtype}, so that it has no bound"
            return Bound(math.inf, why=bound.why or why)
        low, high = (None if t is None else _at(t, value) for t in (bound.low, bound.high))
        repeated = math.sqrt(most_often([value]))
        row, column = (self._along(value, axis) for axis in (-1, -2))
        return Bound(bound.times(repeated), low, high, bound.why, bound.root * repeated, row=row, column=column)

    def _along(self, place: Place, axis: int) -> float:
        """Return a bound of the 2-norm along an axis of a view, where it runs inside the rows that were written."""
        written, bound = self.last.get(place.memory, (None, None))
        if written is None or bound is None or bound.row == math.inf or len(place.size) < -axis:
            return math.inf
        length, strides = written.size[-1], [s for s, n in zip(written.stride, written.size, strict=True) if n > 1]
        if written.stride[-1] != 1 or any(s % length for s in strides if s != 1) or written.offset % length:
            return math.inf
        others = [
            (s, n) for i, (s, n) in enumerate(zip(place.stride, place.size, strict=True)) if i != len(place.size) + axis
        ]
        start = place.offset % length + sum(s * (n - 1) for s, n in others if s % length)
        inside = place.stride[axis] == 1 and start + place.size[axis] <= length
        return bound.row if inside else math.inf

    def joint(self, values: Iterable[Any]) -> float:
        """Return a Lipschitz bound of several tensors as one."""
        by_memory: dict[int, list[Place]] = {}
        by_pair: dict[Any, dict[str, float]] = {}
        squares = []
        for value in values:
            if not isinstance(value, Place):
                continue
            bound = self.read(value)
            if bound.sorted_of is not None:
                key, which = bound.sorted_of
                if which not in by_pair.setdefault(key, {}):
                    by_pair[key][which] = bound.slope
                    continue
            by_memory.setdefault(value.memory, []).append(value)
        squares += [max(pair.values()) for pair in by_pair.values()]
        for memory, places in by_memory.items():
            if len(places) == 1:
                squares.append(self.read(places[0]).slope)
            else:
                squares.append(self.memory[memory].times(math.sqrt(most_often(places))))
        return math.hypot(*squares)

    def write(self, place: Place, bound: Bound) -> None:
        """Note what a call has written to a place."""
        whole = math.prod(place.size) == place.length and most_often([place]) == 1
        old = None if whole else self.memory.get(place.memory)
        low, high = (
            _put(t, None if old is None else was, place, fill)
            for t, was, fill in ((bound.low, old and old.low, -math.inf), (bound.high, old and old.high, math.inf))
        )
        self.last.pop(place.memory, None)
        self.dtypes[place.memory] = place.dtype
        self.sources[place.memory] = self.sources.get(place.memory, 0) + 1
        if old is None:
            self.memory[place.memory] = Bound(bound._slope, low, high, bound.why, bound.root, bound.linear)
            self.last[place.memory] = place, bound
        else:
            self.memory[place.memory] = Bound(math.hypot(old.slope, bound.slope), low, high, old.why or bound.why)

    def key(self, value: Any) -> Any:
        """Return what two calls on the same numbers have in common."""
        return (value, self.sources.get(value.memory)) if isinstance(value, Place) else id(value)

    def step(self, step: Step) -> None:
        """Note what one call does."""
        places = list(leaves((step.args, step.kwargs), Place))
        for memory, value in step.before.items():
            flat = value.value.double() if not value.value.is_complex() else None
            self.memory[memory], self.dtypes[memory] = Bound(0.0, flat, flat), value.value.dtype
            self.sources[memory] = self.sources.get(memory, 0) + 1
        call, self.now = Call(step, self), step.name
        mutable = getattr(getattr(step.op, "_schema", None), "is_mutable", False)
        inputs = {place.memory for place in places}
        outs = [out for out in step.outs if mutable or out.memory not in inputs]
        tags = getattr(step.op, "tags", ())
        if getattr(step.op, "overloadpacket", None) is torch.ops.aten.index:
            self._follows_values(call, list(leaves(call.args["indices"], Place)))
        elif {torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape} & set(tags):
            self._follows_values(call, places)
        views = torch.Tag.inplace_view in tags and step.op.overloadpacket is not torch.ops.aten.resize_
        if views or not outs:
            return  # the same numbers in the same memory, which is known
        bounds = self._bounds(call, places)
        if mutable:  # it writes where it is told to
            targets = list(leaves(_written(step), Place))
            if "out" in call.args and len(step.outs) == len(targets) == 1 and targets[0].memory == step.outs[0].memory:
                targets = step.outs  # it may have been empty before
            if len(targets) != 1 or any(out != targets[0] for out in step.outs):
                reason = "it writes into several tensors or changes their size; bound the parts around it"
                bounds = [call.unknown(reason)] * len(targets)
            for target, bound in zip(targets, bounds, strict=True):
                self.write(target, bound)
            return
        bounds += [call.unknown("no bound is known for this result; bound the parts around it")] * len(outs)
        for out, bound in zip(outs, bounds[: len(outs)], strict=True):
            self.write(out, bound)

    def _follows_values(self, call: Call, places: list[Place]) -> None:
        for place in places:
            if self.read(place).slope:
                raise ValueError(
                    f"product_bound at {call.step.name}: the network looks at numbers that depend on the input, so "
                    "that another input may take another way; bound the parts around it and multiply"
                )

    def _bounds(self, call: Call, places: list[Place]) -> list[Bound]:
        known, op = [self.read(place) for place in places], call.step.op
        why = next((b.why for b in known if b.unbounded and b.root == math.inf), "")
        if why:
            return [Bound(math.inf, why=why)]
        packet = getattr(op, "overloadpacket", op)
        rule = self.of_modules if isinstance(op, torch.nn.Module) else self.rules.get(packet)
        if rule is None and getattr(getattr(op, "_schema", None), "is_mutable", False):
            rule = self.rules.get(getattr(torch.ops.aten, packet.__name__.rstrip("_"), None))
        if rule is None and torch.Tag.nondeterministic_seeded in getattr(op, "tags", ()):
            return [call.unknown("it is random; put the network into evaluation mode")]
        real = all(
            place.dtype.is_floating_point for place, b in zip(places, known, strict=True) if b.unbounded or b.slope
        )
        if (
            rule is None
            or not real
            or any(c.value.is_complex() for c in leaves((call.step.args, call.step.kwargs), Constant))
        ):
            if not any(b.unbounded or b.slope for b in known):
                return [Bound(0.0)]
            return [call.unknown("no bound is known for it; bound the parts around it and multiply")]
        try:
            result = rule(call)
        except (TypeError, ValueError) as error:
            raise ValueError(f"product_bound at {call.step.name}: {error}") from error
        found = [result] if isinstance(result, Bound) else list(result)
        large = f"{call.step.name}: the bound is above 1e308, the largest number; give a smaller box or bound the parts"
        for bound in found:
            bound.why = bound.why or next((b.why for b in known if b.why), large) if bound.unbounded else ""
        return found


def shape(value: Any) -> tuple[int, ...]:
    """Return the shape of an argument of a step."""
    if isinstance(value, Place):
        return value.size
    return tuple(value.value.shape) if isinstance(value, Constant) else ()


def most_often(places: Sequence[Place]) -> int:
    """Return how often these tensors, which lie in one memory, hold the number that they hold most often."""
    if len(places) == 1:
        (place,) = places
        axes = sorted((abs(s), n) for s, n in zip(place.stride, place.size, strict=True) if n > 1)
        reach, copies, overlap = 0, 1, False
        for stride, n in axes:
            if stride == 0:
                copies *= n
            else:
                overlap |= stride <= reach
                reach += stride * (n - 1)
        if not overlap:
            return copies
    length = places[0].length
    numbers = torch.arange(length, device="cpu")
    counts = torch.zeros(length, dtype=torch.long, device="cpu")
    for place in places:
        counts += torch.bincount(_at(numbers, place).flatten(), minlength=length)
    return int(counts.max()) if length else 1


# ---- private -------------------------------------------------------------------------------------------------------
def _at(flat: Tensor, place: Place) -> Tensor:
    return flat.as_strided(place.size, place.stride, place.offset)


def _put(new: Tensor | None, old: Tensor | None, place: Place, fill: float) -> Tensor | None:
    """Return the numbers of a memory after a write."""
    if new is None and old is None:
        return None
    flat = torch.full((place.length,), fill, dtype=torch.float64, device=place.device) if old is None else old.clone()
    _at(flat, place).copy_(flat.new_tensor(fill) if new is None else new.expand(place.size))
    return flat


def _by_name(step: Step) -> dict[str, Any]:
    schema = getattr(step.op, "_schema", None)
    if schema is None:
        return {str(i): arg for i, arg in enumerate(step.args)} | dict(step.kwargs)
    args = {a.name: a.default_value for a in schema.arguments if a.has_default_value()}
    args |= {a.name: value for a, value in zip(schema.arguments[: len(step.args)], step.args, strict=True)}
    return args | dict(step.kwargs)


def _written(step: Step) -> list[Any]:
    args = _by_name(step)
    return [
        args[a.name]
        for a in step.op._schema.arguments
        if a.alias_info is not None and a.alias_info.is_write and args.get(a.name) is not None
    ]
