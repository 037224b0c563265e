"""How many operators the normalizations launch on a GPU, and that the host never waits: on the pretended device."""

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations

from convkit.normalization.convnorm import ConvNorm2d
from convkit.normalization.noisy_affine import NoisyAffine
from convkit.normalization.weights import CenteredWeightNorm, NewtonOrthogonal, WeightStandardization, parametrized

NEEDED = "needs the pretended CUDA device: python3 -m convkit test --pretend-gpu"
fakecuda = pytest.importorskip("fakecuda", reason=NEEDED)


@pytest.fixture(params=["cuda"])
def gpu(request):
    """Its name is in those of the tests, by which a run on the pretended device finds them."""
    return torch.device(request.param)


def counts(function):
    """The counts of the third call; the first ones make the tables."""
    for _ in range(2):
        function()
    with fakecuda.counted() as found:
        function()
    return found


def assert_few(found, launches):
    """At most so many operators; the host neither waits nor copies, which a CUDA graph could not repeat."""
    assert found.launches <= launches, found.ops
    assert found.waited == 0, found.waits
    assert not [name for name in found.ops if "host" in name]


def image(gpu):
    return torch.randn(3, 8, 10, 12).to(gpu).requires_grad_()


def convnorm(gpu, k=3, **options):
    return ConvNorm2d(8, 6, k, padding=k // 2, **options).to(gpu)


def passes(layer, x):
    """Return a forward and a backward pass, to call under the autocast that counts."""
    slopes = torch.randn_like(layer(x))
    inputs = [x, *layer.parameters()]
    return lambda: torch.autograd.grad(layer(x), inputs, slopes)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("padding_mode", ["zeros", "circular"])
def test_convnorm_launches_31_operators_for_a_step_and_18_for_outputs(padding_mode, stride, gpu):
    layer, x = convnorm(gpu, padding_mode=padding_mode, stride=stride), image(gpu)
    assert_few(counts(passes(layer, x)), 31)
    for mode in (True, False):
        assert_few(counts(lambda mode=mode: layer.train(mode)(x)), 18)


@pytest.mark.parametrize("padding_mode", ["zeros", "circular"])
def test_convnorm_of_size_1_launches_14(padding_mode, gpu):
    assert_few(counts(passes(convnorm(gpu, 1, padding_mode=padding_mode), image(gpu))), 14)


def test_convnorm_without_an_affine_or_with_a_gradient_through_its_norm(gpu):
    assert_few(counts(passes(convnorm(gpu, affine=False), image(gpu))), 29)
    assert_few(counts(passes(convnorm(gpu, through=True), image(gpu))), 65)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_adds_the_casts_of_the_affine_alone(dtype, gpu):
    layer, x = convnorm(gpu), image(gpu)
    with torch.autocast("cuda", dtype):
        assert_few(counts(passes(layer, x)), 38)
        x = x.detach().to(dtype).requires_grad_()
        assert_few(counts(passes(layer, x)), 40)  # those of the images, too


def test_a_step_of_images_of_another_number_makes_no_new_tables(gpu):
    layer, x = convnorm(gpu), image(gpu)
    counts(passes(layer, x))
    with fakecuda.counted() as found:
        layer(x[:2])
    assert_few(found, 18)


WEIGHTS = {
    "oni": (lambda conv: parametrized(conv, NewtonOrthogonal()), 69),
    "standardization": (lambda conv: parametrized(conv, WeightStandardization()), 25),
    "centered weight norm": (lambda conv: parametrized(conv, CenteredWeightNorm()), 27),
    "torch's spectral norm": (parametrizations.spectral_norm, 29),
    "torch's weight norm": (parametrizations.weight_norm, 3),
}


@pytest.mark.parametrize("name", WEIGHTS)
def test_weights_are_made_and_derived_without_a_wait(name, gpu):
    make, launches = WEIGHTS[name]
    layer = make(nn.Conv2d(8, 6, 3, bias=False)).to(gpu)
    slopes = torch.randn_like(layer.weight)
    assert_few(counts(lambda: torch.autograd.grad(layer.weight, list(layer.parameters()), slopes)), launches)


def test_the_noisy_affine_launches_12(gpu):
    assert_few(counts(passes(NoisyAffine(8, sigma=0.0).to(gpu), image(gpu))), 12)
