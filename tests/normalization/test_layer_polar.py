"""The normalization of a whole layer: all singular values 1, nn.Conv2d's geometry, exact derivatives."""

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from convkit.normalization import LayerPolar2d
from convkit.norms import operator_norm
from convkit.operators.operator import ConvOperator
from convkit.projections import polar
from tests.helpers.geometries import normal
from tests.helpers.refusals import refused

CASES = {
    "circular": ((3, 2, (3, 2)), {"padding": "same", "padding_mode": "circular"}),
    "circular, more outputs, all padding before": (
        (2, 3, 3),
        {"padding": ((2, 0), (0, 2)), "padding_mode": "circular"},
    ),
    "circular strided": ((3, 4, 3), {"padding": 1, "stride": (2, 3), "padding_mode": "circular"}),
    "zeros": ((3, 2, (3, 2)), {"padding": (1, 0)}),
    "zeros strided, dilated": ((2, 6, 3), {"padding": (1, 2), "stride": (3, 2), "dilation": (1, 2)}),
    "grouped": ((4, 6, 3), {"padding": 1, "groups": 2}),
    "of size 1": ((3, 5, 1), {"stride": 2}),
    "of size 1 on one axis": ((2, 3, (1, 3)), {"stride": (3, 2), "padding": (0, 1)}),
}


def layer_of(name: str, device: torch.device, **options) -> LayerPolar2d:
    sizes, arguments = CASES[name]
    torch.manual_seed(0)
    return LayerPolar2d(*sizes, **arguments, **options).to(device, torch.float64)


def dense(layer: nn.Module, shape: tuple[int, ...], device: torch.device) -> torch.Tensor:
    x = torch.zeros(1, *shape, dtype=torch.float64, device=device)
    J = torch.autograd.functional.jacobian(layer, x)
    return J.reshape(layer(x).numel(), x.numel())


@pytest.mark.parametrize("name", CASES)
def test_the_layer_is_its_operator_or_a_piece_of_it_and_has_the_shape_of_conv2d(device, name):
    layer = layer_of(name, device)
    with torch.no_grad():
        layer.factor.copy_(torch.linspace(0.5, 2, layer.out_channels))
    (c_in, c_out, size), arguments = CASES[name]
    M = dense(layer, (c_in, 6, 9), device)
    A = layer.operator((6, 9))
    if name == "circular, more outputs, all padding before":
        outputs = (6, 9)
    else:
        outputs = tuple(nn.Conv2d(c_in, c_out, size, **arguments)(torch.zeros(1, c_in, 6, 9)).shape[2:])
    assert M.shape == (c_out * outputs[0] * outputs[1], c_in * 54)
    rows = A.matrix().detach().unflatten(0, A.out_shape)[:, : outputs[0], : outputs[1]].flatten(0, 2)
    piece = rows.unflatten(1, A.in_shape)[:, :, :6, :9].flatten(1)
    assert_close(M, piece)
    values = torch.linalg.svdvals(layer.operator((6, 9), affine=False).matrix().detach())
    assert_close(values, (values > 0.5).to(values))  # of pixels that no tap reads: 0
    read = 6 // 2 * (9 // 2 + 1) * 3 if name == "of size 1" else len(values)
    assert int((values > 0.5).sum()) == read


def test_with_circular_padding_it_is_the_polar_factor_of_the_convolution(device):
    layer = layer_of("circular", device, affine=False)
    A = ConvOperator(layer.weight.detach(), (5, 4))
    assert_close(dense(layer, (3, 5, 4), device), polar(A).matrix())


def test_zero_padding_never_lengthens_a_signal(device):
    M = dense(layer_of("zeros strided, dilated", device, affine=False), (2, 7, 8), device)
    assert float(torch.linalg.matrix_norm(M, 2)) <= 1 + 1e-12


@pytest.mark.parametrize("name", ["circular", "zeros strided, dilated", "grouped"])
def test_derivatives_by_weight_and_image(device, name):
    layer = layer_of(name, device)
    x = normal(2, layer.in_channels, 4, 6, device=device).requires_grad_()

    def outputs(weight: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        return torch.func.functional_call(layer, {"weight": weight}, (x,))

    assert torch.autograd.gradcheck(outputs, (layer.weight.detach().requires_grad_(), x), nondet_tol=1e-9)


def test_it_trains_in_float32_under_autocast_and_on_one_image(device):
    torch.manual_seed(0)
    layer = LayerPolar2d(3, 4, 3, padding=1, gain=2**0.5).to(device)
    x = normal(5, 3, 8, 8, device=device, dtype=torch.float32)
    with torch.autocast(device.type, torch.bfloat16):
        inside = layer(x)
    assert inside.dtype == torch.float32
    assert_close(inside, layer(x))
    assert_close(layer(x[0]), layer(x)[0])
    optimizer = torch.optim.SGD(layer.parameters(), 0.1)
    losses = []
    for _ in range(20):
        loss = (layer(x) - 1).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.8 * losses[0]
    norm = operator_norm(layer.operator((8, 8), affine=False), 2)
    assert_close(norm, torch.ones_like(norm))


def test_bad_input_is_refused(device):
    refused("padding", LayerPolar2d, 3, 2, 3, padding=3)
    refused("padding", LayerPolar2d, 3, 2, 3, padding=0, padding_mode="circular")
    refused("groups", LayerPolar2d, 3, 2, 3, groups=2)
    refused("fit", LayerPolar2d(3, 2, 5).to(device), torch.zeros(1, 3, 4, 4, device=device))
    refused("channels", LayerPolar2d(3, 2, 3).to(device), torch.zeros(1, 2, 4, 4, device=device))
