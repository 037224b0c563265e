"""Bounds of normalizations: BatchNorm, LayerNorm and their kind, softmax, and norms of vectors."""

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from convkit.audit.product.branches import per_axis
from convkit.audit.product.flow import Call, Rule
from convkit.audit.product.known import ROUNDING, Bound
from convkit.audit.product.linear import gained

aten: Any = torch.ops.aten


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
    gain = torch.ones((), dtype=torch.float64, device=call.out.device) if weight is None else weight
    most = math.sqrt(max(0, number - 1) if centered else number) * (1 + ROUNDING)
    shift = torch.zeros_like(gain) if bias is None else bias
    high = (gain.abs() * most + shift).expand(call.out.size)
    low = (shift - gain.abs() * most).expand(call.out.size)
    largest = float(gain.abs().max())
    if not math.isfinite(largest):
        raise ValueError("its gain must be finite, got NaN or infinity; look for where training diverged")
    return Bound(x.times(largest / math.sqrt(eps)), low, high)


def softmax(call: Call) -> Bound:
    """Bound a softmax: row i of its Jacobian ``diag(p) - pp'`` sums to at most ``2 p_i (1 - p_i) <= 1/2``."""
    x, zero = call.bound("self"), call.full(0.0)
    last = call.args["dim"] in (-1, len(call.out.size) - 1)
    return Bound(x.times(0.5), zero, zero + 1, row=1.0 if last else math.inf)


def log_softmax(call: Call) -> Bound:
    """Bound a log-softmax: rows of its Jacobian ``I - 1p'`` sum to at most 2, columns to at most n."""
    n = call.shape("self")[call.args["dim"]]
    return Bound(call.bound("self").times(math.sqrt(2 * n)))


def logsumexp(call: Call) -> Bound:
    """Bound the logarithm of a sum of exponentials, whose gradient is a softmax."""
    return Bound(call.bound("self").slope)


def layernorm(call: Call) -> Bound:
    """Bound a LayerNorm (see ``normalized``)."""
    number, weight, bias = math.prod(call.args["normalized_shape"]), call.constant("weight"), call.constant("bias")
    bound = normalized(call, call.bound("input"), weight, bias, call.args["eps"], number)
    return _with_rows(bound, weight, bias, number) if len(call.args["normalized_shape"]) == 1 else bound


def rmsnorm(call: Call) -> Bound:
    """Bound an RMSNorm (see ``normalized``)."""
    number, weight, eps = math.prod(call.args["normalized_shape"]), call.constant("weight"), call.args.get("eps")
    eps = torch.finfo(call.out.dtype).eps if eps is None else eps
    bound = normalized(call, call.bound("input"), weight, None, eps, number, centered=False)
    return _with_rows(bound, weight, None, number) if len(call.args["normalized_shape"]) == 1 else bound


def groupnorm(call: Call) -> Bound:
    """Bound a GroupNorm (see ``normalized``)."""
    size, groups = call.shape("input"), call.args["group"]
    tail = [1] * (len(size) - 2)
    weight, bias = (None if t is None else t.reshape(-1, *tail) for t in map(call.constant, ("weight", "bias")))
    return normalized(call, call.bound("input"), weight, bias, call.args["eps"], math.prod(size[1:]) // groups)


def _with_rows(bound: Bound, weight: Tensor | None, bias: Tensor | None, number: int) -> Bound:
    largest = 1.0 if weight is None else float(weight.abs().max())
    bound.row = (largest * math.sqrt(number) + (0.0 if bias is None else float(bias.norm()))) * (1 + 1e-9)
    return bound


def vector_norm(call: Call) -> Bound:
    """Bound a norm along axes, by the triangle inequality."""
    x, order = call.bound("self"), call.args.get("ord", call.args.get("p"))
    order = 2.0 if order is None else float(order)
    if not order >= 1:
        return call.unknown("no bound is known for an order below 1; bound the parts around it")
    number = math.prod(call.shape("self")) / max(1, math.prod(call.out.size))
    zero = call.full(0.0)
    size = x.size
    high = zero + math.inf
    if size is not None:
        high = size.square().sum_to_size(_kept(call)).sqrt().reshape(call.out.size) * number ** max(0, 1 / order - 0.5)
    return Bound(x.times(number ** max(0, 1 / order - 0.5)), zero, high)


def _kept(call: Call) -> list[int]:
    size, dim = list(call.shape("self")), call.args.get("dim")
    for axis in range(len(size)) if not dim and dim != 0 else [dim] if isinstance(dim, int) else dim:
        size[axis] = 1
    return size


def unit(call: Call) -> Bound:
    """Bound ``F.normalize``: beyond ``eps`` its Jacobian is ``(I - uu') / |x|``, and before it ``I / eps``."""
    names = dict(zip("0123", ("input", "p", "dim", "eps"), strict=True))
    args = {names.get(key, key): value for key, value in call.args.items()}
    eps = args.get("eps", 1e-12)
    if args.get("p", 2.0) != 2 or not eps > 0:
        return call.unknown("needed p=2 and eps above 0; bound the parts around it")
    one = call.full(1.0)
    last = args.get("dim", 1) in (-1, len(call.out.size) - 1)
    return Bound(call.of(args["input"]).times(1 / eps), -one, one, row=1.0 if last else math.inf)


def root_pooled(call: Call) -> Bound:
    """Bound L2-norm pooling: the norm of each window, in which a pixel that stands in k windows counts k times."""
    names = dict(zip("01234", ("input", "norm_type", "kernel_size", "stride", "ceil_mode"), strict=True))
    args = {names.get(key, key): value for key, value in call.args.items()}
    if args["norm_type"] != 2:
        return call.unknown("no bound is known for a norm_type other than 2; bound the parts around it")
    axes, x = int(call.step.function[-2]), call.of(args["input"])
    k, s = (per_axis(args.get(n) or args["kernel_size"], axes) for n in ("kernel_size", "stride"))
    windows, zero = math.prod(map(lambda a, b: math.ceil(a / b), k, s)), call.full(0.0)
    size = x.size
    return Bound(x.times(math.sqrt(windows)), zero, zero + math.inf if size is None else call.apply(size) * (1 + 1e-9))


NORMALIZATIONS: dict[Any, Rule] = {
    **dict.fromkeys((aten.native_batch_norm, aten._native_batch_norm_legit_no_training), batchnorm),
    **dict.fromkeys((aten.cudnn_batch_norm, aten.miopen_batch_norm), batchnorm),
    **{aten._softmax: softmax, aten._safe_softmax: softmax, aten._log_softmax: log_softmax, aten.logsumexp: logsumexp},
    **{aten.native_layer_norm: layernorm, aten.native_group_norm: groupnorm},
    **{getattr(aten, name): rmsnorm for name in ("rms_norm", "_fused_rms_norm") if hasattr(aten, name)},
    **dict.fromkeys((aten.linalg_vector_norm, aten.norm), vector_norm),
    F.normalize: unit,
    **dict.fromkeys((F.lp_pool1d, F.lp_pool2d, F.lp_pool3d), root_pooled),
}
