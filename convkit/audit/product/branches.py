"""Bounds of products, attention and maxima, where numbers that depend on the input meet one another."""

import math
from typing import Any

import torch
from torch import Tensor

from convkit.audit.product.flow import Call, Rule, shape
from convkit.audit.product.known import Bound
from convkit.audit.product.linear import gained, matrix
from convkit.operators.recording import Constant, Place

aten: Any = torch.ops.aten


# ---- products --------------------------------------------------------------------------------------------------------
def product(call: Call) -> Bound:
    """Bound ``a * b``: ``|ab - a'b'| <= |a| |b - b'| + |a - a'| |b'|``, entry by entry."""
    a, b = call.args["self"], call.args["other"]
    for x, c in ((a, b), (b, a)):
        if isinstance(x, Place) and not isinstance(c, Place):
            return gained(call, call.of(x), x.size, call.of(c).low)  # pyright: ignore
    return _product(call, call.of(a), call.of(b), a.size, b.size, same=call.flow.key(a) == call.flow.key(b))


def added_product(call: Call) -> Bound:
    """Bound ``self + value * tensor1 * tensor2`` where one of the factors alone depends on the input."""
    factors = [call.args["tensor1"], call.args["tensor2"]]
    changing = [t for t in factors if isinstance(t, Place)]
    shift = call.constant("self")
    if len(changing) != 1:
        return call.unknown("no bound is known where both factors depend on the input; multiply them in a step before")
    (gain,) = (t.value.double() for t in factors if isinstance(t, Constant))
    return gained(call, call.of(changing[0]), changing[0].size, float(call.args["value"]) * gain, shift)


def quotient(call: Call) -> Bound:
    """Bound ``a / b``, where b is constant or bounded away from 0."""
    a, b = call.args["self"], call.args["other"]
    if call.args.get("rounding_mode") is not None:
        return call.unknown("it rounds, so that it has no bound; bound the parts around it")
    divisor = call.of(b)
    if not isinstance(b, Place):
        assert divisor.low is not None
        return gained(call, call.of(a), a.size, 1 / divisor.low)
    low, high = divisor.low, divisor.high
    if low is None or high is None or not bool(((low > 0) | (high < 0)).all()):
        return call.unknown("it divides by what depends on the input and may be 0; bound the parts around it")
    steepest = float(torch.minimum(low.abs(), high.abs()).min()) ** -2
    inverse = Bound(divisor.times(steepest), 1 / high, 1 / low)
    return _product(call, call.of(a), inverse, shape(a), b.size)


def _product(call: Call, a: Bound, b: Bound, a_size: Any, b_size: Any, same: bool = False) -> Bound:
    out = call.out.size
    slope = 0.0
    for x, y, size in ((a, b, a_size), (b, a, b_size)):
        if x.slope:
            if y.size is None:
                return call.out_of_range()
            squares = y.size.square().expand(out).sum_to_size(size)
            most = math.sqrt(float(squares.max()))
            if not math.isfinite(most):
                return call.out_of_range()
            slope += x.times(most)
    if a.low is None or a.high is None or b.low is None or b.high is None:
        return Bound(slope)
    if same:
        square = torch.maximum(a.low.square(), a.high.square())
        return Bound(slope, torch.zeros_like(square), square, root=a.slope)
    ends = [x * y for x in (a.low, a.high) for y in (b.low, b.high)]
    low, high = (f(f(ends[0], ends[1]), f(ends[2], ends[3])) for f in (torch.minimum, torch.maximum))
    return Bound(slope, low.expand(out), high.expand(out))


def matmul(call: Call) -> Bound:
    """Bound a product of matrices, or of batches of them, perhaps with a constant added."""
    op = call.step.op.overloadpacket.__name__.rstrip("_")
    names = ("mat1", "mat2") if op == "addmm" else ("batch1", "batch2") if op == "baddbmm" else ("self", "mat2")
    if op == "mv":
        names = ("self", "vec")
    beta, alpha = float(call.args.get("beta", 1)), float(call.args.get("alpha", 1))
    added = call.args["self"] if op in ("addmm", "baddbmm") and beta else None
    a, b = (call.args[name] for name in names)
    if isinstance(added, Place):
        return call.unknown("no bound is known where what is added depends on the input; bound the parts around it")
    plus = None if added is None else added.value.double() * beta
    if op in ("mm", "addmm") and isinstance(b, Constant) and (plus is None or plus.ndim == 1):
        return matrix(call, names[0], alpha * b.value.double(), plus)
    x, y = call.of(a), call.of(b)
    slope = 0.0
    for one, other, constant in ((x, y, b), (y, x, a)):
        if one.slope:
            size = _matrix_size(constant.value.double() if isinstance(constant, Constant) else None, other)
            if not math.isfinite(size):
                return call.out_of_range()
            slope += one.times(size * abs(alpha))
    if x.low is None or x.high is None or y.low is None or y.high is None:
        return Bound(slope)
    if not all(bool(t.isfinite().all()) for t in (x.low, x.high, y.low, y.high)):
        return Bound(slope)
    (m, r), (n, s) = (((t.low + t.high) / 2, (t.high - t.low) / 2) for t in (x, y))  # pyright: ignore
    middle, radius = m @ n, m.abs() @ s + r @ n.abs() + r @ s
    radius = radius * (1 + 1e-9) + 1e-12 * (m.abs() @ n.abs())
    middle = alpha * middle if plus is None else alpha * middle + plus
    return Bound(slope, middle - abs(alpha) * radius, middle + abs(alpha) * radius)


def _matrix_size(constant: Tensor | None, bound: Bound) -> float:
    """Return a bound of the norm 2 of a matrix, the largest of a batch."""
    if constant is None:
        return matrix_size(bound)
    return float(constant.norm() if constant.ndim < 2 else torch.linalg.matrix_norm(constant, 2).max()) * (1 + 1e-9)


def matrix_size(bound: Bound) -> float:
    """Return a bound of the norm 2 of a batch of matrices, from what is known of their entries, rows and columns."""
    sizes = bound.size
    if sizes is None:
        return math.inf
    if sizes.ndim < 2:
        return min(float(sizes.norm()), bound.row)
    rows, columns = (
        sizes.square().sum(a).clamp(max=most**2).sum(-1) for a, most in ((-1, bound.row), (-2, bound.column))
    )
    by_sums = sizes.sum(-1).amax(-1) * sizes.sum(-2).amax(-1)  # of rows and columns
    return float(torch.minimum(torch.minimum(rows, columns), by_sums).max().sqrt())


def attention(call: Call) -> Bound:
    """Bound ``softmax(scale Q K' + mask) V``, where the entries of the three are bounded.

    With ``S = scale Q K'`` and ``P = softmax(S)``: ``|dS| <= scale (|Q| |dK| + |K| |dQ|)``, ``|dP| <= |dS| / 2`` (see
    ``softmax``), ``|dO| <= |P| |dV| + |V| |dP|``, and the norm of P, whose rows sum to 1, is at most the root of their
    number. Each entry of the result is a mean of entries of V.
    """
    names = ("query", "key", "value")
    if call.args.get("dropout_p"):
        return call.unknown("its dropout is random; put the network into evaluation mode")
    if any(isinstance(call.args.get(n), Place) for n in ("attn_mask", "attn_bias")):
        return call.unknown("its mask depends on the input; bound the parts around it")
    if len({call.shape(name)[:-2] for name in names}) > 1:
        return call.unknown("queries share keys; repeat the keys in a step before")
    q, k, v = (call.bound(name) for name in names)
    scale = call.args.get("scale")
    scale = call.shape("query")[-1] ** -0.5 if scale is None else abs(float(scale))
    sizes = [matrix_size(t) for t in (q, k, v)]
    low = high = None
    if v.low is not None and v.high is not None:
        low, high = (
            v.low.amin(-2, keepdim=True).expand(call.out.size),
            v.high.amax(-2, keepdim=True).expand(call.out.size),
        )
    weights = 0.0
    for x, size in ((q, sizes[1]), (k, sizes[0])):
        if x.slope and not math.isfinite(size * sizes[2]):
            return call.out_of_range()
        weights += x.times(size * scale)
    slope = v.times(math.sqrt(call.shape("query")[-2])) + (weights * sizes[2] / 2 if weights else 0.0)
    return Bound(slope, low, high, row=v.row)


# ---- maxima ----------------------------------------------------------------------------------------------------------
def larger(call: Call) -> Bound:
    """Bound ``maximum`` and ``minimum``: ``|max(a, b) - max(a', b')| <= max(|a - a'|, |b - b'|)``, entry by entry."""
    a, b = call.args["self"], call.args["other"]
    known, out = (call.of(a), call.of(b)), call.out.size
    sizes = [shape(x) for x in (a, b)]
    if all(size == out for size in sizes):
        slope = call.flow.joint([a, b])
    else:
        copies = [math.sqrt(math.prod(out) / max(1, math.prod(size))) for size in sizes]
        slope = math.hypot(*(x.times(times) for x, times in zip(known, copies, strict=True)))
    name = "maximum" if "max" in call.step.op.overloadpacket.__name__ else "minimum"
    ends = []
    for which, fill in (("low", -math.inf), ("high", math.inf)):
        values = [getattr(x, which) for x in known]
        values = [torch.full((), fill, dtype=torch.float64, device=call.out.device) if t is None else t for t in values]
        ends.append(getattr(torch, name)(*values).expand(out))
    pair = frozenset([call.flow.key(a), call.flow.key(b)]) if all(isinstance(x, Place) for x in (a, b)) else None
    return Bound(slope, *ends, sorted_of=None if pair is None else (pair, name))


def ordered(call: Call) -> list[Bound]:
    """Bound the largest, smallest or sorted entries along axes: sorting does not take two inputs apart."""
    name = call.step.op.overloadpacket.__name__
    if "other" in call.args:
        return [larger(call)]
    x = call.bound("self")
    lows, highs = ([None, None] if t is None else _all(call.apply(t)) for t in (x.low, x.high))
    kept = str({key: value for key, value in call.args.items() if key in ("dim", "keepdim")})
    pair = None
    if name in ("amax", "max", "amin", "min") and math.prod(call.shape("self")) >= 2 * math.prod(call.out.size):
        pair = (call.flow.key(call.args["self"]), kept), "maximum" if "max" in name else "minimum"
    count = 2 if name == "aminmax" else 1
    return [Bound(x.slope, low, high, sorted_of=pair) for low, high in zip(lows[:count], highs[:count], strict=True)]


def pooled(call: Call) -> list[Bound]:
    """Bound max pooling: a pixel that stands in k windows counts k times."""
    x = call.bound("self")
    axes = _axes(call)
    numbers = [
        per_axis(call.args.get(n) or call.args["kernel_size"], axes) for n in ("kernel_size", "stride", "dilation")
    ]
    windows = math.prod(math.ceil(k * math.gcd(s, d) / s) for k, s, d in zip(*numbers, strict=True))
    low, high = (None if t is None else _first(call.apply(t)) for t in (x.low, x.high))
    return [Bound(x.times(math.sqrt(windows)), low, high)]


def adaptively_pooled(call: Call) -> list[Bound]:
    """Bound adaptive max pooling."""
    x, size, targets = call.bound("self"), call.shape("self"), call.args["output_size"]
    windows = 1
    for n, m in zip(size[-len(targets) :], targets, strict=True):
        counts = [0] * n
        for i in range(m):
            for j in range(i * n // m, -(-(i + 1) * n // m)):
                counts[j] += 1
        windows *= max(counts)
    low, high = (None if t is None else _first(call.apply(t)) for t in (x.low, x.high))
    return [Bound(x.times(math.sqrt(windows)), low, high)]


# ---- private ---------------------------------------------------------------------------------------------------------
def _all(result: Any) -> list[Tensor]:
    return list(result) if isinstance(result, tuple) else [result]


def _first(result: Any) -> Tensor:
    return result[0] if isinstance(result, tuple) else result


def _axes(call: Call) -> int:
    return int(next(c for c in call.step.op.overloadpacket.__name__ if c.isdigit()))


def per_axis(value: Any, axes: int) -> tuple[int, ...]:
    value = (value,) if isinstance(value, int) else tuple(value)
    return value * axes if len(value) == 1 else value


_POOLS = [
    "max_pool1d",
    "max_pool2d",
    "max_pool3d",
    "max_pool1d_with_indices",
    "max_pool2d_with_indices",
    "max_pool3d_with_indices",
]
_FLASH = [
    "_scaled_dot_product_flash_attention",
    "_scaled_dot_product_flash_attention_for_cpu",
    "_scaled_dot_product_efficient_attention",
    "_scaled_dot_product_cudnn_attention",
    "scaled_dot_product_attention",
]
BRANCHES: dict[Any, Rule] = {
    **{aten.mul: product, aten.addcmul: added_product, aten.div: quotient, aten.true_divide: quotient},
    **dict.fromkeys((aten.mm, aten.addmm, aten.bmm, aten.baddbmm, aten.mv), matmul),
    **{getattr(aten, name): attention for name in _FLASH},
    **dict.fromkeys((aten.maximum, aten.minimum), larger),
    **dict.fromkeys((aten.amax, aten.amin, aten.max, aten.min, aten.sort, aten.topk, aten.kthvalue), ordered),
    **{aten.aminmax: ordered},
    **{getattr(aten, name): pooled for name in _POOLS if hasattr(aten, name)},
    **dict.fromkeys((aten.adaptive_max_pool2d, aten.adaptive_max_pool3d), adaptively_pooled),
}
