"""The per-channel gains of BatchNorm and ``NoisyAffine`` after a convolution, and how to fold them into it."""

import copy
import itertools
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils import skip_init
from torch.nn.utils.fusion import fuse_conv_bn_eval

from convkit.normalization.noisy_affine import NoisyAffine
from convkit.operators.dtypes import widened
from convkit.operators.operator import ConvOperator
from convkit.operators.recording import Constant, Place, Step, copy_to_run, record_run, states_its_operator
from convkit.operators.trees import leaves


@torch.no_grad()
def channel_gains(model: nn.Module, x: Tensor | None = None) -> dict[str, tuple[str, Tensor]]:
    """Return the gains that BatchNorm or ``NoisyAffine`` applies to each layer's output channels in evaluation mode.

    The result is ``{layer: (kind, gains)}``, with the class name of the module after the layer and a tensor of shape
    ``(c_out,)``. Those of BatchNorm are ``gamma / sqrt(running variance + eps)``, exactly what it multiplies by; shifts
    are not part of them. Only a module counts that ``followers`` finds: without ``x`` the next one in an
    ``nn.Sequential``, with a batch of inputs the one to which the outputs go when ``model(x)`` runs.

    >>> model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2, eps=0.0))
    >>> _ = model[1].running_var.copy_(torch.tensor([4.0, 16.0]))
    >>> channel_gains(model)
    {'0': ('BatchNorm2d', tensor([0.5000, 0.2500]))}
    """
    gains = {}
    for name, behind in followers(model, x).items():
        layer = model.get_submodule(behind)
        gain = channel_gain(layer)
        if gain is not None:
            gains[name] = (type(layer).__name__, gain)
    return gains


def channel_gain(layer: nn.Module) -> Tensor | None:
    """Return what a BatchNorm in evaluation mode or a ``NoisyAffine`` multiplies channels by; ``None`` for others."""
    if isinstance(layer, NoisyAffine):
        return widened(layer.weight)
    if isinstance(layer, _BatchNorm) and layer.running_var is not None:
        gain = (widened(layer.running_var) + layer.eps).rsqrt()
        return gain if layer.weight is None else gain * widened(layer.weight)
    return None


def followers(model: nn.Module, x: Tensor | None = None) -> dict[str, str]:
    """Return ``{layer: BatchNorm or NoisyAffine behind it}``, names of modules.

    Without ``x`` two neighbors in an ``nn.Sequential`` count. With a batch of inputs a copy of the network is run and
    recorded, and those count where all outputs of the layer go into that module and nowhere else, wherever they stand
    in the network: in residual blocks, and in subclasses such as a BatchNorm with its activation. Raises ``ValueError``
    for a network that cannot be recorded.

    >>> followers(nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2)), torch.ones(1, 1, 4, 4))
    {'0': '1'}
    """
    if x is None:
        pairs = ((prefix + name, prefix + behind) for _, prefix, name, behind in _neighbors(model))
        return {name: behind for name, behind in pairs if channel_gain(model.get_submodule(behind)) is not None}
    with copy_to_run(model, x) as copy, torch.no_grad():
        steps = record_run(copy, x)[0].steps
        found: dict[str, set[str | None]] = {}
        readers: dict[int, list[Step]] = {}
        for step in steps:
            for memory in {place.memory for place in leaves((step.args, step.kwargs), Place)}:
                readers.setdefault(memory, []).append(step)
        for step in steps:
            if step.op in _CONVOLUTIONS or (states_its_operator(step.op) and len(step.outs) == 1):
                then = readers.get(step.outs[0].memory, [])
                alone = len(then) == 1 and step.outs[0] in then[0].args
                found.setdefault(step.where, set()).add(_follower(copy, then[0]) if alone else None)
    return {name: behind for name, (behind, *more) in found.items() if behind is not None and not more}


def with_gain(A: ConvOperator, gain: Tensor) -> ConvOperator:
    """Return ``A`` with output channel i multiplied by ``gain[i]``, where ``gain`` has shape ``(c_out,)``.

    That is again a convolution, exactly, with a gradient for both.

    >>> A = ConvOperator(torch.ones(2, 1, 1), 4)
    >>> with_gain(A, torch.tensor([3.0, 5.0])).kernel.flatten()
    tensor([3., 5.])
    """
    rows = A.kernel.unflatten(0, (A.groups, -1))  # (groups, c_out / groups, c_in / groups, *taps)
    gain = gain.to(rows).unflatten(0, (A.groups, -1)).unsqueeze(1 if A.transposed else 2)
    return replace(A, kernel=(rows * gain[(..., *[None] * (rows.ndim - 3))]).flatten(0, 1))


@torch.no_grad()
def fold_batchnorm(model: nn.Module) -> nn.Module:
    """Return a copy of the network in evaluation mode with each BatchNorm folded into the convolution before it.

    The gains and shifts of a ``BatchNorm2d`` that directly follows a ``Conv2d`` in an ``nn.Sequential`` become part of
    its weight and bias, and ``nn.Identity`` takes its place: the same function up to rounding. Others stay.

    >>> model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2)).eval()
    >>> folded, x = fold_batchnorm(model), torch.ones(1, 1, 4, 4)
    >>> torch.allclose(folded(x), model(x), atol=1e-5), folded[1]
    (True, Identity())
    """
    model = copy.deepcopy(model).eval()
    for sequence, _, name, behind in list(_neighbors(model)):
        conv, norm = getattr(sequence, name), getattr(sequence, behind)
        if isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
            setattr(sequence, name, fuse_conv_bn_eval(_unparametrized(conv), norm))
            setattr(sequence, behind, nn.Identity())
    return model


def _neighbors(model: nn.Module) -> Iterator[tuple[nn.Sequential, str, str, str]]:
    """Yield each ``nn.Sequential``, its prefix, and the names of each two modules that follow each other in it."""
    for outer, sequence in model.named_modules():
        if isinstance(sequence, nn.Sequential):
            for (name, _), (behind, _) in itertools.pairwise(sequence.named_children()):
                yield sequence, f"{outer}." if outer else "", name, behind


def _unparametrized(conv: nn.Conv2d) -> nn.Conv2d:
    """Return the same layer with a plain weight; to remove the parametrization of a copy would harm the original."""
    geometry = (conv.kernel_size, conv.stride, conv.padding, conv.dilation, conv.groups, False, conv.padding_mode)
    new: Any = skip_init(nn.Conv2d, conv.in_channels, conv.out_channels, *geometry).eval()
    new.weight, new.bias = nn.Parameter(conv.weight.clone()), conv.bias
    return new


_CONVOLUTIONS = (torch.ops.aten.convolution.default,)
_NORMS = (torch.ops.aten.native_batch_norm, torch.ops.aten.cudnn_batch_norm, torch.ops.aten.miopen_batch_norm)


def _follower(model: nn.Module, step: Step) -> str | None:
    """Return the name of the module that made a call, if it multiplies its one input by the gains of the module."""
    layer: Any = model.get_submodule(step.where)
    packet = getattr(step.op, "overloadpacket", None)
    gain = channel_gain(layer)
    if gain is None:
        return None
    constants = [arg.value for arg in step.args if isinstance(arg, Constant)]
    if isinstance(layer, NoisyAffine):
        fits = packet is torch.ops.aten.mul and any(torch.equal(c.flatten(), gain) for c in constants)
    else:
        known = [t for t in (layer.weight, layer.running_var) if t is not None]
        fits = packet in _NORMS and all(any(c.shape == t.shape and torch.equal(c, t) for c in constants) for t in known)
    return step.where if fits else None
