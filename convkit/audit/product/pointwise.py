"""Bounds of functions of single entries: activations and powers, their steepest slopes and their ranges."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from convkit.audit.product.flow import Call, Rule
from convkit.audit.product.known import Bound
from convkit.operators.recording import Place

aten: Any = torch.ops.aten
_Slope = Callable[[dict[str, Any]], float]
MONOTONE: dict[Any, _Slope] = {  # never falling, and the steepest slope
    aten.relu: lambda _: 1.0,
    aten.relu6: lambda _: 1.0,
    aten.hardtanh: lambda _: 1.0,
    aten.sigmoid: lambda _: 0.25,
    aten.hardsigmoid: lambda _: 0.16666668,  # torch rounds 1/6 to float32
    aten.tanh: lambda _: 1.0,
    aten.atan: lambda _: 1.0,
    aten.softplus: lambda _: 1.0,
    aten.softshrink: lambda _: 1.0,
    aten.erf: lambda _: 2 / math.sqrt(math.pi),
    aten.log_sigmoid_forward: lambda _: 1.0,
    aten.arcsinh: lambda _: 1.0,
}
VALLEYS: dict[Any, tuple[float, float]] = {  # fall, then rise: the steepest slope, and the least value
    aten.silu: (1.1, -0.27847),
    aten.gelu: (1.13, -0.17005),
    aten.hardswish: (1.5000001, -0.3750001),
    aten.mish: (1.09, -0.30885),
}
WAVES = {aten.sin, aten.cos}


def monotone(call: Call) -> Bound:
    """Bound an activation that never falls."""
    x = call.bound(_first(call))
    low, high = (None if t is None else _one(call.apply(t)) for t in (x.low, x.high))
    if low is None:  # some are bounded wherever their input is
        ends = call.full(-math.inf)
        low, high = _one(call.apply(ends)), _one(call.apply(-ends))
    return Bound(x.times(MONOTONE[_packet(call)](call.args)), low, high)


def valley(call: Call) -> Bound:
    """Bound an activation that falls, then rises."""
    x = call.bound(_first(call))
    slope, least = VALLEYS[_packet(call)]
    ends = [call.full(e) if t is None else t for t, e in ((x.low, -math.inf), (x.high, math.inf))]
    at_low, at_high = (
        torch.where(end.isinf(), end.clamp(min=0), call.apply(end.nan_to_num(posinf=0, neginf=0))) for end in ends
    )
    return Bound(x.times(slope), torch.full_like(at_low, least), torch.maximum(at_low, at_high))


def wave(call: Call) -> Bound:
    """Bound a sine or cosine."""
    one = call.full(1.0)
    return Bound(call.bound("self").slope, -one, one)


def elu(call: Call) -> Bound:
    """Bound ELU, SELU and CELU: ``scale * x`` above 0, ``scale * alpha * (exp(input_scale * x) - 1)`` below."""
    x, args = call.bound("self"), call.args
    alpha, scale = float(args["alpha"]), float(args.get("scale", 1.0))
    inner = float(args["input_scale"]) if "input_scale" in args else 1 / alpha
    if not inner > 0:
        return call.unknown("it grows without end below 0; take alpha above 0")
    slope = max(abs(scale), abs(scale * alpha * inner))
    rising = min(scale, scale * alpha * inner) >= 0
    low, high = (call.apply(t) if t is not None and rising else None for t in (x.low, x.high))
    return Bound(x.times(slope), low, high)


def leaky(call: Call) -> Bound:
    """Bound ``x`` above 0 and a multiple of it below."""
    x = call.bound("self")
    weight = call.constant("weight") if "weight" in call.args else call.constant("negative_slope")
    assert weight is not None
    falling = bool((weight < 0).any())
    low, high = (None if t is None or falling else call.apply(t) for t in (x.low, x.high))
    return Bound(x.times(max(1.0, float(weight.abs().max()))), low, high)


def threshold(call: Call) -> Bound:
    """Bound ``F.threshold`` where it is continuous."""
    x = call.bound("self")
    if call.args["threshold"] != call.args["value"]:
        return call.unknown("it jumps, so that it has no bound; a threshold that equals the value has one")
    low, high = (None if t is None else call.apply(t) for t in (x.low, x.high))
    return Bound(x.slope, low, high)


def clamp(call: Call) -> Bound:
    """Bound a clamp, whose ends do not depend on the input."""
    x, ends = call.bound("self"), [call.constant(name) for name in ("min", "max")]
    low, high = (call.full(e) if t is None else t for t, e in ((x.low, -math.inf), (x.high, math.inf)))
    root = x.root
    for end, cut in zip(ends, (torch.maximum, torch.minimum), strict=True):
        if end is not None:
            low, high = cut(low, end.to(low)), cut(high, end.to(low))
            root = math.inf if bool((end < 0).any()) else root
    if any(end is not None and end.numel() > 1 for end in ends):
        root = math.inf
    return Bound(x.times(math.sqrt(_copies(call, "self"))), low, high, root=root)


def absolute(call: Call) -> Bound:
    """Bound the absolute value."""
    x = call.bound("self")
    size = x.size
    zero = call.full(0.0)
    if size is None or x.low is None or x.high is None:
        return Bound(x.slope, zero, zero + math.inf)
    low = torch.where((x.low <= 0) & (x.high >= 0), 0.0, torch.minimum(x.low.abs(), x.high.abs()))
    return Bound(x.slope, low, size)


def negative(call: Call) -> Bound:
    """Bound the negative."""
    x = call.bound("self")
    return Bound(x.slope, None if x.high is None else -x.high, None if x.low is None else -x.low)


def _on_interval(slope: Callable[[Tensor, Tensor], Tensor], needs: str, rising: bool = True) -> Callable[[Call], Bound]:
    """Return the rule of a monotone function whose slope is steepest at one end of the interval of its inputs."""

    def rule(call: Call) -> Bound:
        x = call.bound("self")
        steepest = math.inf if x.low is None or x.high is None else float(slope(x.low, x.high).max())
        if not steepest < math.inf and x.slope:
            return call.unknown(needs)
        if x.low is None or x.high is None:
            return Bound(0.0)
        ends = call.apply(x.low), call.apply(x.high)
        return Bound(x.times(steepest), *(ends if rising else ends[::-1]))

    return rule


_BOX = "its slope has a bound only where its inputs are bounded; give low and high, the range of the images"
_ABOVE = "its slope has a bound only where its inputs stay above 0; bound the parts around it"


def _above(x: Tensor, slope: Tensor) -> Tensor:
    return torch.where(x > 0, slope, math.inf)


def square_root(call: Call) -> Bound:
    """Bound the square root, by what is known of a sum of squares or on an interval above 0."""
    x = call.bound("self")
    inside = _on_interval(lambda low, _: _above(low, 0.5 * low.clamp(min=0).rsqrt()), _ABOVE)(call)
    if x.root < math.inf and x.root < inside.slope:
        low, high = (None if t is None else call.apply(t.clamp(min=0)) for t in (x.low, x.high))
        return Bound(x.root, low, high)
    return inside


def power(call: Call) -> Bound:
    """Bound a power with a constant exponent."""
    x, exponent = call.bound("self"), call.args.get("exponent", 2)
    if not isinstance(exponent, int | float) or not isinstance(call.args["self"], Place):
        return call.unknown("no bound is known for an exponent that is no number; bound the parts around it")
    if exponent == 1:
        return Bound(x.slope, x.low, x.high)
    if exponent == 0.5:
        return square_root(call)
    size = x.size
    if exponent < 1 or exponent != int(exponent):
        return _on_interval(
            lambda low, high: _above(low, abs(exponent) * torch.maximum(low ** (exponent - 1), high ** (exponent - 1))),
            _ABOVE, exponent > 0)(call)  # fmt: skip
    root = x.slope if exponent == 2 else math.inf
    zero = call.full(0.0)
    even = int(exponent) % 2 == 0
    if size is None:
        slope = math.inf if x.slope else 0.0
        low, high = (zero, zero + math.inf) if even else (None, None)
        return Bound(slope, low, high, f"{call.step.name}: {_BOX}", root)
    low, high = (absolute(call).low, size) if even else (x.low, x.high)
    assert low is not None
    assert high is not None
    steepest = float((exponent * size ** (exponent - 1)).max())
    return Bound(x.times(steepest), low**exponent, high**exponent, f"{call.step.name}: {_BOX}", root)


POINTWISE: dict[Any, Rule] = {
    **dict.fromkeys(MONOTONE, monotone),
    **dict.fromkeys(VALLEYS, valley),
    **dict.fromkeys(WAVES, wave),
    **{aten.elu: elu, aten.celu: elu, aten.leaky_relu: leaky, aten._prelu_kernel: leaky, aten.threshold: threshold},
    **dict.fromkeys((aten.clamp, aten.clamp_min, aten.clamp_max), clamp),
    **{aten.abs: absolute, aten.neg: negative, aten.sqrt: square_root, aten.pow: power, aten.square: power},
    aten.exp: _on_interval(lambda _, high: high.exp(), _BOX),
    aten.expm1: _on_interval(lambda _, high: high.exp(), _BOX),
    aten.log: _on_interval(lambda low, _: _above(low, 1 / low), _ABOVE),
    aten.log1p: _on_interval(lambda low, _: _above(low + 1, 1 / (1 + low)), _ABOVE),
    aten.rsqrt: _on_interval(lambda low, _: _above(low, 0.5 * low.abs() ** -1.5), _ABOVE, rising=False),
    aten.reciprocal: _on_interval(lambda low, _: _above(low, low**-2), _ABOVE, rising=False),
}


# ---- private -------------------------------------------------------------------------------------------------------
def _packet(call: Call) -> Any:
    packet = call.step.op.overloadpacket
    return packet if packet in POINTWISE else getattr(aten, packet.__name__.rstrip("_"))


def _first(call: Call) -> str:
    return call.step.op._schema.arguments[0].name


def _one(result: Any) -> Tensor:
    return result[0] if isinstance(result, tuple) else result


def _copies(call: Call, name: str) -> float:
    return math.prod(call.out.size) / max(1, math.prod(call.shape(name)))
