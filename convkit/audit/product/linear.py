"""Bounds of convolutions and matrices, of gains behind them, and of sums."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from convkit.audit.product.flow import Call, Rule
from convkit.audit.product.known import CONVERGED, ROUNDING, Bound, Linear
from convkit.normalization.convnorm import ConvNorm2d
from convkit.operators.layers import has_operator
from convkit.operators.operator import ConvOperator, transposed_convolution
from convkit.operators.recording import Place

aten: Any = torch.ops.aten


# ---- convolutions and matrices ---------------------------------------------------------------------------------------
def of_module(call: Call) -> Bound:
    """Bound a layer by the operator that it states, or that its weight describes."""
    layer: Any = call.step.op
    speaks, bias = bool(has_operator(call.step.op)), getattr(layer, "bias", None)
    x = call.of(call.step.args[0])
    size, out = call.step.args[0].size, call.out.size
    if isinstance(layer, ConvNorm2d) and layer.affine_weight is not None:  # between the two the map is cropped
        inner = layer.operator(size[-2:], affine=False)
        affine = ConvOperator(layer.affine_weight, out[-2:], groups=layer.out_channels, padding_mode=layer.padding_mode)
        return Bound(None, linear=Linear(x.times(call.norm(inner)), _double(affine), len(out) - 3, call.norm))
    if isinstance(layer, nn.Linear) and not speaks:
        return _through(call, x, ConvOperator.from_layer(layer, (1, 1)), len(size) - 1, bias)
    axes = len(size) - 2 if speaks else layer.weight.ndim - 2
    A = ConvOperator.from_layer(layer, size[len(size) - axes :])
    if speaks:
        return Bound(None, linear=Linear(x.slope, _double(A), len(out) - axes - 1, call.norm))
    return _through(call, x, A, len(out) - axes - 1, bias)


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
    """Return the bound of ``gain * x + shift`` entry by entry; a linear map takes in the gain.

    ``size`` is that of x.
    """
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
    if (
        made is not None
        and call.flow.folded
        and size == out
        and all(n == 1 or i == made.axis for i, n in enumerate(along.shape))
    ):
        return Bound(None, low, high, linear=made.with_gain(along.flatten().expand(out[made.axis])))
    row, column = (t * largest if size == out and shift is None else math.inf for t in (x.row, x.column))
    return Bound(x.times(largest * copies), low, high, root=root, row=row, column=column)


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
            gain = torch.full((out[x.linear.axis],), factor, dtype=torch.float64, device=call.out.device)
            return Bound(None, low, high, linear=x.linear.with_gain(gain))
        copies = math.sqrt(math.prod(out) / max(1, math.prod(size)))
        root = x.root * copies if factor == 1 and y.low is not None and bool((y.low >= 0).all()) else math.inf
        return Bound(x.times(abs(factor) * copies), low, high, root=root)
    copies = [math.sqrt(math.prod(out) / max(1, math.prod(size))) for size in sizes]
    return Bound(a.times(abs(factors[0]) * copies[0]) + b.times(abs(factors[1]) * copies[1]), low, high)


LINEAR: dict[Any, Rule] = {
    aten.convolution: convolution,
    aten.linear: linear,
    **dict.fromkeys((aten.add, aten.sub, aten.rsub), sums),
}
