"""`gan_pair`: a generator, and a discriminator with the layers of a method."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn
from torch.nn.utils import parametrizations, parametrize

from convkit.checks import seed_number
from convkit.data.dataset import Data
from convkit.methods.method import Method
from convkit.methods.registry import get_method
from convkit.models.gan import LATENT, sngan_discriminator, sngan_generator
from convkit.models.network import Network
from convkit.normalization.operator_norm import OperatorNorm
from convkit.operators.network import input_shapes
from convkit.randomness import seeded

# What methods that bound every convolution do to the linear layer of a discriminator, so that it is bounded as a whole
HEADS: dict[str, Callable[[nn.Linear], object]] = {
    "spectral_norm": parametrizations.spectral_norm,
    "operator_norm": lambda head: parametrize.register_parametrization(head, "weight", OperatorNorm(1)),
}


def gan_pair(
    data: Data,
    method: str | Method,
    *,
    seed: int = 0,
    knobs: Mapping[str, object] | None = None,
    channels: tuple[int | None, int | None] = (None, None),
    latent: int = LATENT,
) -> tuple[Network, Network]:
    """Return SN-GAN's generator and discriminator for images of 8, 16 or 32 pixels; the method is the discriminator's.

    The discriminator has no BatchNorm unless the knobs ask for it. With ``"spectral_norm"`` and ``"operator_norm"`` its
    linear layer is divided by its norm as well. The generator has BatchNorm, whatever the method.

    Args:
        data: Determines channels, image size and device.
        method: A name in ``METHODS``, or a ``Method``.
        seed: Determines the weights; the generator's are the same for all methods.
        knobs: Settings of the method that shape or start its layers.
        channels: Number of channels of the generator and of the discriminator; ``None`` for that of the image size.
        latent: Length of the generator's input z.

    Raises ``ValueError`` for an image size without a pair, and where ``network`` does.

    >>> from convkit.data import digits
    >>> generator, discriminator = gan_pair(digits(), "spectral_norm", channels=(8, 8), latent=16)
    >>> discriminator(generator(torch.zeros(2, 16))).shape
    torch.Size([2, 1])
    """
    method, seed = get_method(method), seed_number(seed)
    bare = {"batchnorm": False} if "batchnorm" in method.knobs else {}
    settings = method.settings({**bare, **(knobs or {})})
    images: dict[str, Any] = {"in_channels": data.in_channels, "image_size": data.image_size}
    x = data.train_batch([0, 0])[0]
    with seeded(seed), torch.device("cpu"):
        generator = sngan_generator(channels=channels[0], latent=latent, **images)
        discriminator = sngan_discriminator(method.layer(settings), channels[1], **images).to(x.device)
        if method.finish is not None:
            method.finish(discriminator, input_shapes(discriminator, x), x, settings)
        if method.name in HEADS:
            HEADS[method.name](discriminator.get_submodule("head"))  # pyright: ignore[reportArgumentType]
    return generator.to(x.device), discriminator.to(x.device)
