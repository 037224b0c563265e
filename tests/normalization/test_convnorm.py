"""ConvNorm2d against its definition, written out anew, and against dense matrices."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.testing import assert_close

from convkit.normalization.convnorm import ConvNorm2d
from convkit.normalization.torus import FLOOR
from convkit.spectra import symbol
from tests.helpers.geometries import normal

# (c_in, c_out, kernel_size), options, image size; every axis of another size
GEOMETRIES = {
    "plain": ((3, 5, 3), {"padding": 1}, (6, 7)),
    "no padding, odd torus": ((2, 3, (3, 2)), {}, (5, 4)),
    "even kernel, same": ((3, 4, (4, 2)), {"padding": "same"}, (6, 5)),
    "1 x n, dilated, groups": ((4, 6, (1, 5)), {"padding": (0, 3), "groups": 2, "dilation": (1, 2)}, (5, 9)),
    "stride 2": ((3, 4, 3), {"padding": 1, "stride": 2}, (6, 8)),
    "stride that does not divide": ((3, 2, (3, 5)), {"padding": (1, 2), "stride": (2, 3)}, (7, 6)),
    "depthwise": ((4, 4, (2, 3)), {"padding": (1, 1), "groups": 4}, (4, 5)),
    "kernel larger than the image": ((2, 3, (5, 4)), {"padding": (3, 3)}, (3, 2)),
    "padding beyond the span": ((3, 4, 2), {"padding": (3, 2), "stride": 2}, (5, 4)),
    "size 1": ((3, 4, 1), {"padding": (1, 0), "stride": (2, 1)}, (5, 4)),
    "circular": ((3, 4, (3, 5)), {"padding": "same", "padding_mode": "circular"}, (6, 7)),
    "circular, even, strided, dilated, groups": (
        (4, 6, (4, 3)),
        {"padding": "same", "padding_mode": "circular", "groups": 2, "dilation": (1, 2), "stride": (2, 1)},
        (6, 5),
    ),
    "circular, kernel longer than the image": (
        (2, 3, (5, 3)),
        {"padding": (2, 1), "padding_mode": "circular", "stride": (3, 1)},
        (3, 4),
    ),
}
geometries = pytest.mark.parametrize("name", GEOMETRIES)


def layer_and_image(name, device, **more):
    channels, options, size = GEOMETRIES[name]
    layer = ConvNorm2d(*channels, **options, **more).to(device, torch.float64)
    return layer, normal(2, channels[0], *size, device=device)


def definition(layer, x, weight, frozen=None):
    """Eq. 7 by the book: convolve where it is circular, filter by the FFT, crop, take every s-th, no affine."""
    (h, w), span, circular = x.shape[2:], layer.span, layer.padding_mode == "circular"
    if circular:
        sizes = (h, w)
        pixels = [torch.arange(n + s) % n for n, s in zip(sizes, span, strict=True)]
        padded = x[:, :, pixels[0]][..., pixels[1]]  # all windows that begin in the image
    else:
        sizes = (h + span[0], w + span[1])
        padded = F.pad(x, (span[1], span[1], span[0], span[0]))
    z = F.conv2d(padded, weight, dilation=layer.dilation, groups=layer.groups)
    laid = weight.new_zeros(*weight.shape[:2], *sizes)
    for i, j in np.ndindex(*weight.shape[2:]):
        laid[:, :, layer.dilation[0] * i % sizes[0], layer.dilation[1] * j % sizes[1]] += weight[:, :, i, j]
    if frozen is not None:
        laid = frozen(laid)
    v = torch.fft.fft2(laid).abs().square().sum(1).rsqrt()
    z = torch.fft.ifft2(v * torch.fft.fft2(z)).real
    (top, bottom), (left, right) = layer.pads
    if circular:
        z = z.roll((top, left), (2, 3))
    else:  # negative: cropped
        z = F.pad(z, (left - span[1], right - span[1], top - span[0], bottom - span[0]))
    return z[..., :: layer.stride[0], :: layer.stride[1]]


@geometries
def test_layer_is_its_definition_and_outputs_have_the_size_of_those_of_conv2d(name, device):
    channels, options, size = GEOMETRIES[name]
    layer, x = layer_and_image(name, device, affine=False)
    assert_close(layer(x), definition(layer, x, layer.weight))
    if options.get("padding") == "same":  # torch has no stride there
        shape = (2, channels[1], *(-(-n // s) for n, s in zip(size, layer.stride, strict=True)))
    else:
        shape = nn.Conv2d(*channels, **options)(x.float().cpu()).shape
    assert layer(x).shape == shape
    assert layer(x[0]).shape == shape[1:]
    assert layer(x[:0]).shape == (0, *shape[1:])
    with torch.no_grad():
        layer.weight.mul_(-3)
    assert_close(layer(x), definition(layer, x, layer.weight / 3))  # the size of a kernel does not show, its sign does


@geometries
def test_operator_has_tight_frames_and_the_bound_of_proposition_3_1(name, device):
    layer, x = layer_and_image(name, device, affine=False)
    A = layer.operator(tuple(x.shape[2:]))
    M = A.matrix().unflatten(0, (A.out_shape[0], -1))
    for Q in M:
        assert_close(Q @ Q.T, torch.eye(len(Q), dtype=Q.dtype, device=device))
    norm = torch.linalg.matrix_norm(M.flatten(0, 1), 2)
    assert 1 - 1e-12 <= norm <= len(M) ** 0.5 + 1e-12


@geometries
def test_layer_is_a_piece_of_its_operator(name, device):
    layer, x = layer_and_image(name, device, gain=0.7)  # at the start the affine is a number
    A = layer.operator(tuple(x.shape[2:]))
    assert A.kernel.dtype == layer.weight.dtype
    on_torus = A(F.pad(x, (0, A.input_shape[1] - x.shape[3], 0, A.input_shape[0] - x.shape[2])))
    steps = [s // t for s, t in zip(layer.stride, A.stride, strict=True)]
    axes = zip(x.shape[2:], layer.pads, layer.span, layer.stride, strict=True)
    # the outputs whose windows touch the image; with more padding than the span the first ones do not
    touching = [slice(-(-max(0, p[0] - span) // s), (n - 1 + p[0]) // s + 1) for n, p, span, s in axes]
    on_torus, y = on_torus[..., :: steps[0], :: steps[1]][..., *touching], layer(x)[..., *touching]
    h, w = (min(both) for both in zip(on_torus.shape[2:], y.shape[2:], strict=True))
    assert h * w > 0
    assert (h, w) == y.shape[2:] or name == "padding beyond the span"
    assert_close(on_torus[..., :h, :w], y[..., :h, :w])


@pytest.mark.parametrize("through", [False, True])
@pytest.mark.parametrize("name", [name for name in GEOMETRIES if name.startswith("circular")])
def test_affine_is_in_the_operator_of_the_circular_layer_with_its_gradient(name, through, device):
    layer, x = layer_and_image(name, device, through=through)
    with torch.no_grad():
        layer.affine_weight.copy_(normal(*layer.affine_weight.shape, device=device))
    A = layer.operator(tuple(x.shape[2:]))
    assert A.stride == layer.stride
    assert_close(A(x), layer(x))
    of_both = (torch.autograd.grad(outputs.pow(3).sum(), layer.weight) for outputs in (A(x), layer(x)))
    assert_close(*of_both)
    without = layer.operator(tuple(x.shape[2:]), affine=False)
    assert_close(without(x), definition(layer, x, layer.weight))


def test_affine_comes_after_the_stride_with_zeros_around_and_its_operator_agrees_inside(device):
    layer, x = layer_and_image("stride 2", device)
    with torch.no_grad():
        layer.affine_weight.copy_(normal(*layer.affine_weight.shape, device=device))
        layer.affine_bias.copy_(normal(*layer.affine_bias.shape, device=device, seed=1))
    y = definition(layer, x, layer.weight)
    expected = F.conv2d(y, layer.affine_weight, layer.affine_bias, padding=1, groups=4)
    assert_close(layer(x), expected)
    affine = layer.affine_weight, layer.affine_bias
    of_both = (torch.autograd.grad(outputs.pow(3).sum(), affine, retain_graph=True) for outputs in (layer(x), expected))
    assert_close(*of_both)
    on_torus = layer.operator((6, 8))(F.pad(x, (0, 2, 0, 2))) + layer.affine_bias[:, None, None]
    assert_close(on_torus[:, :, 1:2, 1:3], layer(x)[:, :, 1:2, 1:3])  # away from the border of the 3 x 4 outputs


# ---- nulls ---------------------------------------------------------------------------------------------------------
def test_floor_holds_at_spectral_nulls_and_leaves_every_other_frequency_untouched(device):
    layer = ConvNorm2d(1, 3, 3, padding="same", padding_mode="circular", affine=False).to(device, torch.float64)
    with torch.no_grad():
        layer.weight[0] = 1  # a box has exact nulls on sizes that 3 divides
        layer.weight[2] -= layer.weight[2].mean()
        layer.weight[2] += 0.5 * FLOOR * layer.weight[2].norm() / 9  # half the floor at frequency 0
    response = symbol(layer.operator((6, 9)))[..., 0].abs()  # (6, 9, 3)
    null = torch.zeros(6, 9, dtype=torch.bool)
    null[[2, 4]] = null[:, [3, 6]] = True
    assert response[null][:, 0].max() < 1e-10
    assert_close(response[~null][:, 0], torch.ones_like(response[~null][:, 0]))
    assert_close(response[..., 1], torch.ones_like(response[..., 1]))
    assert_close(response[0, 0, 2], torch.full_like(response[0, 0, 2], 0.5), rtol=1e-4, atol=0)
    assert_close(response[..., 2].flatten()[1:], torch.ones(53, dtype=torch.float64, device=device))


def test_float32_is_right_to_its_rounding_and_box_and_centered_filters_stay_finite(device):
    layer, x = layer_and_image("plain", device)
    wanted = layer(x)
    assert_close(layer.float()(x.float()).double(), wanted, rtol=0, atol=3e-6)
    layer = ConvNorm2d(2, 3, 3, padding=2).to(device)
    with torch.no_grad():
        layer.weight.sub_(layer.weight.mean((1, 2, 3), keepdim=True))
        layer.weight[0] = 1
    x = 1 + torch.randn(2, 2, 7, 4, device=device)
    y = layer(x)
    y.sum().backward()
    assert y.isfinite().all()
    assert y.detach().norm() <= 1.01 * 3**0.5 * x.norm()  # Proposition 3.1 holds with nulls, too
    assert layer.weight.grad.isfinite().all()


@pytest.mark.parametrize("through", [False, True])
def test_a_zero_channel_gives_zeros_and_finite_gradients(through, device):
    layer, x = layer_and_image("plain", device, through=through, affine=False)
    other = layer(x).detach()
    with torch.no_grad():
        layer.weight[1] = 0
    y = layer(x)
    assert (y[:, 1] == 0).all()
    assert_close(y[:, [0, 2, 3, 4]], other[:, [0, 2, 3, 4]])
    y.square().sum().backward()
    assert layer.weight.grad.isfinite().all()
