"""The scales of BatchNorm and of other layers behind a convolution, and how to fold them into its weights."""

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
    """Return what multiplies each output channel of a layer behind it, in evaluation mode: its kind and its gains.

    By the layer's name. For a BatchNorm (``gamma / sqrt(variance + eps)``) or a ``NoisyAffine2d`` next to the layer in
    an ``nn.Sequential``.
    """
    gains = {}
    for sequence, prefix, name, behind in _neighbors(model):
        layer = getattr(sequence, behind)
        gain = _gain(layer)
        if gain is not None:
            gains[prefix + name] = (type(layer).__name__, gain)
    return gains


def with_gain(A: ConvOperator, gain: Tensor) -> ConvOperator:
    """``A`` with output channel i multiplied by ``gain[i]``, of shape ``(c_out,)``: still a convolution, exactly."""
    return replace(A, kernel=A.kernel * gain.to(A.kernel).reshape(-1, *[1] * (A.kernel.ndim - 1)))


@torch.no_grad()
def fold_batchnorm(model: nn.Module) -> nn.Module:
    """Return a copy in evaluation mode, the same function, whose convolutions hold the BatchNorm behind them.

    That is the gains and shifts of each ``BatchNorm2d`` next to a ``Conv2d`` in an ``nn.Sequential``.
    """
    model = copy.deepcopy(model).eval()
    for sequence, _, name, behind in list(_neighbors(model)):
        conv, norm = getattr(sequence, name), getattr(sequence, behind)
        if isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
            setattr(sequence, name, fuse_conv_bn_eval(_unparametrized(conv), norm))
            setattr(sequence, behind, nn.Identity())
    return model


def _neighbors(model: nn.Module) -> Iterator[tuple[nn.Sequential, str, str, str]]:
    """Each ``nn.Sequential`` of a model, its prefix, and the names of two modules that follow each other in it."""
    for outer, sequence in model.named_modules():
        if isinstance(sequence, nn.Sequential):
            for (name, _), (behind, _) in itertools.pairwise(sequence.named_children()):
                yield sequence, f"{outer}." if outer else "", name, behind


def _unparametrized(conv: nn.Conv2d) -> nn.Conv2d:
    """The same layer whose weight is a parameter. (To take a parametrization off a copy would harm the original.)"""
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
