"""The methods `muon`, `conv_muon` and `layer_polar`: steps, or whole layers, made of polar factors."""

import math

from torch import nn

from convkit.constraints.muon import ConvMuon
from convkit.methods.method import MakeOptimizer, Settings, Shapes
from convkit.models.layers import LayerFactory
from convkit.normalization.layer_polar import LayerPolar2d
from convkit.operators.geometry import positive_ints


def muon(flattened: bool) -> MakeOptimizer:
    """Return the maker of ``ConvMuon``, for convolutions as they are or for their flattened kernels."""

    def make(model: nn.Module, shapes: Shapes, knobs: Settings) -> ConvMuon:
        lr, momentum, decay = (float(knobs[name]) for name in ("lr", "momentum", "weight_decay"))
        optimizer = ConvMuon(model, shapes, lr, rest_lr=lr, momentum=momentum, weight_decay=decay, flattened=flattened)
        for group in optimizer.param_groups:
            group["decayed"] = group["kind"] != "rest"
        return optimizer

    return make


def polar_layers(knobs: Settings) -> LayerFactory:
    """Return the layer factory of ``LayerPolar2d``, whose gain keeps the size of a signal where no BatchNorm follows.

    The polar factor keeps the length of a signal where it has more outputs than inputs, which are smaller then.
    """

    def layer(c_in, c_out, kernel_size, stride=1, padding=0, dilation=1, groups=1, depth=1.0) -> nn.Module:  # pyright: ignore[reportMissingParameterType]
        spread = max(1.0, c_out / (c_in * math.prod(positive_ints(stride, 2, "stride"))))
        gain = 1.0 if knobs["batchnorm"] else (2 * spread) ** 0.5  # 2 for the ReLU
        conv = LayerPolar2d(c_in, c_out, kernel_size, stride, padding, dilation, groups, gain=gain)
        return nn.Sequential(conv, nn.BatchNorm2d(c_out)) if knobs["batchnorm"] else nn.Sequential(conv)

    return layer
