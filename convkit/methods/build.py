"""`network`: builds a network with the layers of a method."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from convkit.checks import described, seed_number
from convkit.data.dataset import Data
from convkit.methods.method import Method
from convkit.methods.registry import get_method
from convkit.models.activations import MakeActivation, with_activation
from convkit.models.registry import build_model
from convkit.normalization.conversion import convert
from convkit.normalization.convnorm import ConvNorm2d
from convkit.normalization.layer_polar import LayerPolar2d
from convkit.operators.dtypes import as_input, floating
from convkit.operators.network import input_shapes
from convkit.randomness import seeded

POWER_STEPS = 15  # spectral_norm's power iteration does one at each reading, and so many for a first weight


STARTS: dict[str, Callable[[Tensor], Tensor]] = {
    "xavier": nn.init.xavier_uniform_,
    "he": partial(nn.init.kaiming_normal_, nonlinearity="relu"),
}


def network(
    model: str | nn.Module,
    data: Data,
    method: str | Method,
    *,
    seed: int = 0,
    knobs: Mapping[str, object] | None = None,
    dtype: torch.dtype | None = None,
    activation: MakeActivation | None = None,
    start: Literal["default", "xavier", "he"] = "default",
    **options: object,
) -> nn.Module:
    """Return a network for the data with the layers of a method.

    A network from ``MODELS`` takes images in [0, 1]: its first step is ``(x - mean) / std`` with the statistics of the
    training images. Whatever torch's default dtype is, the weights have ``dtype``.

    Args:
        model: A name in ``MODELS``; or a network, of which a copy is made whose convolutions are replaced by the layers
            of the method, with the same weights (see ``convkit.normalization.convert``).
        data: Determines channels, image size, classes, statistics and the device.
        method: A name in ``METHODS``, or a ``Method``.
        seed: Determines the weights.
        knobs: Settings of the method; the others keep their defaults. Only those that shape or start layers matter
            here: ``fit`` reads them from the layers.
        dtype: The dtype of the weights; ``None`` for float32, or that of the network ``model``.
        activation: Makes an activation, such as ``MaxMin``, in place of every ``nn.ReLU`` of the network; ``None`` for
            the activation of the method.
        start: ``"default"`` for weights as torch, or the method, draws them; or those of the network ``model``.
            ``"xavier"`` draws the weights of all convolutions and linear layers anew, as Liu et al. 2021 do: uniform
            within ``sqrt(6 / (fan_in + fan_out))`` (Glorot & Bengio 2010), and ``"he"`` normal with variance
            ``2 / fan_in`` (He et al. 2015). Biases and gains stay.
        options: Arguments of the function in ``MODELS``, such as ``widths=(16, 32, 64)``.

    Raises ``ValueError`` for unknown names, a knob that the method does not have, and numbers that are out of range.

    >>> from convkit.data import digits
    >>> net = network("cnn9", digits(), "sphere", seed=1, knobs={"sigma": 0.4}, widths=(4, 8, 8), start="xavier")
    >>> bool(net.conv2[0].weight.abs().max() <= (6 / (4 * 9 + 4 * 9)) ** 0.5)
    True
    """
    method = get_method(method)
    if start not in ("default", *STARTS):
        raise ValueError(f"start must be 'default', 'xavier' or 'he', got {described(start)}; the first is torch's")
    settings, seed = method.settings(knobs), seed_number(seed)
    if dtype is not None:
        floating(dtype)
    x = data.train_batch(torch.arange(min(2, len(data)), device="cpu"))[0]
    with seeded(seed), torch.device("cpu"):
        if isinstance(model, nn.Module):
            built = convert(model, method.layer(settings)).model
        else:
            dtype = dtype or torch.float32
            defaults: dict[str, object] = {
                "in_channels": data.in_channels,
                "classes": data.classes,
                "image_size": data.image_size,
            }
            defaults |= {"mean": data.mean, "std": data.std, "dtype": dtype}
            built = build_model(model, layer=method.layer(settings), **(defaults | options))
        if start != "default":
            _draw(built, STARTS[start])
        activation = activation or method.activation
        if activation is not None:
            built = with_activation(built, activation)
        built = built.to(x.device, dtype)  # also what a layer makes in a dtype of its own
        if method.finish is not None:
            x = as_input(built, x)
            method.finish(built, input_shapes(built, x), x, settings)
    return built


def _draw(model: nn.Module, start: Callable[[Tensor], Tensor]) -> None:
    """Draw the weights of all convolutions and linear layers anew, also where they are parametrized."""
    kinds = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear, ConvNorm2d, LayerPolar2d)
    layers: list[Any] = [module for module in model.modules() if isinstance(module, kinds)]
    for layer in layers:
        if parametrize.is_parametrized(layer, "weight"):
            layer.weight = start(torch.empty_like(layer.weight))
            for _ in range(POWER_STEPS):
                _ = layer.weight
        else:
            start(layer.weight)
