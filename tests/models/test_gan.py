"""SN-GAN's pair: as many parameters as published, images and numbers of the right shapes, layers of the method."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.testing import assert_close

pytest.importorskip("sklearn")
from convkit.data import digits
from convkit.data.dataset import Data
from convkit.methods import gan_pair
from convkit.models import sngan_discriminator, sngan_generator
from convkit.models.gan import ResampledBlock
from convkit.models.layers import plain_layer
from convkit.normalization.convnorm import ConvNorm2d
from convkit.normalization.operator_norm import OperatorNorm
from convkit.norms import operator_norm
from convkit.operators.network import conv_operators
from tests.helpers.refusals import refused


def count(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


def conv(c_in, c_out, k):
    return c_in * c_out * k * k + c_out


def test_the_published_pair_has_the_parameters_of_its_table():
    """Miyato et al. 2018, Table 4, block by block; BatchNorm has two numbers per channel."""
    with torch.device("meta"):
        generator, discriminator = sngan_generator(), sngan_discriminator()
    block = 2 * conv(256, 256, 3) + conv(256, 256, 1) + 2 * 2 * 256
    assert count(generator) == (128 + 1) * 4 * 4 * 256 + 3 * block + 2 * 256 + conv(256, 3, 3) == 4_276_739
    first = conv(3, 128, 3) + conv(128, 128, 3) + conv(3, 128, 1)
    second = 2 * conv(128, 128, 3) + conv(128, 128, 1)
    assert count(discriminator) == first + second + 2 * 2 * conv(128, 128, 3) + 128 + 1 == 1_053_825


@pytest.mark.parametrize("size, pixels", [(8, [4, 4]), (16, [8, 4, 4]), (32, [16, 8, 8, 8])])
def test_images_and_numbers_have_the_shapes_of_the_data_and_the_sizes_go_down_as_published(device, size, pixels):
    generator = sngan_generator(channels=5, latent=7, in_channels=2, image_size=size).to(device)
    discriminator = sngan_discriminator(channels=6, in_channels=2, image_size=size).to(device)
    seen = []
    for block in discriminator.modules():
        if isinstance(block, ResampledBlock):
            block.register_forward_hook(lambda _, __, y: seen.append(y.shape[2:]))
    made = generator(torch.randn(3, 7, device=device))
    assert made.shape == (3, 2, size, size)
    assert 0 <= float(made.detach().min()) < 0.5 < float(made.detach().max()) <= 1
    assert discriminator(made).shape == (3, 1)
    assert seen == [(p, p) for p in pixels]


def test_blocks_compute_what_the_paper_draws():
    x = torch.randn(2, 3, 4, 6)
    c1, c2, c3 = nn.Conv2d(3, 5, 3, padding=1), nn.Conv2d(5, 5, 3, padding=1), nn.Conv2d(3, 5, 1)
    up = F.interpolate(x.relu(), scale_factor=2)
    expected = c2(c1(up).relu()) + c3(F.interpolate(x, scale_factor=2))
    assert_close(ResampledBlock((c1, c2), c3, resize="up")(x), expected)
    expected = F.avg_pool2d(c2(c1(x.relu()).relu()) + c3(x), 2)
    assert_close(ResampledBlock((c1, c2), c3, resize="down")(x), expected)
    expected = F.avg_pool2d(c2(c1(x).relu()), 2) + c3(F.avg_pool2d(x, 2))
    assert_close(ResampledBlock((c1, c2), c3, resize="down", first=True)(x), expected)
    same = nn.Conv2d(5, 3, 3, padding=1)
    assert_close(ResampledBlock((c1, same), None)(x), x + same(c1(x.relu()).relu()))
    norm = nn.BatchNorm2d(3)
    assert_close(ResampledBlock((c1, same), None, (norm, nn.Identity()))(x), x + same(c1(norm(x).relu()).relu()))


def test_the_discriminator_sums_over_pixels_and_sees_images_from_minus_one_to_one():
    model = sngan_discriminator(channels=4, in_channels=1, image_size=8)
    x = torch.rand(2, 1, 8, 8)
    y = model.block2(model.block1(2 * x - 1)).relu().sum((2, 3))
    assert_close(model(x), model.head(y))


def test_layers_are_told_their_depth_and_which_ends_a_block():
    seen = []

    def layer(*args, depth, last_of_block=False, blocks=0, **geometry):
        seen.append((args[2], depth, last_of_block, blocks))
        return plain_layer(*args, depth=depth, **geometry)

    with torch.device("meta"):
        sngan_discriminator(layer, channels=4)
    main = [call for call in seen if call[0] == 3]
    assert [depth for _, depth, *_ in main] == pytest.approx([l / 8 for l in range(1, 9)])
    assert [(ends, blocks) for *_, ends, blocks in main] == [(False, 0), (True, 4)] * 4


def test_weights_start_as_published():
    model = sngan_generator(channels=16, latent=20, image_size=16)
    shapes = {"block1.conv1": (2**0.5, 9 * 32), "block1.shortcut": (1, 32), "last": (1, 9 * 19)}
    for name, (gain, fans) in shapes.items():
        largest = float(model.get_submodule(name).weight.detach().abs().max())
        assert largest == pytest.approx(gain * (6 / fans) ** 0.5, rel=0.05)
        assert largest <= gain * (6 / fans) ** 0.5


# ---- methods ---------------------------------------------------------------------------------------------------------
DATA = digits()


@torch.no_grad()
def norms(method, x, knobs=None):
    _, discriminator = gan_pair(DATA, method, channels=(4, 6), latent=5, seed=3, knobs=knobs)
    for _ in range(30):
        discriminator.train()(x)  # spectral_norm's power iteration
    operators = conv_operators(discriminator.eval(), x)
    flattened = {name: float(torch.linalg.matrix_norm(A.kernel.flatten(1), 2)) for name, A in operators.items()}
    return discriminator, flattened, {name: float(operator_norm(A.torus(), 2)) for name, A in operators.items()}


def test_bounded_discriminators_are_bounded_in_every_layer_the_linear_one_included():
    x = torch.rand(3, 1, 8, 8)
    _, flattened, true = norms("spectral_norm", x)
    assert list(flattened.values()) == pytest.approx([1] * 6, abs=1e-3)
    assert max(true.values()) > 1.2
    _, _, true = norms("operator_norm", x)
    assert list(true.values()) == pytest.approx([1] * 6, abs=1e-4)
    _, flattened, _ = norms("plain", x)
    assert max(abs(norm - 1) for norm in flattened.values()) > 0.2


def test_the_generator_is_the_same_whatever_the_method_and_discriminators_have_no_batchnorm():
    pairs = {
        method: gan_pair(DATA, method, channels=(4, 6), latent=5, seed=3)
        for method in ("plain", "convnorm", "spectral_norm")
    }
    first = pairs["plain"][0].state_dict()
    for generator, discriminator in pairs.values():
        assert_close(generator.state_dict(), first, rtol=0, atol=0)
        assert not any(isinstance(m, nn.BatchNorm2d) for m in discriminator.modules())
    kinds = [type(m) for m in pairs["convnorm"][1].modules()]
    assert kinds.count(ConvNorm2d) == 5
    assert nn.Conv2d not in kinds
    assert not any(isinstance(m, OperatorNorm) for m in pairs["spectral_norm"][1].modules())
    assert not torch.equal(gan_pair(DATA, "plain", channels=(4, 6), latent=5)[0].linear.weight, first["linear.weight"])


def test_an_image_size_without_a_pair_is_refused_in_one_sentence():
    x, y = torch.rand(20, 1, 12, 12), torch.zeros(20, dtype=torch.long)
    words = r"images of 8, 16, 32 pixels, got 12; crop or resize"
    refused(words, gan_pair, Data("twelve", x, y, x, y, ("a",)), "plain")
    refused(words, sngan_generator, image_size=12)
    refused(words, sngan_discriminator, image_size=12)
