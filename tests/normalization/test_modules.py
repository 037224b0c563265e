"""ConvNorm2d as a module: its affine, dtypes, what it refuses. The noisy affine."""

import math

import pytest
import torch
from torch.testing import assert_close

from convkit.normalization.convnorm import ConvNorm2d
from convkit.normalization.noisy_affine import NoisyAffine
from tests.helpers.geometries import normal
from tests.helpers.refusals import refused
from tests.normalization.test_evaluation import image, network


# ---- numbers and devices -------------------------------------------------------------------------------------------
def test_affine_starts_as_gain_times_the_identity_and_can_be_left_out(device):
    torch.manual_seed(1)
    layer = ConvNorm2d(3, 4, (2, 3), padding=1, gain=1.5).to(device, torch.float64)
    assert layer.affine_weight.shape == (4, 1, 3, 3)  # odd
    bare = ConvNorm2d(3, 4, (2, 3), padding=1, affine=False).to(device, torch.float64)
    bare.load_state_dict({"weight": layer.weight})
    x = image(device)
    assert_close(layer(x), 1.5 * bare(x))
    assert layer.weight.std() > 0
    layer(x).square().sum().backward()
    for parameter in layer.parameters():
        assert parameter.grad.abs().sum() > 0


def test_channels_last_images_give_the_same_and_a_diverged_weight_shows_in_the_output(device):
    layer, x = network(device), image(device)
    assert_close(layer(x.to(memory_format=torch.channels_last)), layer(x))
    with torch.no_grad():
        layer.weight[0, 0, 0, 0] = math.nan
    assert layer(x)[:, 0].isnan().all()


@pytest.mark.parametrize(
    "arguments, options, words",
    [
        ((3, 4, 3), {"groups": 2}, "groups must divide both channel numbers"),
        ((3, 4, 0), {}, "kernel_size must be a whole number of at least 1, got 0"),
        ((3, 4, 3), {"padding": "all"}, "padding must be .* 'same'"),
        ((3, 4, 3), {"padding": -1}, "padding must be a whole number of at least 0, got -1"),
        ((3, 4, 3), {"padding_mode": "reflect"}, "padding_mode must be"),
        ((3, 4, 3), {"padding_mode": "circular"}, "circular padding must be"),
        ((3, 4, 3), {"gain": math.nan}, "gain must be a finite number"),
    ],
)
def test_convnorm_refuses(arguments, options, words):
    refused(words, ConvNorm2d, *arguments, **options)


def test_convnorm_refuses_images(device):
    layer = network(device)
    refused("needed a batch of shape", layer, normal(2, 4, 5, 6, device=device))
    refused(r"float64, got .* and torch\.float32", layer, image(device).float())
    refused("kernel must fit", layer, image(device, (6, 1)))


# ---- the noisy affine ----------------------------------------------------------------------------------------------
def test_noise_is_drawn_for_each_sample_and_channel_with_the_stated_deviation(device):
    layer = NoisyAffine(5, sigma=0.8, depth=0.25).to(device)
    with torch.no_grad():
        layer.weight.copy_(torch.arange(1.0, 6.0))
        layer.bias.copy_(torch.arange(5.0))
    x = torch.ones(4000, 5, 2, 3, device=device)
    noise = (layer(x) - layer.bias[:, None, None]) / layer.weight[:, None, None] - 1
    assert_close(noise, noise[..., :1, :1].expand_as(noise))  # one draw for a whole map
    draws = noise[..., 0, 0]
    assert_close(draws.std(0), torch.full((5,), 0.2, device=device), rtol=0.05, atol=0)
    assert draws.mean(0).abs().max() < 0.015
    assert (torch.corrcoef(draws.T) - torch.eye(5, device=device)).abs().max() < 0.08
    layer.sigma = 0.0
    assert_close(layer(x), (x * layer.weight[:, None, None] + layer.bias[:, None, None]))


def test_noise_stays_away_in_evaluation_and_from_the_global_order_of_sigma_zero(device):
    layer, x = NoisyAffine(3, sigma=0.5).to(device), normal(2, 3, 4, 5, device=device, dtype=torch.float32)
    assert_close(layer.eval()(x), x)
    assert not torch.equal(layer.train()(x), x)
    torch.manual_seed(3)
    y = layer(x)
    torch.manual_seed(3)
    assert torch.equal(layer(x), y)
    assert {name: p.shape for name, p in layer.named_parameters()} == {"weight": (3,), "bias": (3,)}
    assert set(layer.state_dict()) == {"weight", "bias"}


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_the_noisy_affine_keeps_the_dtype_of_its_images_under_autocast_and_rounds_once(dtype, device):
    layer, x = NoisyAffine(3).to(device), normal(2, 3, 4, 5, device=device).to(dtype)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([1.003, -0.7, 3.0]))
        layer.bias.copy_(torch.tensor([0.001, 2.0, -1.0]))
    with torch.autocast(device.type, dtype):
        y = layer(x.requires_grad_())
        assert layer(x.float()).dtype == torch.float32
    slopes = torch.autograd.grad(y.float().sum(), [x, *layer.parameters()])
    assert y.dtype == dtype
    assert torch.equal(y, (layer.weight[:, None, None] * x + layer.bias[:, None, None]).to(dtype))
    assert [slope.dtype for slope in slopes] == [dtype, torch.float32, torch.float32]


def test_noisy_affine_refuses():
    layer = NoisyAffine(3)
    for sigma in (-0.1, math.nan, math.inf):
        refused("sigma must be a finite number", NoisyAffine, 3, sigma)
        refused("sigma must be a finite number", setattr, layer, "sigma", sigma)
    for depth in (0, 1.5):
        refused("depth must be", NoisyAffine, 3, depth=depth)
    refused("needed a batch of shape", layer, torch.zeros(2, 4, 5, 5))


@pytest.mark.parametrize("shape", [(6, 3), (6, 3, 5), (6, 3, 4, 2), (6, 3, 2, 1, 4)], ids=str)
def test_the_noisy_affine_takes_any_number_of_axes_and_draws_one_number_for_a_channel(shape, device):
    layer, x = NoisyAffine(3, sigma=0.4).to(device), torch.ones(shape, device=device)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([1.0, -2.0, 3.0]))
        layer.bias.copy_(torch.tensor([0.5, 0.0, -1.0]))
    y = layer(x)
    assert y.shape == x.shape
    flat = y.reshape(6, 3, -1)
    assert_close(flat, flat[..., :1].expand_as(flat))
    assert len(flat[..., 0].unique()) == 18
    expected = torch.tensor([1.5, -2.0, 2.0], device=device).expand(6, 3)
    assert_close(layer.eval()(x).reshape(6, 3, -1)[..., 0], expected)
