"""ConvNorm2d written out as plain convolutions."""

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from convkit.normalization.convnorm import ConvNorm2d
from tests.helpers.geometries import normal
from tests.helpers.refusals import refused
from tests.normalization.test_convnorm import GEOMETRIES, layer_and_image

REFUSED = {"padding beyond the span", "size 1", "circular, kernel longer than the image"}


@pytest.mark.parametrize("affine", [False, True])
@pytest.mark.parametrize("name", [name for name in GEOMETRIES if name not in REFUSED])
def test_plain_convolutions_compute_what_the_layer_does(name, affine, device):
    layer, x = layer_and_image(name, device, affine=affine)
    if affine:
        with torch.no_grad():
            layer.affine_weight.copy_(normal(*layer.affine_weight.shape, device=device))
            layer.affine_bias.copy_(normal(*layer.affine_bias.shape, device=device, seed=1))
    convs = layer.eval().to_conv(tuple(x.shape[2:]))
    assert_close(convs(x), layer(x))
    assert [type(conv) for conv in convs] == [nn.Conv2d] * (1 + affine)
    assert not convs.training
    assert {(conv.padding_mode, conv.weight.device.type) for conv in convs} == {(layer.padding_mode, device.type)}
    assert (convs.conv.groups, convs.conv.stride, convs.conv.bias) == (layer.groups, layer.stride, None)


def test_they_are_copies_in_the_dtype_of_the_layer(device):
    layer = ConvNorm2d(3, 4, 1, stride=2).to(device)
    convs = layer.to_conv(6)
    assert convs.conv.weight.shape == layer.weight.shape
    with torch.no_grad():
        layer.weight.mul_(-1)
    x = normal(2, 3, 6, 6, device=device, dtype=torch.float32)
    assert_close(convs(x), -layer(x))
    assert {p.dtype for p in convs.parameters()} == {torch.float32}


def test_what_no_plain_convolution_computes_is_refused():
    refused(r"padding of at most .* = \(1, 1\), got \(\(3, 3\)", ConvNorm2d(3, 4, 2, padding=3).to_conv, 5)
    layer = ConvNorm2d(2, 3, 7, padding="same", padding_mode="circular", stride=2)
    refused("reaches once around its input at most", layer.to_conv, 4)
    refused("kernel must fit", ConvNorm2d(2, 3, 3).to_conv, (5, 2))
