"""Bounds of what moves, joins and averages numbers: pooling, padding, resizing, copies, concatenations."""

import math
from typing import Any

import torch
import torch.nn.functional as F

from convkit.audit.product.flow import Call, Rule
from convkit.audit.product.known import CONVERGED, Bound, Padded
from convkit.operators.recording import Place

aten: Any = torch.ops.aten


def moved(call: Call) -> Bound:
    """Bound ``x -> M x + c`` with entries of M >= 0 by ``sqrt(||M||_1 ||M||_inf)``, from its row and column sums."""
    places = [a for a in call.args.values() if isinstance(a, Place)]
    if len(places) != 1:
        return call.unknown("no bound is known where several of its arguments depend on the input")
    x, size = call.of(places[0]), places[0].size
    with torch.enable_grad():
        ones = torch.ones(size, dtype=torch.float64, device=places[0].device).requires_grad_()
        y = call.apply(ones)
        (columns,) = torch.autograd.grad(y.sum(), ones)
    zero = call.apply(torch.zeros_like(ones))
    rows = y.detach() - zero
    most = (float(t.max()) * (1 + CONVERGED) if t.numel() else 0.0 for t in (rows, columns))
    row, column = most
    low, high = (None if t is None else call.apply(t) for t in (x.low, x.high))
    root = x.root * math.sqrt(column) if bool((zero >= 0).all()) else math.inf
    return Bound(x.times(math.sqrt(row * column)), low, high, root=root)


def padded(call: Call) -> Bound:
    """Bound a padding; zeros are kept in mind for a convolution behind."""
    bound, place, args = moved(call), _only(call), call.args
    pad, value = (args.get(name, args.get(number)) for name, number in (("pad", "1"), ("value", "3")))
    if args.get("mode", args.get("2", "constant")) == "constant" and not value and all(n >= 0 for n in pad):
        pads = tuple((pad[i], pad[i + 1]) for i in range(len(pad) - 2, -1, -2))
        pads = ((0, 0),) * (len(place.size) - len(pads)) + pads
        bound.padded = Padded(call.of(place).slope, place.size, pads)
    return bound


def copied(call: Call) -> Bound:
    """Bound a copy, in whatever order, in which each number stands at most once."""
    place = _only(call)
    x = call.of(place)
    if not call.out.dtype.is_floating_point:
        return call.unknown("it rounds to whole numbers, so that it has no bound; bound the parts around it")
    low, high = (None if t is None else call.apply(t) for t in (x.low, x.high))
    if call.step.op.overloadpacket not in (aten.clone, aten._to_copy):
        return Bound(x.slope, low, high, root=x.root)
    if x.linear is not None:
        return Bound(None, low, high, linear=x.linear, row=x.row, column=x.column)
    return Bound(x.slope, low, high, root=x.root, row=x.row, column=x.column)


def assigned(call: Call) -> Bound:
    """Bound ``copy_``: the numbers of the source, copied as often as its axes are repeated."""
    x, out = call.bound("src"), call.args["self"].size
    if not call.args["self"].dtype.is_floating_point:
        return call.unknown("it rounds to whole numbers, so that it has no bound; bound the parts around it")
    copies = math.sqrt(math.prod(out) / max(1, math.prod(call.shape("src"))))
    low, high = (None if t is None else t.expand(out) for t in (x.low, x.high))
    return Bound(x.times(copies), low, high)


def joined(call: Call) -> Bound:
    """Bound a concatenation or a stack by the root of the sum of squares."""
    parts = call.args["tensors"]
    known = [call.of(part) for part in parts]
    low = high = None
    if any(x.low is not None for x in known):
        op, dim = call.step.op, call.args.get("dim", 0)
        ends = []
        for which, fill in (("low", -math.inf), ("high", math.inf)):
            filled = []
            for part, x in zip(parts, known, strict=True):
                t = getattr(x, which)
                size = part.size if isinstance(part, Place) else tuple(part.value.shape)
                filled.append(torch.full(size, fill, dtype=torch.float64, device=call.out.device) if t is None else t)
            ends.append(op(filled, dim))
        low, high = ends
    return Bound(call.flow.joint(parts), low, high)


def chosen(call: Call) -> Bound:
    """Bound ``torch.where`` and ``masked_fill`` with a constant mask, and ``index_put`` at constant places."""
    if isinstance(call.args.get("condition", call.args.get("mask")), Place):
        return call.unknown("its mask depends on the input, so that it may jump; bound the parts around it")
    a, b = call.bound("self"), call.bound("other" if "other" in call.args else "value")
    out = call.out.size
    copies = [math.sqrt(math.prod(out) / max(1, math.prod(call.shape(n)))) for n in ("self", "other") if n in call.args]
    copies += [math.sqrt(math.prod(out))] * (2 - len(copies))
    return Bound(math.hypot(a.times(copies[0]), b.times(copies[1])))


def filled(call: Call) -> Bound:
    """Bound what is filled with a constant."""
    value = call.args.get("value", 0)
    if isinstance(value, Place):
        return Bound(call.of(value).times(math.sqrt(math.prod(call.out.size))))
    t = call.of(value).low
    assert t is not None
    return Bound(0.0, t.expand(call.args["self"].size), t.expand(call.args["self"].size))


def _only(call: Call) -> Place:
    return next(a for a in call.args.values() if isinstance(a, Place))


_COPIES = [
    "clone",
    "_to_copy",
    "lift_fresh",
    "roll",
    "flip",
    "pixel_shuffle",
    "pixel_unshuffle",
    "channel_shuffle",
    "native_channel_shuffle",
    "_reshape_copy",
    "permute_copy",
    "transpose_copy",
    "view_copy",
    "contiguous",
    "rot90",
]
_MOVES = [
    "avg_pool1d",
    "avg_pool2d",
    "avg_pool3d",
    "adaptive_avg_pool1d",
    "adaptive_avg_pool2d",
    "adaptive_avg_pool3d",
    "_adaptive_avg_pool2d",
    "_adaptive_avg_pool3d",
    "mean",
    "sum",
    "reflection_pad1d",
    "reflection_pad2d",
    "reflection_pad3d",
    "replication_pad1d",
    "replication_pad2d",
    "replication_pad3d",
    "upsample_nearest1d",
    "upsample_nearest2d",
    "upsample_nearest3d",
    "_upsample_nearest_exact1d",
    "_upsample_nearest_exact2d",
    "_upsample_nearest_exact3d",
    "upsample_linear1d",
    "upsample_bilinear2d",
    "upsample_trilinear3d",
    "_upsample_bilinear2d_aa",
    "index_select",
    "index",
    "gather",
    "repeat",
    "im2col",
    "col2im",
    "tril",
    "triu",
    "cumsum",
    "slice_copy",
    "expand_copy",
    "take_along_dim",
]
MOVES: dict[Any, Rule] = {
    **dict.fromkeys((F.pad, aten.constant_pad_nd), padded),
    **{getattr(aten, name): copied for name in _COPIES if hasattr(aten, name)},
    **{getattr(aten, name): moved for name in _MOVES if hasattr(aten, name)},
    **dict.fromkeys((aten.cat, aten.stack), joined),
    **{aten.copy: assigned, aten.where: chosen, aten.masked_fill: chosen},
    **{aten.fill: filled, aten.zero: filled},
}
