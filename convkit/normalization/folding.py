"""The per-channel gains of BatchNorm and ``NoisyAffine2d`` after a convolution, and how to fold them into it."""

import copy
import itertools
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import skip_init
from torch.nn.utils.fusion import fuse_conv_bn_eval

from convkit.normalization.noisy_affine import NoisyAffine2d
from convkit.operators.operator import ConvOperator


@torch.no_grad()
def channel_gains(model: nn.Module) -> dict[str, tuple[str, Tensor]]:
    """Return the gains that BatchNorm or ``NoisyAffine2d`` applies to each layer's output channels in evaluation mode.

    The result is ``{layer: (kind, gains)}``, with the class name of the module after the layer and a tensor of shape
    ``(c_out,)``; only modules that follow a layer directly in an ``nn.Sequential`` count. Those of BatchNorm are
    ``gamma / sqrt(running variance + eps)``, exactly what it multiplies by; shifts are not part of them.

    >>> model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2, eps=0.0))
    >>> _ = model[1].running_var.copy_(torch.tensor([4.0, 16.0]))
    >>> channel_gains(model)
    {'0': ('BatchNorm2d', tensor([0.5000, 0.2500]))}
    """
    gains = {}
    for sequence, prefix, name, behind in _neighbors(model):
        layer = getattr(sequence, behind)
        gain = _gain(layer)
        if gain is not None:
            gains[prefix + name] = (type(layer).__name__, gain)
    return gains


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


def _gain(layer: nn.Module) -> Tensor | None:
    if isinstance(layer, NoisyAffine2d):
        return layer.weight
    if isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d) and layer.running_var is not None:
        gain = (layer.running_var + layer.eps).rsqrt()
        return gain if layer.weight is None else gain * layer.weight
    return None
