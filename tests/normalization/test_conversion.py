"""Converting a finished network: what is swapped, what is kept, what is said."""

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, parametrize
from torch.testing import assert_close

from convkit.methods.registry import METHODS
from convkit.normalization.conversion import convert
from convkit.normalization.convnorm import ConvNorm2d
from convkit.normalization.noisy_affine import NoisyAffine
from convkit.normalization.weights import WeightStandardization
from tests.helpers.refusals import refused
from tests.helpers.small_network import random_batchnorms
from tests.helpers.unchanged import unchanged


def plain(c_in, c_out, kernel_size, stride=1, padding=0, dilation=1, groups=1, depth=1.0):
    return nn.Conv2d(c_in, c_out, kernel_size, stride, padding, dilation, groups)


def with_affine(c_in, c_out, kernel_size, stride=1, padding=0, dilation=1, groups=1, depth=1.0):
    conv = nn.Conv2d(c_in, c_out, kernel_size, stride, padding, dilation, groups, bias=False)
    return nn.Sequential(conv, NoisyAffine(c_out, 0.1, depth))


def normalized(c_in, c_out, kernel_size, stride=1, padding=0, dilation=1, groups=1, depth=1.0):
    return ConvNorm2d(c_in, c_out, kernel_size, stride, padding, dilation, groups)


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(4, 6, (3, 1), stride=(2, 1), padding=(1, 0), bias=False)
        self.bn1 = nn.BatchNorm2d(6)
        self.conv2 = nn.Conv2d(6, 6, 3, padding=2, dilation=2, groups=3)
        self.bn2 = nn.BatchNorm2d(6)

    def forward(self, x):
        y = torch.relu(self.bn1(self.conv1(x)))
        z = self.conv2(y)
        return self.bn2(z) + z  # the output of conv2 is used twice


def network() -> nn.Sequential:
    begin = nn.Conv2d(3, 4, 3, padding="same"), nn.BatchNorm2d(4), nn.ReLU()
    return random_batchnorms(nn.Sequential(*begin, Block(), nn.Flatten(), nn.Linear(6 * 3 * 7, 5))).eval()


X = torch.randn(2, 3, 6, 7)


@pytest.mark.parametrize("factory", [plain, with_affine])
def test_outputs_are_those_of_the_model_where_the_factory_makes_the_same_layers(factory, device):
    model, x = network().to(device), X.to(device)
    with unchanged(model):
        conversion = convert(model, factory)
    assert_close(conversion.model(x), model(x))
    assert (len(conversion.swapped), conversion.left, conversion.model.training) == (3, (), False)
    assert {p.device.type for p in conversion.model.parameters()} == {device.type}
    assert {id(p) for p in conversion.model.parameters()}.isdisjoint({id(p) for p in model.parameters()})


def test_depth_grows_from_layer_to_layer():
    model = convert(network(), with_affine).model
    assert [m.depth for m in model.modules() if isinstance(m, NoisyAffine)] == pytest.approx([1 / 3, 2 / 3, 1])


def test_weights_go_to_the_convolution_and_biases_to_the_shift_or_are_said_to_be_lost(device):
    model = network().to(device)
    new = convert(model, normalized).model
    assert torch.equal(new[0].weight, model[0].weight)
    assert torch.equal(new[0].affine_bias, model[0].bias)
    assert torch.equal(new[3].conv1.weight, model[3].conv1.weight)
    assert not new[3].conv1.affine_bias.any()
    assert (new[3].conv1.stride, new[3].conv2.groups) == ((2, 1), 3)
    conversion = convert(model, lambda *args, depth=1.0: nn.Conv2d(*args, bias=False))
    assert "0: Conv2d to Conv2d, which has no bias: the old one is lost" in conversion.swapped
    assert "3.conv1: Conv2d to Conv2d" in conversion.swapped


def test_parametrized_layers_get_the_weight_as_their_original(device):
    def standardized(*args, depth=1.0):
        layer = nn.Conv2d(*args)
        parametrize.register_parametrization(layer, "weight", WeightStandardization())
        return layer

    model = network().to(device)
    new = convert(model, standardized).model
    assert torch.equal(new[0].parametrizations.weight.original, model[0].weight)
    assert_close(new[0].weight.flatten(1).mean(1), torch.zeros(4, device=device), atol=1e-6, rtol=0)


def test_batchnorms_behind_are_left_out_where_asked_and_nothing_else_needs_them(device):
    conversion = convert(network().to(device), normalized, batchnorm=True)
    assert isinstance(conversion.model[1], nn.Identity)
    assert isinstance(conversion.model[3].bn1, nn.Identity)
    assert isinstance(conversion.model[3].bn2, nn.BatchNorm2d)  # its input has another use
    assert [line for line in conversion.swapped if "BatchNorm2d left out" in line] == [
        "1: BatchNorm2d left out, with its statistics and gains",
        "3.bn1: BatchNorm2d left out, with its statistics and gains",
    ]
    assert conversion.model(X.to(device)).shape == (2, 5)
    assert "5 swapped, 0 left" in repr(conversion)


def test_what_the_factory_cannot_make_is_left_and_said():
    model = nn.Sequential(
        *(nn.Conv2d(3, 3, 3, padding=1, padding_mode="circular"), parametrizations.weight_norm(nn.Conv2d(3, 3, 1))),
        *(ConvNorm2d(3, 3, 3), nn.Conv2d(3, 2, 1)),
    )
    conversion = convert(model, plain)
    assert conversion.swapped == ("3: Conv2d to Conv2d",)
    assert conversion.left == (
        "0: left, its padding mode is 'circular'",
        "1: left, it is a ParametrizedConv2d",
        "2: left, it is a ConvNorm2d",
    )
    refused(r"needs a network with convolutions .*, got Sequential with 0 .*circular", convert, model[:1], plain)
    refused("got Linear with none", convert, nn.Linear(2, 3), plain)
    words = r"needs a Conv2d with a weight of shape \(4, 3, 3, 3\), got Identity without one"
    refused(words, convert, network(), lambda *args, depth: nn.Identity())


def test_a_layer_alone_and_a_layer_used_twice(device):
    conv = nn.Conv2d(3, 3, 3, padding=1).to(device)
    assert isinstance(convert(conv, normalized).model, ConvNorm2d)
    twice = convert(nn.Sequential(conv, nn.ReLU(), conv), normalized).model
    assert twice[0] is twice[2]
    assert isinstance(twice[0], ConvNorm2d)


def test_batchnorm_needs_a_trace():
    class Branching(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 3, 1)

        def forward(self, x):
            return self.conv(x) if x.sum() > 0 else x

    assert convert(Branching(), plain).swapped == ("conv: Conv2d to Conv2d",)
    with pytest.raises(ValueError, match=r"batchnorm=True needs a network that torch\.fx can trace, got Branching"):
        convert(Branching(), plain, batchnorm=True)


def standardized(c_in, c_out, kernel_size, stride, padding, dilation, groups, depth):
    layer = nn.Conv2d(c_in, c_out, kernel_size, stride, padding, dilation, groups)
    parametrize.register_parametrization(layer, "weight", WeightStandardization())
    return layer


def convnorm(c_in, c_out, kernel_size, stride, padding, dilation, groups, depth):
    return ConvNorm2d(c_in, c_out, kernel_size, stride, padding, dilation, groups)


@pytest.mark.parametrize("factory", [standardized, convnorm])
def test_what_is_frozen_shared_or_watched_stays_so(factory):
    frozen, free = nn.Conv2d(3, 4, 3).requires_grad_(False), nn.Conv2d(4, 4, 3)
    one, two = nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)
    two.weight = one.weight
    seen = []
    one.register_forward_hook(lambda *_: seen.append(1))
    one.register_full_backward_hook(lambda *_: seen.append(2))
    model = convert(nn.Sequential(frozen, free, one, two), factory).model
    wanted = [p.requires_grad for p in model[0].parameters()]
    affine = [name.startswith("affine_weight") for name, _ in model[0].named_parameters()]
    assert wanted == affine  # nothing of the frozen layer trains, but gains that it did not have may
    assert all(p.requires_grad for p in model[1].parameters())
    pairs = zip(model[2].named_parameters(), model[3].named_parameters(), strict=True)
    assert [a is b for (name, a), (_, b) in pairs if "bias" not in name and "affine" not in name] == [True]
    model(torch.randn(2, 3, 9, 9)).sum().backward()
    assert seen == [1, 2]


def several_axes() -> nn.Sequential:
    one = nn.Conv1d(2, 6, 3, stride=2, padding=1), nn.BatchNorm1d(6), nn.Unflatten(2, (2, 1, 3))
    three = nn.Conv3d(6, 4, (1, 1, 2), groups=2, bias=False), nn.BatchNorm3d(4), nn.Flatten(2, 3)
    return random_batchnorms(nn.Sequential(*one, *three, nn.Conv2d(4, 3, 1), nn.Flatten())).eval()


@pytest.mark.parametrize("method", METHODS)
def test_methods_take_convolutions_of_one_and_three_axes_or_say_why_not(method, device):
    model, x = several_axes().to(device), torch.randn(5, 2, 11, device=device)
    chosen = {"groups": 1} if "groups" in METHODS[method].knobs else {}
    settings = METHODS[method].settings(chosen)
    with unchanged(model):
        conversion = convert(model, METHODS[method].layer(settings))
    new = conversion.model
    only_images = method.startswith(("convnorm", "layer_polar"))
    assert [line[:6] for line in conversion.left] == (["0: lef", "3: lef"] if only_images else [])
    assert all("the factory cannot make it" in line for line in conversion.left)
    assert new(x).shape == model(x).shape
    for index, old in ((0, nn.Conv1d), (3, nn.Conv3d)):
        (layer,) = (m for m in new[index].modules() if isinstance(m, old))
        assert (layer.stride, layer.padding, layer.groups) == tuple(
            getattr(model[index], name) for name in ("stride", "padding", "groups")
        )


def test_convolutions_of_one_and_three_axes_are_computed_by_their_new_weights(device):
    model, x = several_axes().to(device), torch.randn(5, 2, 11, device=device)
    without = convert(model, METHODS["plain"].layer({}), batchnorm=True)
    assert [line for line in without.swapped if "left out" in line] == [
        "1: BatchNorm1d left out, with its statistics and gains",
        "4: BatchNorm3d left out, with its statistics and gains",
    ]
    new = convert(model, METHODS["weight_standardization"].layer({})).model
    with torch.no_grad():
        for index in (0, 3):
            rows = model[index].weight.flatten(1)
            rows = rows - rows.mean(1, keepdim=True)
            model[index].weight.copy_((2**0.5 * rows / rows.norm(dim=1, keepdim=True)).view_as(model[index].weight))
        model[6].weight.copy_(new[6][0].weight)
    assert_close(new(x), model(x))


def test_one_layer_that_cannot_take_its_weight_is_left_and_the_others_are_swapped():
    depthwise, zero = nn.Conv2d(4, 4, 1, groups=4), nn.Conv2d(4, 4, 3, padding=1)
    nn.init.zeros_(zero.weight)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), depthwise, zero, nn.ConvTranspose2d(4, 2, 2))
    conversion = convert(model, standardized)
    assert conversion.swapped == ("0: Conv2d to WeightStandardization",)
    assert [line.partition(", got ")[0] for line in conversion.left] == [
        "1: left, the factory cannot make it: WeightStandardization needs rows of at least two numbers (a fan-in of 2)",
        "2: left, the factory cannot make it: WeightStandardization needs rows that vary",
        "3: left, it is a ConvTranspose2d",
    ]
    assert type(conversion.model[1]) is type(conversion.model[2]) is nn.Conv2d
    for name in ("weight_norm", "spectral_norm"):
        left = convert(model, METHODS[name].layer(METHODS[name].settings())).left
        assert len(left) == 2
        assert "2: left, the factory cannot make it: its weight would not be finite" in left[0]


def test_a_layer_of_another_kind_is_no_convolution_of_the_same_kind():
    model = nn.Sequential(nn.Conv1d(3, 4, 3), nn.Conv2d(3, 4, 3))
    (left,) = convert(model, plain).left  # Conv2d takes the size (3,) and makes a weight of three axes
    assert left.startswith("0: left, the factory cannot make it: it needs a Conv1d with a weight of shape (4, 3, 3), ")


def test_a_factory_that_fails_everywhere_raises_what_it_raised():
    with pytest.raises(ValueError, match=r"0 \(the factory cannot make it: KeyError: 2\)") as caught:
        convert(nn.Sequential(nn.Conv2d(3, 4, 3)), lambda *args, depth: {1: nn.Conv1d}[len(args[2])](*args))
    assert isinstance(caught.value.__cause__, KeyError)
