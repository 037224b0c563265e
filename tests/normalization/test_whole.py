"""What a GPU computes with few operators, checked on every device against what the CPU computes by pieces."""

import pytest
import torch
from torch.func import functional_call, grad, vmap
from torch.testing import assert_close

from convkit.normalization import convnorm, weights, whole
from convkit.normalization.weights import NewtonOrthogonal
from tests.helpers.geometries import normal
from tests.normalization.test_convnorm import geometries, layer_and_image


@pytest.fixture
def on_either_route(monkeypatch):
    """Calls a function by pieces, then with few operators, and compares what it returns."""

    def call(function):
        found = []
        for few in (False, True):
            monkeypatch.setattr(convnorm, "few_operators", lambda x, few=few: few)
            monkeypatch.setattr(weights, "_few_operators", lambda weight, few=few: few)
            found.append(function())
        assert_close(found[1], found[0])

    return call


@pytest.mark.parametrize("chunk", [1, whole.CHUNK])
@pytest.mark.parametrize("through", [False, True])
@geometries
def test_outputs_and_three_orders_of_derivatives_are_the_same(
    name, through, chunk, on_either_route, monkeypatch, device
):
    monkeypatch.setattr(whole, "CHUNK", chunk)  # one frequency at a time, or all of them
    layer, x = layer_and_image(name, device, through=through)
    point = x.requires_grad_(), layer.weight

    def derivatives():
        found = [layer(x)]
        value = found[0].sin().sum()
        for order in range(3):
            found += torch.autograd.grad(value, point, create_graph=True)
            value = sum((t * normal(*t.shape, device=device, seed=order)).sum() for t in found[-2:])
        return found

    on_either_route(derivatives)


@pytest.mark.parametrize("name", ["1 x n, dilated, groups", "circular"])
def test_mapped_weights_and_images_are_the_same(name, on_either_route, device):
    layer, x = layer_and_image(name, device)
    several = torch.stack([layer.weight.detach(), layer.weight.detach().flip(0), layer.weight.detach().exp()])

    def value(weight, image):
        return functional_call(layer, {"weight": weight}, (image,)).pow(3).sum()

    on_either_route(lambda: vmap(grad(value, (0, 1)), (0, None))(several, x))
    on_either_route(lambda: vmap(grad(value, (0, 1)), (None, 0))(several[0], x[:, None]))


def test_channels_last_images_and_those_without_gradients_are_the_same(on_either_route, device):
    layer, x = layer_and_image("stride 2", device)
    on_either_route(lambda: layer(x.to(memory_format=torch.channels_last)))
    on_either_route(lambda: layer(x[:, :, :, ::2].repeat(1, 1, 1, 2)))
    with torch.inference_mode():
        on_either_route(lambda: layer(x))


def test_a_channel_of_zeros_and_a_diverged_one_are_the_same(on_either_route, device):
    layer, x = layer_and_image("plain", device, through=True)
    with torch.no_grad():
        layer.weight[1] = 0
        layer.weight[2] -= layer.weight[2].mean()  # a null at frequency 0: the floor holds
        layer.weight[3] = torch.nan
    on_either_route(lambda: layer(x).nan_to_num(7.0))
    layer.weight.data[3] = 1.0
    on_either_route(lambda: torch.autograd.grad(layer(x).pow(3).sum(), layer.weight))


@pytest.mark.parametrize("shape, groups", [((4, 3, 3, 3), 1), ((9, 2, 1, 2), 1), ((6, 2, 3, 1), 3)])
def test_newton_has_the_same_derivatives_of_three_orders(shape, groups, on_either_route, device):
    weight, slope = normal(*shape, device=device).requires_grad_(), normal(*shape, device=device, seed=3)
    oni = NewtonOrthogonal(4, groups=groups)

    def value(weight):
        return (oni(weight) * slope).sin().sum()

    def derivatives():
        found = [value(weight)]
        for _ in range(3):
            found += torch.autograd.grad((found[-1] * slope).sum(), weight, create_graph=True)
        return found

    on_either_route(derivatives)
    on_either_route(lambda: torch.autograd.grad(value(weight), weight))
    on_either_route(lambda: vmap(grad(value))(torch.stack([weight, 2 * weight.flip(0)]).detach()))
