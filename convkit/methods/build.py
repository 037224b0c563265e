"""Networks with the layers of a method."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from convkit.checks import seed_number
from convkit.data.dataset import Data
from convkit.methods.method import Method
from convkit.methods.registry import get_method
from convkit.models.registry import build_model
from convkit.normalization.conversion import convert
from convkit.operators.dtypes import as_input, floating
from convkit.operators.network import input_shapes
from convkit.randomness import seeded


def network(
    model: "str | nn.Module",
    data: Data,
    method: "str | Method",
    *,
    seed: int = 0,
    knobs: Mapping[str, Any] | None = None,
    dtype: torch.dtype | None = None,
    **options: Any,
) -> nn.Module:
    """A network for the data with the layers of a method, its weights drawn by the seed (torch's default start).

    ``model`` is a name of ``MODELS``, whose builder gets ``options`` such as ``widths=(16, 32, 64)``; or a finished
    network: a copy of it whose convolutions are replaced by the method's layers, with its weights (see ``convert``).
    Inputs are images in [0, 1]; the first step of a network from ``MODELS`` is ``(x - mean) / std``. The weights are of
    ``dtype``: unless given, float32, or what those of the finished network are; torch's default dtype has no say.

    ``knobs`` are the method's; here those count that shape layers. ``fit`` reads them from the layers, and takes the
    others itself.
    """
    method = get_method(method)
    settings, seed = method.settings(knobs), seed_number(seed)
    if dtype is not None:
        floating(dtype)
    x = data.train_batch(torch.arange(min(2, len(data))))[0]
    with seeded(seed):
        if isinstance(model, nn.Module):
            built = convert(model, method.layer(settings)).model
        else:
            dtype = dtype or torch.float32
            about = {"in_channels": data.in_channels, "classes": data.classes, "image_size": data.image_size}
            about |= {"mean": data.mean, "std": data.std, "dtype": dtype}
            built = build_model(model, layer=method.layer(settings), **(about | options))
        built = built.to(x.device, dtype)  # what a layer makes in a dtype of its own, too
        if method.finish is not None:
            method.finish(built, input_shapes(built, as_input(built, x)), settings)
    return built
