"""Bounds of what is linear in its input: convolutions, matrices, gains, sums, pooling, and moves of numbers."""

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from convkit.audit.flow import CONVERGED, ROUNDING, Bound, Call, Linear, Padded, Rule
from convkit.normalization.convnorm import ConvNorm2d
from convkit.operators.layers import has_operator
from convkit.operators.operator import ConvOperator, transposed_convolution
from convkit.operators.recording import Place

aten: Any = torch.ops.aten


# ---- convolutions and matrices ---------------------------------------------------------------------------------------
def of_module(call: Call) -> Bound:
    """Bound a layer by the operator that it states, or that its weight describes."""
    layer: Any = call.step.op
    x = call.of(call.step.args[0])
    size, out = call.step.args[0].size, call.out.size
    if isinstance(layer, ConvNorm2d) and layer.affine_weight is not None:  # between the two the map is cropped
        inner = layer.operator(size[-2:], affine=False)
        affine = ConvOperator(layer.affine_weight, out[-2:], groups=layer.out_channels, padding_mode=layer.padding_mode)
        return Bound(None, linear=Linear(x.times(call.norm(inner)), _double(affine), len(out) - 3, call.norm))
    if isinstance(layer, nn.Linear) and not has_operator(layer):
        return _through(call, x, ConvOperator.from_layer(layer, (1, 1)), len(size) - 1, layer.bias)
    axes = len(size) - 2 if has_operator(layer) else layer.weight.ndim - 2
    A = ConvOperator.from_layer(layer, size[len(size) - axes :])
    if has_operator(layer):
        return Bound(None, linear=Linear(x.slope, _double(A), len(out) - axes - 1, call.norm))
    return _through(call, x, A, len(out) - axes - 1, layer.bias)


def convolution(call: Call) -> Bound:
    """Bound a convolution or transposed convolution with a constant kernel, with the zeros padded before it."""
    if not isinstance(call.args["input"], Place):
        return call.unknown("its kernel depends on the input; bound the parts around it")
    kernel, x, size = call.constant("weight"), call.bound("input"), call.shape("input")
    assert kernel is not None
    axes = kernel.ndim - 2
    geometry = [tuple(call.args[n]) for n in ("stride", "padding", "dilation", "output_padding")]
    stride, padding, dilation, more = (g * axes if len(g) == 1 else g for g in geometry)
    groups, spatial = call.args["groups"], size[len(size) - axes :]
    if call.args["transposed"]:
        A = transposed_convolution(kernel, spatial, stride, padding, more, dilation, groups)
        return _through(call, x, A, len(size) - axes - 1, call.constant("bias"))
    A = ConvOperator(kernel, spatial, stride, tuple((p, p) for p in padding), dilation, groups, "zeros")
    bound = _through(call, x, A, len(size) - axes - 1, call.constant("bias"))
    if x.padded is not None and not any(padding) and x.padded.size[: len(size) - axes] == size[: len(size) - axes]:
        A = ConvOperator(
            kernel, x.padded.size[len(size) - axes :], stride, x.padded.pads[-axes:], dilation, groups, "zeros"
        )
        bound.linear = Linear(x.padded.slope, A, len(size) - axes - 1, call.norm)
    return bound


def linear(call: Call) -> Bound:
    """Bound ``F.linear`` with a constant weight."""
    weight = call.constant("weight")
    assert weight is not None
    A = ConvOperator(weight[:, :, None], 1)
    return _through(call, call.bound("input"), A, len(call.shape("input")) - 1, call.constant("bias"))


def matrix(call: Call, x: str, right: Tensor, bias: Tensor | None) -> Bound:
    """Bound ``x -> x @ right + bias``."""
    return _through(call, call.bound(x), ConvOperator(right.mT[:, :, None], 1), len(call.shape(x)) - 1, bias)


def _through(call: Call, x: Bound, A: ConvOperator, axis: int, bias: Tensor | None) -> Bound:
    """Return the bound of ``A x + bias``, where the channels of x lie along ``axis``."""
    A = _double(A)
    made, size = Linear(x.slope, A, axis, call.norm), None if bias is None else bias.detach().double()
    found = Bound(None, linear=made)
    if x.row < math.inf and A.kernel[0, 0].numel() == 1 and axis == len(call.out.size) - 1:  # a matrix on the last axis
        rows = A.kernel.flatten(1).norm(dim=1) * x.row * (1 + CONVERGED)
        middle = torch.zeros_like(rows) if size is None else size
        low, high = ((middle + sign * rows).expand(call.out.size) for sign in (-1, 1))
        row = call.norm(A) * x.row + (0.0 if size is None else float(size.norm()))
        return Bound(None, low, high, linear=made, row=row * (1 + CONVERGED))
    if x.low is None or x.high is None:
        return found
    trailing = len(A.input_shape)

    def shaped(of: ConvOperator) -> Callable[[Tensor], Tensor]:
        def f(t: Tensor) -> Tensor:
            if of.input_shape == (1,) * trailing and axis == t.ndim - 1:  # a matrix on the last axis
                return t @ of.kernel.flatten(1).mT
            return of(t.reshape(-1, *of.in_shape)).reshape(*t.shape[:axis], *of.out_shape)

        return f

    shift = 0.0 if size is None else size
    if isinstance(shift, Tensor) and shift.ndim == 1:
        shift = shift.reshape(-1, *[1] * (len(call.out.size) - axis - 1))
    low, high = between(shaped(A), shaped(_absolute(A)), x.low, x.high)
    return Bound(None, low + shift, high + shift, linear=found.linear)


def between(
    f: Callable[[Tensor], Tensor], of_sizes: Callable[[Tensor], Tensor], low: Tensor, high: Tensor
) -> tuple[Tensor, Tensor]:
    """Return the range of a linear map on an interval, where ``of_sizes`` is the map of the absolute values."""
    endless = low.isinf() | high.isinf()
    middle = torch.where(endless, 0.0, (low + high) / 2)
    radius = torch.where(endless, 0.0, (high - low) / 2)
    y, r = f(middle), of_sizes(radius + ROUNDING * (middle.abs() + radius))
    if bool(endless.any()):
        r = torch.where(of_sizes(endless.double()) > 0, math.inf, r)
    return y - r, y + r


def _double(A: ConvOperator) -> ConvOperator:
    return A._in_geometry(kernel=A.kernel.detach().double())


def _absolute(A: ConvOperator) -> ConvOperator:
    return A._in_geometry(kernel=A.kernel.abs())


# ---- gains and sums --------------------------------------------------------------------------------------------------
def gained(call: Call, x: Bound, size: tuple[int, ...], gain: Tensor, shift: Tensor | None = None) -> Bound:
    """Return the bound of ``gain * x + shift`` entry by entry, where x has this size; a linear map takes the gain in."""
    out = call.out.size
    if not gain.isfinite().all():
        raise ValueError("its gain must be finite, got NaN or infinity; look for where training diverged")
    low = high = None
    if x.low is not None and x.high is not None:
        ends = x.low * gain, x.high * gain
        low, high = torch.minimum(*ends), torch.maximum(*ends)
        low, high = (t.expand(out) if shift is None else (t + shift).expand(out) for t in (low, high))
    largest = float(gain.abs().max()) if gain.numel() else 0.0
    copies = math.sqrt(math.prod(out) / max(1, math.prod(size)))
    root = x.root * math.sqrt(largest) * copies if bool((gain >= 0).all()) and shift is None else math.inf
    made, along = x.linear, gain.reshape([1] * (len(out) - gain.ndim) + list(gain.shape))
    if made is not None and size == out and all(n == 1 or i == made.axis for i, n in enumerate(along.shape)):
        return Bound(None, low, high, linear=made.with_gain(along.flatten().expand(out[made.axis])))
    row, column = (t * largest if size == out and shift is None else math.inf for t in (x.row, x.column))
    return Bound(x.times(largest * copies), low, high, root=root, row=row, column=column)


def batchnorm(call: Call) -> Bound:
    """Bound a BatchNorm in evaluation mode: gains ``weight / sqrt(running_var + eps)``; or an InstanceNorm."""
    x, size = call.bound("input"), call.shape("input")
    weight, bias, eps = call.constant("weight"), call.constant("bias"), call.args.get("eps", call.args.get("epsilon"))
    if call.args.get("training") or call.constant("running_var") is None:
        if "instance_norm" not in call.step.function:
            raise ValueError("it divides by the deviations of its batch, which has no bound; track running statistics")
        tail = [1] * (len(size) - 2)
        weight, bias = (None if t is None else t.reshape(-1, *tail) for t in (weight, bias))
        return normalized(call, x, weight, bias, eps, size[0] * math.prod(size[2:]))
    mean, var = call.constant("running_mean"), call.constant("running_var")
    assert mean is not None
    assert var is not None
    gain = (var + eps).rsqrt() if weight is None else (var + eps).rsqrt() * weight
    shift = -mean * gain if bias is None else bias - mean * gain
    tail = [1] * (len(size) - 2)
    return gained(call, x, size, gain.reshape(-1, *tail), shift.reshape(-1, *tail))


def normalized(
    call: Call, x: Bound, weight: Tensor | None, bias: Tensor | None, eps: float, number: int, centered: bool = True
) -> Bound:
    """Bound ``weight * (x - mean) / sqrt(var + eps) + bias`` over groups of ``number`` entries.

    The Jacobian of ``u = (x - mean) / s`` with ``s = sqrt(var + eps)`` is ``(I - 11'/n - uu'/n) / s``. It is symmetric,
    with eigenvalues ``0``, ``1 / s`` and ``(1 - |u|^2 / n) / s``, and ``|u|^2 <= n``: its norm is at most
    ``1 / sqrt(eps)``. The entries of u have mean 0, so none is above ``sqrt(n - 1)``; without the mean, ``sqrt(n)``.
    """
    if not eps > 0:
        return call.unknown("without eps it divides by what may be 0, so that it has no bound")
    gain = torch.ones((), dtype=torch.float64) if weight is None else weight
    most = math.sqrt(max(0, number - 1) if centered else number) * (1 + ROUNDING)
    shift = torch.zeros_like(gain) if bias is None else bias
    high = (gain.abs() * most + shift).expand(call.out.size)
    low = (shift - gain.abs() * most).expand(call.out.size)
    largest = float(gain.abs().max())
    if not math.isfinite(largest):
        raise ValueError("its gain must be finite, got NaN or infinity; look for where training diverged")
    return Bound(x.times(largest / math.sqrt(eps)), low, high)


def sums(call: Call) -> Bound:
    """Bound ``self + alpha * other``, or the difference."""
    name, alpha = call.step.op.overloadpacket.__name__.strip("_"), float(call.args.get("alpha", 1))
    factors = {"add": (1.0, alpha), "sub": (1.0, -alpha), "rsub": (-alpha, 1.0)}[name]
    a, b = call.bound("self"), call.bound("other")
    sizes, out = (call.shape("self"), call.shape("other")), call.out.size
    ends = []
    for x, factor in ((a, factors[0]), (b, factors[1])):
        if x.low is not None and x.high is not None:
            ends.append((x.low * factor, x.high * factor) if factor >= 0 else (x.high * factor, x.low * factor))
    low, high = ((ends[0][i] + ends[1][i]).expand(out) for i in (0, 1)) if len(ends) == 2 else (None, None)
    for x, y, factor, size in ((a, b, factors[0], sizes[0]), (b, a, factors[1], sizes[1])):
        if isinstance(call.args["self" if y is a else "other"], Place):
            continue  # y depends on the input
        if x.linear is not None and size == out:
            return Bound(None, low, high, linear=x.linear.with_gain(torch.full((out[x.linear.axis],), factor).double()))
        copies = math.sqrt(math.prod(out) / max(1, math.prod(size)))
        root = x.root * copies if factor == 1 and y.low is not None and bool((y.low >= 0).all()) else math.inf
        return Bound(x.times(abs(factor) * copies), low, high, root=root)
    copies = [math.sqrt(math.prod(out) / max(1, math.prod(size))) for size in sizes]
    return Bound(a.times(abs(factors[0]) * copies[0]) + b.times(abs(factors[1]) * copies[1]), low, high)


# ---- pooling and moves -----------------------------------------------------------------------------------------------
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
LINEAR: dict[Any, Rule] = {
    aten.convolution: convolution,
    aten.linear: linear,
    **dict.fromkeys((F.pad, aten.constant_pad_nd), padded),
    **{getattr(aten, name): copied for name in _COPIES if hasattr(aten, name)},
    **{getattr(aten, name): moved for name in _MOVES if hasattr(aten, name)},
    **dict.fromkeys((aten.native_batch_norm, aten._native_batch_norm_legit_no_training), batchnorm),
    **dict.fromkeys((aten.cudnn_batch_norm, aten.miopen_batch_norm), batchnorm),
    **dict.fromkeys((aten.add, aten.sub, aten.rsub), sums),
    **dict.fromkeys((aten.cat, aten.stack), joined),
    **{aten.copy: assigned, aten.where: chosen, aten.masked_fill: chosen},
    **{aten.fill: filled, aten.zero: filled},
}
