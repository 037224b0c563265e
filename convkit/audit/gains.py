"""What BatchNorm and other scales behind a layer multiply its channels by."""

import itertools
from dataclasses import replace

import torch
from torch import Tensor, nn

from convkit.normalization.noisy_affine import NoisyAffine2d
from convkit.operators.operator import ConvOperator


@torch.no_grad()
def channel_gains(model: nn.Module) -> dict[str, tuple[str, Tensor]]:
    """What multiplies each output channel of a layer behind it, in evaluation mode: its kind and its gains, by layer.

    For a BatchNorm (``gamma / sqrt(variance + eps)``) or a ``NoisyAffine2d`` next to the layer in an ``nn.Sequential``.
    """
    gains = {}
    for outer, sequence in model.named_modules():
        if isinstance(sequence, nn.Sequential):
            children = list(sequence.named_children())
            for (name, _), (_, behind) in itertools.pairwise(children):
                gain = _gain(behind)
                if gain is not None:
                    gains[f"{outer}.{name}" if outer else name] = (type(behind).__name__, gain)
    return gains


def with_gain(A: ConvOperator, gain: Tensor) -> ConvOperator:
    """``A`` with output channel i multiplied by ``gain[i]``, of shape ``(c_out,)``: still a convolution, exactly."""
    return replace(A, kernel=A.kernel * gain.to(A.kernel).reshape(-1, *[1] * (A.kernel.ndim - 1)))


def _gain(layer: nn.Module) -> Tensor | None:
    if isinstance(layer, NoisyAffine2d):
        return layer.weight
    if isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d) and layer.running_var is not None:
        gain = (layer.running_var + layer.eps).rsqrt()
        return gain if layer.weight is None else gain * layer.weight
    return None
