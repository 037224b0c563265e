"""The methods `muon`, `conv_muon` and `layer_polar`: steps, or whole layers, made of polar factors."""

import math
from typing import Any

from torch import nn

from convkit.constraints.muon import ConvMuon
from convkit.methods.method import MakeOptimizer, Settings, Shapes
from convkit.models.layers import ConvAndNorm, LayerFactory
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

    batchnorm = bool(knobs["batchnorm"])

    def conv(*geometry: Any) -> nn.Module:
        c_in, c_out, _, stride, *_ = sizes = geometry[:-1]
        spread = max(1.0, c_out / (c_in * math.prod(positive_ints(stride, 2, "stride"))))
        gain = 1.0 if batchnorm else (2 * spread) ** 0.5  # 2 for the ReLU
        return LayerPolar2d(*sizes, gain=gain)

    return ConvAndNorm(conv, lambda channels, place: nn.BatchNorm2d(channels) if batchnorm else None)
